"""Which cells of a weed map are treated, at what rate, and what that saves.

Weed cover gives each cell a step of the rates. Then, in this order: a buffer around what is
treated, short gaps closed, lonely small patches dropped. Shares are 0-1, areas m2, rates litres
per hectare, lengths m.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.errors import ConfigError, FieldDataError, PrescriptionError
from weedseg.maps.trust import UNTESTED, Trust
from weedseg.maps.weed_map import Floats, Grid, WeedMap

MAX_RATE = 5000.0
"""Litres per hectare that no sprayer exceeds."""

M2_PER_HA = 1e4
_TINY = 1e-9
Steps = npt.NDArray[np.uint8]


class RateStep(NamedTuple):
    """From which weed cover on which rate is given."""

    threshold: float
    """Weed cover, share 0-1."""
    rate: float
    """Litres per hectare."""


@dataclass(frozen=True, kw_only=True)
class PrescriptionOptions:
    """How a weed map becomes a prescription.

    Raises:
        ConfigError: A value is out of range.
    """

    steps: tuple[RateStep, ...]
    """Rising thresholds with rates that do not fall; one step is a plain threshold."""
    broadcast_rate: float | None = None
    """What the whole field would get, for the savings; None is the highest step."""
    buffer_m: float = 0.0
    """Cells closer than this to a treated cell are treated too."""
    merge_m: float = 0.0
    """Gaps up to this length, along or across the heading, are treated too."""
    min_patch_m2: float = 0.0
    """Patches with less ground over the threshold are dropped."""
    isoxml_cell_m: float | None = None
    """Side of the cells in the ISOXML grid; None is the section's width."""
    force: bool = False
    """Write the prescription although the model is not known well enough."""

    def __post_init__(self) -> None:
        """Check the values."""
        _check_steps(self.steps)
        if self.broadcast_rate is not None:
            _check_rate(self.broadcast_rate)
        for name in ("buffer_m", "merge_m", "min_patch_m2"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} is {value:g}", "0 or more", f"choose another {name}")
        cell = self.isoxml_cell_m
        if cell is not None and not 0.1 <= cell <= 1000:
            raise ConfigError(f"isoxml_cell_m is {cell:g}", "0.1 to 1000 m", "choose another")

    @property
    def full_rate(self) -> float:
        """Litres per hectare of a broadcast treatment."""
        return self.steps[-1].rate if self.broadcast_rate is None else self.broadcast_rate


class Savings(NamedTuple):
    """A prescription against the broadcast treatment of the same ground."""

    field_m2: float
    treated_m2: float
    broadcast_l: float
    prescribed_l: float

    def to_dict(self) -> dict[str, float]:
        """Return it as JSON holds it, with areas in ha and what is saved in per cent."""
        saved = self.broadcast_l - self.prescribed_l
        return {
            **self._asdict(),
            "field_ha": self.field_m2 / M2_PER_HA,
            "treated_ha": self.treated_m2 / M2_PER_HA,
            "saved_m2": self.field_m2 - self.treated_m2,
            "saved_l": saved,
            "saved_area_percent": 100 * (1 - self.treated_m2 / self.field_m2),
            "saved_volume_percent": 100 * saved / self.broadcast_l,
        }


@dataclass(frozen=True, kw_only=True)
class Prescription:
    """A weed map with a rate for every cell."""

    weed_map: WeedMap
    trust: Trust
    options: PrescriptionOptions
    rate: Floats
    """Litres per hectare of each cell of the weed map, (n,); 0 is not treated."""
    sentences: tuple[str, ...]
    """What every output says: how well the model is known, and what was forced."""
    forced: bool
    """Whether it would have been refused."""

    @property
    def treat(self) -> npt.NDArray[np.bool_]:
        """Whether each cell is treated, (n,)."""
        return self.rate > 0

    @property
    def note(self) -> str:
        """All sentences in one."""
        return "; ".join(self.sentences)

    def savings(self) -> Savings:
        """Compare with a broadcast treatment of all ground that was seen."""
        ground = self.weed_map.ground_m2
        field = float(ground.sum())
        return Savings(
            field_m2=field,
            treated_m2=float(ground[self.treat].sum()),
            broadcast_l=field / M2_PER_HA * self.options.full_rate,
            prescribed_l=float(ground @ self.rate) / M2_PER_HA,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return options, savings and sentences as JSON holds them."""
        options = asdict(self.options)
        options["steps"] = [step._asdict() for step in self.options.steps]
        options["broadcast_rate"] = self.options.full_rate
        return {
            "options": options,
            "savings": self.savings().to_dict(),
            "num_treated": int(self.treat.sum()),
            "sentences": list(self.sentences),
            "forced": self.forced,
        }


def prescribe(weed_map: WeedMap, options: PrescriptionOptions, trust: Trust) -> Prescription:
    """Decide which cells are treated and at what rate.

    Args:
        weed_map: Cells with their weed cover.
        options: Thresholds, rates and distances.
        trust: What is known of the model on this crop.

    Raises:
        PrescriptionError: The model is not known well enough and `options.force` is not set.
        FieldDataError: The weed map holds no cell.
    """
    if not len(weed_map.rows) or weed_map.ground_m2.sum() <= 0:
        raise FieldDataError(
            "the weed map holds no cell with data", "ground that was seen", "map the field again"
        )
    objections = _objections(options, trust)
    if objections and not options.force:
        raise objections[0]
    place = weed_map.rows, weed_map.columns
    field: Steps = np.zeros((weed_map.grid.num_rows, weed_map.grid.num_columns), np.uint8)
    own = _steps(weed_map.weed_share, options.steps)
    field[place] = own
    field = _with_buffer(field, weed_map.grid, options.buffer_m)
    field = _with_gaps_closed(field, weed_map.grid, options.merge_m)
    seen = np.zeros(field.shape, np.uint8)
    seen[place] = 1
    patches = _patches(field * seen)[place]
    weedy_m2 = np.bincount(patches, weights=weed_map.ground_m2 * (own > 0))
    kept = weedy_m2[patches] >= options.min_patch_m2 - _TINY
    rates = np.array([0.0, *(step.rate for step in options.steps)])
    return Prescription(
        weed_map=weed_map,
        trust=trust,
        options=options,
        rate=rates[field[place] * kept],
        sentences=_sentences(objections, trust),
        forced=bool(objections),
    )


def _objections(options: PrescriptionOptions, trust: Trust) -> list[PrescriptionError]:
    """Say why this prescription should not be written, if so: one reason is enough."""
    if not trust.evaluated:
        note = trust.note if trust.note.startswith(UNTESTED) else f"{UNTESTED}: {trust.note}"
        remedy = "evaluate the model on photos of this crop with masks, or force it"
        return [PrescriptionError(note, "a model evaluated on this crop", remedy)]
    lowest, false_share = options.steps[0].threshold, trust.false_weed_share
    if false_share is None:
        return [
            PrescriptionError(
                "how much weed cover the model sees on weed-free ground is unknown",
                "a figure below the threshold",
                "evaluate the model on weed-free photos, or force it",
            )
        ]
    if lowest < false_share:
        basis = f" ({trust.false_weed_basis})" if trust.false_weed_basis else ""
        return [
            PrescriptionError(
                f"the threshold of {lowest:.3%} weed cover lies below the {false_share:.3%} that "
                f"the model sees where there is none{basis}",
                f"a threshold of at least {false_share:.3%}",
                "raise the threshold, or force it",
            )
        ]
    return []


def _sentences(objections: list[PrescriptionError], trust: Trust) -> tuple[str, ...]:
    """Say how well the model is known and what was forced."""
    if not objections:
        return (trust.note,)
    found = objections[0].found
    if not trust.evaluated:
        return found, "this prescription was forced"
    return trust.note, f"this prescription was forced although {found}"


def _steps(weed_share: Floats, steps: tuple[RateStep, ...]) -> Steps:
    """Number the step of each cell, from 1; 0 is below all thresholds or without any weed."""
    thresholds = [step.threshold for step in steps]
    number = np.searchsorted(thresholds, weed_share, side="right")
    return np.where(weed_share > 0, number, 0).astype(np.uint8)


def _with_buffer(field: Steps, grid: Grid, buffer_m: float) -> Steps:
    """Give every cell the highest step among cells whose outline is closer than the buffer."""
    if buffer_m <= 0:
        return field
    along, across = grid.cell_m
    grown = np.zeros_like(field)
    for ahead in range(min(_reach(buffer_m, along), len(field) - 1) + 1):
        gap = max(ahead - 1, 0) * along
        aside = min(_reach(math.sqrt(buffer_m**2 - gap**2), across), field.shape[1] - 1)
        wide = cv2.dilate(field, np.ones((1, 2 * aside + 1), np.uint8))
        np.maximum(grown[ahead:], wide[: len(field) - ahead], out=grown[ahead:])
        np.maximum(grown[: len(field) - ahead], wide[ahead:], out=grown[: len(field) - ahead])
    return grown


def _reach(distance: float, size: float) -> int:
    """Return how many cells away an outline may be and still be closer than a distance."""
    return math.ceil(distance / size - _TINY)


def _with_gaps_closed(field: Steps, grid: Grid, merge_m: float) -> Steps:
    """Close gaps in rows and in columns; a gap gets the lower step of its two ends."""
    closed = field.copy()
    for axis, size in enumerate(grid.cell_m):
        cells = min(math.floor(merge_m / size + _TINY), field.shape[axis])
        if not cells:
            continue
        padding = [(0, 0), (0, 0)]
        padding[axis] = (cells, cells)
        # OpenCV lays both kernels the same way round: at opposite ends they undo each other.
        first, last = ((0, cells), (0, 0)) if axis == 0 else ((cells, 0), (0, 0))
        line = np.ones((cells + 1, 1) if axis == 0 else (1, cells + 1), np.uint8)
        wide = cv2.dilate(np.pad(field, padding), line, anchor=first)
        narrow = cv2.erode(wide, line, anchor=last)
        inner = [slice(before, before + n) for (before, _), n in zip(padding, field.shape)]
        np.maximum(closed, narrow[tuple(inner)], out=closed)
    return closed


def _patches(field: Steps) -> npt.NDArray[np.int32]:
    """Number the patches of treated cells that touch, also at corners; 0 is not treated."""
    _, numbers = cv2.connectedComponents((field > 0).astype(np.uint8), connectivity=8)
    return np.asarray(numbers, np.int32)


def _check_steps(steps: tuple[RateStep, ...]) -> None:
    if not 1 <= len(steps) <= 254:
        raise ConfigError(f"{len(steps)} rate steps", "1 to 254", "give a threshold and a rate")
    for step in steps:
        if not 0 <= step.threshold <= 1:
            raise ConfigError(
                f"a threshold of {100 * step.threshold:g} %", "0 to 100 % weed cover", "correct it"
            )
        _check_rate(step.rate)
    for lower, higher in pairwise(steps):
        if higher.threshold <= lower.threshold or higher.rate < lower.rate:
            raise ConfigError(
                f"{higher.rate:g} l/ha from {100 * higher.threshold:g} % after {lower.rate:g} l/ha "
                f"from {100 * lower.threshold:g} %",
                "rising thresholds with rates that do not fall",
                "put the steps in order",
            )


def _check_rate(rate: float) -> None:
    if not 0 < rate <= MAX_RATE:
        raise ConfigError(
            f"a rate of {rate:g} l/ha", f"more than 0, at most {MAX_RATE:g}", "correct it"
        )
