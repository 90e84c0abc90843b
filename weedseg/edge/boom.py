"""From a class map to nozzles: which cell below the boom is treated, and when.

A frame looks down on the ground; its top is the far edge in the direction of travel. It is divided
into cells, one nozzle wide and one decision long. Pure numpy.

Shapes: R rows of cells along the travel (0 is farthest ahead), K nozzles from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weedseg.classes import ClassTable, Role
from weedseg.edge.result import Result
from weedseg.errors import ConfigError, ImageError
from weedseg.imaging import ClassMap

Shares = npt.NDArray[np.float64]
"""(R, K), 0-1."""


@dataclass(frozen=True, kw_only=True)
class Boom:
    """Geometry of a boom below one camera, and when a cell is treated."""

    mm_per_px: float
    """Ground resolution of the frame, mm per px."""
    nozzle_mm: float
    """Width that one nozzle covers, mm."""
    cell_mm: float
    """Length of one decision along the travel, mm."""
    bottom_to_nozzles_mm: float = 0.0
    """From the frame's bottom edge back to the line of nozzles, mm; negative: it is in view."""
    min_weed_share: float = 0.002
    """A cell with so much weed is treated, 0-1, > 0; farms use 0.0006 to 0.0031."""
    max_crop_share: float = 1.0
    """A cell with more crop than this is spared, 0-1; 1 never spares."""
    min_confidence: int = 0
    """Weed pixels count from this confidence on, per cent."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        for name, value, low, high in (
            ("mm_per_px", self.mm_per_px, 1e-3, 1e3),
            ("nozzle_mm", self.nozzle_mm, self.mm_per_px, 1e6),
            ("cell_mm", self.cell_mm, self.mm_per_px, 1e6),
            ("bottom_to_nozzles_mm", self.bottom_to_nozzles_mm, -1e6, 1e6),
            ("min_weed_share", self.min_weed_share, 1e-9, 1.0),
            ("max_crop_share", self.max_crop_share, 0.0, 1.0),
            ("min_confidence", self.min_confidence, 0, 100),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} {value}", f"{low:g} to {high:g}", "correct the boom")

    def borders(self, size: tuple[int, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return where cells begin and end, px: rows (R + 1,) and columns (K + 1,).

        Cells are counted from the bottom left; the last ones may reach beyond the frame, and then
        count with what is seen of them.

        Args:
            size: (height, width) of the frame, px.
        """
        rows = _borders(size[0], self.cell_mm / self.mm_per_px)
        return size[0] - rows[::-1], _borders(size[1], self.nozzle_mm / self.mm_per_px)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a boom should do about one frame."""

    treat: npt.NDArray[np.bool_]
    """Cells to treat, (R, K); all False unless the result may be acted on."""
    weed_share: Shares
    crop_share: Shares


def decide(result: Result, boom: Boom, classes: ClassTable, now_s: float) -> Decision:
    """Decide which cells are treated; none unless the result is OK and fresh at this moment.

    Args:
        result: From `Stream.latest`.
        boom: The geometry.
        classes: `Segmenter.classes`.
        now_s: `time.monotonic()`.

    Raises:
        ImageError: The frame has no pixels.
    """
    weed = _is_one_of(result.class_map, classes.ids_of(Role.WEED))
    if boom.min_confidence:
        weed &= result.confidence >= boom.min_confidence
    weed_share = cell_shares(weed, boom)
    crop_share = cell_shares(_is_one_of(result.class_map, classes.ids_of(Role.CROP)), boom)
    treat = (weed_share >= boom.min_weed_share) & (crop_share <= boom.max_crop_share)
    if not result.may_actuate(now_s):
        treat = np.zeros_like(treat)
    return Decision(treat=treat, weed_share=weed_share, crop_share=crop_share)


def cell_shares(chosen: npt.NDArray[np.bool_], boom: Boom) -> Shares:
    """Return the share of chosen pixels in every cell; each pixel lies in exactly one.

    Args:
        chosen: (H, W).
        boom: The geometry.

    Raises:
        ImageError: The frame has no pixels.
    """
    if not chosen.size:
        raise ImageError("a frame without pixels", "at least 1x1 px", "check the camera")
    rows, columns = boom.borders((chosen.shape[0], chosen.shape[1]))
    along = np.add.reduceat(chosen, rows[:-1], axis=0, dtype=np.int64)
    counts = np.add.reduceat(along, columns[:-1], axis=1, dtype=np.int64)
    return np.asarray(counts / np.outer(np.diff(rows), np.diff(columns)))


def opening_times(
    boom: Boom, size: tuple[int, int], captured_s: float, speed_mm_s: float
) -> npt.NDArray[np.float64]:
    """Return when each row of cells passes below the nozzles, (R, 2): from, to.

    Args:
        boom: The geometry.
        size: (height, width) of the frame, px.
        captured_s: When the frame was taken, s of the monotonic clock.
        speed_mm_s: Speed over ground, mm/s, > 0.

    Raises:
        ConfigError: The machine does not go forward.
    """
    if not 0 < speed_mm_s < math.inf:
        raise ConfigError(f"speed of {speed_mm_s} mm/s", "more than 0", "keep the nozzles shut")
    rows, _ = boom.borders(size)
    distance = boom.bottom_to_nozzles_mm + (size[0] - rows) * boom.mm_per_px
    passing = captured_s + distance / speed_mm_s
    return np.stack([passing[1:], passing[:-1]], axis=1)


def _borders(length: int, step: float) -> npt.NDArray[np.int64]:
    """Divide a length into steps, to the nearest px; the last one may be shorter."""
    num = max(math.ceil(length / step - 1e-9), 1)
    borders = np.rint(np.arange(num) * step).astype(np.int64)
    return np.append(borders[borders < length], length)


def _is_one_of(class_map: ClassMap, ids: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Tell where a class map has one of these ids, (H, W), by a table of 256 entries."""
    table = np.zeros(256, np.bool_)
    table[list(ids)] = True
    return np.asarray(table[class_map])
