"""On which images a model file is judged: every size that the tiler meets, where weeds are.

A photo is taken as it is, as an odd non-square cut, as a cut smaller than a tile, repeated to a few
tiles and repeated to 12 megapixels. Every check of an export takes its images from here.

Shapes: H W px of a photo.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weedseg.classes import ClassTable, Role
from weedseg.imaging import ClassMap, Image

BATCHES = (1, 2, 5)
"""Tiles per run that every check takes in turns."""
MIN_WEED_SHARE = 0.01
"""A photo counts as one with weeds from this share of predicted weed on, 0-1."""
BIG = (3000, 4000)
"""(height, width) of the largest image, px: 12 megapixels."""
MAX_BIG_TILES = (6, 8)
"""The largest image has at most about so many tiles (down, across)."""
FEW_TILES = 2.2
"""So many tiles down and across, with overlap more than the largest of `BATCHES`."""

NUM_CUTS = 3
"""So many of `images_of` are taken of every photo, the others of the first one only."""
Window = tuple[slice, slice]


def weed_share(class_map: ClassMap, classes: ClassTable) -> float:
    """Return the share of pixels with a weed class, 0-1."""
    return float(_is_weed(class_map, classes).mean())


def images_of(photo: Image, class_map: ClassMap, classes: ClassTable, side: int) -> list[Image]:
    """Return the photo, an odd cut, a small cut, it repeated to a few tiles and to 12 megapixels.

    Args:
        photo: uint8 (H, W, 3).
        class_map: What is predicted there, uint8 (H, W).
        classes: The classes.
        side: Of a tile, px of the photo.
    """
    windows = _odd_and_small(class_map, classes, side)
    cuts = [np.ascontiguousarray(photo[window]) for window in windows]
    few = (int(FEW_TILES * side), int(FEW_TILES * side))
    big = (min(BIG[0], MAX_BIG_TILES[0] * side), min(BIG[1], MAX_BIG_TILES[1] * side))
    return [photo, *cuts, _repeat(photo, few), _repeat(photo, big)]


def _odd_and_small(class_map: ClassMap, classes: ClassTable, side: int) -> list[Window]:
    """Return an odd non-square window, and one smaller than a tile, as near the weeds as fits."""
    height, width = class_map.shape
    odd = (max(1, height * 2 // 3) | 1, max(1, width * 4 // 5) | 1)
    small = (max(1, int(side * 0.55)) | 1, max(1, int(side * 0.7)) | 1)
    return [_window_at_weed(class_map, classes, size) for size in (odd, small)]


def _window_at_weed(class_map: ClassMap, classes: ClassTable, size: tuple[int, int]) -> Window:
    """Return a window of (height, width) as near to the middle of the weeds as fits."""
    window = []
    for axis, places in enumerate(np.nonzero(_is_weed(class_map, classes))):
        length = class_map.shape[axis]
        middle = int(np.median(places)) if places.size else length // 2
        start = max(0, min(middle - size[axis] // 2, length - size[axis]))
        window.append(slice(start, start + size[axis]))
    return window[0], window[1]


def cut_at_weed(
    photo: Image, class_map: ClassMap, classes: ClassTable, size: tuple[int, int]
) -> Image:
    """Cut a part out of a photo, as near to the middle of its weeds as fits.

    Args:
        photo: uint8 (H, W, 3).
        class_map: uint8 (H, W).
        classes: The classes.
        size: (height, width) of the cut, px; smaller where the photo is.

    Returns:
        uint8 (<= height, <= width, 3), contiguous.
    """
    return np.ascontiguousarray(photo[_window_at_weed(class_map, classes, size)])


def side_in_photo(tile_px: int, scale: float) -> int:
    """Return the side of a tile in px of the photo, >= 1."""
    return max(1, round(tile_px / scale))


def _repeat(photo: Image, size: tuple[int, int]) -> Image:
    """Repeat a photo to a size, (height, width)."""
    down, across = (-(-wanted // length) for wanted, length in zip(size, photo.shape[:2]))
    return np.ascontiguousarray(np.tile(photo, (down, across, 1))[: size[0], : size[1]])


def _is_weed(class_map: ClassMap, classes: ClassTable) -> npt.NDArray[np.bool_]:
    """Tell where a class map says weed, (H, W)."""
    return np.isin(class_map, classes.ids_of(Role.WEED))
