"""The weediest cells of a map: where a person should look first."""

from __future__ import annotations

from typing import Any

import numpy as np

from weedseg.maps.cells import world_cell
from weedseg.maps.ground import apply_affine, to_lonlat
from weedseg.maps.weed_map import Floats, WeedMap

NUM_WORST = 5
"""Cells that are shown as photos."""
_APART_SHARE = 0.045
_WHOLE_SHARE = 0.5


def worst_cells(weed_map: WeedMap, num: int) -> list[int]:
    """Choose the cells with most weed cover that are apart, so that they show several places.

    Args:
        weed_map: The cells. Those with less than half their ground are left out, if others are
            there.
        num: At most so many.

    Returns:
        Numbers of cells, the worst first; at least `apart_m` from each other.
    """
    whole = weed_map.valid_share >= _WHOLE_SHARE
    shares = np.where(whole if whole.any() else True, weed_map.weed_share, 0.0)
    middles = _middles(weed_map)
    chosen: list[int] = []
    while len(chosen) < num and shares.size and shares.max() > 0:
        cell = int(shares.argmax())
        chosen.append(cell)
        near = np.hypot(*(middles - middles[cell]).T) < apart_m(weed_map)
        shares = np.where(near, 0.0, shares)
        shares[cell] = 0.0
    return chosen


def apart_m(weed_map: WeedMap) -> float:
    """Return how far the worst cells are from each other at least, m."""
    middles = _middles(weed_map)
    return _APART_SHARE * float(np.ptp(middles, axis=0).max()) if len(middles) else 0.0


def worst_rows(weed_map: WeedMap, worst: list[int]) -> list[dict[str, Any]]:
    """Return what is known of some cells, as JSON holds it: shares 0-1, areas m2, WGS 84.

    Args:
        weed_map: All cells.
        worst: Numbers of those that are wanted.
    """
    row, column = world_cell(weed_map.grid)
    places = to_lonlat(weed_map.grid.crs, _middles(weed_map)[worst])
    return [
        {
            "cell_id": f"R{weed_map.rows[cell] + row}C{weed_map.columns[cell] + column}",
            "latitude": round(float(latitude), 7),
            "longitude": round(float(longitude), 7),
            "weed_share": float(weed_map.weed_share[cell]),
            "weed_m2": float(weed_map.weed_m2[cell]),
            "num_patches": int(weed_map.num_patches[cell]),
            "confidence": float(weed_map.confidence[cell]),
        }
        for cell, (longitude, latitude) in zip(worst, places)
    ]


def _middles(weed_map: WeedMap) -> Floats:
    """Return the middles of the cells in the grid's CRS, (n, 2)."""
    place = weed_map.grid.affine()
    xs, ys = apply_affine(place, weed_map.columns + 0.5, weed_map.rows + 0.5)
    return np.stack([xs, ys], axis=1)
