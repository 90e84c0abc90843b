"""Weed maps made by hand, from a picture of weed cover."""

from __future__ import annotations

import numpy as np

from weedseg.maps.prescription import PrescriptionOptions, RateStep
from weedseg.maps.trust import RoleBias, Trust
from weedseg.maps.weed_map import Grid, WeedMap

UTM = "EPSG:32633"
PLACE = (541_200.0, 5_331_000.0)
"""Near Vienna."""

TRUSTED = Trust(
    evaluated=True,
    note="evaluated on 60 held-out photos of peanut (on other fields), never on this field",
    num_photos=60,
    weed=RoleBias(bias=0.001, rmse=0.01),
    false_weed_share=0.0005,
    false_weed_basis="ground and crop on 60 photos",
)
UNTESTED = Trust(evaluated=False, note="untested on this crop: here grows maize")


def weed_map(cover, *, cell_m=(3.0, 3.0), heading=0.0, corner=PLACE, crs=UTM, seen=None):
    """Make a weed map.

    Args:
        cover: Weed cover in per cent, rows from north to south as one reads them; NaN is no cell.
        cell_m: Along and across the heading.
        heading: Degrees.
        corner: Of the south-western cell.
        crs: Metric CRS.
        seen: Valid share of each cell, as `cover`; 1 by default.
    """
    cover = np.asarray(cover, float)[::-1]
    seen = np.ones(cover.shape) if seen is None else np.asarray(seen, float)[::-1]
    rows, columns = np.nonzero(~np.isnan(cover))
    weed, valid = cover[rows, columns] / 100, seen[rows, columns]
    ground = valid * cell_m[0] * cell_m[1]
    return WeedMap(
        grid=Grid(
            crs=crs,
            corner=corner,
            heading_deg=heading,
            cell_m=cell_m,
            num_rows=cover.shape[0],
            num_columns=cover.shape[1],
        ),
        rows=rows,
        columns=columns,
        ground_m2=ground,
        valid_share=valid,
        weed_share=weed,
        crop_share=(1 - weed) / 2,
        weed_m2=weed * ground,
        crop_m2=(1 - weed) / 2 * ground,
        num_patches=(weed > 0).astype(np.int64),
        patch_m2=weed * ground,
        confidence=np.full(len(rows), 0.9),
        min_patch_m2=0.0004,
    )


def picture(found, values):
    """Lay the values of cells out as `weed_map` takes them, north first; NaN is no cell."""
    field = np.full((found.grid.num_rows, found.grid.num_columns), np.nan)
    field[found.rows, found.columns] = values
    return field[::-1]


def options(*steps, **others):
    """Make options from (per cent, l/ha) steps; 2 % and 200 l/ha by default."""
    pairs = steps or ((2.0, 200.0),)
    return PrescriptionOptions(steps=tuple(RateStep(t / 100, r) for t, r in pairs), **others)
