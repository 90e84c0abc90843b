"""Write and read the weed map as GeoPackage, GeoJSON and CSV.

The three hold the same columns, rounded to six decimals for people. The GeoPackage has a second
table with every number to the last bit, from which `load_weed_map` makes the same map again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pyogrio.raw
import shapely
from pyogrio.errors import CRSError, DataLayerError, DataSourceError, FeatureError, FieldError
from rasterio.errors import RasterioError

from weedseg.errors import FieldDataError
from weedseg.maps.cells import world_cell
from weedseg.maps.ground import apply_affine, to_lonlat
from weedseg.maps.together import written_together
from weedseg.maps.trust import Trust
from weedseg.maps.weed_map import Grid, WeedMap

GEOPACKAGE, GEOJSON, CSV, README = "cells.gpkg", "cells.geojson", "cells.csv", "cells_README.txt"
COLUMNS = {
    "cell_id": "row and column, counted from the origin of the CRS: the same in all flights",
    "weed_pct": "weed cover, per cent of the ground that was seen",
    "weed_m2": "area of weeds, m2",
    "crop_pct": "crop cover, per cent of the ground that was seen",
    "n_patch": "number of weed patches whose centre lies in the cell",
    "patch_m2": "mean area of these patches, m2; 0 without any",
    "conf": "mean confidence of the model, per cent",
    "valid_pct": "ground that was seen inside the field, per cent of the cell",
    "treat": "1 if the cell is to be treated; 0 until a prescription says so",
    "rate": "rate of a prescription; 0 without one",
}
"""Columns of a cell and what they mean."""

_LAYER, _EXACT, _KEY, _SCHEMA = "cells", "weed_map", "weedseg", 1
_ARRAYS = tuple(f.name for f in fields(WeedMap) if f.name not in ("grid", "min_patch_m2"))
_DECIMALS = 6
_FAULTS = (
    *(CRSError, DataLayerError, DataSourceError, FeatureError, FieldError, RasterioError),
    *(OSError, ValueError, TypeError, LookupError, RuntimeError),
)


def cell_table(
    weed_map: WeedMap,
    treat: npt.NDArray[np.bool_] | None = None,
    rate: npt.NDArray[np.float64] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of all cells, (n,) each, as people read them: per cent, six decimals.

    Args:
        weed_map: The map.
        treat: Which cells are treated, (n,); None is none.
        rate: Rate of each cell, (n,); None is 0.
    """
    row, column = world_cell(weed_map.grid)
    ids = zip((weed_map.rows + row).tolist(), (weed_map.columns + column).tolist())
    number = len(weed_map.rows)
    return {
        "cell_id": np.array([f"R{r}C{c}" for r, c in ids], object),
        "weed_pct": _rounded(100 * weed_map.weed_share),
        "weed_m2": _rounded(weed_map.weed_m2),
        "crop_pct": _rounded(100 * weed_map.crop_share),
        "n_patch": weed_map.num_patches.astype(np.int32),
        "patch_m2": _rounded(weed_map.patch_m2),
        "conf": _rounded(100 * weed_map.confidence),
        "valid_pct": _rounded(100 * weed_map.valid_share),
        "treat": np.zeros(number, np.int32) if treat is None else treat.astype(np.int32),
        "rate": np.zeros(number) if rate is None else _rounded(rate),
    }


def save_weed_map(
    weed_map: WeedMap,
    trust: Trust,
    out: Path,
    *,
    treat: npt.NDArray[np.bool_] | None = None,
    rate: npt.NDArray[np.float64] | None = None,
) -> list[Path]:
    """Write ``cells.gpkg``, ``cells.geojson``, ``cells.csv`` and ``cells_README.txt``.

    What is known of the model goes with each: as description of the layer, as ``description`` of
    the collection, and in the text beside the CSV.

    Args:
        weed_map: The map.
        trust: What is known of the model on this crop.
        out: The folder; made if missing. Files of those names are replaced.
        treat: Which cells a prescription treats, (n,).
        rate: Rate of each cell, (n,).

    Returns:
        The files.

    Raises:
        OutputError: The folder cannot be written or the disk is full; then no file is changed.
    """
    names = (GEOPACKAGE, GEOJSON, CSV, README)
    with written_together(out, "the weed map") as made:
        table = cell_table(weed_map, treat, rate)
        _write_geopackage(weed_map, table, trust.note, made / GEOPACKAGE)
        _write_geojson(weed_map, table, trust.note, made / GEOJSON)
        _write_csv(weed_map, table, made / CSV)
        (made / README).write_text(_readme(weed_map, trust.note), encoding="utf-8")
        for name in names:
            os.replace(made / name, out / name)
    return [out / name for name in names]


def load_weed_map(folder: Path) -> WeedMap:
    """Read what `save_weed_map` wrote, to the last bit.

    Args:
        folder: Folder with ``cells.gpkg``.

    Raises:
        FieldDataError: There is no weed map, or it is damaged.
    """
    path = folder / GEOPACKAGE
    hint = "map the field again with 'weedseg map'"
    if not path.is_file():
        raise FieldDataError(f"{folder} holds no {GEOPACKAGE}", "the output of weedseg map", hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GDAL's, of what is damaged
            about = json.loads(_metadata(path)[_KEY])
            if about["schema"] != _SCHEMA:
                raise FieldDataError(f"{path} of schema {about['schema']}", f"{_SCHEMA}", hint)
            info, _, _, columns = pyogrio.raw.read(path.resolve(), layer=_EXACT)
        arrays = _arrays(info["fields"], columns, about["num_cells"])
        grid = about["grid"]
        return WeedMap(
            grid=Grid(**{**grid, "corner": tuple(grid["corner"]), "cell_m": tuple(grid["cell_m"])}),
            min_patch_m2=about["min_patch_m2"],
            **arrays,
        )
    except _FAULTS as error:
        reason = " ".join(str(error).split())[:200]
        raise FieldDataError(f"{path} is damaged: {reason}", "a whole weed map", hint) from error


def _arrays(
    names: Sequence[str], columns: Sequence[npt.NDArray[Any]], number: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a map.

    Raises:
        ValueError: One is not of this length.
        LookupError: One is missing.
        TypeError: One holds something else.
    """
    found = dict(zip((str(name) for name in names), columns))
    if any(len(found[name]) != number for name in _ARRAYS):
        raise ValueError("cells are missing")
    counts = ("rows", "columns", "num_patches")
    kinds = {name: np.int64 if name in counts else np.float64 for name in _ARRAYS}
    return {name: found[name].astype(kind, casting="safe") for name, kind in kinds.items()}


def _metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of the layer of cells.

    Raises:
        ValueError: There is none.
    """
    metadata = pyogrio.read_info(path.resolve(), layer=_LAYER)["layer_metadata"]
    if not metadata:
        raise ValueError("it has no metadata of weedseg")
    found: Mapping[str, str] = metadata
    return found


def _write_geopackage(
    weed_map: WeedMap, table: Mapping[str, npt.NDArray[Any]], note: str, path: Path
) -> None:
    """Write the cells, and a table of the same cells without rounding."""
    about = {
        "schema": _SCHEMA,
        "grid": asdict(weed_map.grid),
        "min_patch_m2": weed_map.min_patch_m2,
        "num_cells": len(weed_map.rows),
    }
    _write(
        path,
        (table, shapely.to_wkb(weed_map.polygons())),
        layer=_LAYER,
        driver="GPKG",
        crs=weed_map.grid.crs,
        layer_metadata={"note": note, _KEY: json.dumps(about)},
        layer_options={"DESCRIPTION": note},
    )
    exact = {name: getattr(weed_map, name) for name in _ARRAYS}
    _write(path, (exact, None), layer=_EXACT, driver="GPKG", layer_options={"DESCRIPTION": note})


def _write_geojson(
    weed_map: WeedMap, table: Mapping[str, npt.NDArray[Any]], note: str, path: Path
) -> None:
    """Write RFC 7946: longitude and latitude, outlines counter-clockwise."""
    corners = to_lonlat(weed_map.grid.crs, shapely.get_coordinates(weed_map.polygons()))
    outlines = shapely.polygons(corners.reshape(-1, 5, 2))
    _write(
        path,
        (table, shapely.to_wkb(outlines)),
        layer=_LAYER,
        driver="GeoJSON",
        crs="EPSG:4326",
        layer_options={"RFC7946": "YES", "COORDINATE_PRECISION": "9", "DESCRIPTION": note},
    )


def _write(
    path: Path, content: tuple[Mapping[str, npt.NDArray[Any]], Any], *, layer: str, **options: Any
) -> None:
    """Write a layer with GDAL and count what arrived: GDAL may only warn of a full disk.

    Raises:
        OSError: Something is missing.
    """
    table, outlines = content
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pyogrio.raw.write(
            path,
            geometry=outlines,
            field_data=list(table.values()),
            fields=np.array(list(table), object),
            layer=layer,
            geometry_type=None if outlines is None else "Polygon",
            **options,
        )
        info = pyogrio.read_info(path, layer=layer, force_feature_count=True)
    if info["features"] != len(next(iter(table.values()))):
        reason = said[-1].message if said else "unknown"
        raise OSError(f"{path.name} misses cells: {reason}")


def _write_csv(weed_map: WeedMap, table: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Write the columns and the centre of each cell in longitude and latitude."""
    xs, ys = apply_affine(weed_map.grid.affine(), weed_map.columns + 0.5, weed_map.rows + 0.5)
    centres = to_lonlat(weed_map.grid.crs, np.stack([xs, ys], axis=1))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table, "lon", "lat"])
    columns: Sequence[Sequence[Any]] = [values.tolist() for values in table.values()]
    writer.writerows(zip(*columns, *np.round(centres, 9).T.tolist()))
    path.write_text(text.getvalue(), encoding="utf-8", newline="")


def _readme(weed_map: WeedMap, note: str) -> str:
    """Return the text that goes with the files."""
    grid = weed_map.grid
    along, across = grid.cell_m
    crs = grid.crs if len(grid.crs) < 40 else "the mosaic's CRS"
    lines = [
        f"The model is {note}.",
        "",
        f"Cells of {along:g} m along the heading, {across:g} m across it.",
        f"Heading: {grid.heading_deg:g} degrees from grid north.",
        f"Weed patches of {weed_map.min_patch_m2:g} m2 or more are counted.",
        f"{GEOPACKAGE} is in {crs}; {GEOJSON} and {CSV} are in longitude and latitude, WGS 84;",
        f"lon and lat in {CSV} are the centre of the cell.",
        "",
        *(f"{name:<10} {meaning}" for name, meaning in COLUMNS.items()),
    ]
    return "\n".join(lines) + "\n"


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.round(values, _DECIMALS)
