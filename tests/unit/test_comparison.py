"""Comparisons of arms on counts made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from weedseg.bench.comparison import compare, detectable, holm, interval


def line(arm: str, pretrain: int, finetune: int, weed_hit: list[int]) -> dict[str, Any]:
    """One run on photos of 100 weed px each; `weed_hit` of them are found, the rest is soil."""
    counts = {f"p{i}": [[1000, 0], [100 - hit, hit]] for i, hit in enumerate(weed_hit)}
    return {
        "arm": arm,
        "pretrain_seed": pretrain,
        "finetune_seed": finetune,
        "pretrain_steps": 0 if arm in "NI" else 6,
        "iou": {"background": 0.0, "weed": 0.0},
        "counts": counts,
    }


def runs(arm: str, hits: list[int], spread: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(arm) + sum(hits))
    return [
        line(arm, p, f, [h + int(n) for n in rng.integers(-spread, spread + 1, 12)])
        for p, h in enumerate(hits)
        for f in range(3)
    ]


def test_a_clear_gain_excludes_zero_and_is_in_points() -> None:
    found = compare(runs("S+", [70, 72, 71]) + runs("P", [50, 51, 52]), "S+", "P", "weed")
    assert found is not None
    assert len(found.pairs) == 9
    assert found.mean == pytest.approx(20, abs=1.5)
    assert 15 < found.low < found.mean < found.high < 25
    assert found.p_value < 0.01


def test_a_tie_includes_zero() -> None:
    found = compare(runs("S+", [55, 48, 52]) + runs("P", [50, 54, 51]), "S+", "P", "weed")
    assert found is not None
    assert found.low < 0 < found.high
    assert found.p_value > 0.1


def test_one_lucky_pretraining_seed_is_no_proof() -> None:
    found = compare(runs("S+", [80, 50, 50]) + runs("P", [50, 50, 50]), "S+", "P", "weed")
    assert found is not None
    assert found.mean > 5
    assert found.low < 1  # whole seeds are resampled: the lucky one is often missing


def test_an_arm_without_pretraining_serves_every_pretraining_seed() -> None:
    lines = runs("S+", [70, 70, 70]) + [line("N", 0, f, [40] * 12) for f in range(3)]
    found = compare(lines, "S+", "N", "mIoU")
    assert found is not None
    assert len(found.pairs) == 9


def test_without_any_pretraining_whole_fine_tunings_are_resampled() -> None:
    """One lucky choice of labels is no proof either."""
    lines = [line(arm, 0, f, [50] * 12) for arm in ("N", "I") for f in range(3)]
    lines[3] = line("I", 0, 0, [80] * 12)
    found = compare(lines, "I", "N", "weed")
    assert found is not None
    assert found.mean == pytest.approx(10)
    assert found.low < 1


def test_another_pretraining_is_no_pair() -> None:
    lines = [line("S+", 1, 0, [70] * 3), line("P", 0, 0, [50] * 3)]
    assert compare(lines, "S+", "P", "weed") is None


def test_an_unfinished_benchmark_is_compared_run_by_run() -> None:
    lines = runs("S+", [70, 70]) + runs("P", [50, 50])
    found = compare([x for x in lines if _seeds(x) != (1, 2)], "S+", "P", "weed")
    assert found is not None
    assert len(found.pairs) == 5
    assert found.low < found.mean < found.high


def _seeds(run: dict[str, Any]) -> tuple[int, int]:
    return run["pretrain_seed"], run["finetune_seed"]


def test_an_interval_holds_the_spread_of_fine_tunings() -> None:
    narrow = interval([line("R", 0, f, [50] * 12) for f in range(3)], "weed")
    assert narrow == pytest.approx((0.5, 0.5, 0.5))
    mean, low, high = interval([line("R", 0, f, [30 + 20 * f] * 12) for f in range(3)], "weed")
    assert mean == pytest.approx(0.5)
    assert 0.3 <= low < 0.4
    assert 0.6 < high <= 0.7


def test_the_worst_class_is_the_lowest() -> None:
    lines = runs("S+", [70, 70]) + runs("P", [50, 50])
    assert compare(lines, "S+", "P", "worst class") is not None
    worst = compare(lines, "S+", "P", "worst class")
    weed = compare(lines, "S+", "P", "weed")
    assert worst is not None
    assert weed is not None
    assert worst.pairs == weed.pairs


def test_holm_corrects_in_order() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_detectable_effect_shrinks_with_seeds() -> None:
    assert detectable(2.0, 3) == pytest.approx(4.303 * 2 / 3**0.5, abs=1e-3)
    assert detectable(2.0, 6) < detectable(2.0, 3)
