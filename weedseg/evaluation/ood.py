"""Learn what the photos of a farm look like, to tell others from them; and measure how well.

`fit_ood` learns from figures per photo that the edge runtime takes (`weedseg.edge.ood`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weedseg.errors import FieldDataError

Matrix: TypeAlias = npt.NDArray[np.float64]

MIN_PHOTOS = 20
"""Fewer photos say too little; the model then gives no score."""
INSIDE_SHARE = 0.99
"""So many of the farm's photos score below 1."""
_SHRINKAGE = 0.05
_NUM_FOLDS = 5


def fit_ood(statistics: Matrix) -> tuple[Matrix, Matrix]:
    """Learn mean and weights from the photos of a farm.

    The weights are those of the Mahalanobis distance, the correlation shrunk to independence by
    5 %, and scaled so that a score of 1 is what 99 % of photos stay below that were left out of
    the fit (five folds).

    Args:
        statistics: One row per photo, (P, S), P >= `MIN_PHOTOS`, in an order without meaning.

    Returns:
        Mean (S,) and weights (S, S).

    Raises:
        FieldDataError: There are too few photos.
    """
    num = len(statistics)
    if num < MIN_PHOTOS:
        raise FieldDataError(f"{num} photos", f"at least {MIN_PHOTOS}", "add photos of the field")
    left_out = np.concatenate(
        [
            _scores(_fit(np.delete(statistics, fold, axis=0)), statistics[fold])
            for fold in (np.arange(first, num, _NUM_FOLDS) for first in range(_NUM_FOLDS))
        ]
    )
    mean, weights = _fit(statistics)
    return mean, weights / max(float(np.quantile(left_out, INSIDE_SHARE)), 1.0)


def _fit(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Return mean and unscaled weights; a figure that never varies gets a spread of 1e-6."""
    mean, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    normal = (rows - mean) / spread
    correlation = (1 - _SHRINKAGE) * (normal.T @ normal) / len(rows)
    values, vectors = np.linalg.eigh(correlation + _SHRINKAGE * np.eye(len(mean)))
    return mean, (vectors / np.sqrt(values)).T / spread


def _scores(fitted: tuple[Matrix, Matrix], rows: Matrix) -> Matrix:
    mean, weights = fitted
    return np.asarray(np.linalg.norm((rows - mean) @ weights.T, axis=1))


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """Return how well scores tell two groups apart: 1 always, 0.5 not at all.

    It is the chance that one from `outside` scores higher than one from `inside`; ties count half.

    Raises:
        FieldDataError: A group is empty.
    """
    if not inside or not outside:
        raise FieldDataError("no score to compare", "at least one on each side", "add photos")
    low, high = np.asarray(inside)[None], np.asarray(outside)[:, None]
    return float((high > low).mean() + 0.5 * (high == low).mean())
