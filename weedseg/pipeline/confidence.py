"""Measure on test photos what the temperature did, and which plants a sprayer would hit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.classes import ClassTable, Role
from weedseg.data.index import Photo
from weedseg.data.masks import read_mask
from weedseg.edge.boom import Boom, cell_shares
from weedseg.edge.result import Result
from weedseg.evaluation.plants import HIT_SHARE, PlantHits
from weedseg.evaluation.scores import Calibration
from weedseg.imaging import ClassMap, Image, Mask, read_image
from weedseg.pipeline.run import Run

Predict = Callable[[Image], Result]

NUM_PHOTOS = 40
"""At most so many test photos are predicted again without the temperature."""
NOZZLE_MM = 60.0
"""Width and length of a cell where the ground resolution is known, mm."""
CELLS_A_SIDE = 16
"""Cells along the longer side of a photo whose ground resolution is unknown."""


def temperature_figures(
    run: Run, groups: Iterable[tuple[Sequence[Photo], Predict, Predict]]
) -> dict[str, Any]:
    """Compare the calibration error with and without the temperature.

    Args:
        run: The run, calibrated.
        groups: Test photos, what predicts them with the temperature, and what without.

    Returns:
        temperature, fitted_on, nll_before and nll_after where it was fitted; ece_before and
        ece_after on `photos` test photos.
    """
    found = run.folder.read("finetune/calibration.json")
    kept = ("temperature", "fitted_on", "nll_before", "nll_after")
    values: dict[str, Any] = {key: found[key] for key in kept if key in found}
    if found.get("temperature", 1.0) == 1.0:
        return values
    before, after = Calibration(), Calibration()
    pairs = [(photo, after, before) for photos, after, before in groups for photo in photos]
    chosen = pairs[:: max(-(-len(pairs) // NUM_PHOTOS), 1)]
    for photo, with_it, without_it in chosen:
        image, mask = read_image(photo.path), read_mask(run.farm, photo)
        for tally, predict in ((after, with_it), (before, without_it)):
            result = predict(image)
            tally.add(mask, result.class_map, result.confidence)
    return {
        **values,
        "photos": len(chosen),
        "ece_before": before.to_dict()["ece"],
        "ece_after": after.to_dict()["ece"],
    }


class SprayedPlants:
    """Plants that nozzles would hit, decided as a boom decides."""

    def __init__(self, classes: ClassTable) -> None:
        """Start without photos.

        Args:
            classes: The classes of masks and class maps.
        """
        self._classes = classes
        self._hits = PlantHits(classes)
        self._assumed = 0

    def add(self, mask: Mask, class_map: ClassMap, mm_per_px: float | None) -> None:
        """Count one photo.

        Args:
            mask: Annotated class ids, (H, W).
            class_map: Predicted class ids, (H, W).
            mm_per_px: Ground resolution; None is unknown.

        Raises:
            FieldDataError: Sizes differ.
        """
        self._assumed += mm_per_px is None
        boom = sprayer(class_map.shape, mm_per_px)
        self._hits.add(mask, treated_area(class_map, boom, self._classes))

    def to_dict(self) -> dict[str, Any]:
        """Return what `PlantHits` gives, with the rule behind it in words."""
        cell = (
            f"{NOZZLE_MM / 10:g} cm square"
            if not self._assumed
            else f"1/{CELLS_A_SIDE} of a photo's longer side, as its ground resolution is unknown"
        )
        return {**self._hits.to_dict(), "hit_share": HIT_SHARE, "cell": cell}


def sprayer(size: Sequence[int], mm_per_px: float | None) -> Boom:
    """Return a boom whose nozzles cover 6 cm, or a sixteenth of a photo of unknown resolution.

    Args:
        size: (height, width), px.
        mm_per_px: Ground resolution; None is unknown.
    """
    if mm_per_px is None:
        cell = max(max(size) / CELLS_A_SIDE, 1.0)
        return Boom(mm_per_px=1.0, nozzle_mm=cell, cell_mm=cell)
    cell = max(NOZZLE_MM, mm_per_px)
    return Boom(mm_per_px=mm_per_px, nozzle_mm=cell, cell_mm=cell)


def treated_area(class_map: ClassMap, boom: Boom, classes: ClassTable) -> npt.NDArray[np.bool_]:
    """Return what a boom would spray of a photo, (H, W).

    Args:
        class_map: Class ids, (H, W), not empty.
        boom: Cells, and the share of weed from which on one is treated.
        classes: The classes.
    """
    weed = np.isin(class_map, classes.ids_of(Role.WEED))
    treat = cell_shares(weed, boom) >= boom.min_weed_share
    rows, columns = boom.borders((class_map.shape[0], class_map.shape[1]))
    return np.repeat(np.repeat(treat, np.diff(rows), axis=0), np.diff(columns), axis=1)
