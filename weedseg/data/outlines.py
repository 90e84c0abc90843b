"""Polygons of a GeoPackage or GeoJSON file, drawn into windows of a mosaic.

Needs pyogrio, shapely and rasterio. Polygons are kept in pixel coordinates of one mosaic: x to the
right, y down, from its upper left corner.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.features import rasterize
from rasterio.warp import transform as transform_points

from weedseg.data.mosaics import Mosaic, Window
from weedseg.errors import ConfigError, FieldDataError, MaskError
from weedseg.imaging import Mask

OUTLINE_SUFFIXES = (".gpkg", ".geojson", ".json")
COLUMNS = ("class", "label", "species", "name")
"""Attributes that are taken for the class, in this order, if none is named."""

_DRIVERS = {".gpkg": ("GPKG", b"SQLite format 3\0"), ".geojson": ("GeoJSON", b"")}
_DRIVERS[".json"] = _DRIVERS[".geojson"]
_AREAS = frozenset({"Polygon", "MultiPolygon"})
_FAULTS = (
    *(DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError),
    *(shapely.errors.ShapelyError, RasterioError, OSError, ValueError, TypeError),
)


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """What one file draws, in coordinates of its own map."""

    path: Path
    shapes: npt.NDArray[np.object_]
    """Polygons and multipolygons, (n,)."""
    names: Sequence[str]
    """Attribute that names the class, one a shape."""
    crs: str
    """Their map, as PROJ, WKT or authority; '' is unknown."""


def read_outlines(path: Path, column: str) -> Outlines:
    """Read all polygons of a file with one layer of polygons.

    Args:
        path: A ``.gpkg`` or ``.geojson`` file on this machine.
        column: Attribute that names the class; '' looks for one.

    Returns:
        The polygons, in the order of the file.

    Raises:
        FieldDataError: The file cannot be read, or has no polygons or several layers of them.
        MaskError: A row is a point or a line.
        ConfigError: There is no such column.
    """
    driver, head = _DRIVERS[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            if not file.read(len(head)) == head or str(path).startswith("/vsi"):
                raise FieldDataError(f"{path} is no {driver} file", "polygons", "export it again")
        if driver == "GeoJSON":
            _check_geojson(path)
        layer = _layer(path.resolve())
        if pyogrio.read_info(path.resolve(), layer=layer)["driver"] != driver:
            raise FieldDataError(f"{path} is no {driver} file", "polygons", "export it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of attributes that nobody asked for
            about, _, blobs, rows = pyogrio.raw.read(path.resolve(), layer=layer, force_2d=True)
        shapes = shapely.from_wkb(blobs)
    except _FAULTS as error:
        raise FieldDataError(
            f"{path} cannot be read: {' '.join(str(error).split())[:200]}",
            "a GeoPackage or GeoJSON file",
            "export it again",
        ) from error
    fields = dict(zip([str(f) for f in about["fields"]], rows))
    kept = ~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)
    _check(path, shapes[kept])
    names = [_text(v) for v in fields[_column(path, fields, column)][kept].tolist()]
    return Outlines(path=path, shapes=shapes[kept], names=names, crs=str(about["crs"] or ""))


class Drawing:
    """The polygons of a file, laid over one mosaic."""

    def __init__(self, outlines: Outlines, mosaic: Mosaic) -> None:
        """Move the polygons to the pixels of the mosaic.

        Raises:
            FieldDataError: The map of either is unknown, or the polygons cannot be moved.
        """
        if mosaic.crs is None or not outlines.crs:
            lost = outlines.path if mosaic.crs is not None else mosaic.path
            raise FieldDataError(f"{lost} has no CRS", "a CRS", "set it in QGIS and export again")
        back: Affine = ~mosaic.transform

        def to_pixels(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            xs, ys = points[:, 0], points[:, 1]
            if CRS.from_user_input(outlines.crs) != mosaic.crs:
                moved = transform_points(outlines.crs, mosaic.crs, xs, ys)
                xs, ys = (np.asarray(values, np.float64) for values in moved)
            return np.stack(
                [back.a * xs + back.b * ys + back.c, back.d * xs + back.e * ys + back.f], axis=1
            )

        try:
            self._shapes = shapely.transform(outlines.shapes, to_pixels)
            sound = shapely.make_valid(self._shapes)
        except _FAULTS as error:
            raise FieldDataError(
                f"polygons of {outlines.path} cannot be moved to the map of {mosaic.path}: {error}",
                "polygons of the same field",
                "check the CRS of both",
            ) from error
        self._tree = shapely.STRtree(sound)
        self._names = outlines.names
        top_left, bottom_right = (0, 0), (mosaic.size[1], mosaic.size[0])
        self.used = bool(len(self._tree.query(shapely.box(*top_left, *bottom_right), "intersects")))
        """Whether any polygon lies on the mosaic."""

    def inside(self, window: Window) -> list[int]:
        """Return the numbers of the polygons that cover any of a window, in the file's order."""
        top, left, height, width = window
        # Half a pixel smaller: a polygon that only touches the edge covers no pixel's centre.
        box = shapely.box(left + 0.5, top + 0.5, left + width - 0.5, top + height - 0.5)
        found: list[int] = sorted(self._tree.query(box, predicate="intersects").tolist())
        return found

    def draw(self, window: Window, ids: Mapping[str, int]) -> Mask:
        """Draw polygons by the centres of pixels; later ones cover earlier ones.

        Args:
            window: Where.
            ids: Name -> class id or 255.

        Returns:
            uint8 (H, W), 0 where no polygon is.
        """
        shapes = [(self._shapes[i], ids[self._names[i]]) for i in self.inside(window)]
        mask: Mask = np.zeros((window.height, window.width), np.uint8)
        if shapes:
            moved = Affine.translation(window.left, window.top)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                rasterize(shapes, out=mask, transform=moved)
        return mask


def _check_geojson(path: Path) -> None:
    """Check that GDAL will take a file for GeoJSON, and fetch nothing for it.

    Raises:
        FieldDataError: It is no JSON object, or its CRS is a link, which GDAL would follow.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FieldDataError(
            f"{path} cannot be read: it is no JSON", "GeoJSON", "export it again"
        ) from error
    crs = data.get("crs") if isinstance(data, dict) else path
    if crs is not None and not (isinstance(crs, dict) and crs.get("type") == "name"):
        raise FieldDataError(
            f"{path} does not name its CRS", "GeoJSON with a CRS by name or none", "export it again"
        )


def _layer(path: Path) -> str:
    """Return the one layer that may hold polygons.

    Raises:
        FieldDataError: There is none, or more than one.
    """
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) != 1:
        raise FieldDataError(
            f"{path} has {len(layers)} layers", "one layer of polygons", "export that layer alone"
        )
    return layers[0]


def _check(path: Path, shapes: npt.NDArray[np.object_]) -> None:
    """Check that there are polygons only.

    Raises:
        FieldDataError: There is nothing.
        MaskError: Something else is among them, or a corner is nowhere.
    """
    if not len(shapes):
        raise FieldDataError(f"{path} has no polygon", "polygons", "check the layer")
    kinds = {str(shape.geom_type) for shape in shapes}
    if kinds - _AREAS:
        raise MaskError(f"{path} has a {min(kinds - _AREAS)}", "polygons only", "remove it")
    if not np.isfinite(shapely.bounds(shapes)).all():
        raise MaskError(f"{path} has a corner at infinity", "finite corners", "remove it")


def _column(path: Path, fields: Mapping[str, Any], wanted: str) -> str:
    """Choose the attribute that names the class.

    Raises:
        ConfigError: It is not there, or nobody can tell which one it is.
    """
    known = {name.lower(): name for name in fields}
    guesses = [known[name] for name in COLUMNS if name in known]
    if wanted and wanted in fields:
        return wanted
    if not wanted and (guesses or len(fields) == 1):
        return (guesses or list(fields))[0]
    raise ConfigError(
        f"no column '{wanted}' in {path}" if wanted else f"no column for the class in {path}",
        f"one of {', '.join(fields) or 'at least one column'}",
        "name it with --column",
    )


def _text(value: Any) -> str:
    """Write an attribute as a person would: 2, not 2.0; '' is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
