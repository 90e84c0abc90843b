"""Intervals by bootstrap over photos."""

from __future__ import annotations

import numpy as np
import pytest

from weedseg.errors import FieldDataError
from weedseg.evaluation.bootstrap import bootstrap_interval, bootstrap_intervals
from weedseg.evaluation.confusion import iou_scores, mean_scores


def photo_counts(num_photos: int, num_classes: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 300, (num_photos, num_classes, num_classes))
    return counts + 500 * np.eye(num_classes, dtype=np.int64)


def slow_interval(counts: np.ndarray, seed: int, num_resamples: int) -> tuple[float, float]:
    """The same draws, one resample at a time."""
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), num_resamples)
    values = []
    for times in draws:
        summed = np.repeat(counts, times, axis=0).sum(axis=0)
        values.append(float(mean_scores(iou_scores(summed)[None])[0]))
    return tuple(np.quantile(values, [0.025, 0.975]))


def miou(counts: np.ndarray) -> np.ndarray:
    return mean_scores(iou_scores(counts))


def test_equals_a_plain_loop_over_resamples() -> None:
    counts = photo_counts(7)
    fast = bootstrap_interval(counts, miou, seed=3, num_resamples=200)
    assert fast == pytest.approx(slow_interval(counts, 3, 200))


def test_is_seeded_holds_the_score_and_narrows_with_photos() -> None:
    few, many = photo_counts(5), photo_counts(200)
    low, high = bootstrap_interval(few, miou)
    assert (low, high) == bootstrap_interval(few, miou)
    assert low <= miou(few.sum(0)[None])[0] <= high
    narrow = bootstrap_interval(many, miou)
    assert narrow[1] - narrow[0] < (high - low) / 2


def test_fewer_than_two_photos_have_no_interval() -> None:
    assert bootstrap_interval(photo_counts(1), miou) is None
    assert bootstrap_intervals(np.zeros((0, 3, 3), np.int64), iou_scores) == [None] * 3


def test_absent_classes() -> None:
    counts = np.zeros((6, 3, 3), np.int64)
    counts[:, 0, 0] = 100
    counts[0, 1] = [1, 9, 0]  # crop in one photo only: absent from many resamples
    intervals = bootstrap_intervals(counts, iou_scores)
    assert intervals[2] is None
    assert intervals[1] == pytest.approx((0.9, 0.9))
    assert np.isfinite(bootstrap_interval(counts, miou)).all()


def test_many_classes_are_resampled_in_chunks() -> None:
    counts = photo_counts(3, num_classes=100)
    whole = bootstrap_intervals(counts, iou_scores, num_resamples=500)
    assert len(whole) == 100
    assert all(low <= high for low, high in whole)


def test_refuses_unstacked_counts() -> None:
    with pytest.raises(FieldDataError, match="stack"):
        bootstrap_interval(np.zeros((3, 3), np.int64), miou)
