"""The images of every export's gate: all sizes, at the weeds."""

import numpy as np

from weedseg.classes import DEFAULT_CLASSES
from weedseg.export import photo_sizes
from weedseg.export.photo_sizes import images_of, side_in_photo, weed_share

SIDE = 512


def test_a_photo_is_taken_in_all_sizes():
    photo = np.random.default_rng(0).integers(0, 256, (700, 900, 3)).astype(np.uint8)
    class_map = np.zeros((700, 900), np.uint8)
    class_map[600:640, 800:840] = 2
    native, odd, small, few, big = images_of(photo, class_map, DEFAULT_CLASSES, SIDE)
    assert native is photo
    assert odd.shape[0] % 2 == odd.shape[1] % 2 == 1
    assert odd.shape[0] != odd.shape[1]
    assert max(small.shape[:2]) < SIDE
    assert min(few.shape[:2]) > 2 * SIDE
    assert big.shape == (3000, 4000, 3)
    for cut in (odd, small):
        at_weed = photo[620, 820]
        assert (cut == at_weed).all(axis=2).any()
    np.testing.assert_array_equal(big[:700, :900], photo)
    np.testing.assert_array_equal(big[700:1400, :900], photo)


def test_small_tiles_make_a_smaller_big_image():
    photo = np.zeros((10, 20, 3), np.uint8)
    images = images_of(photo, photo[:, :, 0], DEFAULT_CLASSES, 64)
    down, across = photo_sizes.MAX_BIG_TILES
    assert images[-1].shape == (64 * down, 64 * across, 3)
    assert images[2].shape == (10, 20, 3)  # already smaller than a tile


def test_shares_and_sides():
    class_map = np.array([[0, 1], [2, 2]], np.uint8)
    assert weed_share(class_map, DEFAULT_CLASSES) == 0.5
    assert side_in_photo(512, 0.5) == 1024
    assert side_in_photo(32, 100.0) == 1
