"""Figures are self-contained, labelled, and absent where nothing is known."""

from __future__ import annotations

import base64
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES, ClassTable
from weedseg.evaluation import plots
from weedseg.evaluation.scores import Evaluation, untested

PLOTS = [plots.confusion_plot, plots.iou_plot, plots.cover_plot, plots.reliability_plot]


def some_evaluation(classes: ClassTable = DEFAULT_CLASSES, num_photos: int = 3) -> Evaluation:
    rng = np.random.default_rng(0)
    evaluation = Evaluation(classes)
    for number in range(num_photos):
        mask = rng.integers(0, len(classes), (12, 12)).astype(np.uint8)
        class_map = np.where(rng.random((12, 12)) < 0.7, mask, 0).astype(np.uint8)
        confidence = rng.integers(30, 101, (12, 12)).astype(np.uint8)
        evaluation.add(f"{number}.jpg", mask, class_map, confidence)
    return evaluation


def svg_of(uri: str) -> str:
    start, _, data = uri.partition(",")
    assert start == "data:image/svg+xml;base64"
    text = base64.b64decode(data).decode()
    assert ET.fromstring(text).tag.endswith("svg")
    return text


@pytest.mark.parametrize("plot", PLOTS)
def test_evaluation_plots(plot) -> None:
    values = some_evaluation().to_dict(label="within-field")
    first = plot(values)
    assert "<image" not in svg_of(first) or 'xlink:href="data:' in svg_of(first)
    assert first == plot(values)  # the same numbers give the same bytes
    assert first != plot({**values, "label": ""})  # the label is drawn


@pytest.mark.parametrize("plot", PLOTS)
def test_nothing_known_is_no_figure(plot) -> None:
    assert plot(untested(DEFAULT_CLASSES)) is None


@pytest.mark.parametrize("plot", PLOTS)
def test_odd_class_tables(plot) -> None:
    rows = [{"name": "soil", "role": "background"}]
    rows += [{"name": f"${i}_</svg> 杂草", "role": "weed"} for i in range(11)]
    assert svg_of(plot(some_evaluation(ClassTable.from_list(rows)).to_dict()))
    one = some_evaluation(num_photos=1).to_dict()
    one["iou"]["crop"] = None
    assert svg_of(plot(one))


def test_training_curves() -> None:
    pretraining = [
        {"step": i * 10, "loss": 1 / (i + 1), "hidden_l1": 0.5, "stage": i // 3} for i in range(9)
    ]
    assert svg_of(plots.pretraining_plot(pretraining))
    finetuning = [
        {"step": i, "fold": fold, "loss": 1.0, "val_weed_iou": 0.1 * i, "val_miou": None}
        for fold in range(2)
        for i in range(5)
    ]
    assert svg_of(plots.finetuning_plot(finetuning, "within-field"))
    assert svg_of(plots.finetuning_plot([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]))


def test_training_curves_bear_gaps() -> None:
    rows = [{"step": 1, "loss": float("nan")}, {"loss": 1.0}, {"step": "x", "loss": None}]
    assert plots.pretraining_plot([]) is None
    assert plots.pretraining_plot(rows) is None
    assert plots.finetuning_plot(rows) is None
    assert svg_of(plots.finetuning_plot([{"step": 3, "val_miou": 0.4}]))


def test_hidden_classes_are_drawn_against_their_base_rate() -> None:
    stage = {"soil": {"hidden": 0.7, "base": 0.8}, "weed": {"hidden": 0.1, "base": 0.05}}
    drawn = plots.hidden_plot({"hidden_classes": [stage, stage]})
    often = plots.hidden_plot({"hidden_classes": [stage, stage | {"weed": stage["soil"]}]})
    assert drawn is not None
    assert svg_of(drawn).startswith("<?xml")
    assert drawn != often
    assert plots.hidden_plot({"hidden_classes": []}) is None
    assert plots.hidden_plot({"hidden_classes": [stage]}) is None  # random masking alone
    assert plots.hidden_plot({}) is None
