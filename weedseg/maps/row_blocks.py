"""The parts of a class map, gathered into square blocks of coarse cells.

A cell holds how many of its pixels are crop, weed and valid. Blocks that are full wait in a
temporary file, packed, so memory holds only those that the parts are still filling: a strip of
blocks across the mosaic.
"""

from __future__ import annotations

import tempfile
import weakref
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.classes import ClassTable, Role
from weedseg.data.mosaics import Window
from weedseg.errors import OutputError
from weedseg.imaging import ClassMap
from weedseg.maps.ground import NO_DATA, Ground, MapPart

CELL_MM, BLOCK_M = 20.0, 8.0
"""Sides that cells and blocks have, as nearly as whole pixels and whole blocks allow."""
_MAX_CELL_PX = 255
_ROLES = (Role.CROP, Role.WEED)


class Block(NamedTuple):
    """A rectangle of cells, with the pixels of each."""

    window: Window
    """Where, in pixels of the mosaic; whole cells, so that it may reach beyond the mosaic."""
    crop: npt.NDArray[np.uint16]
    """(H, W)."""
    weed: npt.NDArray[np.uint16]
    valid: npt.NDArray[np.uint16]


class RowBlocks:
    """All blocks of a mosaic."""

    def __init__(self, ground: Ground, classes: ClassTable) -> None:
        """Start without a part.

        Args:
            ground: Of the mosaic.
            classes: The classes of its class map.
        """
        millimetres = ground.mm_per_px()
        self.cell_px = min(max(round(CELL_MM / millimetres), 1), _MAX_CELL_PX)
        across = 1e3 * BLOCK_M / (self.cell_px * millimetres)
        self._size = ground.size
        num_cells = [-(-n // self.cell_px) for n in ground.size]
        nums = [max(1, round(n / across)) for n in num_cells]
        self._edges = [
            np.linspace(0, n, k + 1).round().astype(int) for n, k in zip(num_cells, nums)
        ]
        self.side = max(int(np.diff(e).max()) for e in self._edges)
        """Longest side of a block, cells."""
        self._tables = [_table(classes.ids_of(role)) for role in _ROLES]
        self._tables.append(_table(tuple(range(NO_DATA))))
        self._open: dict[tuple[int, int], npt.NDArray[np.uint16]] = {}
        self._missing_px: dict[tuple[int, int], int] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._close = weakref.finalize(self, self._file.close)
        self._places: list[tuple[tuple[int, int], int]] = []

    def add(self, part: MapPart) -> list[Block]:
        """Add a part of the class map; the blocks that it completes are stored and returned.

        Raises:
            OutputError: The disk for temporary files is full.
        """
        counts = self._count(part.class_map, part.window)
        top, left = part.window.top // self.cell_px, part.window.left // self.cell_px
        done = []
        for key in self._touched((top, left), counts.shape[1:]):
            window = self._window(key)
            low, first = window.top // self.cell_px, window.left // self.cell_px
            shape = (3, window.height // self.cell_px, window.width // self.cell_px)
            if key not in self._open:
                self._open[key] = np.zeros(shape, np.uint16)
                self._missing_px[key] = _overlap(window, Window(0, 0, *self._size))
            rows, columns = max(low, top), max(first, left)
            seen = counts[:, rows - top :, columns - left :]
            seen = seen[:, : low + shape[1] - rows, : first + shape[2] - columns]
            place = self._open[key][:, rows - low :, columns - first :]
            place[:, : seen.shape[1], : seen.shape[2]] += seen
            self._missing_px[key] -= _overlap(window, part.window)
            if not self._missing_px[key]:
                done.append(self._store(key))
        return done

    def rest(self) -> list[Block]:
        """Store and return the blocks that no part has completed.

        Raises:
            OutputError: The disk for temporary files is full.
        """
        return [self._store(key) for key in sorted(self._open)]

    def stored(self) -> Iterator[Block]:
        """Yield every stored block again."""
        place = 0
        for key, length in self._places:
            self._file.seek(place)
            data = np.frombuffer(zlib.decompress(self._file.read(length)), np.uint16)
            place += length
            window = self._window(key)
            shape = (3, window.height // self.cell_px, window.width // self.cell_px)
            yield Block(window, *data.reshape(shape))

    def close(self) -> None:
        """Remove the temporary file."""
        self._close()

    def _count(self, class_map: ClassMap, window: Window) -> npt.NDArray[np.uint16]:
        """Count the crop, weed and valid pixels of the cells that a part touches, (3, H, W)."""
        side = self.cell_px
        top, left = window.top % side, window.left % side
        bottom, right = (-(top + window.height)) % side, (-(left + window.width)) % side
        whole = cv2.copyMakeBorder(
            class_map, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(NO_DATA,)
        )
        height, width = whole.shape
        counts = np.empty((3, height // side, width // side), np.uint16)
        for number, table in enumerate(self._tables):
            chosen = cv2.LUT(whole, table).reshape(height // side, side, width)
            columns = chosen.sum(axis=1, dtype=np.uint8)
            columns.reshape(height // side, width // side, side).sum(
                axis=2, dtype=np.uint16, out=counts[number]
            )
        return counts

    def _touched(self, start: tuple[int, int], size: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return which blocks a rectangle of cells touches."""
        spans = []
        for edges, begin, length in zip(self._edges, start, size):
            first = int(np.searchsorted(edges, begin, side="right")) - 1
            last = int(np.searchsorted(edges, begin + length, side="left"))
            spans.append(range(first, last))
        return [(row, column) for row in spans[0] for column in spans[1]]

    def _window(self, key: tuple[int, int]) -> Window:
        (top, bottom), (left, right) = (
            (int(edges[number]) * self.cell_px, int(edges[number + 1]) * self.cell_px)
            for edges, number in zip(self._edges, key)
        )
        return Window(top, left, bottom - top, right - left)

    def _store(self, key: tuple[int, int]) -> Block:
        """Move a block to the temporary file.

        Raises:
            OutputError: The disk is full.
        """
        counts = self._open.pop(key)
        del self._missing_px[key]
        packed = zlib.compress(counts.tobytes(), 1)
        try:
            self._file.seek(0, 2)
            self._file.write(packed)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"temporary files in {tempfile.gettempdir()} cannot be written: {error.strerror}",
                f"room for {len(packed)} bytes more",
                "free some space, or set TMPDIR to another disk",
            ) from error
        self._places.append((key, len(packed)))
        return Block(self._window(key), *counts)


def _table(ids: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return a table of 256 that is 1 for some class ids and 0 for the others."""
    table = np.zeros(256, np.uint8)
    table[list(ids)] = 1
    return table


def _overlap(window: Window, other: Window) -> int:
    """Return how many pixels two windows share."""
    height = min(window.top + window.height, other.top + other.height) - max(window.top, other.top)
    width = min(window.left + window.width, other.left + other.width) - max(window.left, other.left)
    return max(height, 0) * max(width, 0)
