"""Checks of sample points: photos with their place and cover, never areas or rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weedseg.errors import FieldDataError
from weedseg.maps.checks import Record, Ring, check_lonlat, read_json, reading

SAMPLE_MARK = "gps_err_m"
"""A column that only samples have."""

COLUMNS = ("photo", "lon", "lat", "alt_m", SAMPLE_MARK, "taken", "weed_pct", "crop_pct", "conf")
_AGAIN = "write it again with weedseg map"
_PER_CENT = ("weed_pct", "crop_pct", "conf")
_SLACK_DEG = 1e-6
_SUM_SLACK = 0.1
Rows = Sequence[Mapping[str, Any]]


def check_samples_geojson(data: bytes, name: str) -> Iterable[FieldDataError]:
    """Check samples in GeoJSON.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    content = read_json(data, name)
    with reading(name):
        features = content["features"]
        kinds = {feature["geometry"]["type"] for feature in features}
        points = [feature["geometry"]["coordinates"][:2] for feature in features]
        rows = [dict(feature["properties"]) for feature in features]
        places = np.array(points, np.float64).reshape(-1, 2)
    if kinds != {"Point"}:
        raise FieldDataError(f"shapes {', '.join(sorted(kinds)) or 'none'}", "points", _AGAIN)
    yield from check_samples(rows, places)


def check_samples(rows: Rows, points: Ring | None) -> Iterable[FieldDataError]:
    """Check the rows of samples.

    Args:
        rows: Column -> value.
        points: Where their geometries lie, (n, 2), longitude and latitude; None without any.

    Raises:
        FieldDataError: A column is missing, or places are no degrees.
    """
    missing = [name for name in COLUMNS if any(name not in row for row in rows)]
    if missing:
        raise FieldDataError(f"a table without {', '.join(missing)}", ", ".join(COLUMNS), _AGAIN)
    with reading("longitude and latitude"):
        stated = np.array([(row["lon"], row["lat"]) for row in rows], np.float64)
    yield from check_lonlat(stated, Record(), _AGAIN)
    if points is not None:
        yield from check_lonlat(points, Record(), _AGAIN)
        if np.abs(points - stated).max() > _SLACK_DEG:
            yield FieldDataError("points that do not lie at lon and lat", "one place", _AGAIN)
    with reading("the covers"):
        table = {name: np.array([row[name] for row in rows], np.float64) for name in _PER_CENT}
    for name, values in table.items():
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low + high) and low >= 0 and high <= 100):
            wrong = high if low >= 0 else low
            yield FieldDataError(f"{name} {wrong:g}", "0 to 100 per cent", _AGAIN)
            return
    if 0 < table["conf"].max() <= 1:
        found = f"conf up to {table['conf'].max():g}: shares"
        yield FieldDataError(found, "per cent, 0 to 100", _AGAIN)
    sums = float((table["weed_pct"] + table["crop_pct"]).max())
    if sums > 100 + _SUM_SLACK:
        yield FieldDataError(f"weed_pct and crop_pct together {sums:g}", "at most 100", _AGAIN)
