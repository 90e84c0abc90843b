"""A prescription as the files that terminals, drones and desktop programs read.

Cells in a line along the heading with one rate are one rectangle, so that a terminal gets few
polygons, none with a hole. All are written into a hidden folder first and then put in their
places, ``prescription.json`` last.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely

from weedseg import __version__
from weedseg.errors import FieldDataError, OutputError
from weedseg.maps.ground import apply_affine, to_lonlat
from weedseg.maps.isoxml_file import write_isoxml
from weedseg.maps.prescription import Prescription, PrescriptionOptions, prescribe
from weedseg.maps.report import write_report
from weedseg.maps.together import written_together
from weedseg.maps.trust import trust_from_dict
from weedseg.maps.validate import validate
from weedseg.maps.vectors import load_weed_map, save_weed_map
from weedseg.maps.weed_map import Floats

RECORD = "prescription.json"
SHAPEFILE = "prescription_shapefile.zip"
GEOJSON = "prescription.geojson"
KML = "prescription.kml"
TASKDATA = "TASKDATA"
TASKDATA_ZIP = "TASKDATA.zip"
FILES = (SHAPEFILE, GEOJSON, KML, TASKDATA_ZIP, TASKDATA, RECORD)
"""What a prescription adds to the folder of a map; the record comes last."""

SCHEMA = 1
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def prescribe_folder(folder: Path, options: PrescriptionOptions) -> tuple[Prescription, list[Path]]:
    """Write the prescription for the weed map that ``weedseg map`` left in a folder.

    The report of the map is written again, with a chapter on the prescription.

    Args:
        folder: Has ``map.json`` and the cells.
        options: Thresholds, rates and distances.

    Returns:
        The prescription and the files that were written.

    Raises:
        WeedsegError: As `read_prescription`, or a file cannot be written.
    """
    prescription = read_prescription(folder, options)
    files = write_prescription(prescription, folder)
    return prescription, [*files, *write_report(folder)]


def read_prescription(folder: Path, options: PrescriptionOptions) -> Prescription:
    """Work out the prescription for the weed map in a folder; nothing is written.

    Args:
        folder: Has ``map.json`` and the cells.
        options: Thresholds, rates and distances.

    Raises:
        FieldDataError: The folder holds no weed map, or only sample points.
        PrescriptionError: The model is not known well enough and it is not forced.
    """
    path = folder / "map.json"
    if (folder / "samples.csv").is_file() and not path.is_file():
        raise FieldDataError(
            f"{folder} holds sample points of photos, whose places err by metres",
            "the weed map of an orthomosaic",
            "fly the field and map the mosaic",
        )
    try:
        trust = trust_from_dict(json.loads(path.read_text(encoding="utf-8"))["trust"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FieldDataError(
            f"{path} holds no record of a weed map ({type(error).__name__})",
            "the folder that weedseg map wrote",
            "run weedseg map first",
        ) from error
    return prescribe(load_weed_map(folder), options, trust)


def write_prescription(prescription: Prescription, out: Path) -> list[Path]:
    """Write a prescription as Shapefile, GeoJSON, KML and ISOXML, and into the cells' files.

    Args:
        prescription: What to write.
        out: Folder; what an earlier prescription left there is replaced.

    Returns:
        The files that were written.

    Raises:
        ConfigError: The ISOXML cells are too small for the field.
        OutputError: The disk is full or the folder is not writable.
    """
    with written_together(out, "the prescription") as made:
        _write_all(prescription, made)
        _check(made)
        said = replace(prescription.trust, note=prescription.note)
        cells = save_weed_map(
            prescription.weed_map, said, out, treat=prescription.treat, rate=prescription.rate
        )
        remove_prescription(out)
        for name in FILES:
            os.replace(made / name, out / name)
    return [out / name for name in FILES] + cells


def remove_prescription(folder: Path) -> None:
    """Remove the files of a prescription, if there are any: a new map makes them stale.

    The record goes first, so that what is left after a crash is not taken for whole.

    Args:
        folder: Folder of a map.

    Raises:
        OSError: A file cannot be removed.
    """
    for name in reversed(FILES):
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_all(prescription: Prescription, folder: Path) -> None:
    """Write every file of a prescription but those of the cells."""
    rectangles, rate = _rectangles(prescription)
    _write_vectors(prescription, rectangles, rate, folder)
    (folder / TASKDATA).mkdir()
    grid = write_isoxml(prescription, folder / TASKDATA)
    _zip(folder / TASKDATA_ZIP, sorted((folder / TASKDATA).iterdir()), f"{TASKDATA}/")
    record = {
        "schema": SCHEMA,
        **prescription.to_dict(),
        "bounds": shapely.total_bounds(rectangles).tolist(),
        "isoxml": grid.to_dict(),
        "files": FILES,
        "weedseg_version": __version__,
    }
    text = json.dumps(record, ensure_ascii=False, indent=1)
    (folder / RECORD).write_text(f"{text}\n", encoding="utf-8")


def _check(folder: Path) -> None:
    """Read all files again: GDAL may only warn of a full disk.

    Raises:
        OutputError: One is not as it should be.
    """
    for checked in validate(folder):
        if checked.faults:
            raise OutputError(
                f"{checked.path.name} was not written right: {checked.faults[0].found}",
                "a file that can be read again",
                "make room and run the same command again",
            )


def _write_vectors(
    prescription: Prescription, rectangles: npt.NDArray[np.object_], rate: Floats, folder: Path
) -> None:
    """Write Shapefile, GeoJSON and KML."""
    text = prescription.note
    columns: dict[str, npt.NDArray[Any]] = {"rate": rate}
    geojson = {"RFC7946": "YES", "COORDINATE_PRECISION": "9", "DESCRIPTION": text}
    _write(folder / GEOJSON, rectangles, columns, **geojson)
    names = np.array([f"{value:g} l/ha" for value in rate], dtype=object)
    _write(folder / KML, rectangles, {"Name": names, **columns}, DESCRIPTION=text)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        parts = Path(name)
        _write(parts / "prescription.shp", rectangles, columns)
        (parts / "prescription.txt").write_text(
            f"{text}\nrate: litres per hectare\n", encoding="utf-8"
        )
        _zip(folder / SHAPEFILE, sorted(parts.iterdir()), "")


def _write(
    path: Path,
    polygons: npt.NDArray[np.object_],
    columns: dict[str, npt.NDArray[Any]],
    **layer_options: str,
) -> None:
    """Write polygons in WGS 84 with GDAL, as the suffix says."""
    pyogrio.raw.write(
        str(path),
        shapely.to_wkb(polygons),
        list(columns.values()),
        np.array(list(columns), dtype=object),
        driver={".shp": "ESRI Shapefile", ".geojson": "GeoJSON", ".kml": "LIBKML"}[path.suffix],
        geometry_type="Polygon",
        crs="EPSG:4326",
        encoding="UTF-8",
        layer_options=layer_options,
    )


def _rectangles(prescription: Prescription) -> tuple[npt.NDArray[np.object_], Floats]:
    """Return runs of cells along the heading with one rate: outlines (lon, lat), and rates."""
    weed_map = prescription.weed_map
    order = np.lexsort((weed_map.rows, weed_map.columns))
    row, column = weed_map.rows[order], weed_map.columns[order]
    rate = prescription.rate[order]
    starts = np.r_[True, (np.diff(column) != 0) | (np.diff(row) != 1) | (np.diff(rate) != 0)]
    first = np.flatnonzero(starts)
    last = np.r_[first[1:], len(row)] - 1
    boxes = shapely.box(column[first], row[first], column[first] + 1, row[last] + 1)
    points = shapely.get_coordinates(boxes)
    metres = np.stack(apply_affine(weed_map.grid.affine(), *points.T), axis=1)
    moved = to_lonlat(weed_map.grid.crs, metres)
    return shapely.set_coordinates(boxes, moved), rate[first]


def _zip(path: Path, files: list[Path], folder: str) -> None:
    """Pack files, always the same way.

    Args:
        path: The archive.
        files: What goes in.
        folder: Where in the archive, with a slash at the end; '' is its top.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(f"{folder}{file.name}", _ZIP_DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())
