"""Photos of single cells from the mosaic, plain and with crop and weeds coloured."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from PIL import Image as PillowImage
from rasterio.warp import transform as transform_points

from weedseg.classes import ClassTable, Role
from weedseg.data.mosaics import Mosaic, Window
from weedseg.errors import FieldDataError
from weedseg.evaluation.pictures import overlay
from weedseg.imaging import ClassMap, Image, resize_class_map, resize_to, scaled_size
from weedseg.maps.ground import apply_affine

PHOTO_PX = 480
"""Longer side of a photo of a cell."""
_LARGEST_PX = 3000
"""Most of a cell is read up to this side; of larger ones its middle."""
_AROUND, _LARGEST_SCALE = 0.12, 8.0
_GAP_PX, _TINT = 8, 0.7
_LIGHT, _DARK = (255, 255, 255), (25, 25, 25)


class Place(NamedTuple):
    """Where a mosaic and its class map are, and how the classes look."""

    mosaic: Path
    class_map: Path
    classes: ClassTable


def cell_photos(place: Place, outlines: Sequence[Any], crs: str) -> list[bytes]:
    """Cut cells out of the mosaic.

    Args:
        place: The files.
        outlines: The cells, shapely polygons.
        crs: Their CRS.

    Returns:
        One JPEG file per cell: the photo, and beside it the same with crop and weeds coloured and
        weeds outlined; the cell is framed in both.

    Raises:
        FieldDataError: A file is missing or damaged.
    """
    mosaic = Mosaic(place.mosaic, _LARGEST_PX)
    with ExitStack() as open_files:
        try:
            classes = open_files.enter_context(rasterio.open(place.class_map, driver="GTiff"))
            return [
                _photo(mosaic, classes, place.classes, _corners(mosaic, o, crs)) for o in outlines
            ]
        except (rasterio.errors.RasterioError, OSError) as error:
            raise FieldDataError(
                f"{place.class_map} cannot be read", "the class map of this map", "make it again"
            ) from error


def _corners(mosaic: Mosaic, outline: Any, crs: str) -> npt.NDArray[np.float64]:
    """Return the corners of a cell in pixels of the mosaic, (4, 2), x and y."""
    points = shapely.get_coordinates(outline)[:4]
    xs, ys = transform_points(crs, mosaic.crs, points[:, 0], points[:, 1])
    back = ~Affine(*mosaic.transform[:6])
    return np.stack(apply_affine(back, xs, ys), axis=1)


def _photo(
    mosaic: Mosaic, classes: Any, table: ClassTable, corners: npt.NDArray[np.float64]
) -> bytes:
    window = _window(corners, mosaic.size)
    image = mosaic.cut(window)
    if image is None:
        image = np.zeros((window.height, window.width, 3), np.uint8)
    class_map = _class_map(classes, window, mosaic.size)
    scale = min(_LARGEST_SCALE, PHOTO_PX / max(image.shape[:2]))
    size = scaled_size(image.shape[:2], scale)
    frame = np.rint((corners - (window.left, window.top)) * scale).astype(np.int32)
    sides = []
    for side in (image, _coloured(image, class_map, table, scale)):
        small = np.ascontiguousarray(resize_to(side, size))
        cv2.polylines(small, [frame], True, _DARK, 3, cv2.LINE_AA)
        cv2.polylines(small, [frame], True, _LIGHT, 1, cv2.LINE_AA)
        sides.append(small)
    gap = np.full((size[0], _GAP_PX, 3), 255, np.uint8)
    return jpeg(np.concatenate([sides[0], gap, sides[1]], axis=1))


def _coloured(image: Image, class_map: ClassMap, table: ClassTable, scale: float) -> Image:
    """Tint the plants, and outline the weeds for those who cannot tell the colours apart."""
    drawn = np.ascontiguousarray(overlay(image, class_map, table, _TINT))
    weeds = np.isin(class_map, table.ids_of(Role.WEED)).astype(np.uint8)
    contours, _ = cv2.findContours(weeds, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(drawn, contours, -1, _LIGHT, max(1, round(0.8 / scale)))
    return drawn


def _window(corners: npt.NDArray[np.float64], size: tuple[int, int]) -> Window:
    """Return a cell with some ground around it, or its middle if it is very large, px."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    half = np.minimum((high - low) * (0.5 + _AROUND), _LARGEST_PX / 2)
    middle = (low + high) / 2
    first = np.clip(np.floor(middle - half), 0, None).astype(int)
    last = np.ceil(middle + half).astype(int)
    left, top = min(first[0], size[1] - 1), min(first[1], size[0] - 1)
    right, bottom = min(last[0], size[1]), min(last[1], size[0])
    return Window(int(top), int(left), max(1, int(bottom - top)), max(1, int(right - left)))


def _class_map(classes: Any, window: Window, size: tuple[int, int]) -> ClassMap:
    """Read what a window of the mosaic shows; the class map may have another resolution."""
    down, right = classes.height / size[0], classes.width / size[1]
    rows = math.floor(window.top * down), math.ceil((window.top + window.height) * down)
    columns = math.floor(window.left * right), math.ceil((window.left + window.width) * right)
    found = classes.read(1, window=(rows, columns))
    return resize_class_map(found, (window.height, window.width))


def jpeg(image: Image, quality: int = 85) -> bytes:
    """Encode RGB pixels, and nothing else, as a JPEG file."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, format="jpeg", quality=quality)
    return buffer.getvalue()
