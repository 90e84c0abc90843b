"""Checks of a prescription as zipped Shapefile, GeoJSON and KML, with pyshp and plain parsers."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import shapefile

from weedseg.errors import FieldDataError
from weedseg.maps.checks import (
    AGAIN,
    Record,
    Ring,
    check_lonlat,
    check_rates,
    check_rings,
    read_json,
    read_xml,
    reading,
)

RATE = "rate"
_SHAPE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_POLYGON = 5
_WGS84 = ("GCS_WGS_1984", "WGS 84", "WGS_1984")
_KML = "http://www.opengis.net/kml/2.2"
Polygon = list[Ring]


def check_shapefile(members: dict[str, bytes], record: Record) -> Iterable[FieldDataError]:
    """Check a Shapefile in an archive.

    Args:
        members: Name -> content of the archive's files.
        record: What is known of the prescription.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    inside = [name for name in members if "/" in name or "\\" in name]
    if inside:
        yield FieldDataError(
            f"{inside[0]} lies in a folder within the archive",
            "all files at its top, where terminals look",
            "pack the files themselves",
        )
    parts = {PurePosixPath(name).suffix.lower(): data for name, data in members.items()}
    missing = [suffix for suffix in _SHAPE_PARTS if suffix not in parts]
    if missing:
        listed = " ".join(missing)
        yield FieldDataError(f"no {listed} in the archive", " ".join(_SHAPE_PARTS), AGAIN)
    if {".shp", ".shx", ".dbf"} & set(missing):
        return
    yield from _check_prj(parts.get(".prj"))
    wrong = list(_check_table(parts[".dbf"]))
    yield from wrong
    polygons, rates = _read_shapes(parts)
    yield from check_lonlat(np.concatenate([r for p in polygons for r in p]), record)
    yield from check_rings(polygons, clockwise=True)
    if not wrong:
        yield from check_rates(rates, record)


def _check_prj(data: bytes | None) -> Iterable[FieldDataError]:
    if data is None:
        return
    text = data.decode("utf-8", "replace").strip()
    if not text.upper().startswith(("GEOGCS[", "GEOGCRS[")) or not any(w in text for w in _WGS84):
        yield FieldDataError(
            f"the CRS in the .prj is {text[:60]!r}", "GCS_WGS_1984 (EPSG:4326)", AGAIN
        )


def _check_table(data: bytes) -> Iterable[FieldDataError]:
    """Look at the header of a dBASE file: one numeric column."""
    with reading("the .dbf"):
        header, length = struct.unpack_from("<HH", data, 8)
        columns = []
        for start in range(32, header - 1, 32):
            if data[start] == 0x0D:
                break
            name = data[start : start + 11].split(b"\0")[0].decode("ascii")
            columns.append((name, chr(data[start + 11]), data[start + 16]))
        count = struct.unpack_from("<I", data, 4)[0]
        whole = len(data) >= header + count * length
    found = ", ".join(f"{name} ({kind})" for name, kind, _ in columns) or "none"
    if [(name, kind in "NF") for name, kind, _ in columns] != [(RATE, True)]:
        yield FieldDataError(f"the columns {found}", f"one numeric column, {RATE}", AGAIN)
    if not whole:
        yield FieldDataError("the .dbf ends too early", f"{count} rows", "copy or write it again")


def _read_shapes(parts: dict[str, bytes]) -> tuple[list[Polygon], list[Any]]:
    """Read polygons and rates with pyshp.

    Raises:
        FieldDataError: The files are damaged or hold no polygons.
    """
    with reading("the Shapefile"), warnings.catch_warnings():
        warnings.simplefilter("error")  # pyshp only warns of sizes that contradict each other
        kind = struct.unpack_from("<i", parts[".shp"], 32)[0]
        if kind != _POLYGON:
            raise FieldDataError(f"shape type {kind}", f"polygons (type {_POLYGON})", AGAIN)
        files = {suffix[1:]: io.BytesIO(parts[suffix]) for suffix in (".shp", ".shx", ".dbf")}
        with shapefile.Reader(**files) as reader:
            shapes, rows = list(reader.iterShapes()), [list(row) for row in reader.iterRecords()]
        polygons = []
        for shape in shapes:
            points = np.array(shape.points, np.float64).reshape(-1, 2)
            polygons.append(np.split(points, list(shape.parts)[1:]))
    if len(shapes) != len(rows) or not shapes:
        raise FieldDataError(
            f"{len(shapes)} polygons and {len(rows)} rows", "one row for each polygon", AGAIN
        )
    return polygons, [row[0] if row else None for row in rows]


def read_geojson(data: bytes, name: str) -> tuple[list[Polygon], list[dict[str, Any]]]:
    """Read the polygons of a GeoJSON file and the properties of each.

    Raises:
        FieldDataError: It is damaged, or is not a collection of polygons in WGS 84.
    """
    content = read_json(data, name)
    if not isinstance(content, dict) or content.get("type") != "FeatureCollection":
        raise FieldDataError(f"{name} is no FeatureCollection", "polygons", AGAIN)
    with reading(name):
        named = str(content["crs"]["properties"]["name"] if content.get("crs") else "CRS84")
    if not named.endswith(("CRS84", ":4326")):
        raise FieldDataError(f"the CRS {named}", "WGS 84 (EPSG:4326)", AGAIN)
    polygons: list[Polygon] = []
    properties: list[dict[str, Any]] = []
    with reading(name):
        for feature in content["features"]:
            shape, values = feature["geometry"], feature["properties"]
            if shape["type"] != "Polygon":
                raise FieldDataError(f"a {shape['type']}", "polygons", AGAIN)
            rings = shape["coordinates"]
            polygons.append([np.array(ring, np.float64)[:, :2] for ring in rings])
            properties.append(dict(values))
    if not polygons:
        raise FieldDataError(f"{name} holds no polygon", "at least one", AGAIN)
    return polygons, properties


def check_geojson(data: bytes, name: str, record: Record) -> Iterable[FieldDataError]:
    """Check a prescription as GeoJSON.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    polygons, properties = read_geojson(data, name)
    yield from check_lonlat(np.concatenate([r for p in polygons for r in p]), record)
    yield from check_rings(polygons, clockwise=False)
    others = sorted({key for values in properties for key in values} - {RATE})
    if others or not all(RATE in values for values in properties):
        found = ", ".join(others) or f"polygons without {RATE}"
        yield FieldDataError(f"the properties {found}", f"only {RATE}, in every polygon", AGAIN)
    else:
        yield from check_rates([values[RATE] for values in properties], record)


def check_kml(data: bytes, name: str, record: Record) -> Iterable[FieldDataError]:
    """Check a prescription as KML.

    Raises:
        FieldDataError: It is too damaged to go on.
    """
    root = read_xml(data, name)
    if root.tag != f"{{{_KML}}}kml":
        raise FieldDataError(f"{name} begins with {root.tag[:60]}", "KML 2.2", AGAIN)
    polygons: list[Polygon] = []
    rates: list[float | None] = []
    with reading(name):
        for mark in root.iter(f"{{{_KML}}}Placemark"):
            rate = _rate_of(mark)
            for polygon in mark.iter(f"{{{_KML}}}Polygon"):
                texts = [e.text or "" for e in polygon.iter(f"{{{_KML}}}coordinates")]
                polygons.append([_kml_ring(text) for text in texts])
                rates.append(rate)
    if not polygons:
        raise FieldDataError(f"{name} holds no polygon", "at least one", AGAIN)
    yield from check_lonlat(np.concatenate([r for p in polygons for r in p]), record)
    yield from check_rings(polygons, clockwise=None)
    yield from check_rates(rates, record)


def _rate_of(mark: Element) -> float | None:
    for value in mark.iter(f"{{{_KML}}}SimpleData"):
        if value.get("name") == RATE and value.text:
            return float(value.text)
    return None


def _kml_ring(text: str) -> Ring:
    return np.array([[float(v) for v in point.split(",")[:2]] for point in text.split()]).reshape(
        -1, 2
    )
