"""Weed patches of a mosaic, found part by part: 8-connected weed pixels, exact across parts.

Only the labels along the lower border of what was seen so far are kept, so memory grows with the
width of the mosaic and not with its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.data.mosaics import Window
from weedseg.errors import TileError

Integers = npt.NDArray[np.int64]

_BLOCK_PX = 1 << 20


class Patches(NamedTuple):
    """Whole patches, (n,)."""

    num_px: Integers
    rows: npt.NDArray[np.float64]
    """Centre, px of the mosaic; the middle of the first pixel is 0.5."""
    columns: npt.NDArray[np.float64]


class PatchFinder:
    """Labels parts as they come, and joins what touches across their borders.

    Parts come row by row: those of a row have one height, and none overlaps another. Where a part
    is left out there is no weed.
    """

    def __init__(self, width: int) -> None:
        """Begin at the top.

        Args:
            width: Width of the mosaic, px.
        """
        # Labels of open patches, 0 is none; one more at either end for diagonal neighbours.
        self._above = np.zeros(width + 2, np.int64)
        self._below = np.zeros(width + 2, np.int64)
        self._beside = np.zeros(0, np.int64)
        self._band = Window(0, 0, 0, 0)
        self._open = np.zeros((1, 3), np.int64)  # num_px, sum of rows, sum of columns, by label
        self._touching: list[Integers] = []

    def add(self, window: Window, weed: npt.NDArray[np.uint8], least_px: int) -> Patches:
        """Label a part.

        Args:
            window: Where it lies.
            weed: 1 where weed is, else 0; uint8 (H, W), contiguous.
            least_px: Smaller patches are dropped.

        Returns:
            Patches that are whole now.

        Raises:
            TileError: The part is out of order.
        """
        closed = self._go_to(window)
        found = cv2.connectedComponentsWithAlgorithm(weed, 8, cv2.CV_32S, cv2.CCL_SAUF)
        number, labels = found[0], np.asarray(found[1], np.int32)
        sums = _sums(window, weed, labels, number)
        edges = [labels[0], labels[-1], labels[:, 0], labels[:, -1]]
        open_here = np.zeros(number, np.bool_)
        open_here[np.concatenate(edges)] = True
        open_here[0] = False
        on_edge = np.flatnonzero(open_here)
        ids = np.zeros(number, np.int64)
        ids[on_edge] = len(self._open) + np.arange(len(on_edge))
        self._open = np.concatenate([self._open, sums[on_edge]])
        top, bottom, left, right = (ids[edge] for edge in edges)
        near = self._above[window.left : window.left + window.width + 2]
        self._touching += [_neighbours(top, near), _neighbours(left, self._beside)]
        self._below[window.left + 1 : window.left + 1 + window.width] = bottom
        self._beside = np.pad(right, 1)
        closed = np.concatenate([closed, sums[1:][~open_here[1:]]])
        return _patches(closed, least_px)

    def finish(self, least_px: int) -> Patches:
        """Return the patches that were still open."""
        closed = self._end_band()
        return _patches(np.concatenate([closed, self._open[1:]]), least_px)

    def _go_to(self, window: Window) -> Integers:
        """Move on to a part; return the sums of the patches that are whole when a row of parts is.

        Raises:
            TileError: It lies before the last part, or differs from it in height.
        """
        before, closed = self._band, np.zeros((0, 3), np.int64)
        same_row = before.height > 0 and window.top == before.top
        right, bottom = before.left + before.width, before.top + before.height
        if same_row and (window.left < right or window.height != before.height):
            raise _out_of_order(before, window)
        if not same_row:
            if window.top < bottom:
                raise _out_of_order(before, window)
            closed = self._end_band()
            if window.top > bottom:  # a gap, over which nothing touches
                closed = np.concatenate([closed, self._open[1:]])
                self._open, self._above = self._open[:1], np.zeros_like(self._above)
        if not same_row or window.left > right:
            self._beside = np.zeros(window.height + 2, np.int64)
        self._band = window
        return closed

    def _end_band(self) -> Integers:
        """Join what touches; keep what reaches the lower border, return the sums of the rest."""
        roots = _roots(len(self._open), self._touching)
        joined = np.zeros_like(self._open)
        np.add.at(joined, roots, self._open)
        below = roots[self._below]
        still_open = np.zeros(len(joined), np.bool_)
        still_open[below] = True
        still_open[0] = False
        kept = np.flatnonzero(still_open)
        ids = np.zeros(len(joined), np.int64)
        ids[kept] = 1 + np.arange(len(kept))
        whole = ~still_open & (joined[:, 0] > 0)
        closed: Integers = joined[whole]
        self._open = np.concatenate([joined[:1], joined[kept]])
        self._above, self._below = ids[below], np.zeros_like(self._below)
        self._touching = []
        return closed


def _sums(
    window: Window, weed: npt.NDArray[np.uint8], labels: npt.NDArray[np.int32], number: int
) -> Integers:
    """Return number of pixels, sum of rows and sum of columns by label, int64 (number, 3)."""
    sums = np.zeros((number, 3))
    if number == 1:
        return sums.astype(np.int64)
    height, width = weed.shape
    step = max(1, _BLOCK_PX // width)
    for top in range(0, height, step):
        found = np.flatnonzero(weed[top : top + step].view(np.bool_))
        label = labels[top : top + step].reshape(-1)[found]
        rows, columns = np.divmod(found, width)
        sums[:, 0] += np.bincount(label, minlength=number)
        sums[:, 1] += np.bincount(label, rows + (window.top + top), number)
        sums[:, 2] += np.bincount(label, columns + window.left, number)
    return sums.astype(np.int64)  # exact: integers below 2**53


def _neighbours(edge: Integers, near: Integers) -> Integers:
    """Return pairs of labels that touch, (n, 2).

    Args:
        edge: Labels along a border, (L,).
        near: Labels on the other side, with one more at either end, (L + 2,).
    """
    pairs = []
    for shift in range(3):
        other = near[shift : shift + len(edge)]
        both = (edge > 0) & (other > 0)
        pairs.append(np.stack([edge[both], other[both]], axis=1))
    return np.concatenate(pairs)


def _roots(number: int, touching: Sequence[Integers]) -> Integers:
    """Return for each label the lowest one that it is joined with, by union-find."""
    parents = list(range(number))

    def root(label: int) -> int:
        while parents[label] != label:
            parents[label] = parents[parents[label]]
            label = parents[label]
        return label

    pairs = np.concatenate([np.zeros((0, 2), np.int64), *touching])
    for code in set((pairs[:, 0] * number + pairs[:, 1]).tolist()):
        one, other = (root(label) for label in divmod(code, number))
        parents[max(one, other)] = min(one, other)
    return np.array([root(label) for label in range(number)], np.int64)


def _patches(sums: Integers, least_px: int) -> Patches:
    kept = sums[sums[:, 0] >= least_px]
    num_px = kept[:, 0]
    return Patches(num_px, kept[:, 1] / num_px + 0.5, kept[:, 2] / num_px + 0.5)


def _out_of_order(before: Window, window: Window) -> TileError:
    return TileError(
        f"part {tuple(window)} after part {tuple(before)}",
        "parts row by row, those of a row of one height, none over another",
        "report this",
    )
