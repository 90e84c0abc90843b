"""Augmentation: cuts stay where they may, photo and mask agree, colours change as one matrix."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.data.augment import ColourJitter, Cut, draw_cut, jitter, take_cut

sizes = st.tuples(st.integers(1, 200), st.integers(1, 200))


@given(size=sizes, seed=st.integers(0, 10**6), share=st.floats(0.05, 1.0), tile=st.integers(8, 96))
def test_cuts_are_small_enough_and_inside(size, seed, share, tile):
    cut = draw_cut(np.random.default_rng(seed), size, tile, share)
    smallest = max(1, round(tile * share**0.5))
    assert smallest <= cut.side <= max(smallest, min(tile, *size))
    for start, length in ((cut.top, size[0]), (cut.left, size[1])):
        if cut.side <= length:
            assert 0 <= start <= length - cut.side
        else:
            assert start < 0
            assert start + cut.side >= length


@given(seed=st.integers(0, 10**6), row=st.integers(0, 199), column=st.integers(0, 149))
def test_the_centre_is_inside_the_cut(seed, row, column):
    cut = draw_cut(np.random.default_rng(seed), (200, 150), 64, 0.3, (row, column))
    assert cut.top <= row < cut.top + cut.side
    assert cut.left <= column < cut.left + cut.side
    assert 0 <= cut.top <= 200 - cut.side
    if 64 <= row < 136:
        assert 0.2 < (row - cut.top) / cut.side < 0.8


def test_areas_are_uniform_and_places_reach_the_border():
    rng = np.random.default_rng(0)
    cuts = [draw_cut(rng, (100, 100), 64, 0.25) for _ in range(3000)]
    shares = np.array([cut.side**2 / 64**2 for cut in cuts])
    assert abs(np.mean(shares) - 0.625) < 0.02
    assert {cut.top for cut in cuts} >= {0, 36}
    assert {(cut.flip_h, cut.flip_v, cut.rot90) for cut in cuts} == {
        (h, v, r) for h in (False, True) for v in (False, True) for r in range(4)
    }


def test_share_of_one_never_resizes():
    image = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    cut = draw_cut(np.random.default_rng(1), (90, 70), 32, 1.0)
    tile = take_cut(image, cut, 32)
    plain = image[cut.top : cut.top + 32, cut.left : cut.left + 32]
    np.testing.assert_array_equal(tile, cut.turn(plain))
    assert not np.shares_memory(tile, image)


@given(seed=st.integers(0, 10**6), size=sizes)
def test_photo_and_mask_agree_exactly(seed, size):
    """Where pixel values encode the place, the nearest-pixel photo is the mask's twin."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 256, size, dtype=np.uint8)
    cut = draw_cut(rng, size, 32, 0.25)
    tile = take_cut(mask, cut, 32, nearest=True)
    assert tile.shape == (32, 32)
    assert set(np.unique(tile)) <= set(np.unique(mask))
    image = np.dstack([mask] * 3)
    np.testing.assert_array_equal(
        take_cut(image, cut, 32, nearest=True), np.repeat(tile[..., None], 3, axis=2)
    )


@given(seed=st.integers(0, 10**6), num=st.sampled_from([4, 8, 16]))
def test_centres_say_where_the_cells_lie(seed, num):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:120, 0:140].astype(np.uint8)
    cut = draw_cut(rng, (120, 140), 64, 0.3)
    centres = cut.centres(num)
    assert centres.shape == (num, num, 2)
    for axis, plane in enumerate((rows, columns)):
        tile = take_cut(np.ascontiguousarray(plane), cut, 64).astype(float)
        cells = tile.reshape(num, 64 // num, num, 64 // num).mean(axis=(1, 3))
        np.testing.assert_allclose(cells + 0.5, centres[..., axis], atol=1.1)


def test_beyond_the_photo_is_its_mirror_image():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    tile = take_cut(image, Cut(top=-2, left=-2, side=8), 8, nearest=True)
    np.testing.assert_array_equal(tile, np.pad(image, 2, mode="reflect"))
    assert take_cut(image[:1, :1], Cut(top=-3, left=-3, side=8), 8).shape == (8, 8)


def test_turning_goes_flip_then_quarter_turns():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3)
    tile = take_cut(image, Cut(top=0, left=0, side=3, flip_h=True, rot90=1), 3)
    np.testing.assert_array_equal(tile, np.rot90(image[:, ::-1]))


def test_draws_repeat():
    first, second = (draw_cut(np.random.default_rng(5), (50, 60), 32, 0.2) for _ in range(2))
    assert first == second
    one, two = (jitter(np.random.default_rng(5), 0.3) for _ in range(2))
    np.testing.assert_array_equal(one.matrix, two.matrix)


def test_no_strength_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    result = jitter(np.random.default_rng(0), 0.0).apply(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, image / 255, atol=1e-6)


@given(seed=st.integers(0, 10**6), strength=st.floats(0, 1))
def test_colours_stay_in_range_and_integers_equal_floats(seed, strength):
    image = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    change = jitter(np.random.default_rng(seed), strength)
    result = change.apply(image)
    assert 0 <= result.min() <= result.max() <= 1
    np.testing.assert_allclose(change.apply(image.astype(np.float32) / 255), result, atol=1e-5)
    exact = np.clip(image / 255 @ change.matrix.T.astype(float) + change.bias, 0, 1)
    np.testing.assert_allclose(result, exact, atol=1e-5)


def test_grey_stays_grey_and_hue_moves_little():
    for seed in range(50):
        change = jitter(np.random.default_rng(seed), 0.3)
        grey = change.apply(np.full((1, 1, 3), 0.5, np.float32))[0, 0]
        np.testing.assert_allclose(grey, grey[0], atol=1e-5)
        green = change.apply(np.array([[[0.3, 0.6, 0.2]]], np.float32))[0, 0]
        hue = colorsys.rgb_to_hsv(*green.tolist())[0]
        assert abs(hue - colorsys.rgb_to_hsv(0.3, 0.6, 0.2)[0]) < 0.06


def test_apply_keeps_its_input():
    image = np.full((4, 4, 3), 0.9, np.float32)
    change = ColourJitter(matrix=np.eye(3, dtype=np.float32) * 2, bias=np.zeros(3, np.float32))
    assert (change.apply(image) == 1).all()
    assert (image == np.float32(0.9)).all()


@pytest.mark.parametrize("shape", [(4, 4, 3), (300, 300, 3)])
def test_tiles_own_their_memory(shape):
    image = np.zeros(shape, np.uint8)
    image.flags.writeable = False
    tile = take_cut(image, Cut(top=0, left=0, side=4), 4)
    tile[:] = 1
    assert not image.any()
