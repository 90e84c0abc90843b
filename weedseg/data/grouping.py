"""Groups of photos: join them, cut them by time, choose whole ones, order photos by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.data.duplicates import join
from weedseg.data.index import Photo
from weedseg.imaging import capture_time

TIME_BLOCKS = 10
"""How many blocks of capture time a visit is cut into at least."""
Numbers = npt.NDArray[np.int64]

_TRIES = 256


def merge(*labels: Sequence[Any]) -> Numbers:
    """Join items that share any of their labels, directly or through others."""
    links: list[tuple[int, int]] = []
    for kind in labels:
        seen: dict[Any, int] = {}
        links.extend((seen.setdefault(key, i), i) for i, key in enumerate(kind))
    return join(len(labels[0]), links)


def time_blocks(photos: Sequence[Photo], num: int) -> list[int]:
    """Cut photos into blocks of neighbouring capture times; without times each is its own."""
    times = [capture_time(p.path) for p in photos]
    known = sorted({t for t in times if t is not None})
    if None in times or len(known) < 2:
        return list(range(len(photos)))
    place = {time: i for i, time in enumerate(known)}
    return [place[t] * min(num, len(known)) // len(known) for t in times if t is not None]


def pick(
    groups: Numbers, weeds: npt.NDArray[np.bool_], share: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Choose whole groups that hold about `share` of the photos and their share of weedy ones.

    Of 256 random orders of the groups, the start of one is taken that fits best; at least one
    group is chosen and one is left.
    """
    names, number = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return np.zeros(len(groups), bool)
    sizes = np.bincount(number)
    weedy = np.bincount(number, weights=weeds)
    best: tuple[float, Numbers] = (np.inf, np.array([0]))
    for _ in range(_TRIES):
        order = rng.permutation(len(names))
        totals = np.cumsum(sizes[order])[:-1]
        end = int(np.abs(totals - share * len(groups)).argmin())
        off = abs(float(totals[end]) / len(groups) - share)
        off += abs(float(weedy[order[: end + 1]].sum() / totals[end] - weeds.mean())) / 2
        if off < best[0] - 1e-9:
            best = (off, order[: end + 1])
    return np.isin(number, best[1])


def limit_order(weedy: dict[str, bool], rng: np.random.Generator) -> list[int]:
    """Order photos at random so that every start holds about the same share of weedy ones."""
    flags = np.array(list(weedy.values()), bool)
    place = np.zeros(len(flags))
    for kind in (True, False):
        members = rng.permutation(np.flatnonzero(flags == kind))
        place[members] = (np.arange(len(members)) + (0.25 if kind else 0.75)) / max(1, len(members))
    return [int(i) for i in np.argsort(place, kind="stable")]
