"""Learning-rate schedule: linear warm-up, then a cosine down to one per cent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

FLOOR = 0.01


@dataclass(frozen=True)
class Schedule:
    """Factor on the peak learning rate, a pure function of the step."""

    borders: tuple[int, ...]
    """First step of each cycle and the number of steps at the end; two entries: one cosine."""
    warmup_share: float
    """Share of a cycle in which the factor rises from 0 to 1."""

    def factor(self, step: int) -> float:
        """Return the factor, in [0, 1], for a step counted from 0."""
        start, end = _cycle(self.borders, step)
        length = max(end - start, 1)
        warmup = max(math.ceil(self.warmup_share * length), 1)
        done = step - start
        if done < warmup:
            return (done + 1) / (warmup + 1)
        share = (done - warmup) / max(length - warmup, 1)
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _cycle(borders: Sequence[int], step: int) -> tuple[int, int]:
    for start, end in itertools.pairwise(borders):
        if step < end:
            return start, end
    return borders[-2], borders[-1]
