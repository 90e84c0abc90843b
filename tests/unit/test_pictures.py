"""Pictures for people."""

from __future__ import annotations

import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES, ClassTable
from weedseg.errors import FieldDataError
from weedseg.evaluation.pictures import (
    class_colours,
    confidence_colours,
    overlay,
    reconstruction_grid,
    result_panels,
    side_by_side,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (60, 90, 3)).astype(np.uint8)
IDS = RNG.integers(0, 3, (60, 90)).astype(np.uint8)


def test_overlay_tints_plants_only() -> None:
    ids = IDS.copy()
    ids[0] = 255
    drawn = overlay(IMAGE, ids, DEFAULT_CLASSES, 0.5)
    plants = (ids == 1) | (ids == 2)
    assert np.array_equal(drawn[~plants], IMAGE[~plants])
    expected = (IMAGE[ids == 2].astype(float) + np.array([255, 0, 0])) / 2
    assert np.abs(drawn[ids == 2] - expected).max() <= 1
    assert np.array_equal(overlay(IMAGE, ids, DEFAULT_CLASSES, 0), IMAGE)


def test_class_colours_and_confidence() -> None:
    drawn = class_colours(np.array([[0, 1, 2, 255]], np.uint8), DEFAULT_CLASSES)
    assert drawn[0].tolist() == [[0, 0, 0], [0, 255, 0], [255, 0, 0], [150, 150, 150]]
    low, high = confidence_colours(np.array([[0, 100]], np.uint8))[0].astype(int)
    assert low.sum() < high.sum()


@pytest.mark.parametrize("size", [(1, 1), (60, 90), (1200, 900), (3, 700)])
@pytest.mark.parametrize("with_mask", [True, False])
def test_result_panels_of_any_size(size: tuple[int, int], with_mask: bool) -> None:
    image, ids = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    ids[0, 0] = 255
    drawn = result_panels(image, ids if with_mask else None, ids * 0, ids // 3, DEFAULT_CLASSES)
    assert drawn.dtype == np.uint8
    assert drawn.ndim == 3
    num_panels = 4 if with_mask else 3
    assert drawn.shape[1] <= num_panels * 400 + (num_panels - 1) * 8


def test_legend_grows_with_many_classes() -> None:
    rows = [{"name": "soil", "role": "background"}]
    rows += [{"name": f"weed species {i} <&>", "role": "weed"} for i in range(20)]
    many = result_panels(IMAGE, IDS, IDS, IDS, ClassTable.from_list(rows))
    few = result_panels(IMAGE, IDS, IDS, IDS, DEFAULT_CLASSES)
    assert many.shape[0] > few.shape[0]


def test_side_by_side_keeps_panels_pixel_for_pixel() -> None:
    panel = RNG.integers(0, 256, (60, 300, 3)).astype(np.uint8)
    drawn = side_by_side([("a", panel), ("b", panel)])
    assert np.array_equal(drawn[-60:, :300], panel)
    assert np.array_equal(drawn[-60:, -300:], panel)
    assert (drawn[-60:, 300:-300] == 255).all()


def test_side_by_side_enlarges_small_panels_by_a_whole_number() -> None:
    drawn = side_by_side([("a", IMAGE)])
    assert np.array_equal(drawn[-180:, :270], IMAGE.repeat(3, axis=0).repeat(3, axis=1))


def test_reconstruction_grid() -> None:
    tiles = RNG.integers(0, 256, (2, 256, 256, 3)).astype(np.uint8)
    hidden = np.zeros((2, 256, 256), bool)
    hidden[:, :128] = True
    image, seen, drawn, error = (
        reconstruction_grid(tiles, hidden, tiles)[-256:, left : left + 256]
        for left in range(0, 4 * 264, 264)
    )
    assert np.array_equal(image, tiles[1])
    assert np.array_equal(drawn, tiles[1])
    assert (seen[:128] == 128).all()
    assert np.array_equal(seen[128:], tiles[1, 128:])
    assert len(np.unique(error.reshape(-1, 3), axis=0)) == 1  # no error anywhere


def test_sizes_must_fit() -> None:
    with pytest.raises(FieldDataError):
        overlay(IMAGE, IDS[:-1], DEFAULT_CLASSES)
    with pytest.raises(FieldDataError):
        reconstruction_grid(
            np.zeros((0, 8, 8, 3), np.uint8),
            np.zeros((0, 8, 8), bool),
            np.zeros((0, 8, 8, 3), np.uint8),
        )
