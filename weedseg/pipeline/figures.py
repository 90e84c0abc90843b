"""The figures of an evaluation that travel inside the model file, for those who make maps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weedseg.classes import ClassTable, Role

MIN_WEED_FREE = 5
"""Photos without weeds that it takes to say what the model sees on them."""


def model_metrics(evaluation: Mapping[str, Any] | None, crop: str) -> dict[str, Any] | None:
    """Choose what a model file says of its accuracy.

    Args:
        evaluation: ``evaluation.json``; None when there is none.
        crop: Crop on the photos; '' is unknown.

    Returns:
        ``miou``, ``iou`` by class, ``num_photos``, ``crops``, ``cover`` by role (``bias``: mean of
        predicted minus true share over the photos, ``rmse``) and ``false_weed`` (``share``,
        ``basis``); None when accuracy is unknown.
    """
    if not evaluation or evaluation.get("miou") is None:
        return None
    return {
        "miou": evaluation["miou"],
        "iou": {name: value for name, value in evaluation["iou"].items() if value is not None},
        "num_photos": evaluation["num_photos"],
        "crops": [crop] if crop else [],
        "cover": {role.value: _cover(evaluation, role) for role in (Role.CROP, Role.WEED)},
        "false_weed": _false_weed(evaluation),
    }


def _names(evaluation: Mapping[str, Any], role: Role) -> list[str]:
    classes = ClassTable.from_list(evaluation["classes"])
    return [classes.names[number] for number in classes.ids_of(role)]


def _cover(evaluation: Mapping[str, Any], role: Role) -> dict[str, float]:
    """Compare predicted with true cover of a role, photo by photo."""
    names = _names(evaluation, role)
    rows = [row for row in evaluation["photos"] if row["true_coverage"]]
    errors = np.array(
        [
            sum(row["predicted_coverage"][name] - row["true_coverage"][name] for name in names)
            for row in rows
        ]
    )
    return {"bias": float(errors.mean()), "rmse": float(np.sqrt((errors**2).mean()))}


def _false_weed(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Say how much weed the model sees where there is none."""
    free = evaluation["weed_free"]
    if free["num_photos"] >= MIN_WEED_FREE:
        basis = f"{free['num_photos']} photos without weeds"
        return {"share": free["mean_false_weed_cover"], "basis": basis}
    counts = np.array(evaluation["confusion"]["counts"], np.int64)
    weeds = ClassTable.from_list(evaluation["classes"]).ids_of(Role.WEED)
    others = np.delete(counts, weeds, axis=0)
    basis = f"ground and crop on {evaluation['num_photos']} photos"
    return {"share": float(others[:, weeds].sum() / max(others.sum(), 1)), "basis": basis}
