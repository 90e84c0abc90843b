"""The boundary of a field: read from a file, and cut out of the class map.

Files are opened by what they begin with and not by their ending alone: GDAL would follow a link
inside a file of another kind to the network.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyogrio
import pyogrio.raw
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError, GeometryError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask
from rasterio.warp import transform as transform_points

from weedseg.data.unpack import Limits, unpack
from weedseg.errors import FieldDataError, OutputError
from weedseg.maps.ground import NO_DATA, Ground, MapPart, apply_affine

BOUNDARY_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".zip", ".kml")

_FAULTS = (
    *(DataSourceError, DataLayerError, FeatureError, FieldError, GeometryError),
    *(shapely.errors.ShapelyError, RasterioError, OSError, ValueError, TypeError, LookupError),
    *(AttributeError, RecursionError),
)
_HEADS = {".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a"}
_KINDS = "a GeoJSON, GeoPackage, Shapefile or KML file"
_NAMES = ("name", "field", "label", "id")
_LON_LAT = "OGC:CRS84"
_URN = re.compile(r"(?:urn:ogc:def:crs:)?(EPSG|OGC):[\d.]*:?(\w+)", re.IGNORECASE)
_LIMITS = Limits(max_bytes=200 << 20, max_files=1000)
_AREAS = ("Polygon", "MultiPolygon")
_SAME_AREA = 1e-3
_EDGE_POINTS = 64
_log = logging.getLogger(__name__)


class _Drawn(NamedTuple):
    """Polygons of one layer."""

    shapes: npt.NDArray[np.object_]
    names: Sequence[str]
    crs: str


def footprint(ground: Ground) -> shapely.Polygon:
    """Return the outline of a mosaic in its metric CRS."""
    height, width = ground.size
    num = 1 if ground.metric_crs == ground.crs else _EDGE_POINTS
    steps = np.linspace(0, 1, num, endpoint=False)[:, None]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    sides = [a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0))]
    columns, rows = np.concatenate(sides).T
    xs, ys = apply_affine(Affine(*ground.transform), columns, rows)
    return shapely.Polygon(list(zip(*ground.to_metric(xs.tolist(), ys.tolist()))))


class FieldCutter:
    """Sets what lies outside the boundary to no data."""

    def __init__(self, ground: Ground, boundary: shapely.Geometry | None) -> None:
        """Prepare the boundary.

        Args:
            ground: The mosaic.
            boundary: Polygons in ``ground.metric_crs``; None keeps everything.
        """
        self._ground, self._boundary = ground, boundary
        shapely.prepare(boundary)

    def cut(self, part: MapPart) -> MapPart:
        """Return a part in which pixels whose centre is outside have no data.

        Args:
            part: Any part; it is not changed.
        """
        if self._boundary is None:
            return part
        height, width = part.window.height, part.window.width
        place = self._ground.metric_affine(part.window)
        corners = [place @ corner for corner in ((0, 0), (width, 0), (width, height), (0, height))]
        box = shapely.Polygon(corners)
        if shapely.covers(self._boundary, box):
            return part
        near = shapely.intersection(self._boundary, box.buffer(2 * abs(place.determinant) ** 0.5))
        outside = np.ones((height, width), np.bool_)
        if near.area > 0:
            back = (~place).to_shapely()
            drawn = shapely.affinity.affine_transform(near, back)
            outside = geometry_mask([drawn], (height, width), Affine.identity())
        class_map = np.where(outside, np.uint8(NO_DATA), part.class_map)
        confidence = np.where(outside, np.uint8(NO_DATA), part.confidence)
        return MapPart(part.window, class_map, confidence)


def read_boundary(path: Path, ground: Ground) -> shapely.Geometry:
    """Read the one field that lies on a mosaic.

    Several parts of one feature are one field; other features are left out if they lie elsewhere.
    A boundary that crosses itself is repaired where that hardly changes its area, with a warning.

    Args:
        path: GeoJSON, GeoPackage, KML or Shapefile, the last also zipped, on this machine.
        ground: The mosaic.

    Returns:
        Polygon or MultiPolygon in ``ground.metric_crs``; it may reach beyond the mosaic.

    Raises:
        FieldDataError: The file cannot be read, has no polygon or no CRS, lies outside the mosaic,
            or has several fields on it.
    """
    try:
        with _plain_file(path) as real, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GDAL's, of what is no polygon
            drawn = list(_layers(real))
        shapes = [shape for layer in drawn for shape in _to_metric(layer, ground, path)]
    except _FAULTS as error:
        raise FieldDataError(
            f"{path} cannot be read: {' '.join(str(error).split())[:200]}",
            _KINDS,
            "export it again",
        ) from error
    names = [name for layer in drawn for name in layer.names]
    if not shapes:
        raise FieldDataError(f"{path} has no polygon", "the outline of the field", "draw it as one")
    sound = [_sound(shape, name, path) for shape, name in zip(shapes, names)]
    return _the_one(sound, names, ground, path)


def _the_one(
    shapes: Sequence[shapely.Geometry], names: Sequence[str], ground: Ground, path: Path
) -> shapely.Geometry:
    """Choose the field that lies on the mosaic.

    Raises:
        FieldDataError: There is none, or more than one.
    """
    mosaic = footprint(ground)
    shared = [shapely.intersection(shape, mosaic).area for shape in shapes]
    found = [number for number, area in enumerate(shared) if area > 0]
    if not found:
        far = min(shapely.distance(shape, mosaic) for shape in shapes)
        raise FieldDataError(
            f"{path} lies {far / 1e3:.1f} km from the mosaic",
            "a boundary on the mosaic",
            "check the CRS of both, and that latitude and longitude are not swapped",
        )
    if len(found) > 1:
        fields = ", ".join(f"{names[i]} ({shared[i] / 1e4:.2f} ha)" for i in found[:5])
        raise FieldDataError(
            f"{path} has {len(found)} fields on the mosaic: {fields}",
            "one field",
            "export the one you want alone, or join them into one feature",
        )
    return shapes[found[0]]


@contextmanager
def _plain_file(path: Path) -> Iterator[Path]:
    """Give the file with the polygons, unpacked if it is zipped.

    Raises:
        FieldDataError: There is no such file, or it is not what its name says.
    """
    suffix = path.suffix.lower()
    if not path.is_file() or str(path).startswith("/vsi"):
        raise FieldDataError(f"{path} is no file", _KINDS, "check the path")
    if suffix not in BOUNDARY_SUFFIXES:
        raise FieldDataError(f"{path} ends in '{suffix}'", _KINDS, "export it as one of them")
    if suffix != ".zip":
        _check_kind(path, suffix)
        yield path.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="weedseg-boundary-") as folder:
        _unpack(path, Path(folder))
        found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() == ".shp")
        if len(found) != 1:
            raise FieldDataError(
                f"{path} holds {len(found)} Shapefiles", "one", "zip the field's one alone"
            )
        _check_kind(found[0], ".shp")
        yield found[0]


def _unpack(path: Path, folder: Path) -> None:
    """Unpack a ZIP file.

    Raises:
        FieldDataError: It is damaged, or holds what is refused.
        OutputError: There is no room.
    """
    try:
        unpack(path, folder, _LIMITS)
    except OutputError as error:
        if getattr(error.__cause__, "errno", None) != errno.EINVAL:
            raise
        raise FieldDataError(f"{path} is damaged", "a whole ZIP file", "zip it again") from error


def _check_kind(path: Path, suffix: str) -> None:
    """Check that GDAL will take a file for what its name says.

    Raises:
        FieldDataError: It is something else.
    """
    if suffix == ".kml":
        data = path.read_bytes()
        root = re.search(rb"<(?:\w+:)?(\w+)[\s>]", data[:4096])
        fits = root is not None and root[1] == b"kml" and b"<OGR" not in data
    else:
        head = _HEADS.get(suffix, b"")
        with path.open("rb") as file:
            fits = file.read(len(head)) == head
    if not fits:
        raise FieldDataError(f"{path} is no {suffix[1:]} file", _KINDS, "export it again")


def _layers(path: Path) -> Iterator[_Drawn]:
    """Yield the polygons of each layer.

    Raises:
        FieldDataError: A layer of polygons has no CRS.
    """
    if path.suffix.lower() in (".geojson", ".json"):
        yield _geojson(path)
        return
    for layer, kind in pyogrio.list_layers(path):
        if kind is None:
            continue
        about, _, blobs, rows = pyogrio.raw.read(path, layer=layer, force_2d=True)
        fields = {str(name).lower(): values for name, values in zip(about["fields"], rows)}
        labels = next((fields[name] for name in _NAMES if name in fields), [""] * len(blobs))
        yield _polygons(path, shapely.from_wkb(blobs), labels, str(about["crs"] or ""))


def _geojson(path: Path) -> _Drawn:
    """Read GeoJSON without GDAL, which would follow a link to a CRS."""
    data = json.loads(path.read_text(encoding="utf-8-sig"))
    features = data["features"] if data["type"] == "FeatureCollection" else [data]
    rows = [f if f["type"] == "Feature" else {"geometry": f} for f in features]
    rows = [row for row in rows if row["geometry"] is not None]
    shapes = shapely.from_geojson([json.dumps(row["geometry"]) for row in rows])
    labels = [_label(row.get("properties") or {}) for row in rows]
    named = (data.get("crs") or {}).get("properties", {}).get("name", _LON_LAT)
    code = _URN.fullmatch(str(named))
    return _polygons(path, shapely.force_2d(shapes), labels, f"{code[1]}:{code[2]}" if code else "")


def _label(properties: Mapping[str, Any]) -> Any:
    lower = {name.lower(): value for name, value in properties.items()}
    return next((lower[name] for name in _NAMES if name in lower), "")


def _polygons(path: Path, shapes: Any, labels: Sequence[Any], crs: str) -> _Drawn:
    """Keep polygons, each with a name.

    Raises:
        FieldDataError: Their CRS is unknown.
    """
    kept = [
        number
        for number, shape in enumerate(shapes)
        if shape is not None and shape.geom_type in _AREAS and np.ptp(shape.bounds[::2]) > 0
    ]
    if kept and not crs:
        raise FieldDataError(
            f"{path} has no CRS that is known",
            "one (the .prj file of a Shapefile)",
            "set it in QGIS and export again",
        )
    names = [str(labels[n]).strip() if labels[n] is not None else "" for n in kept]
    picked = np.array([shapes[n] for n in kept], object)
    return _Drawn(picked, [name or f"number {n + 1}" for n, name in zip(kept, names)], crs)


def _to_metric(drawn: _Drawn, ground: Ground, path: Path) -> Sequence[shapely.Geometry]:
    """Move polygons to the metric CRS of a mosaic.

    Raises:
        FieldDataError: Corners lie nowhere in their CRS.
    """

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        moved = transform_points(drawn.crs, ground.metric_crs, points[:, 0], points[:, 1])
        return np.stack([np.asarray(values, np.float64) for values in moved], axis=1)

    if not len(drawn.shapes):
        return []
    try:
        shapes = shapely.transform(drawn.shapes, move)
        found = np.isfinite(shapely.get_coordinates(shapes)).all()
    except CPLE_BaseError:
        found = False
    if not found:
        raise FieldDataError(
            f"{path} has corners that are nowhere near the mosaic in {drawn.crs[:40]}",
            "coordinates that fit the CRS",
            "check its CRS; GeoJSON without one is in degrees of longitude and latitude",
        )
    moved: Sequence[shapely.Geometry] = shapes.tolist()
    return moved


def _sound(shape: shapely.Geometry, name: str, path: Path) -> shapely.Geometry:
    """Repair a boundary that crosses itself where its area stays the same.

    Raises:
        FieldDataError: Nobody can tell what is inside.
    """
    if shapely.is_valid(shape):
        return shape
    parts = shapely.get_parts(shapely.make_valid(shape))
    repaired = shapely.union_all([part for part in parts if part.geom_type in _AREAS])
    if not abs(repaired.area - shape.area) < _SAME_AREA * repaired.area:
        raise FieldDataError(
            f"the boundary {name} of {path} crosses itself ({shapely.is_valid_reason(shape)})",
            "a simple outline",
            "repair it with 'Fix geometries' in QGIS and look at the result",
        )
    _log.warning("the boundary %s of %s crosses itself a little and was repaired", name, path)
    return repaired
