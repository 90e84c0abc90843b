"""The baselines find what colour alone can tell."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES, ClassTable
from weedseg.errors import FieldDataError
from weedseg.evaluation.baselines import ColourThreshold, exg_otsu, score_baselines
from weedseg.evaluation.confusion import ConfusionMatrix

COLOURS = np.array([[120, 95, 70], [60, 140, 50], [140, 175, 60]], np.float32)


def field_photo(seed: int, noise: float = 12) -> tuple[np.ndarray, np.ndarray]:
    """Brown soil with dark green crop and yellowish weed discs, and the exact mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((96, 128), np.uint8)
    for number in range(8):
        centre = (int(rng.integers(128)), int(rng.integers(96)))
        cv2.circle(mask, centre, int(rng.integers(5, 12)), 1 + number % 2, -1)
    image = COLOURS[mask] + rng.normal(0, noise, (*mask.shape, 3))
    return np.clip(image, 0, 255).astype(np.uint8), mask


def test_exg_otsu_finds_plants() -> None:
    image, mask = field_photo(0)
    plants = exg_otsu(image)
    assert plants.dtype == bool
    assert plants.shape == mask.shape
    assert (plants == (mask > 0)).mean() > 0.97


@pytest.mark.parametrize("level", [0, 128, 255])
def test_exg_otsu_bears_flat_photos(level: int) -> None:
    assert not exg_otsu(np.full((5, 7, 3), level, np.uint8)).any()


def test_colour_threshold_learns_and_ignores_255() -> None:
    image, mask = field_photo(1)
    wrong = mask.copy()
    wrong[:, :64] = 255
    lying = image.copy()
    lying[:, :64] = COLOURS[2]
    class_map = ColourThreshold.fit([lying, image], [wrong, mask]).predict(field_photo(2)[0])
    matrix = ConfusionMatrix(3)
    matrix.add(field_photo(2)[1], class_map)
    assert class_map.dtype == np.uint8
    assert matrix.miou() > 0.85


def test_colour_threshold_never_predicts_an_absent_class() -> None:
    image, mask = field_photo(3)
    mask[mask == 1] = 255
    assert set(np.unique(ColourThreshold.fit([image], [mask]).predict(image))) == {0, 2}


def test_colour_threshold_needs_labels_that_fit() -> None:
    image, mask = field_photo(4)
    with pytest.raises(FieldDataError, match="no labelled pixel"):
        ColourThreshold.fit([image], [np.full_like(mask, 255)])
    with pytest.raises(FieldDataError, match="same size"):
        ColourThreshold.fit([image], [mask[:-1]])


def test_score_baselines() -> None:
    train, test = field_photo(5), field_photo(6)
    colours = ColourThreshold.fit([train[0]], [train[1]])
    scores = score_baselines([test[0]], [test[1]], DEFAULT_CLASSES, colours)
    assert set(scores) == {"exg_otsu_all_weed", "exg_otsu_all_crop", "colour_threshold"}
    assert scores["exg_otsu_all_weed"].crop_iou == 0
    assert scores["exg_otsu_all_crop"].weed_iou == 0
    assert scores["colour_threshold"].weed_iou > scores["exg_otsu_all_weed"].weed_iou > 0.2
    two = ClassTable(DEFAULT_CLASSES.classes[::2])
    binary = [np.minimum(test[1], 1)]
    fitted = ColourThreshold.fit([test[0]], binary)
    assert "exg_otsu_all_crop" not in score_baselines([test[0]], binary, two, fitted)
