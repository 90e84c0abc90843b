"""The synthetic farm: seeded to the pixel, exact masks, and colour alone tells nothing."""

import hashlib
import time

import numpy as np
import pytest

from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.splits import make_split
from weedseg.data.synthetic import CROP_ID, WEED_ID, draw_photo, draw_style, write_farm
from weedseg.errors import ConfigError
from weedseg.imaging import read_image

SIZE = (240, 320)


def draw(number, size=SIZE):
    style = draw_style(np.random.default_rng([0, 2, number % 3]), number % 2)
    return draw_photo(np.random.default_rng([0, 3, number]), style, size)


def test_pixels_never_change():
    """A change here changes every synthetic farm: say so in the CHANGELOG."""
    image, mask = draw(0, (480, 640))
    assert hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()[:16] == "540d36405ac90282"


def test_masks_hold_all_classes_and_fit_the_plants():
    photos = [draw(number) for number in range(8)]
    shares = np.array([[(mask == i).mean() for i in range(3)] for _, mask in photos])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert 0.7 < shares[:, 0].mean() < 0.99
    assert shares[:, CROP_ID].mean() > 0.01
    assert shares[:, WEED_ID].mean() > 0.002
    for image, mask in photos:
        values = image.astype(int)
        greenness = 2 * values[..., 1] - values[..., 0] - values[..., 2]
        assert greenness[mask > 0].mean() > greenness[mask == 0].mean() + 20


def test_colour_alone_does_not_tell_crop_from_weed():
    photos = [draw(number) for number in range(12)]
    crop, weed = (
        np.concatenate([image[mask == i] for image, mask in photos]) // 16
        for i in (CROP_ID, WEED_ID)
    )
    bins = [(16, 16, 16), [(0, 16)] * 3]
    seen = [np.histogramdd(part, *bins)[0].ravel() / len(part) for part in (crop, weed)]
    overlap = np.minimum(*seen).sum()
    assert overlap > 0.5


def test_farm_folder(tmp_path):
    write_farm(tmp_path, 7, num_photos=13, num_labelled=8, size=(64, 96), fields=2)
    farm = index_farm(tmp_path)
    assert len(farm.photos) == 13
    assert len(farm.labelled) == 8
    assert {(p.field, p.date) for p in farm.labelled} == {
        (f"field-{f}", d) for f in (1, 2) for d in ("2024-05-06", "2024-05-20")
    }
    assert {p.mm_per_px for p in farm.photos} == {1.0, 1.1}
    assert farm.notes == farm.unmatched == ()
    for photo in farm.labelled:
        assert read_mask(farm, photo).shape == (64, 96)


def test_same_seed_same_farm(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_farm(tmp_path / folder, seed, num_photos=4, num_labelled=2, size=(64, 64))
    prints = [index_farm(tmp_path / folder).fingerprint() for folder in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_farm_is_split_by_field(tmp_path):
    write_farm(tmp_path, 0, num_photos=24, num_labelled=24, size=(64, 64))
    split = make_split(index_farm(tmp_path), 0)
    assert (split.kind, split.basis) == ("holdout", "field")
    assert len(split.unlabelled) == 24 - len(split.test)


def test_photos_of_odd_size_and_speed():
    assert draw(1, (65, 131))[0].shape == (65, 131, 3)
    begin = time.perf_counter()
    draw(2, (480, 640))
    assert time.perf_counter() - begin < 1.5  # 0.06 s on an idle core


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_photos": 3, "num_labelled": 4},
        {"num_photos": 0, "num_labelled": 0},
        {"fields": 0},
        {"size": (32, 64)},
    ],
)
def test_impossible_farms(tmp_path, wrong):
    with pytest.raises(ConfigError, match="change the numbers"):
        write_farm(tmp_path, 0, **wrong)


def test_photos_are_read_back_exactly(tmp_path):
    write_farm(tmp_path, 5, num_photos=1, num_labelled=1, size=(64, 64), fields=1)
    farm = index_farm(tmp_path)
    style = draw_style(np.random.default_rng([5, 2, 0]), 0)
    image, mask = draw_photo(np.random.default_rng([5, 3, 0]), style, (64, 64))
    np.testing.assert_array_equal(read_image(farm.photos[0].path), image)
    np.testing.assert_array_equal(read_mask(farm, farm.photos[0]), mask)
