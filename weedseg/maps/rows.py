"""Crop rows of a field: where they run, how far apart they lie, what grows in and between them.

Rows are looked for in blocks of about 8 m, so they need not be straight over the whole field; see
`weedseg.maps.row_spectrum` for the method. Where rows are bent or run in two directions this is
said, and no figures are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from weedseg.classes import ClassTable, Role
from weedseg.errors import ConfigError
from weedseg.maps.boundary import FieldCutter
from weedseg.maps.ground import Ground, MapPart
from weedseg.maps.patches import PatchFinder
from weedseg.maps.row_blocks import Block, RowBlocks
from weedseg.maps.row_spectrum import (
    OTHER_DEG,
    Lines,
    Peak,
    Spectrum,
    direction_deg,
    follow,
    prepare,
    turned_deg,
)

Floats = npt.NDArray[np.float64]

NUM_BINS = 40
"""Bins of the profile across a row, from the middle between two rows to the next."""
_Z95 = 1.96
_MIN_ROWS = 3
"""A block must hold so many rows, and a row so many cells."""
_CLEAR = 10.0
"""From this clearness on a block has rows: chance gets there in 1 of 1,000 blocks."""
_CLEAR_SHARE = 0.6
_RIVAL = 0.6
_MAX_BEND_DEG = 3.0
_MIN_CONTRAST = 0.3


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """What rows to look for."""

    spacing_m: tuple[float, float] = (0.1, 1.6)
    """Smallest and largest spacing."""
    in_row_share: float = 0.3
    """Share of the ground that counts as in the row, 0-1: 0.3 is 15 % of the spacing on both sides
    of the row's line."""
    min_plant_m2: float = 0.0004
    """Smallest connected crop area that counts as a plant, m2."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: One is out of range.
        """
        low, high = self.spacing_m
        if not 0.02 <= low < high <= 10:
            raise ConfigError(
                f"row spacing of {low:g} to {high:g} m", "0.02 to 10 m", "change the range"
            )
        if not 0.05 <= self.in_row_share <= 0.95:
            raise ConfigError(
                f"in-row share {self.in_row_share:g}", "0.05 to 0.95", "choose another share"
            )
        if not 0 <= self.min_plant_m2 < math.inf:
            raise ConfigError(f"plants of {self.min_plant_m2} m2", "0 or more", "change it")


@dataclass(frozen=True, kw_only=True)
class RowCover:
    """What grows on a part of the ground."""

    ground_share: float
    """Share of the ground that was looked at, 0-1."""
    weed_share: float
    """Weed cover, 0-1."""
    crop_share: float


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a field and its plants; without clear rows `reason` says why."""

    reason: str
    """Why no rows are reported; '' if they are."""
    num_plants: int = 0
    """Connected crop areas of at least `min_plant_m2`; plants that touch count as one."""
    min_plant_m2: float = 0.0
    direction_deg: float | None = None
    """Degrees clockwise from grid north of the metric CRS, 0 <= direction < 180."""
    direction_error_deg: float | None = None
    """Half of the 95 % interval."""
    spacing_m: float | None = None
    spacing_error_m: float | None = None
    """Half of the 95 % interval."""
    contrast: float | None = None
    """How much the crop keeps to its rows: 0 not at all, 1 no crop beside the lines."""
    clear_share: float = 0.0
    """Share of the crop cover that stands where such rows are seen, 0-1; the covers are from
    there."""
    in_row_share: float = 0.0
    """Share of the ground that counts as in the row."""
    in_row: RowCover | None = None
    between_rows: RowCover | None = None
    crop_profile: list[float] = field(default_factory=list)
    """Crop cover across a row, from the middle between two rows to the next, 0-1."""
    weed_profile: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return asdict(self)


class _Seen(NamedTuple):
    """What one block says."""

    frequency: Floats
    """Cycles per metre, (2,)."""
    error: float
    """Standard error of the frequency, cycles per metre."""
    crop_px: int
    turns: list[tuple[float, float]]
    """Direction of each quarter, degrees, and its weight."""


class RowFinder:
    """Finds the rows of a field, part by part; memory does not grow with its length."""

    def __init__(
        self,
        ground: Ground,
        classes: ClassTable,
        options: RowOptions | None = None,
        boundary: shapely.Geometry | None = None,
    ) -> None:
        """Start without a part.

        Args:
            ground: Of the mosaic.
            classes: The classes of its class map.
            options: What to look for.
            boundary: Polygons in ``ground.metric_crs``; what lies outside does not count.
        """
        self._ground, self._options = ground, options or RowOptions()
        self._cutter = FieldCutter(ground, boundary)
        self._plants = PatchFinder(ground.size[1])
        self._is_crop = np.zeros(256, np.uint8)
        self._is_crop[list(classes.ids_of(Role.CROP))] = 1
        self._least_px = max(
            math.ceil(1e6 * self._options.min_plant_m2 / ground.mm_per_px() ** 2 - 1e-6), 1
        )
        self._num_plants = 0
        self._blocks = RowBlocks(ground, classes)
        side = self._blocks.side
        self._spectrum = Spectrum(1 << max(6, math.ceil(math.log2(1.25 * side))))

    def add(self, part: MapPart) -> None:
        """Add a part of the class map; they come row by row and cover it once.

        Raises:
            OutputError: The disk for temporary files is full.
            TileError: The part is out of order.
        """
        part = self._cutter.cut(part)
        crop = np.asarray(cv2.LUT(part.class_map, self._is_crop), np.uint8)
        self._num_plants += len(self._plants.add(part.window, crop, self._least_px).num_px)
        self._gather(self._blocks.add(part))

    def finish(self) -> Rows:
        """Say what rows there are; nothing can be added afterwards.

        Raises:
            OutputError: The disk for temporary files is full.
        """
        self._num_plants += len(self._plants.finish(self._least_px).num_px)
        try:
            self._gather(self._blocks.rest())
            found = self._find()
        finally:
            self._blocks.close()
        return replace(found, num_plants=self._num_plants, min_plant_m2=self._options.min_plant_m2)

    def _gather(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            if block.crop.any():
                self._spectrum.add(prepare(*self._covers(block)))

    def _covers(self, block: Block) -> tuple[Floats, Floats]:
        """Return the crop cover of the valid part of each cell, and that part, shares 0-1."""
        crop = block.crop / np.maximum(block.valid, 1)
        return crop, block.valid / float(self._blocks.cell_px**2)

    def _to_metres(self, block: Block) -> Floats:
        place = self._ground.metric_affine(block.window)
        return self._blocks.cell_px * np.array([[place.a, place.b], [place.d, place.e]])

    def _find(self) -> Rows:
        blocks = self._blocks
        first = next((b for b in blocks.stored() if b.crop.any()), None)
        if first is None:
            return Rows(reason="there is no crop in the class map")
        to_metres = self._to_metres(first)
        cell_m = math.sqrt(abs(float(np.linalg.det(to_metres))))
        side_m = math.sqrt(first.crop.size) * cell_m
        low, high = self._options.spacing_m
        spacing_m = max(low, _MIN_ROWS * cell_m), min(high, side_m / _MIN_ROWS)
        if spacing_m[0] >= spacing_m[1]:
            return Rows(reason=f"{side_m:.1f} m with cells of {100 * cell_m:.0f} cm hold no 3 rows")
        peak = self._spectrum.peak(to_metres, side_m, spacing_m)
        if peak is None:
            return Rows(reason="no direction stands out in the crop cover")
        if peak.rival > _RIVAL:
            one, two = direction_deg(peak.frequency), direction_deg(peak.rival_frequency)
            return Rows(
                reason=f"rows in several directions, such as {one:.0f} and {two:.0f} degrees"
            )
        return self._measure(peak)

    def _measure(self, peak: Peak) -> Rows:
        """Follow the rows through all blocks and add up what grows where."""
        profile = np.zeros((3, NUM_BINS))
        seen: list[_Seen] = []
        crop_px = 0
        for block in self._blocks.stored():
            if not block.crop.any():
                continue
            crop_px += int(block.crop.sum())
            to_metres, ready = self._to_metres(block), prepare(*self._covers(block))
            lines = follow(ready, to_metres, peak.frequency)
            turned = turned_deg(direction_deg(lines.frequency), direction_deg(peak.frequency))
            if lines.clearness < _CLEAR or abs(turned) > OTHER_DEG:
                continue
            turns = self._turns(block, to_metres, lines)
            seen.append(_Seen(lines.frequency, lines.error, int(block.crop.sum()), turns))
            bins = np.minimum(((lines.phase + 0.5) * NUM_BINS).astype(np.int64), NUM_BINS - 1)
            for row, layer in enumerate((block.crop, block.weed, block.valid)):
                profile[row] += np.bincount(bins.ravel(), layer.ravel(), NUM_BINS)
        return self._judge(seen, sum(s.crop_px for s in seen) / crop_px, profile)

    def _turns(self, block: Block, to_metres: Floats, lines: Lines) -> list[tuple[float, float]]:
        """Return the directions of a block's quarters where they are clear, with weights."""
        crop, valid = self._covers(block)
        spacing_m = 1 / float(np.hypot(*lines.frequency))
        half = [n // 2 for n in crop.shape]
        if min(half) * math.sqrt(abs(float(np.linalg.det(to_metres)))) < _MIN_ROWS * spacing_m:
            return [(direction_deg(lines.frequency), lines.clearness)]
        turns = []
        for rows in (slice(half[0]), slice(half[0], None)):
            for columns in (slice(half[1]), slice(half[1], None)):
                ready = prepare(crop[rows, columns], valid[rows, columns])
                if ready.any():
                    quarter = follow(ready, to_metres, lines.frequency)
                    turns.append((direction_deg(quarter.frequency), quarter.clearness))
        return [turn for turn in turns if turn[1] >= _CLEAR]

    def _judge(self, seen: list[_Seen], clear_share: float, profile: Floats) -> Rows:
        """Make the report, or say why there is none."""
        if clear_share < _CLEAR_SHARE:
            return Rows(
                reason=f"rows are clear for only {100 * clear_share:.0f} % of the crop",
                clear_share=clear_share,
            )
        weights = np.array([1 / s.error**2 for s in seen])
        vectors = np.array([s.frequency for s in seen])
        lengths = np.hypot(*vectors.T)
        first = direction_deg(vectors[0])
        turns = np.array([turned_deg(direction_deg(v), first) for v in vectors])
        direction = (first + float(np.average(turns, weights=weights))) % 180
        frequency = float(np.average(lengths, weights=weights))
        bend = _spread([t for s in seen for t in s.turns], direction)
        contrast = _contrast(profile)
        if bend > _MAX_BEND_DEG:
            reason = f"the direction of the rows varies by {bend:.0f} degrees"
            return Rows(reason=reason, clear_share=clear_share)
        if contrast < _MIN_CONTRAST:
            reason = "the crop covers the ground between the rows nearly as well as in them"
            return Rows(reason=reason, clear_share=clear_share, contrast=contrast)
        error = _Z95 * max(1 / math.sqrt(weights.sum()), _scatter(lengths, weights))
        turned = _Z95 * max(
            1 / math.sqrt(weights.sum()) / frequency, math.radians(_scatter(turns, weights))
        )
        inside, outside = self._split(profile)
        return Rows(
            reason="",
            direction_deg=direction,
            direction_error_deg=math.degrees(turned),
            spacing_m=1 / frequency,
            spacing_error_m=error / frequency**2,
            contrast=contrast,
            clear_share=clear_share,
            in_row_share=self._options.in_row_share,
            in_row=inside,
            between_rows=outside,
            crop_profile=(profile[0] / np.maximum(profile[2], 1)).tolist(),
            weed_profile=(profile[1] / np.maximum(profile[2], 1)).tolist(),
        )

    def _split(self, profile: Floats) -> tuple[RowCover, RowCover]:
        """Return what grows in the rows and between them."""
        middles = (np.arange(NUM_BINS) + 0.5) / NUM_BINS - 0.5
        reach = self._options.in_row_share / 2
        inside = np.clip((reach - np.abs(middles)) * NUM_BINS + 0.5, 0, 1)
        covers = []
        for weights in (inside, 1 - inside):
            crop, weed, valid = profile @ weights
            covers.append(
                RowCover(
                    ground_share=float(valid / profile[2].sum()),
                    weed_share=float(weed / valid),
                    crop_share=float(crop / valid),
                )
            )
        return covers[0], covers[1]


def _contrast(profile: Floats) -> float:
    """Return the length of the mean vector of the crop over the phases of a row, 0-1."""
    cover = profile[0] / np.maximum(profile[2], 1)
    circle = np.exp(2j * math.pi * np.arange(NUM_BINS) / NUM_BINS)
    return float(abs((cover * circle).sum()) / max(cover.sum(), np.finfo(np.float64).tiny))


def _spread(turns: list[tuple[float, float]], direction: float) -> float:
    """Return the weighted root mean square of the turns from a direction, degrees."""
    if not turns:
        return 0.0
    angles = np.array([turned_deg(angle, direction) for angle, _ in turns])
    return math.sqrt(float(np.average(angles**2, weights=[weight for _, weight in turns])))


def _scatter(values: Floats, weights: Floats) -> float:
    """Return the standard error of a weighted mean, from how the values differ."""
    apart = values - np.average(values, weights=weights)
    return math.sqrt(float((weights**2 * apart**2).sum())) / float(weights.sum())
