"""Two arms compared with intervals: pairs of runs, resampled by pretraining seed, then by photo.

A pair is one run of either arm with equal seeds, so equal labels, test photos and order of tiles.
Runs that share a pretraining are not independent: whole pretraining seeds are resampled (cluster
bootstrap, Davison and Hinkley 1997, section 3.8), then the test photos. Where neither arm was
pretrained, fine-tuning seeds are resampled instead.

Shapes: R runs, A arms, P photos, C classes, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 2000
LEVEL = 0.95

Lines = Sequence[dict[str, Any]]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much better one arm is than another in one score, in points (hundredths of IoU)."""

    better: str
    worse: str
    score: str
    """A class name, ``mIoU`` or ``worst class``."""
    pairs: tuple[float, ...]
    """Difference of each pair of runs, points."""
    low: float
    """95 % interval, points; nan with a single pretraining seed and a single photo."""
    high: float
    p_value: float
    """Two-sided, from the bootstrap distribution; never below 1 / resamples."""

    @property
    def mean(self) -> float:
        """Mean difference over pairs, points."""
        return float(np.mean(self.pairs))


def compare(lines: Lines, better: str, worse: str, score: str, seed: int = 0) -> Comparison | None:
    """Compare two arms on the lines of one data set and number of labels.

    Args:
        lines: Run lines with ``counts`` per photo.
        better: Arm that is hoped to win.
        worse: The other; runs of an arm without pretraining serve every pretraining seed.
        score: A class name, ``mIoU`` or ``worst class`` (the class with the lowest IoU of a run).
        seed: Seeds the resampling.

    Returns:
        The comparison; None without a pair.
    """
    pairs = _pairs(lines, better, worse)
    if not pairs:
        return None
    photos = sorted(pairs[0][1]["counts"])
    names = list(pairs[0][1]["iou"])
    counts = np.array(
        [[[line["counts"][p] for p in photos] for line in (a, b)] for _, a, b in pairs], np.float64
    )  # (R, 2, P, C, C)
    whole = _score(counts.sum(2), names, score)
    clusters = np.array([seed for seed, _, _ in pairs])
    drawn = np.subtract(*_resampled(counts, clusters, names, score, seed).T)
    tail = (1 - LEVEL) / 2
    low, high = (100 * float(v) for v in np.quantile(drawn, [tail, 1 - tail]))
    p_value = 2 * min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
    return Comparison(
        better=better,
        worse=worse,
        score=score,
        pairs=tuple(float(v) for v in 100 * (whole[:, 0] - whole[:, 1])),
        low=low,
        high=high,
        p_value=min(max(p_value, 1 / NUM_RESAMPLES), 1.0),
    )


def interval(lines: Lines, score: str, seed: int = 0) -> tuple[float, float, float]:
    """Return mean and 95 % interval of one arm: fine-tuning seeds resampled, then photos.

    Args:
        lines: Runs of one arm on equal photos, at least one, with ``counts`` per photo.
        score: A class name, ``mIoU`` or ``worst class``.
        seed: Seeds the resampling.

    Returns:
        Mean of the runs, lower and upper end; 0-1.
    """
    photos, names = sorted(lines[0]["counts"]), list(lines[0]["iou"])
    counts = np.array([[[x["counts"][p] for p in photos]] for x in lines], np.float64)
    clusters = np.array([x["finetune_seed"] for x in lines])
    drawn = _resampled(counts, clusters, names, score, seed)[:, 0]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(np.mean(_score(counts.sum(2), names, score))), float(low), float(high)


def _resampled(
    counts: Values, clusters: npt.NDArray[np.int64], names: list[str], score: str, seed: int
) -> Values:
    """Draw whole clusters of runs and photos anew, with replacement; score each draw.

    Args:
        counts: (R, A, P, C, C) counts of A arms.
        clusters: (R,) what is drawn together.
        names: C class names.
        score: A class name, ``mIoU`` or ``worst class``.
        seed: Seeds the draws.

    Returns:
        (B, A) mean score of the runs that were drawn.
    """
    rng = np.random.default_rng(seed)
    distinct, num_photos = np.unique(clusters), counts.shape[2]
    drawn = np.empty((NUM_RESAMPLES, counts.shape[1]))
    for i in range(NUM_RESAMPLES):
        weights = rng.multinomial(num_photos, np.full(num_photos, 1 / num_photos))
        scores = _score(np.einsum("rapij,p->raij", counts, weights), names, score)
        chosen = rng.choice(distinct, len(distinct))
        drawn[i] = np.concatenate([scores[clusters == c] for c in chosen]).mean(0)
    return drawn


def _pairs(lines: Lines, better: str, worse: str) -> list[tuple[int, Any, Any]]:
    """Find (seed to resample, line of `better`, line of `worse`) with equal seeds."""
    ours = {seeds_of(line): line for line in lines if line["arm"] == better}
    theirs = {seeds_of(line): line for line in lines if line["arm"] == worse}
    found = []
    for (first, second), line in sorted(ours.items()):
        other = theirs.get((first, second))
        if other is None and line["pretrain_steps"]:
            other = theirs.get((0, second))
            if other is not None and other["pretrain_steps"]:
                other = None  # another pretraining is no pair
        if other is not None:
            pretrained = line["pretrain_steps"] or other["pretrain_steps"]
            found.append((first if pretrained else second, line, other))
    return found


def seeds_of(line: dict[str, Any]) -> tuple[int, int]:
    """Return the seeds of a run: of its pretraining, and of its fine-tuning."""
    return line["pretrain_seed"], line["finetune_seed"]


def _score(counts: Values, names: list[str], score: str) -> Values:
    """Compute a score from summed counts, (R, A, C, C) -> (R, A), 0-1."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    truth, found = counts.sum(-1), counts.sum(-2)
    with np.errstate(invalid="ignore"):
        iou = np.where(truth > 0, hit / (truth + found - hit), np.nan)
    if score == "mIoU":
        return np.asarray(np.nanmean(iou, -1))
    if score == "worst class":
        return np.asarray(np.nanmin(iou, -1))
    return np.asarray(iou[..., names.index(score)])


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979), in the order given."""
    order = np.argsort(p_values)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order.tolist()):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(highest, 1.0)
    return corrected


def detectable(spread: float, num: int) -> float:
    """Return the smallest mean difference that `num` independent pairs show at 95 %.

    Args:
        spread: Standard deviation of the difference of a pair, points.
        num: Independent pairs (pretraining seeds), >= 2.

    Returns:
        t x spread / sqrt(num), points, with Student's t for `num` - 1 degrees of freedom.
    """
    return _student(num - 1) * spread / math.sqrt(num)


def _student(degrees: int) -> float:
    """Return Student's t for a two-sided 95 % interval."""
    from scipy.stats import t

    return float(t.ppf(1 - (1 - LEVEL) / 2, degrees))
