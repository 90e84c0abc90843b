"""Count plants instead of pixels: which would a sprayer hit, whose nozzles each cover a cell?

A plant is a connected part of the mask; plants that touch count as one. It is hit when at least
half of it lies in cells that are treated.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.classes import IGNORE_ID, ClassTable, Role
from weedseg.errors import FieldDataError
from weedseg.imaging import Mask

HIT_SHARE = 0.5
"""So much of a plant must be treated to count as hit, 0-1."""
MIN_PLANT_PX = 25
"""Smaller parts of a mask are no plants."""

Area = npt.NDArray[np.bool_]


class PlantHits:
    """Weeds and crop plants that are hit, over several photos."""

    def __init__(self, classes: ClassTable) -> None:
        """Start without photos.

        Args:
            classes: The classes that the masks hold.
        """
        self._ids = {role: classes.ids_of(role) for role in (Role.WEED, Role.CROP)}
        self._plants = dict.fromkeys(self._ids, 0)
        self._hit = dict.fromkeys(self._ids, 0)
        self._treated = self._pixels = 0

    def add(self, mask: Mask, treated: Area) -> None:
        """Count the plants of one photo.

        Args:
            mask: Annotated class ids, (H, W); 255 is ignored.
            treated: What is sprayed, (H, W).

        Raises:
            FieldDataError: Sizes differ.
        """
        if mask.shape != treated.shape:
            raise FieldDataError(
                f"treated area of {treated.shape} px", f"{mask.shape} px", "give both in one size"
            )
        for role, ids in self._ids.items():
            sizes, hits = _plants(np.isin(mask, ids), treated)
            counted = sizes >= MIN_PLANT_PX
            self._plants[role] += int(counted.sum())
            self._hit[role] += int((counted & (hits >= HIT_SHARE * sizes)).sum())
        valid = mask != IGNORE_ID
        self._pixels += int(valid.sum())
        self._treated += int((treated & valid).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return weeds, weed_hit, crops, crop_hit (shares, None without plants), area_treated."""

        def share(part: int, whole: int) -> float | None:
            return part / whole if whole else None

        return {
            "weeds": self._plants[Role.WEED],
            "weed_hit": share(self._hit[Role.WEED], self._plants[Role.WEED]),
            "crops": self._plants[Role.CROP],
            "crop_hit": share(self._hit[Role.CROP], self._plants[Role.CROP]),
            "area_treated": share(self._treated, self._pixels),
        }


def _plants(area: Area, treated: Area) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the size of every connected part of an area, and how much of it is treated, px."""
    num, numbers = cv2.connectedComponents(area.astype(np.uint8), connectivity=8)
    sizes = np.bincount(numbers.reshape(-1), minlength=num)
    hits = np.bincount(numbers[treated], minlength=num)
    return sizes[1:], hits[1:]
