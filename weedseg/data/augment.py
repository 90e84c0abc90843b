"""Paired augmentation: one geometry for photo and mask, one cheap colour change for photos.

Everything is decided by the generator that is handed in, so a step can be drawn again exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.imaging import Image, resize_class_map, resize_to

_GREY = np.array([0.299, 0.587, 0.114], np.float64)
_HUE_TURN = 0.1
"""Largest turn of the hue at strength 1, share of a full circle."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A square part of a photo that becomes one tile; px of the photo, perhaps reaching beyond it.

    The square is enlarged to the tile, then mirrored left-right, then top-bottom, then turned
    `rot90` quarter turns against the clock.
    """

    top: int
    left: int
    side: int
    flip_h: bool = False
    flip_v: bool = False
    rot90: int = 0

    def centres(self, num: int) -> npt.NDArray[np.float32]:
        """Say where the cells of the finished tile lie in the photo.

        Args:
            num: Cells a side.

        Returns:
            float32 (num, num, 2): row and column of each cell's centre, px of the photo.
        """
        steps = (np.arange(num, dtype=np.float32) + 0.5) * np.float32(self.side / num)
        grid = np.stack(np.meshgrid(steps + self.top, steps + self.left, indexing="ij"), axis=2)
        return self.turn(grid)

    def turn(self, tile: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Mirror and turn a square array (T, T, ...) as the cut asks."""
        if self.flip_h:
            tile = tile[:, ::-1]
        if self.flip_v:
            tile = tile[::-1]
        return np.ascontiguousarray(np.rot90(tile, self.rot90))


def draw_cut(
    rng: np.random.Generator,
    size: tuple[int, int],
    tile_px: int,
    min_cut_share: float,
    centre: tuple[int, int] | None = None,
) -> Cut:
    """Draw a cut: its area is uniform between `min_cut_share` and 1 of a tile's.

    Cuts are never larger than a tile, so nothing is lost by shrinking; they stay inside the photo
    where it is large enough.

    Args:
        rng: Decides everything; the number of values drawn is always the same.
        size: Photo (height, width), px.
        tile_px: Side of a tile, px.
        min_cut_share: Smallest area, share of the tile's, 0-1; 1 never resizes.
        centre: A (row, column) of the photo that must lie in the middle half of the cut, but for
            the photo's border.

    Returns:
        The cut.
    """
    area, down, right = rng.random(3)
    flips = rng.integers(0, 2, 2)
    turns = int(rng.integers(0, 4))
    smallest = max(1, round(tile_px * math.sqrt(min_cut_share)))
    side = round(tile_px * math.sqrt(min_cut_share + (1 - min_cut_share) * float(area)))
    side = max(smallest, min(side, *size))
    rows, columns = centre if centre is not None else (None, None)
    return Cut(
        top=_start(size[0], side, float(down), rows),
        left=_start(size[1], side, float(right), columns),
        side=side,
        flip_h=bool(flips[0]),
        flip_v=bool(flips[1]),
        rot90=turns,
    )


def _start(length: int, side: int, share: float, centre: int | None) -> int:
    """Place a span of `side` on a line of `length`; one that is too long is centred."""
    room = length - side
    if room < 0:
        return room // 2
    if centre is None:
        return min(room, int(share * (room + 1)))
    return min(room, max(0, centre - round(side * (0.25 + 0.5 * share))))


def take_cut(
    image: npt.NDArray[np.uint8], cut: Cut, tile_px: int, nearest: bool = False
) -> npt.NDArray[np.uint8]:
    """Take a cut out of a photo or mask; what lies beyond the photo is its mirror image.

    Args:
        image: uint8 (H, W, 3), or a mask (H, W).
        cut: Where.
        tile_px: Side of the tile, px.
        nearest: Resize by the nearest pixel, for masks.

    Returns:
        uint8 (T, T, 3) or (T, T), own memory.
    """
    height, width = image.shape[:2]
    bottom, right = cut.top + cut.side, cut.left + cut.side
    part = image[max(0, cut.top) : bottom, max(0, cut.left) : right]
    beyond = (-cut.top, bottom - height, -cut.left, right - width)
    if max(beyond) > 0:
        up, down, before, after = (max(0, b) for b in beyond)
        kind = cv2.BORDER_REFLECT_101
        part = np.asarray(cv2.copyMakeBorder(part, up, down, before, after, kind), np.uint8)
    square = (tile_px, tile_px)
    tile = cut.turn(resize_class_map(part, square) if nearest else resize_to(part, square))
    return tile.copy() if np.shares_memory(tile, image) else tile


@dataclass(frozen=True, kw_only=True)
class ColourJitter:
    """A colour change: matrix times RGB plus bias, clipped to 0-1."""

    matrix: npt.NDArray[np.float32]
    """(3, 3)."""
    bias: npt.NDArray[np.float32]
    """(3,)."""

    def apply(self, image: Image | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Change the colours of an image.

        Args:
            image: (H, W, 3) RGB, uint8, or float32 in 0-1.

        Returns:
            float32 (H, W, 3), 0-1.
        """
        factor = 1 / 255 if image.dtype == np.uint8 else 1.0
        table = np.hstack([self.matrix * np.float32(factor), self.bias[:, None]])
        values = cv2.transform(image.astype(np.float32), table)
        return np.asarray(np.clip(values, 0, 1, out=values), np.float32)


def jitter(rng: np.random.Generator, strength: float) -> ColourJitter:
    """Draw a change of brightness, contrast, saturation and, a little, hue.

    Args:
        rng: Decides everything; four values are drawn.
        strength: 0-1; brightness, contrast and saturation change by up to this share, the hue by
            up to a tenth of it of the colour circle. 0 changes nothing.

    Returns:
        The change, as one matrix and bias.
    """
    draws = rng.uniform(-1, 1, 4) * strength
    brightness, contrast, saturation = 1 + draws[:3]
    grey = np.tile(_GREY, (3, 1))
    colour = saturation * np.eye(3) + (1 - saturation) * grey
    matrix = contrast * brightness * colour @ _hue(float(draws[3]) * _HUE_TURN * 2 * math.pi)
    bias = np.full(3, 0.5 * (1 - contrast))
    return ColourJitter(matrix=matrix.astype(np.float32), bias=bias.astype(np.float32))


def _hue(angle: float) -> npt.NDArray[np.float64]:
    """Return the rotation of RGB about the grey axis (Rodrigues' formula)."""
    third = math.sqrt(1 / 3)
    cross = third * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.float64)
    turned = math.cos(angle) * np.eye(3) + math.sin(angle) * cross
    return np.asarray(turned + (1 - math.cos(angle)) / 3 * np.ones((3, 3)))
