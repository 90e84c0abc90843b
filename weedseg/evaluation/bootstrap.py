"""Intervals of any score by bootstrap over photos.

Photos are drawn with replacement, since the pixels of one photo are not independent; the
interval is the percentile interval (Efron and Tibshirani 1993, section 13.3).

Shapes: P photos, C classes, R resamples, S scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from weedseg.errors import FieldDataError
from weedseg.evaluation.confusion import Counts, Scores

Interval = tuple[float, float]
ScoreFunction = Callable[[Counts], Scores]
"""(R, C, C) summed counts -> (R, S) scores, nan where a score has no meaning."""

NUM_RESAMPLES = 2000
LEVEL = 0.95
_CHUNK_CELLS = 4_000_000


def bootstrap_intervals(
    counts: Counts, scores: ScoreFunction, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> list[Interval | None]:
    """Return the 95 % interval of each score.

    A class can be absent from a resample: its score is left out of that resample, and a mean
    over classes is taken over those that are present.

    Args:
        counts: Confusion matrix per photo, (P, C, C).
        scores: Computes the scores from summed counts.
        seed: Seed of the draws.
        num_resamples: Number of resamples, R.

    Returns:
        (low, high) per score; None with fewer than two photos, or when the score is unknown on
        the photos as they are.

    Raises:
        FieldDataError: The counts are not (P, C, C).
    """
    if counts.ndim != 3 or counts.shape[1] != counts.shape[2]:
        raise FieldDataError(
            f"counts of shape {counts.shape}", "(photos, classes, classes)", "stack the matrices"
        )
    num_photos, num_classes = counts.shape[:2]
    known = ~np.isnan(scores(counts.sum(axis=0)[None])[0])
    if num_photos < 2:
        return [None] * len(known)
    draws = _draws(num_photos, num_resamples, seed)
    cells = counts.reshape(num_photos, -1).astype(np.float64)
    chunk = max(1, _CHUNK_CELLS // num_classes**2)
    values = []
    for start in range(0, num_resamples, chunk):
        summed = np.rint(draws[start : start + chunk] @ cells).astype(np.int64)
        values.append(scores(summed.reshape(-1, num_classes, num_classes)))
    resampled = np.concatenate(values)
    return [_interval(resampled[:, i]) if known[i] else None for i in range(len(known))]


def bootstrap_interval(
    counts: Counts, score: ScoreFunction, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Interval | None:
    """Return the 95 % interval of one score.

    Args:
        counts: Confusion matrix per photo, (P, C, C).
        score: (R, C, C) -> (R,).
        seed: Seed of the draws.
        num_resamples: Number of resamples, R.

    Returns:
        (low, high), or None as in `bootstrap_intervals`.

    Raises:
        FieldDataError: The counts are not (P, C, C).
    """
    return bootstrap_intervals(counts, lambda c: score(c)[:, None], seed, num_resamples)[0]


def _draws(num_photos: int, num_resamples: int, seed: int) -> Scores:
    """Return how often each photo is drawn, (R, P); each row sums to P."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(
        num_photos, np.full(num_photos, 1 / num_photos), size=num_resamples
    ).astype(np.float64)


def _interval(values: Scores) -> Interval | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
