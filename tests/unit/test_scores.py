"""evaluation.json is complete, from counts, and null where nothing is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES
from weedseg.errors import FieldDataError
from weedseg.evaluation.confusion import ConfusionMatrix
from weedseg.evaluation.scores import UNKNOWN_NOTE, Calibration, Evaluation, untested


def scored(num_photos: int = 4, seed: int = 0) -> tuple[Evaluation, list[tuple]]:
    rng = np.random.default_rng(seed)
    evaluation, photos = Evaluation(DEFAULT_CLASSES), []
    for number in range(num_photos):
        mask = rng.choice([0, 1, 2, 255], (20, 30), p=[0.7, 0.15, 0.1, 0.05]).astype(np.uint8)
        right = rng.random((20, 30)) < 0.8
        class_map = np.where(right & (mask != 255), mask, rng.integers(0, 3, (20, 30)))
        confidence = rng.integers(40, 101, (20, 30)).astype(np.uint8)
        photos.append((mask, class_map.astype(np.uint8), confidence))
        evaluation.add(f"field/{number}.jpg", *photos[-1])
    return evaluation, photos


def test_equals_one_confusion_matrix_over_all_photos() -> None:
    evaluation, photos = scored()
    whole = ConfusionMatrix(3)
    for mask, class_map, _ in photos:
        whole.add(mask, class_map)
    values = json.loads(json.dumps(evaluation.to_dict({"kind": "x"}, label="within-field")))
    assert values["miou"] == whole.miou()
    assert values["accuracy"] == whole.accuracy
    assert list(values["iou"].values()) == whole.iou()
    assert values["confusion"]["counts"] == whole.counts.tolist()
    assert values["num_photos"] == 4
    assert values["photo_names"][1] == "field/1.jpg"
    assert values["label"] == "within-field"
    assert values["split"] == {"kind": "x"}
    for low, high in [values["intervals"]["miou"], values["intervals"]["iou"]["weed"]]:
        assert 0 <= low < high <= 1
    low, high = values["intervals"]["iou"]["weed"]
    assert values["intervals"]["weed_iou"] == [low, high]


def test_cover_bias_and_rmse() -> None:
    evaluation = Evaluation(DEFAULT_CLASSES)
    sure = np.full((1, 10), 100, np.uint8)
    truth = np.array([[2] * 2 + [0] * 8], np.uint8)
    evaluation.add("a", truth, np.array([[2] * 4 + [0] * 6], np.uint8), sure)
    evaluation.add("b", truth, np.array([[2] * 1 + [0] * 9], np.uint8), sure)
    evaluation.add("all ignored", np.full((1, 10), 255, np.uint8), truth, sure)
    values = evaluation.to_dict()
    assert values["cover"]["weed"]["bias"] == pytest.approx(0.05)
    assert values["cover"]["weed"]["rmse"] == pytest.approx(np.sqrt((0.2**2 + 0.1**2) / 2))
    assert values["photos"][2]["true_coverage"] is None
    assert values["photos"][0]["predicted_coverage"]["weed"] == pytest.approx(0.4)
    assert values["iou"]["crop"] is None
    assert values["intervals"]["iou"]["crop"] is None
    assert values["weed_free"]["num_photos"] == 0


def test_false_weed_cover_on_weed_free_photos() -> None:
    evaluation = Evaluation(DEFAULT_CLASSES)
    clean, sure = np.zeros((1, 10), np.uint8), np.full((1, 10), 90, np.uint8)
    evaluation.add("a", clean, np.array([[2] * 3 + [0] * 7], np.uint8), sure)
    evaluation.add("b", clean, clean, sure)
    evaluation.add("c", np.full((1, 10), 2, np.uint8), clean, sure)
    found = evaluation.to_dict()["weed_free"]
    assert found["num_photos"] == 2
    assert found["mean_false_weed_cover"] == pytest.approx(0.15)
    assert found["max_false_weed_cover"] == pytest.approx(0.3)


def test_calibration_by_hand() -> None:
    calibration = Calibration()
    mask = np.array([[0, 0, 1, 1, 255]], np.uint8)
    class_map = np.array([[0, 0, 1, 0, 0]], np.uint8)
    calibration.add(mask, class_map, np.array([[100, 100, 100, 100, 0]], np.uint8))
    values = calibration.to_dict()
    assert values["ece"] == pytest.approx(0.25)
    assert len(values["bins"]) == 15
    assert values["bins"][14] == pytest.approx(
        {"low": 14 / 15, "high": 1.0, "share": 1.0, "confidence": 1.0, "accuracy": 0.75}
    )
    assert values["bins"][0]["accuracy"] is None


def test_every_confidence_lands_in_the_bin_that_holds_it() -> None:
    for level in range(101):
        calibration = Calibration()
        one = np.zeros((1, 1), np.uint8)
        calibration.add(one, one, np.full((1, 1), level, np.uint8))
        [held] = [b for b in calibration.to_dict()["bins"] if b["share"]]
        assert held["low"] - 1e-9 <= level / 100 <= held["high"] + 1e-9


def test_confidence_must_fit() -> None:
    one = np.zeros((1, 2), np.uint8)
    for bad in (np.zeros((2, 1), np.uint8), np.full((1, 2), 101, np.uint8)):
        with pytest.raises(FieldDataError):
            Evaluation(DEFAULT_CLASSES).add("a", one, one, bad)


def test_a_refused_photo_leaves_nothing_behind() -> None:
    evaluation, one = Evaluation(DEFAULT_CLASSES), np.zeros((1, 2), np.uint8)
    with pytest.raises(FieldDataError):
        evaluation.add("a", one, one, np.full((1, 2), 101, np.uint8))
    assert evaluation.num_photos == 0
    assert evaluation.to_dict()["calibration"]["ece"] is None


def test_one_photo_has_no_interval() -> None:
    values = scored(num_photos=1)[0].to_dict()
    assert values["intervals"]["miou"] is None
    assert values["miou"] is not None


def test_untested_is_null_and_says_so() -> None:
    values = json.loads(json.dumps(untested(DEFAULT_CLASSES, {"kind": "none"})))
    assert values["miou"] is None
    assert values["note"] == UNKNOWN_NOTE
    assert "accuracy unknown" in UNKNOWN_NOTE
    assert set(values["iou"].values()) == {None} == set(values["intervals"]["recall"].values())
    assert values["cover"]["weed"] == {"bias": None, "rmse": None}
    assert values["split"] == {"kind": "none"}
    assert values["num_photos"] == 0
