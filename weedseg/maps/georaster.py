"""Open a mosaic for mapping: check it, say where it lies, and at which scale to look at it.

Sizes are (height, width) in px, windows (top, left, height, width).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as transform_points

from weedseg.data.mosaics import Mosaic, Window
from weedseg.edge.ood import OodReference
from weedseg.errors import GeoreferenceError
from weedseg.imaging import Image, resize_to
from weedseg.maps.ground import Ground

COLOURS = ("red", "green", "blue")
_SQUARE = 1.01
_SLACK = 1.001
_STRAIGHT = 1e-9
_LOOKS, _LOOK_PX = 5, 192
_PLACES, _PLACE_PX, _MOST_PLACE_PX = 4, 480, 4096
_MERCATOR = ("merc", "webmerc", "omerc")


@dataclass(frozen=True, kw_only=True)
class FieldMosaic:
    """A mosaic that passed its checks."""

    path: Path
    ground: Ground
    pixel_m: tuple[float, float]
    """Height and width of a pixel on the ground, in the middle of the mosaic."""
    warnings: tuple[str, ...]
    """What is odd about it, one sentence each."""

    @property
    def stretch(self) -> tuple[float, float]:
        """Factors (down, across) that make its pixels square on the ground, of equal area."""
        down, across = self.pixel_m
        if max(down, across) <= _SQUARE * min(down, across):
            return 1.0, 1.0
        side = math.sqrt(down * across)
        return down / side, across / side


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """At which scale a model looks at a mosaic."""

    factor: float
    """The mosaic is resized by this factor, beyond what the model does with every photo."""
    training_mm: tuple[float, float] | None
    """What the model was trained at, mm per px; None is unknown."""
    warnings: tuple[str, ...]


def open_field(path: Path) -> FieldMosaic:
    """Check a mosaic and find out where it lies; a few small windows of it are looked at.

    Args:
        path: A GeoTIFF file.

    Raises:
        FieldDataError: It is no GeoTIFF, or its bands are no photo.
        GeoreferenceError: It does not say where it lies, is turned, or its bands are in another
            order than red, green, blue.
    """
    mosaic = Mosaic(path, _LOOK_PX)
    notes = list(_check_bands(path))
    crs, transform = _check_place(mosaic)
    metric, said = _metric_crs(mosaic, crs)
    ground = Ground(size=mosaic.size, crs=crs.to_wkt(), transform=transform, metric_crs=metric)
    place = ground.metric_affine(Window(mosaic.size[0] // 2, mosaic.size[1] // 2, 1, 1))
    pixel_m = math.hypot(place.b, place.e), math.hypot(place.a, place.d)
    field = FieldMosaic(path=path, ground=ground, pixel_m=pixel_m, warnings=())
    if field.stretch != (1.0, 1.0):
        down, across = (f"{1e3 * side:.3g}" for side in pixel_m)
        said.append(
            f"its pixels are {across} mm wide and {down} mm high on the ground: they are made "
            "square before the model sees them"
        )
    notes += [*said, *_look(mosaic)]
    return FieldMosaic(path=path, ground=ground, pixel_m=pixel_m, warnings=tuple(notes))


def choose_resolution(
    field: FieldMosaic, training_mm: tuple[float, float] | None, *, resample: bool, as_is: bool
) -> Resolution:
    """Compare the ground resolution with what the model was trained at.

    Args:
        field: The mosaic.
        training_mm: Lowest and highest mm per px in training; None is unknown.
        resample: Resize a mosaic outside the range to the nearest end of the range.
        as_is: Take it as it is.

    Raises:
        GeoreferenceError: It lies outside the range, and neither was asked for.
    """
    found = field.ground.mm_per_px()
    if training_mm is None:
        sentence = (
            f"nobody knows at which ground resolution this model was trained; the mosaic has "
            f"{found:.3g} mm per px: if plants look larger or smaller here than in training, the "
            "map is wrong; state what it was trained at with --mm-per-px LOW HIGH"
        )
        return Resolution(factor=1.0, training_mm=None, warnings=(sentence,))
    low, high = training_mm
    if low / _SLACK <= found <= high * _SLACK:
        return Resolution(factor=1.0, training_mm=training_mm, warnings=())
    wanted = f"{low:.3g} to {high:.3g} mm per px"
    if as_is:
        sentence = (
            f"the mosaic has {found:.3g} mm per px and the model was trained at {wanted}; it was "
            "mapped as it is, so the map may be wrong"
        )
        return Resolution(factor=1.0, training_mm=training_mm, warnings=(sentence,))
    if not resample:
        raise GeoreferenceError(
            f"{field.path} has {found:.3g} mm per px",
            f"{wanted}, at which the model was trained",
            "add --resample to resize it, or --as-is to map it nevertheless",
        )
    target = low if found < low else high
    sentence = f"the mosaic was resized from {found:.3g} to {target:.3g} mm per px" + (
        "; detail that it does not have cannot come back that way" if found > high else ""
    )
    return Resolution(factor=found / target, training_mm=training_mm, warnings=(sentence,))


def unlike_training(path: Path, ood: OodReference, scale: tuple[float, float]) -> list[str]:
    """Say it if places of a mosaic look unlike the photos that a model was trained on.

    Args:
        path: The mosaic.
        ood: What those photos looked like.
        scale: Working size over the mosaic's, (down, across).

    Returns:
        No sentence or one.

    Raises:
        FieldDataError: The mosaic is damaged.
    """
    mosaic = Mosaic(path, _LOOK_PX)
    sides = [min(round(_PLACE_PX / one), _MOST_PLACE_PX) for one in scale]
    scores = []
    for window in _places(mosaic.size, (sides[0], sides[1]), _PLACES):
        image, known = mosaic.read(window)
        if image is not None and known.all():
            size = [max(round(px * one), 1) for px, one in zip(window[2:], scale)]
            scores.append(ood.score(resize_to(image, (size[0], size[1]))))
    strange = sum(score > 1 for score in scores)
    if 2 * strange <= len(scores):
        return []
    sentence = (
        f"{strange} of {len(scores)} places that were looked at are unlike the photos that the "
        "model was trained on, so the map may be wrong: look at it beside the mosaic, or train "
        "with photos of this field"
    )
    return [sentence]


def _check_place(mosaic: Mosaic) -> tuple[CRS, tuple[float, float, float, float, float, float]]:
    """Return CRS and transform.

    Raises:
        GeoreferenceError: One is missing, or the mosaic is turned.
    """
    place = mosaic.transform
    if mosaic.crs is None:
        raise GeoreferenceError(
            f"{mosaic.path} has no CRS",
            "one that says where it lies",
            "assign it: gdal_edit.py "
            "-a_srs EPSG:n FILE, with the EPSG code that the mosaic was exported in",
        )
    if place.is_identity:
        raise GeoreferenceError(
            f"{mosaic.path} has a CRS but no transform from pixels to the ground",
            "a georeferenced mosaic",
            "export it again with georeference (GeoTIFF, or with a world file)",
        )
    step = max(abs(place.a), abs(place.e))
    if max(abs(place.b), abs(place.d)) > _STRAIGHT * step or place.a <= 0 or place.e >= 0:
        raise GeoreferenceError(
            f"{mosaic.path} is turned, sheared or mirrored against its map",
            "rows that run east and columns that run south",
            "turn it north up: gdalwarp IN.tif OUT.tif",
        )
    a, b, c, d, e, f = (float(value) for value in place[:6])
    return mosaic.crs, (a, b, c, d, e, f)


def _metric_crs(mosaic: Mosaic, crs: CRS) -> tuple[str, list[str]]:
    """Return the CRS for areas, and what a person should know about it.

    Raises:
        GeoreferenceError: The CRS is no place on Earth.
    """
    kind = crs.to_dict().get("proj")
    if crs.is_projected and kind not in _MERCATOR and crs.linear_units_factor[1] == 1.0:
        return crs.to_wkt(), []
    middle = mosaic.transform @ (mosaic.size[1] / 2, mosaic.size[0] / 2)
    try:
        (lon, *_), (lat, *_) = transform_points(crs, "EPSG:4326", [middle[0]], [middle[1]])[:2]
    except (CRSError, RasterioError) as error:
        raise GeoreferenceError(
            f"{mosaic.path}: its CRS cannot be understood ({error})",
            "one on Earth",
            "assign the right one: gdal_edit.py -a_srs EPSG:n FILE",
        ) from error
    if not (-180 <= lon <= 180 and -80 <= lat <= 84):
        raise GeoreferenceError(
            f"{mosaic.path} lies at latitude {lat:.4g}, longitude {lon:.4g} by its CRS",
            "a field on Earth",
            "assign the right CRS: gdal_edit.py -a_srs EPSG:n FILE",
        )
    utm = f"EPSG:{(32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1}"
    what = "degrees" if crs.is_geographic else "metres that are none on the ground"
    if crs.is_projected and kind not in _MERCATOR:
        what = f"by the {crs.linear_units}"
    kept = f"its CRS ({crs.to_string()[:40]}) counts {what}: the map keeps it"
    return utm, [f"{kept}, lengths and areas are measured in the local UTM zone, {utm}"]


def _check_bands(path: Path) -> Iterable[str]:
    """Yield what is odd about the bands.

    Raises:
        GeoreferenceError: They are no colours, or by their names in another order.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path.resolve(), driver="GTiff") as file:
            kinds = [kind.name for kind in file.colorinterp]
            names = [(text or "").strip().casefold() for text in file.descriptions]
    plain = [i for i, kind in enumerate(kinds) if kind != "alpha"]
    if len(plain) < 3:
        raise GeoreferenceError(
            f"{path} has no colours, only {len(plain)} band beside alpha",
            "red, green and blue",
            "export the RGB mosaic",
        )
    if all(colour in kinds for colour in COLOURS):
        chosen = [kinds.index(colour) for colour in COLOURS]
    else:
        chosen = plain[:3]
        yield (
            f"its bands do not say which is red, green and blue; bands "
            f"{', '.join(str(i + 1) for i in chosen)} are taken for them"
        )
    said = [names[i] for i in chosen]
    if all(colour in names for colour in COLOURS) and said != list(COLOURS):
        order = " ".join(f"-b {names.index(colour) + 1}" for colour in COLOURS)
        raise GeoreferenceError(
            f"{path}: the bands taken for red, green and blue are named {', '.join(said)}",
            "red, green, blue",
            f"put them in order: gdal_translate {order} -colorinterp red,green,blue IN OUT",
        )
    strange = [name for name in said if name and any(w in name for w in ("nir", "infra", "edge"))]
    strange += [kinds[i] for i in chosen if kinds[i] in ("nir", "rededge", "swir")]
    if strange:
        raise GeoreferenceError(
            f"{path}: a band taken for a colour is {strange[0]}",
            "red, green and blue light",
            "export the RGB mosaic, or pick its bands with gdal_translate -b",
        )


def _look(mosaic: Mosaic) -> Iterable[str]:
    """Yield what a few windows tell about the colours."""
    pixels = _sample(mosaic)
    if not len(pixels):
        return
    red, green, blue = pixels.T.astype(np.float32)
    bright = float(np.percentile(pixels, 99.5))
    if bright < 48:
        deep = "; of its 16 bits only the lower ones are used" if mosaic.deep else ""
        yield (
            f"it is very dark, hardly a pixel above {bright:.0f} of 255{deep}: stretch it to the "
            "full range, or the model sees night"
        )
    reddish = float(np.mean((red > 1.5 * green) & (red > 1.5 * blue)))
    greenish = float(np.mean((green > 1.05 * red) & (green > 1.05 * blue)))
    if reddish > 0.02 and greenish < 0.002:
        yield (
            "nothing in it is green and much is red: if plants are red, its bands are near "
            "infrared, red, green, which the model does not know; export the RGB mosaic"
        )
    if float(np.mean(blue > 1.1 * red)) > 0.7:
        yield (
            "most of it is bluish: red and blue may be swapped; if so, put them in order with "
            "gdal_translate -b 3 -b 2 -b 1"
        )


def _sample(mosaic: Mosaic) -> Image:
    """Return the known pixels of a few windows spread over the mosaic, uint8 (N, 3)."""
    found = []
    for window in _places(mosaic.size, (_LOOK_PX, _LOOK_PX), _LOOKS):
        image, known = mosaic.read(window)
        if image is not None:
            found.append(image[known][::7])
    return np.concatenate(found) if found else np.empty((0, 3), np.uint8)


def _places(size: tuple[int, int], sides: tuple[int, int], num: int) -> list[Window]:
    """Spread num x num windows over a mosaic; those of a small one are cut at its edge."""
    spans = []
    for length, side in zip(size, sides):
        middles = [int(length * (2 * step + 1) / (2 * num)) for step in range(num)]
        starts = [min(max(middle - side // 2, 0), max(length - side, 0)) for middle in middles]
        spans.append([(start, min(side, length - start)) for start in sorted(set(starts))])
    return [
        Window(top, left, height, width) for top, height in spans[0] for left, width in spans[1]
    ]
