"""Draw outlines and bitmaps into a mask, by the centres of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from weedseg.data.rle import Bitmap
from weedseg.errors import MaskError
from weedseg.imaging import Mask

_MAX_COORDINATE = 1e6
_MAX_CROSSINGS = 20_000_000


def fill_polygon(mask: Mask, points: Any, value: int) -> None:
    """Fill one closed outline; a pixel is inside if its centre is (even-odd rule).

    Args:
        mask: uint8 (H, W), changed.
        points: (n, 2), x and y in px from the upper left corner; parts outside are cut off.
        value: What to write.

    Raises:
        MaskError: It is no outline, or one of absurd size.
    """
    corners = np.asarray(points, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise MaskError("an outline of fewer than 3 points", "3 or more", "delete or redraw it")
    if not np.isfinite(corners).all() or np.abs(corners).max() > _MAX_COORDINATE:
        raise MaskError("an outline far outside the photo", "points in px", "redraw it")
    height, width = mask.shape
    x, y = corners[:, 0], corners[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    top = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, height).astype(np.int64)
    end = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, height).astype(np.int64)
    count = end - top
    if not count.any():
        return
    if int(count.sum()) > _MAX_CROSSINGS:
        raise MaskError(f"an outline of {len(corners)} long edges", "a simpler one", "redraw it")
    edge = np.repeat(np.arange(len(corners)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + top[edge]
    slope = (next_x - x)[edge] / (next_y - y)[edge]
    cross = x[edge] + (row + 0.5 - y[edge]) * slope
    column = np.clip(np.ceil(cross - 0.5), 0, width).astype(np.int64)
    first, left = int(row.min()), int(column.min())
    flips = np.zeros((int(row.max()) - first + 1, int(column.max()) - left + 1), np.int32)
    np.add.at(flips, (row - first, column - left), 1)
    inside = np.cumsum(flips, axis=1)[:, :-1] % 2 == 1
    paste(mask, inside, (first, left), value)


def paste(mask: Mask, bitmap: Bitmap, corner: tuple[int, int], value: int) -> None:
    """Write a value where a small bitmap is True.

    Args:
        mask: uint8 (H, W), changed.
        bitmap: bool (h, w).
        corner: Row and column of its upper left corner.
        value: What to write.

    Raises:
        MaskError: The bitmap reaches beyond the mask.
    """
    top, left = corner
    bottom, right = top + bitmap.shape[0], left + bitmap.shape[1]
    if top < 0 or left < 0 or bottom > mask.shape[0] or right > mask.shape[1]:
        raise MaskError(
            f"a bitmap from column {left}, row {top} to {right}, {bottom}",
            f"one inside {mask.shape[1]}x{mask.shape[0]} px",
            "export the labels again",
        )
    mask[top:bottom, left:right][bitmap] = value
