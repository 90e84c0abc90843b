"""Numbers as people read them, and the sentences of the report of a map."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from weedseg.edge.result import percent
from weedseg.maps.field_picture import COVER
from weedseg.maps.page import Number, Table
from weedseg.maps.trust import Area, Trust
from weedseg.maps.weed_map import WeedMap

UNKNOWN = "unknown"
_ROLES = {"weed": "Weeds", "crop": "Crop"}
_M2_PER_HA, _SMALL_M2 = 10_000.0, 1_000.0


def digits(value: float) -> str:
    """Write a number with at least three digits that count, and no more behind the point."""
    if not value:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 6)}f}"


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('. ')}."


def square_metres(value: float | None) -> str:
    """Write an area in m²."""
    return UNKNOWN if value is None else f"{digits(value)}\u00a0m²"


def hectares(value_m2: float | None) -> str:
    """Write an area in ha."""
    return UNKNOWN if value_m2 is None else f"{digits(value_m2 / _M2_PER_HA)}\u00a0ha"


def ground(value_m2: float) -> str:
    """Write an area in ha, a small one in m²."""
    return hectares(value_m2) if value_m2 >= _SMALL_M2 else square_metres(value_m2)


def span(low_m2: float | None, high_m2: float | None) -> str:
    """Write an interval of areas in m² and ha; one below 1 m² in m² alone."""
    if low_m2 is None or high_m2 is None:
        return UNKNOWN
    text = f"{digits(low_m2)} to {digits(high_m2)}\u00a0m²"
    if high_m2 < 1:
        return text
    return f"{text} ({digits(low_m2 / _M2_PER_HA)} to {hectares(high_m2)})"


def headline(weed_map: WeedMap, trust: Trust) -> tuple[Number, ...]:
    """Return the figures that come first."""
    totals = weed_map.totals()
    area = trust.area(totals["weed_m2"], totals["ground_m2"], "weed")
    clean = float(np.mean(weed_map.weed_share == 0)) if len(weed_map.rows) else 0.0
    interval = span(area.low_m2, area.high_m2).partition(" (")[0]
    corrected = "error unknown" if area.low_m2 is None else f"corrected, 95 %: {interval}"
    rows = (
        ("Ground looked at", ground(totals["ground_m2"]), f"{totals['num_cells']:,} cells"),
        ("Weed cover", percent(totals["weed_share"]), "of the ground, as predicted"),
        ("Weed area", square_metres(totals["weed_m2"]), f"as predicted; {corrected}"),
        ("Crop cover", percent(totals["crop_share"]), "of the ground, as predicted"),
        (
            "Weed patches",
            f"{digits(totals['patches_per_m2'])} per m²",
            f"{totals['num_patches']:,} of {patch_size(weed_map.min_patch_m2)} or more",
        ),
        ("Cells without weeds", percent(clean), "in which the model sees none"),
    )
    return tuple(Number(name=n, value=v, meaning=m) for n, v, m in rows)


def patch_size(area_m2: float) -> str:
    """Write the area of a patch, in cm² where it is small."""
    return f"{digits(area_m2 * 1e4)} cm²" if area_m2 < 0.1 else square_metres(area_m2)


def area_table(totals: Mapping[str, Any], trust: Trust) -> Table:
    """Return weeds and crop: as predicted, corrected for bias, and how sure that is."""
    rows = []
    for role, name in _ROLES.items():
        area = trust.area(totals[f"{role}_m2"], totals["ground_m2"], role)
        rows.append(
            (
                name,
                percent(totals[f"{role}_share"]),
                both(area.predicted_m2),
                both(area.corrected_m2),
                span(area.low_m2, area.high_m2),
            )
        )
    head = ("", "cover", "area as predicted", "corrected for bias", "95 % interval")
    return Table(head=head, rows=tuple(rows))


def both(value_m2: float | None) -> str:
    """Write an area in m² and ha; one below 1 m² in m² alone."""
    if value_m2 is None:
        return UNKNOWN
    small = value_m2 < 1
    return square_metres(value_m2) + ("" if small else f" ({hectares(value_m2)})")


def area_sentence(area: Area, trust: Trust) -> str:
    """Say what the interval is and what it rests on."""
    if area.corrected_m2 is None:
        return (
            "How far these areas are off is unknown: nothing was measured on this crop, so there is"
            " no correction and no interval."
        )
    return (
        f"The correction takes off the model's mean error of cover on {trust.num_photos} held-out"
        " photos; the interval says how well that mean error is known. It does not say how"
        " different this field is from those photos."
    )


def cover_table(weed_map: WeedMap) -> Table:
    """Return ground and weeds by cover of the cell."""
    steps = COVER.of(weed_map.weed_share)
    ground = np.bincount(steps, weed_map.ground_m2, len(COVER.labels))
    weed = np.bincount(steps, weed_map.weed_m2, len(COVER.labels))
    cells = np.bincount(steps, minlength=len(COVER.labels))
    rows = [
        (
            name,
            f"{cells[i]:,}",
            both(float(ground[i])),
            percent(_share(ground[i], ground.sum())),
            square_metres(float(weed[i])),
            percent(_share(weed[i], weed.sum())),
        )
        for i, name in enumerate(COVER.labels)
    ]
    total = (
        "all",
        f"{cells.sum():,}",
        both(float(ground.sum())),
        percent(1.0 if ground.sum() else 0.0),
        square_metres(float(weed.sum())),
        percent(1.0 if weed.sum() else 0.0),
    )
    head = ("weed cover", "cells", "ground", "of all ground", "weed area", "of all weeds")
    return Table(head=head, rows=(*rows, total), swatches=(*COVER.colours, ""))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def crs_name(text: str) -> str:
    """Return how people call a CRS: its code, or the name inside its WKT."""
    if re.fullmatch(r"EPSG:\d+", text):
        return text
    name = re.search(r'"([^"]+)"', text)
    code = re.findall(r'(?:AUTHORITY|ID)\["EPSG",\s*"?(\d+)"?\]\]\s*$', text)
    return (name[1] if name else text[:60]) + (f" (EPSG:{code[-1]})" if code else "")


def resolution(values: Mapping[str, Any]) -> str:
    """Say the ground resolution, and how it lies to that of training."""
    own = values.get("mm_per_px")
    text = f"{own:.2f} mm per pixel" if isinstance(own, (int, float)) else UNKNOWN
    trained = values.get("training_mm_per_px")
    if isinstance(trained, (list, tuple)) and len(trained) == 2:
        low, high = trained
        learnt = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
        text += f"; the model learnt from {learnt} mm per pixel"
    else:
        text += "; that of the photos the model learnt from is unknown"
    return text + ("; the mosaic was resampled for the model" if values.get("resampled") else "")


def limits(weed_map: WeedMap, trust: Trust) -> tuple[str, ...]:
    """Say in plain sentences what the figures do not mean."""
    unmeasured = (
        "Nothing was measured of the model on this crop: no figure here comes with a known error."
        if not trust.evaluated
        else f"The model was {trust.note}. Another soil, light, variety, growth stage or camera can"
        " make it better or worse, and the interval does not show that."
    )
    return (
        unmeasured,
        (
            "Cover is what is seen from above. Weeds under leaves or smaller than a few pixels are"
            " not in it: zero means that the model saw none, not that none is there."
        ),
        (
            "Cover is leaf area. It is no number of plants, no biomass, no growth stage, and no"
            " species unless the model has classes for species."
        ),
        (
            "A patch is a connected area: plants that touch count as one, a plant whose leaves lie"
            " apart may count as several. Below"
            f" {patch_size(weed_map.min_patch_m2)} none is counted."
        ),
        "Confidence is what the model says of itself. It is no measured accuracy.",
        (
            "Positions are as true as those of the mosaic. Without control points on the ground a"
            " mosaic can lie metres off."
        ),
        (
            "Cells at the edge that hold little ground can show extreme cover; column valid_pct of"
            " the cells says how much of a cell is ground with data."
        ),
        "The map shows the day of the flight. What came up later is not in it.",
        "None of this is advice to spray or not to spray.",
    )
