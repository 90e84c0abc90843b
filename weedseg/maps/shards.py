"""Cut the work on a mosaic into shards: each a pure function of mosaic, plan, number and model.

A shard is a rectangle of n x n tiles. Tiles of neighbouring shards overlap like those within one,
so the map of the whole has no seams of another kind, and nothing but the overlap is done twice.

Sizes are (height, width) in px, windows (top, left, height, width), both of the mosaic unless they
are called working.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weedseg.data.mosaics import Mosaic, Window
from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.segmenter import GRID_PX, RunTiles, segment_scaled
from weedseg.errors import FieldDataError, ModelFileError
from weedseg.imaging import resize_class_map, resize_to
from weedseg.maps.ground import NO_DATA, MapPart
from weedseg.tiles import plan_tiles

OVERLAP_SHARE = 5 / 16
"""Least overlap of the tiles of a map, of their side. A network answers differently near a tile's
border, 512 px tiles up to 96 px from it, and a map should not depend on where the tiles lie."""
TILES = 4
"""Tiles along a side of a shard: memory of a worker is that of 16 tiles and the window below."""
_MOST_WINDOW_PX = 4096
_MAGIC = b"weedseg map part 1\n"
_HEAD = struct.Struct("<2I3Q")
_DIGEST_BYTES = 32


class Shard(NamedTuple):
    """One piece of work."""

    window: Window
    """What is read: the core and a margin that its neighbours cover too."""
    core: Window
    """What is kept; the cores of all shards cover the mosaic once."""
    working: tuple[int, int]
    """The window is resized to this."""


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """All shards of a mosaic, row by row."""

    size: tuple[int, int]
    scale: tuple[float, float]
    """Working size over the mosaic's, (down, across)."""
    tile_px: int
    """Working px, as are the next two."""
    overlap_px: int
    step_px: int
    """From one shard to the next."""
    origin: tuple[int, int] = (0, 0)
    """Where the first shard begins, <= 0."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of shards (down, across)."""
        down, across = (len(self._axis(axis)) for axis in (0, 1))
        return down, across

    @property
    def num_shards(self) -> int:
        """Number of all shards."""
        return self.shape[0] * self.shape[1]

    def shard(self, number: int) -> Shard:
        """Return one shard.

        Args:
            number: 0 <= number < `num_shards`.
        """
        row, column = divmod(number, self.shape[1])
        down, across = self._axis(0)[row], self._axis(1)[column]
        return Shard(
            window=Window(down[0], across[0], down[1] - down[0], across[1] - across[0]),
            core=Window(down[2], across[2], down[3] - down[2], across[3] - across[2]),
            working=(down[4], across[4]),
        )

    def num_tiles(self) -> int:
        """Count the tiles of all shards; less are run where the mosaic shows nothing."""
        sides = [
            [
                len(
                    plan_tiles(
                        (span[4], self.tile_px), self.tile_px, self.overlap_px, (0, 0), GRID_PX
                    ).placements
                )
                for span in self._axis(axis)
            ]
            for axis in (0, 1)
        ]
        return sum(sides[0]) * sum(sides[1])

    def _axis(self, axis: int) -> list[tuple[int, int, int, int, int]]:
        """Return window and core (start, stop) and working length of the shards along an axis."""
        length, scale, origin = self.size[axis], self.scale[axis], self.origin[axis]
        step, most = round(self.step_px / scale), self.step_px + self.overlap_px
        reach, margin = round(most / scale), round(self.overlap_px / 2 / scale)
        smallest = round(self.tile_px / scale)
        spans = []
        core = 0
        for start in range(origin, length, step):
            stop = min(start + reach, length)
            end = length if stop == length else start + step + margin
            if end <= core:
                continue
            first = max(min(start, length - smallest), 0)
            whole = stop - first == reach
            working = most if whole else max(round((stop - first) * scale), 1)
            spans.append((first, stop, core, end, working))
            core = end
            if end == length:
                break
        return spans


def plan_shards(
    size: tuple[int, int],
    metadata: ModelMetadata,
    scale: tuple[float, float] | None = None,
    tiles: int = TILES,
    origin: tuple[int, int] = (0, 0),
) -> ShardPlan:
    """Cut a mosaic into shards.

    Args:
        size: Of the mosaic.
        metadata: Tile size, overlap (at least `OVERLAP_SHARE` is taken) and scale.
        scale: Working size over the mosaic's, (down, across); the model's own by default.
        tiles: Most tiles along a side of a shard, >= 1; less where the mosaic is much finer than
            what the model looks at, so that a window stays small.
        origin: Shift of all shards, (down, right), px, <= 0; only measurements need it. It is
            rounded to the network's grid, as `weedseg.tiles.plan_tiles` does.
    """
    overlap = max(metadata.overlap_px, round(OVERLAP_SHARE * metadata.tile_px))
    room = metadata.tile_px - overlap
    step = room // GRID_PX * GRID_PX if room >= GRID_PX else room
    scale = scale or (metadata.scale, metadata.scale)
    fitting = (_MOST_WINDOW_PX * min(scale) - (metadata.tile_px - step)) / step
    tiles = max(1, min(tiles, int(fitting)))
    return ShardPlan(
        size=size,
        scale=scale,
        tile_px=metadata.tile_px,
        overlap_px=metadata.tile_px - step,
        step_px=tiles * step,
        origin=(_to_grid(origin[0], scale[0]), _to_grid(origin[1], scale[1])),
    )


def _to_grid(origin: int, scale: float) -> int:
    """Round a shift to a whole number of steps of the network's grid."""
    return min(round(round(origin * scale / GRID_PX) * GRID_PX / scale), 0)


def segment_shard(
    mosaic: Mosaic, plan: ShardPlan, number: int, metadata: ModelMetadata, run_tiles: RunTiles
) -> bytes:
    """Segment one shard.

    Args:
        mosaic: The mosaic, open in this thread.
        plan: All shards.
        number: Which one.
        metadata: Of the model.
        run_tiles: The network.

    Returns:
        What `read_part` reads; equal bytes on every machine of a kind.

    Raises:
        FieldDataError: The mosaic is damaged.
        ModelFileError: The network gives ids that the class table does not have.
        RuntimeUnavailableError: ONNX Runtime fails.
    """
    shard = plan.shard(number)
    image, known = mosaic.read(shard.window)
    inside = _cut_core(known, shard)
    if image is None or not inside.any():
        return _pack((0, 0), (b"", b"", b""))
    scaled = resize_to(image, shard.working)
    del image
    metadata = replace(metadata, overlap_px=plan.overlap_px)
    class_map, confidence = segment_scaled(scaled, metadata, _Sparing(run_tiles), 1)
    highest = int(class_map.max())
    if highest >= len(metadata.classes):
        raise ModelFileError(
            f"class id {highest} in the class map",
            f"0 to {len(metadata.classes) - 1}",
            "export the model again",
        )
    bits = b"" if inside.all() else zlib.compress(np.packbits(inside).tobytes(), 1)
    # Confidence is noisy: packing it costs 3 % of the run and saves little.
    blocks = (zlib.compress(class_map.tobytes(), 1), confidence.tobytes(), bits)
    return _pack((class_map.shape[0], class_map.shape[1]), blocks)


def read_part(plan: ShardPlan, number: int, data: bytes) -> MapPart:
    """Turn the bytes of a shard into its part of the map.

    Args:
        plan: All shards.
        number: Which one.
        data: What `segment_shard` gave.

    Raises:
        FieldDataError: They are damaged or of another shard.
    """
    shard = plan.shard(number)
    core = shard.core
    if not is_whole(data):
        raise FieldDataError(f"part {number} is damaged", "a whole one", "run the map again")
    blocks = data[len(_MAGIC) + _DIGEST_BYTES :]
    height, width, first, second, third = _HEAD.unpack_from(blocks)
    if not height:
        empty = np.full((core.height, core.width), NO_DATA, np.uint8)
        return MapPart(core, empty, empty.copy())
    if (height, width) != shard.working:
        raise FieldDataError(
            f"part {number} of {width}x{height} px", f"{shard.working}", "delete the output folder"
        )
    at = _HEAD.size
    ids = zlib.decompress(blocks[at : at + first])
    sure = blocks[at + first : at + first + second]
    planes = [
        _cut_core(
            resize_class_map(
                np.frombuffer(plane, np.uint8).reshape(height, width),
                (shard.window.height, shard.window.width),
            ),
            shard,
        )
        for plane in (ids, sure)
    ]
    if third:
        bits = np.frombuffer(zlib.decompress(blocks[at + first + second :]), np.uint8)
        known = np.unpackbits(bits, count=core.height * core.width).reshape(core.height, -1)
        planes = [np.where(known, plane, np.uint8(NO_DATA)) for plane in planes]
    return MapPart(core, *(np.ascontiguousarray(plane) for plane in planes))


def is_whole(data: bytes) -> bool:
    """Tell whether the bytes of a part are complete and unchanged."""
    start = len(_MAGIC) + _DIGEST_BYTES
    if len(data) < start + _HEAD.size or not data.startswith(_MAGIC):
        return False
    return hashlib.sha256(memoryview(data)[start:]).digest() == data[len(_MAGIC) : start]


class _Sparing:
    """Runs the network only on tiles that show something."""

    def __init__(self, run_tiles: RunTiles) -> None:
        self._run_tiles = run_tiles
        self.takes_bytes: bool = getattr(run_tiles, "takes_bytes", False)

    def __call__(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if images.any():
            return self._run_tiles(images)
        side = images.shape[2]
        nothing = np.zeros((len(images), side, side), np.uint8)
        return nothing, nothing


def _cut_core(array: npt.NDArray[Any], shard: Shard) -> npt.NDArray[Any]:
    """Cut the core out of an array over the window."""
    top, left = shard.core.top - shard.window.top, shard.core.left - shard.window.left
    return array[top : top + shard.core.height, left : left + shard.core.width]


def _pack(size: tuple[int, int], blocks: tuple[bytes, bytes, bytes]) -> bytes:
    payload = _HEAD.pack(*size, *(len(block) for block in blocks)) + b"".join(blocks)
    return _MAGIC + hashlib.sha256(payload).digest() + payload
