"""Plan, cut, stitch: photos of any size through a network of one size.

Sizes are (height, width) in px. Where tiles overlap, the tile whose centre is nearest wins, so
``stitch(plan, cut(plan, image))`` gives the image back for every size and overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weedseg.errors import TileError

Array = npt.NDArray[Any]


class Placement(NamedTuple):
    """Where one tile lies and which part of it is kept; px, ends exclusive."""

    top: int
    left: int
    keep_top: int
    keep_bottom: int
    keep_left: int
    keep_right: int


@dataclass(frozen=True)
class TilePlan:
    """All tiles of one photo."""

    size: tuple[int, int]
    tile_px: int
    placements: tuple[Placement, ...]


def plan_tiles(
    size: tuple[int, int],
    tile_px: int,
    overlap_px: int = 0,
    origin: tuple[int, int] = (0, 0),
    grid_px: int = 1,
) -> TilePlan:
    """Cover a photo with square tiles.

    Tiles are spread evenly, so the true overlap is at least `overlap_px`. A photo smaller than a
    tile gets one tile that reaches beyond it.

    Args:
        size: Photo (height, width), px.
        tile_px: Side of a tile, px.
        overlap_px: Smallest overlap of neighbours, px, below half a tile.
        origin: Shift of the first tile, (down, right), px, <= 0; tests use it to see how much a
            prediction depends on where tiles lie.
        grid_px: Tiles begin at multiples of it, px; the last one may reach beyond the photo by
            less than this. A network of stride 32 looks at a pixel in the same phase whatever
            tile it is in when this is 32. Ignored where it would cost the overlap.

    Returns:
        The plan, row by row.

    Raises:
        TileError: The photo is empty, or the overlap leaves no room.
    """
    if min(size) < 1:
        raise TileError(f"photo of {size[1]}x{size[0]} px", "at least 1x1 px", "leave it out")
    if not 0 <= overlap_px < tile_px:
        raise TileError(
            f"overlap of {overlap_px} px", f"0 to {tile_px - 1} px", "lower the overlap"
        )
    grid = grid_px if grid_px <= tile_px - overlap_px else 1
    step = (tile_px - overlap_px) // grid * grid
    rows = _spans(size[0], tile_px, step, origin[0], grid)
    columns = _spans(size[1], tile_px, step, origin[1], grid)
    return TilePlan(
        size,
        tile_px,
        tuple(
            Placement(top, left, keep_top, keep_bottom, keep_left, keep_right)
            for top, keep_top, keep_bottom in rows
            for left, keep_left, keep_right in columns
        ),
    )


def _spans(
    length: int, tile_px: int, step: int, origin: int, grid: int
) -> list[tuple[int, int, int]]:
    """Return (start, keep from, keep to) of the tiles along one axis, at most `step` apart."""
    first = max(min(origin, 0) // grid, -((tile_px - 1) // grid)) * grid  # no tile lies outside
    units = max(-(-(length - tile_px - first) // grid), 0)
    gaps = -(-units * grid // step)
    starts = [first + grid * (i * units // max(gaps, 1)) for i in range(gaps + 1)]
    borders = [0]
    for left, right in itertools.pairwise(starts):
        borders.append(min(max((left + right + tile_px) // 2, 0), length))
    borders.append(length)
    return list(zip(starts, borders, borders[1:]))


def cut(plan: TilePlan, image: Array, number: int) -> Array:
    """Cut one tile out of a photo; what lies outside the photo repeats its edge.

    Args:
        plan: The photo's plan.
        image: (H, W) or (H, W, C).
        number: Which tile.

    Returns:
        (T, T) or (T, T, C), a copy only where the tile reaches beyond the photo.

    Raises:
        TileError: The photo is not of the planned size.
    """
    if image.shape[:2] != plan.size:
        raise TileError(f"photo of {image.shape[:2]} px", f"{plan.size} px", "make a new plan")
    top, left = plan.placements[number][:2]
    bottom, right = top + plan.tile_px, left + plan.tile_px
    height, width = plan.size
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    pad = ((max(-top, 0), max(bottom - height, 0)), (max(-left, 0), max(right - width, 0)))
    if not any(map(any, pad)):
        return inside
    return np.pad(inside, pad + ((0, 0),) * (image.ndim - 2), mode="edge")


class Stitcher:
    """Put tiles together again, each pixel taken from the tile whose centre is nearest."""

    def __init__(
        self, plan: TilePlan, dtype: npt.DTypeLike, channels: tuple[int, ...] = ()
    ) -> None:
        """Reserve room for the result.

        Args:
            plan: The photo's plan.
            dtype: Type of the pixels.
            channels: Trailing dimensions, () for a class map.
        """
        self._plan = plan
        self._result: Array = np.zeros((*plan.size, *channels), dtype)

    def add(self, number: int, tile: Array) -> None:
        """Place one tile, (T, T, ...)."""
        top, left, keep_top, keep_bottom, keep_left, keep_right = self._plan.placements[number]
        self._result[keep_top:keep_bottom, keep_left:keep_right] = tile[
            keep_top - top : keep_bottom - top, keep_left - left : keep_right - left
        ]

    def result(self) -> Array:
        """Return what was stitched, (H, W, ...)."""
        return self._result


def stitch(plan: TilePlan, tiles: Iterable[Array]) -> Array:
    """Stitch all tiles of a plan, in its order, to (H, W, ...).

    Raises:
        TileError: There are no tiles.
    """
    stitcher: Stitcher | None = None
    for number, tile in enumerate(tiles):
        stitcher = stitcher or Stitcher(plan, tile.dtype, tile.shape[2:])
        stitcher.add(number, tile)
    if stitcher is None:
        raise TileError("no tiles", f"{len(plan.placements)} tiles", "cut the photo first")
    return stitcher.result()
