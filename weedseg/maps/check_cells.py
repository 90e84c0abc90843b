"""Checks of tables of cells and samples as GeoPackage, GeoJSON and CSV, read without GDAL."""

from __future__ import annotations

import csv
import io
import math
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from weedseg.errors import FieldDataError
from weedseg.maps.check_samples import SAMPLE_MARK, check_samples
from weedseg.maps.check_vectors import Polygon, read_geojson
from weedseg.maps.checks import (
    MAX_RATE,
    Record,
    check_lonlat,
    check_rings,
    read_bytes,
    reading,
)

COLUMNS = (
    "cell_id",
    "weed_pct",
    "weed_m2",
    "crop_pct",
    "n_patch",
    "patch_m2",
    "conf",
    "valid_pct",
    "treat",
    "rate",
)
_AGAIN = "write it again with weedseg map"
_PER_CENT = ("weed_pct", "crop_pct", "conf", "valid_pct")
_SUM_SLACK = 0.1
_AREA_SLACK = 0.05
Floats = npt.NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]


def check_gpkg(path: Path) -> Iterable[FieldDataError]:
    """Check cells or sample points in a GeoPackage with SQLite.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    place = f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}"
    with reading(path.name), closing(sqlite3.connect(f"{place}?mode=ro", uri=True)) as base:
        base.row_factory = sqlite3.Row
        base.execute("PRAGMA trusted_schema = OFF")
        table, column, kind, crs = _find_table(base, path.name)
        rows = [dict(row) for row in base.execute(f"SELECT * FROM {_quoted(table)}")]
        shapes = [_geometry(row.pop(column), crs["srs_id"], kind) for row in rows]
    if not rows:
        raise FieldDataError(f"{path.name} holds no {kind}", "at least one", _AGAIN)
    points = shapely.get_coordinates(shapes)
    if kind == "Point":
        yield from check_samples(rows, points)
        return
    degrees = str(crs["definition"]).upper().startswith(("GEOGCS", "GEOGCRS"))
    if degrees:
        yield from check_lonlat(points, Record(), _AGAIN)
    elif (np.abs(points).max(axis=0) <= (180, 90)).all():
        found = f"coordinates such as ({points[0, 0]:.6f}, {points[0, 1]:.6f})"
        named = f"metres of {crs['srs_name']}"
        raise FieldDataError(f"{found}: degrees labelled as metres", named, _AGAIN)
    yield from check_rings([_rings(shape) for shape in shapes], clockwise=None)
    yield from _check_rows(rows, None if degrees else shapely.area(shapes))


def check_cells_geojson(data: bytes, name: str) -> Iterable[FieldDataError]:
    """Check cells in GeoJSON.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    polygons, properties = read_geojson(data, name)
    yield from check_lonlat(np.concatenate([r for p in polygons for r in p]), Record(), _AGAIN)
    yield from check_rings(polygons, clockwise=False)
    yield from _check_rows(properties, np.array([_area(polygon) for polygon in polygons]))


def check_csv(path: Path) -> Iterable[FieldDataError]:
    """Check cells or sample points in a table.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    with reading(path.name):
        text = read_bytes(path).decode("utf-8-sig")
        lines = (line for line in io.StringIO(text, newline="") if not line.startswith("#"))
        rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(lines)]
    if not rows:
        raise FieldDataError(f"{path.name} holds no row", "at least one", _AGAIN)
    if any(None in row for row in rows):
        raise FieldDataError("a row with more values than columns", "one value each", _AGAIN)
    yield from (check_samples if SAMPLE_MARK in rows[0] else _check_rows)(rows, None)


def _find_table(base: sqlite3.Connection, name: str) -> tuple[str, str, str, sqlite3.Row]:
    """Return name, geometry column and kind of shapes of the one layer, and its CRS.

    Raises:
        FieldDataError: There is not one, or it has no CRS.
    """
    layers = base.execute(
        "SELECT c.table_name, c.srs_id, g.column_name, g.srs_id AS own, g.geometry_type_name "
        "FROM gpkg_contents c JOIN gpkg_geometry_columns g ON c.table_name = g.table_name"
    ).fetchall()
    if len(layers) != 1:
        raise FieldDataError(f"{len(layers)} layers in {name}", "one layer of cells", _AGAIN)
    layer = layers[0]
    kind = str(layer["geometry_type_name"]).capitalize()
    if kind not in ("Polygon", "Point"):
        raise FieldDataError(f"a layer of {kind}", "polygons, or points of samples", _AGAIN)
    known = base.execute(
        "SELECT srs_id, srs_name, definition FROM gpkg_spatial_ref_sys WHERE srs_id = ?",
        (layer["own"],),
    ).fetchone()
    if known is None or layer["own"] <= 0 or layer["own"] != layer["srs_id"]:
        raise FieldDataError(f"no CRS in {name}", "the CRS of the cells", _AGAIN)
    tables = base.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name = ?", (layer["table_name"],)
    ).fetchall()
    if not tables:
        raise FieldDataError(f"no table {layer['table_name']!r}", "the layer's table", _AGAIN)
    return str(layer["table_name"]), str(layer["column_name"]), kind, known


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _geometry(blob: bytes, srs_id: int, kind: str) -> shapely.Geometry:
    """Read a GeoPackage geometry: a header, then well-known binary.

    Raises:
        FieldDataError: It is none, or of another CRS than its layer.
    """
    if blob[:2] != b"GP":
        raise FieldDataError("a geometry without its header", "GeoPackage geometry", _AGAIN)
    flags = blob[3]
    (own,) = struct.unpack_from("<i" if flags & 1 else ">i", blob, 4)
    if own != srs_id:
        raise FieldDataError(f"a geometry of CRS {own}", f"{srs_id}, as its layer", _AGAIN)
    shape = shapely.from_wkb(blob[8 + (0, 32, 48, 48, 64)[flags >> 1 & 7] :])
    if shape.geom_type != kind:
        raise FieldDataError(f"a {shape.geom_type}", kind, _AGAIN)
    return shape


def _rings(shape: shapely.Polygon) -> Polygon:
    return [shapely.get_coordinates(ring) for ring in (shape.exterior, *shape.interiors)]


def _area(polygon: Polygon) -> float:
    """Return the area of a small polygon of longitudes and latitudes on a sphere, m2."""
    middle = math.radians(float(polygon[0][:, 1].mean()))
    scale = np.radians(1.0) * 6_371_008.8 * np.array([math.cos(middle), 1.0])
    outline, *holes = ((ring - polygon[0][0]) * scale for ring in polygon)
    return float(shapely.Polygon(outline, holes).area)


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def _check_rows(rows: Rows, areas: Floats | None) -> Iterable[FieldDataError]:
    """Check columns, types, ranges, units and what columns say of each other."""
    names = [name for name in rows[0] if name != "fid"]
    missing = [name for name in COLUMNS if any(name not in row for row in rows)]
    long = [name for name in names if len(name) > 10]
    if missing or long:
        found = f"without {', '.join(missing)}" if missing else f"with {', '.join(long)}"
        yield FieldDataError(f"a table {found}", ", ".join(COLUMNS), _AGAIN)
        return
    ids = [str(row["cell_id"]) for row in rows]
    if len(set(ids)) < len(ids):
        yield FieldDataError(f"{len(ids) - len(set(ids))} cell_id occur twice", "one each", _AGAIN)
    table = {name: _column([row[name] for row in rows]) for name in COLUMNS[1:]}
    broken = [name for name, values in table.items() if not np.isfinite(values).all()]
    if broken:
        yield FieldDataError(f"no number somewhere in {', '.join(broken)}", "numbers", _AGAIN)
        return
    wrong = list(_check_ranges(table))
    yield from wrong
    if not wrong:
        yield from _check_units(table, areas)


def _column(values: list[Any]) -> Floats:
    plain = [v if isinstance(v, (int, float)) else math.nan for v in values]
    return np.array(plain, np.float64)


def _check_ranges(table: Mapping[str, Floats]) -> Iterable[FieldDataError]:
    highest = dict.fromkeys(_PER_CENT, 100.0) | {"treat": 1.0, "rate": MAX_RATE}
    for name, values in table.items():
        low, high = float(values.min()), float(values.max())
        limit = highest.get(name, math.inf)
        if low < 0 or high > limit * (1 + 1e-9):
            wrong = low if low < 0 else high
            expected = f"0 to {limit:g}" if math.isfinite(limit) else "0 or more"
            yield FieldDataError(f"{name} {wrong:g}", expected, _AGAIN)
    sums = table["weed_pct"] + table["crop_pct"]
    if table["weed_pct"].max() <= 100 and sums.max() > 100 + _SUM_SLACK:
        found = f"weed_pct and crop_pct together {sums.max():g}"
        yield FieldDataError(found, "at most 100 per cent", _AGAIN)
    uneven = int(((table["treat"] > 0) != (table["rate"] > 0)).sum())
    if uneven:
        found = f"treat and rate of {uneven} cells contradict each other"
        yield FieldDataError(found, "treat 1 where the rate is above 0", _AGAIN)


def _check_units(table: Mapping[str, Floats], areas: Floats | None) -> Iterable[FieldDataError]:
    """Check that per cents are no shares and areas are square metres."""
    for name in ("valid_pct", "conf"):
        if 0 < table[name].max() <= 1:
            found = f"{name} up to {table[name].max():g}: shares"
            yield FieldDataError(found, "per cent, 0 to 100", _AGAIN)
            return
    if areas is None:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        stated = float(table["weed_m2"].sum())
        computed = float((table["weed_pct"] * table["valid_pct"] * areas).sum()) / 1e4
    if not abs(stated - computed) <= _AREA_SLACK * max(stated, computed) + 1e-3 * len(areas):
        yield FieldDataError(
            f"weed_m2 sums to {stated:.4g}, but weed_pct of the cells' ground to {computed:.4g} m2",
            "per cent in weed_pct and square metres in weed_m2",
            _AGAIN,
        )
