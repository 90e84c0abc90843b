"""Which patches are hidden, given their scores. Pure functions of a random generator.

Shapes: L patches of one tile, flattened.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from weedseg.config import PretrainConfig, SelectionConfig
from weedseg.pretraining.scoring import Grid, Hidden


def select_hidden(
    rng: np.random.Generator,
    scores: npt.NDArray[np.floating] | None,
    num_patches: int,
    num_hidden: int,
    config: SelectionConfig,
) -> Hidden:
    """Choose the patches of one tile that the network may not see.

    A part of them is drawn by score (Gumbel-top-k, Kool et al. 2019: sampling without replacement
    with weights exp(beta x score)), the rest evenly from what is left. Some of the hardest tenth
    stay visible as hints.

    Args:
        rng: Source of chance.
        scores: (L,) scores, 1 = hardest; None hides at random.
        num_patches: L.
        num_hidden: How many patches to hide, exactly.
        config: Hard share, sharpness and hints.

    Returns:
        bool (L,), True = hidden.
    """
    hidden = np.zeros(num_patches, bool)
    free = np.ones(num_patches, bool)
    if scores is not None and config.hard_share > 0:
        free[_hints(rng, scores, num_patches - num_hidden, config.hint_share)] = False
        num_hard = round(config.hard_share * num_hidden)
        noise = rng.gumbel(size=num_patches) if np.isfinite(config.beta) else 0.0
        sharp = config.beta if np.isfinite(config.beta) else 1.0
        keys = np.where(free, sharp * scores + noise, -np.inf)
        hidden[np.argsort(-keys, kind="stable")[:num_hard]] = True
    free &= ~hidden
    rest = num_hidden - int(hidden.sum())
    hidden[rng.permutation(np.flatnonzero(free))[:rest]] = True
    return hidden


def _hints(
    rng: np.random.Generator, scores: npt.NDArray[np.floating], most: int, share: float
) -> npt.NDArray[np.int64]:
    """Choose patches of the hardest tenth that stay visible, at most `most`."""
    num_hardest = max(scores.size // 10, 1)
    hardest = np.argsort(-scores, kind="stable")[:num_hardest]
    return rng.permutation(hardest)[: min(round(share * num_hardest), most)]


def hard_share_at(step: int, config: SelectionConfig, pretrain: PretrainConfig) -> float:
    """Return the share of hidden patches chosen by score at a step: 0 in the random stage."""
    first = first_selective_step(pretrain)
    if step < first or pretrain.stages < 2:
        return 0.0
    if not config.rising:
        return config.hard_share
    return config.hard_share * (step - first + 1) / max(pretrain.steps - first, 1)


def first_selective_step(pretrain: PretrainConfig) -> int:
    """Return the step at which the random stage ends."""
    if pretrain.stages < 2:
        return pretrain.steps
    return min(max(round(pretrain.first_stage_share * pretrain.steps), 1), pretrain.steps)


def stage_borders(pretrain: PretrainConfig) -> tuple[int, ...]:
    """Return the first step of every stage and the number of steps at the end."""
    first = first_selective_step(pretrain)
    rest = pretrain.steps - first
    num = pretrain.stages - 1
    return (0, *(first + round(rest * i / num) for i in range(num)), pretrain.steps)


def entropy(counts: Grid) -> float:
    """Return how evenly patches were hidden, 0-1: normalised entropy of the counts."""
    total = float(counts.sum())
    if total <= 0 or counts.size < 2:
        return 1.0
    shares = counts[counts > 0] / total
    return float(-(shares * np.log(shares)).sum() / np.log(counts.size))
