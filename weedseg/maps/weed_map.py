"""The weed map: a grid of cells in metres over the field, with cover, patches and confidence.

Arrays are over the n cells that hold any valid pixel, row by row. Shares are 0-1, areas m2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Cells of equal size in a metric CRS, turned to a heading."""

    crs: str
    """Metric CRS, as text that PROJ reads."""
    corner: tuple[float, float]
    """Where row 0 and column 0 begin, (x, y) m; rows go along the heading, columns to its right."""
    heading_deg: float
    """Direction of travel, degrees clockwise from grid north, 0 <= heading < 180."""
    cell_m: tuple[float, float]
    """Size of a cell (along the heading, across it), m; across is the section's width."""
    num_rows: int
    num_columns: int

    def affine(self) -> Affine:
        """Return the transform from (column, row), in cells, to metres."""
        turn = math.radians(self.heading_deg)
        along, across = self.cell_m
        right, ahead = (math.cos(turn), -math.sin(turn)), (math.sin(turn), math.cos(turn))
        return Affine(
            *(right[0] * across, ahead[0] * along, self.corner[0]),
            *(right[1] * across, ahead[1] * along, self.corner[1]),
        )

    def polygons(
        self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.object_]:
        """Return the outlines of cells as shapely polygons, (n,), counter-clockwise."""
        place = self.affine()
        corners = np.empty((len(rows), 5, 2))
        for number, (right, up) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))):
            xs, ys = columns + float(right), rows + float(up)
            corners[:, number, 0] = place.a * xs + place.b * ys + place.c
            corners[:, number, 1] = place.d * xs + place.e * ys + place.f
        outlines: npt.NDArray[np.object_] = shapely.polygons(corners)
        return outlines


@dataclass(frozen=True, kw_only=True)
class WeedMap:
    """All cells of a field."""

    grid: Grid
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    ground_m2: Floats
    """Valid ground in the cell: inside the boundary, with data."""
    valid_share: Floats
    """`ground_m2` over the area of a whole cell."""
    weed_share: Floats
    """Weed pixels over valid pixels."""
    crop_share: Floats
    weed_m2: Floats
    crop_m2: Floats
    num_patches: npt.NDArray[np.int64]
    """Weed patches whose centre lies in the cell, of at least `min_patch_m2`."""
    patch_m2: Floats
    """Mean area of those patches; 0 without any."""
    confidence: Floats
    """Mean of the model's confidence over valid pixels."""
    min_patch_m2: float

    def polygons(self) -> npt.NDArray[np.object_]:
        """Return the cells' outlines in `grid.crs`, (n,)."""
        return self.grid.polygons(self.rows, self.columns)

    def totals(self) -> dict[str, Any]:
        """Return the sums over the field: m2, counts and shares of the valid ground."""
        ground = float(self.ground_m2.sum())
        weed, crop = float(self.weed_m2.sum()), float(self.crop_m2.sum())
        patches = int(self.num_patches.sum())
        return {
            "num_cells": len(self.rows),
            "ground_m2": ground,
            "weed_m2": weed,
            "crop_m2": crop,
            "weed_share": weed / ground if ground else 0.0,
            "crop_share": crop / ground if ground else 0.0,
            "num_patches": patches,
            "patches_per_m2": patches / ground if ground else 0.0,
            "confidence": float(np.average(self.confidence, weights=self.ground_m2))
            if ground
            else 0.0,
        }
