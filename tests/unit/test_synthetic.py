"""The synthetic farm: seeded to the pixel, exact masks, and colour alone tells nothing."""

import hashlib
import itertools
import time

import cv2
import numpy as np
import pytest

from weedseg.data.index import index_farm
from weedseg.data.masks import read_mask
from weedseg.data.splits import make_split
from weedseg.data.synthetic import CROP_ID, WEED_ID, draw_photo, draw_style, write_farm
from weedseg.data.synthetic_paint import paint_plants
from weedseg.data.synthetic_plants import CROPS, WEEDS, draw_greens, draw_plant
from weedseg.errors import ConfigError
from weedseg.imaging import read_image

SIZE = (240, 320)


def draw(number, size=SIZE, seed=0):
    style = draw_style(seed, number % 3, number % 2)
    return draw_photo(np.random.default_rng([seed, 3, number]), style, size)


def test_pixels_never_change():
    """A change here changes every synthetic farm: say so in the CHANGELOG."""
    digest = hashlib.sha256()
    for seed in range(3):
        for array in draw(0, (96, 128), seed):
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == "36e81d35de048854"


def test_masks_hold_all_classes_and_fit_the_plants():
    photos = [draw(number, seed=number % 3) for number in range(9)]
    shares = np.array([[(mask == i).mean() for i in range(3)] for _, mask in photos])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert 0.7 < shares[:, 0].mean() < 0.99
    assert shares[:, CROP_ID].mean() > 0.01
    assert shares[:, WEED_ID].mean() > 0.002
    greenness = np.array(
        [
            [greenness_of(image)[mask > 0].mean(), greenness_of(image)[mask == 0].mean()]
            for image, mask in photos
        ]
    )
    assert (greenness[:, 0] > greenness[:, 1] + 12).all()


def greenness_of(image):
    values = image.astype(int)
    return 2 * values[..., 1] - values[..., 0] - values[..., 2]


@pytest.mark.parametrize("stage", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("name", "habit"), [*CROPS.items(), *WEEDS.items()])
def test_habits_are_drawn_where_the_mask_says(name, habit, stage):
    rng = np.random.default_rng(3)
    soil = draw_style(0, 0, 0).soil
    image, mask = np.full((160, 160, 3), 99, np.uint8), np.zeros((160, 160), np.uint8)
    is_weed = name in WEEDS
    plant = draw_plant(rng, habit, (80, 80), (40, stage), (is_weed, draw_greens(rng)))
    paint_plants(rng, image, mask, [plant], (soil, 0.0))
    assert set(np.unique(mask)) == {0, WEED_ID if is_weed else CROP_ID}
    assert 100 < (mask > 0).sum() < 9000
    rim = cv2.dilate((mask > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) - (mask > 0)
    assert greenness_of(image)[mask > 0].mean() > 20
    assert abs(greenness_of(image)[(mask == 0) & (rim == 0)]).max() <= 2  # shadow, never a leaf
    count, _ = cv2.connectedComponents((mask > 0).astype(np.uint8))
    assert count == 2  # one plant, in one piece


def test_plants_grow():
    rng = np.random.default_rng(1)
    for habit in (*CROPS.values(), *WEEDS.values()):
        young, old = (len(habit(rng, (0, 0), 30, stage)) for stage in (0.0, 1.0))
        assert young < old


def test_styles_differ_where_they_should():
    styles = {key: draw_style(*key) for key in itertools.product(range(3), range(2), range(2))}
    assert [styles[seed, 0, 0].crop for seed in range(3)] == ["beet", "legume", "maize"]
    for seed, field in itertools.product(range(3), range(2)):
        first, later = (styles[seed, field, visit] for visit in range(2))
        assert later.stage > first.stage
        assert (first.crop, first.zoom, first.camera) == (later.crop, later.zoom, later.camera)
        assert first.soil.colour == later.soil.colour
        assert first.greens != later.greens
    assert styles[0, 0, 0].soil != styles[0, 1, 0].soil
    assert all(0.3 < style.mm_per_px <= 1.1 for style in styles.values())


def test_colour_alone_does_not_tell_crop_from_weed():
    photos = [draw(number, seed=number % 3) for number in range(18)]
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
    assert {p.mm_per_px for p in farm.photos} == {draw_style(7, 0, 0).mm_per_px}
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
    assert time.perf_counter() - begin < 1.5  # 0.06 s on an idle core, the first photo more


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
    style = draw_style(5, 0, 0)
    image, mask = draw_photo(np.random.default_rng([5, 3, 0]), style, (64, 64))
    np.testing.assert_array_equal(read_image(farm.photos[0].path), image)
    np.testing.assert_array_equal(read_mask(farm, farm.photos[0]), mask)
