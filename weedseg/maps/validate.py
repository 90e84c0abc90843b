"""Re-read written map files with code other than the writer's and say what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from weedseg.errors import FieldDataError
from weedseg.maps.check_cells import check_cells_geojson, check_csv, check_gpkg
from weedseg.maps.check_isoxml import check_isoxml
from weedseg.maps.check_raster import check_raster
from weedseg.maps.check_samples import SAMPLE_MARK, check_samples_geojson
from weedseg.maps.check_vectors import (
    RATE,
    Polygon,
    check_geojson,
    check_kml,
    check_shapefile,
    read_geojson,
)
from weedseg.maps.checks import (
    MAX_BYTES,
    MAX_MEMBERS,
    Checked,
    Record,
    read_bytes,
    read_record,
    read_zip,
    reading,
)

_GEOJSON = "prescription.geojson"
_SUFFIXES = (".csv", ".geojson", ".gpkg", ".kml", ".tif", ".zip")
_STEMS = ("TASKDATA", "cells", "classes", "confidence", "prescription", "samples")
_ROWS_UNKNOWN = f"the order of rows was not compared: no readable {_GEOJSON} beside it"


def validate(path: Path) -> list[Checked]:
    """Check a file, or all files in the folder of a map.

    Args:
        path: A file that weedseg wrote, a folder TASKDATA, or a folder of files.

    Raises:
        FieldDataError: There is nothing that could be checked.
    """
    if path.is_dir() and not _is_taskdata(path):
        return _validate_folder(path)
    if path.name.upper() == "TASKDATA.XML":
        path = path.parent
    if not path.exists():
        raise FieldDataError(f"no {path}", "a file or folder of a map", "check the path")
    checked = Checked(path=path)
    try:
        for fault in _check(checked):
            checked.faults.append(fault)
    except FieldDataError as error:
        checked.faults.append(error)
    return [checked]


def _validate_folder(folder: Path) -> list[Checked]:
    found = sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix in _SUFFIXES and path.stem.startswith(_STEMS)
    )
    found += sorted(p for p in folder.iterdir() if p.is_dir() and _is_taskdata(p))
    if not found:
        raise FieldDataError(
            f"no map file in {folder}", "what weedseg map or prescribe wrote", "check the path"
        )
    return [checked for path in found for checked in validate(path)]


def _is_taskdata(folder: Path) -> bool:
    return any(path.name.upper() == "TASKDATA.XML" for path in folder.iterdir())


def _check(checked: Checked) -> Iterable[FieldDataError]:
    """Find out what a file is and check it.

    Raises:
        FieldDataError: It is too damaged to go on, or of no known kind.
    """
    path = checked.path
    kinds: dict[str, Callable[[Checked, Record], Iterable[FieldDataError]]] = {
        ".zip": _check_zip,
        ".geojson": _check_geojson,
        ".kml": _check_kml,
    }
    cells = {".csv": check_csv, ".gpkg": check_gpkg, ".tif": check_raster}
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from _check_taskdata(checked, _read_folder(path), read_record(path))
    elif suffix in kinds:
        yield from kinds[suffix](checked, read_record(path))
    elif suffix in cells:
        checked.kind = "a map" if suffix == ".tif" else "a table of cells or samples"
        yield from cells[suffix](path)
    else:
        known = " ".join(_SUFFIXES)
        raise FieldDataError(f"{path.name} is of no known kind", known, "choose a map file")


def _check_zip(checked: Checked, record: Record) -> Iterable[FieldDataError]:
    members = read_zip(checked.path)
    names = {name.upper().rpartition("/")[2] for name in members}
    if "TASKDATA.XML" in names:
        return _check_taskdata(checked, members, record)
    checked.kind = "a prescription as Shapefile"
    return check_shapefile(members, record)


def _check_taskdata(
    checked: Checked, members: dict[str, bytes], record: Record
) -> Iterable[FieldDataError]:
    checked.kind = "a prescription as ISOXML"
    prescribed: list[tuple[Polygon, float]] = []
    try:
        polygons, properties = read_geojson(read_bytes(checked.path.parent / _GEOJSON), _GEOJSON)
        with reading(_GEOJSON):
            rates = [float(values[RATE]) for values in properties]
        prescribed = list(zip(polygons, rates))
    except FieldDataError:
        checked.notes.append(_ROWS_UNKNOWN)
    return check_isoxml(members, record, prescribed)


def _check_geojson(checked: Checked, record: Record) -> Iterable[FieldDataError]:
    name = checked.path.name
    data = read_bytes(checked.path)
    if f'"{SAMPLE_MARK}"'.encode() in data:
        checked.kind = "sample points"
        return check_samples_geojson(data, name)
    if b'"weed_pct"' in data:
        checked.kind = "cells of a weed map"
        return check_cells_geojson(data, name)
    checked.kind = "a prescription as GeoJSON"
    return check_geojson(data, name, record)


def _check_kml(checked: Checked, record: Record) -> Iterable[FieldDataError]:
    checked.kind = "a prescription as KML"
    return check_kml(read_bytes(checked.path), checked.path.name, record)


def _read_folder(folder: Path) -> dict[str, bytes]:
    """Read the files of a folder TASKDATA, named as in an archive.

    Raises:
        FieldDataError: One cannot be read, or there are too many.
    """
    with reading(folder.name):
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if len(files) > MAX_MEMBERS or sum(path.stat().st_size for path in files) > MAX_BYTES:
            raise FieldDataError(f"{folder} is too large", "task data", "choose larger cells")
    return {f"{folder.name}/{path.name}": read_bytes(path) for path in files}
