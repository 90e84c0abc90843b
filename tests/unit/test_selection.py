"""Which patches are hidden: exact numbers, hints, schedule and statistics."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.config import PretrainConfig, Recipe, SelectionConfig, load_recipe, recipe_names
from weedseg.pretraining import selection

EXACT = SelectionConfig(hard_share=1.0, beta=math.inf, hint_share=0.0)
configs = st.builds(
    SelectionConfig,
    hard_share=st.floats(0, 1),
    beta=st.one_of(st.just(math.inf), st.floats(0, 20)),
    hint_share=st.floats(0, 1),
)


def draw(scores, num, num_hidden, config, seed=0):
    rng = np.random.default_rng(seed)
    return selection.select_hidden(rng, scores, num, num_hidden, config)


@settings(deadline=None, max_examples=200)
@given(num=st.integers(2, 80), share=st.floats(0, 1), config=configs, seed=st.integers(0, 999))
def test_exactly_the_asked_number_is_hidden(num, share, config, seed):
    scores = np.random.default_rng(seed).integers(0, 5, num) / 5
    num_hidden = round(share * num)
    for given_scores in (scores, None):
        hidden = draw(given_scores, num, num_hidden, config, seed)
        assert hidden.shape == (num,)
        assert hidden.dtype == bool
        assert hidden.sum() == num_hidden


@settings(deadline=None)
@given(num=st.integers(2, 80), share=st.floats(0.05, 0.95), seed=st.integers(0, 999))
def test_infinite_sharpness_takes_exactly_the_hardest(num, share, seed):
    scores = np.random.default_rng(seed).permutation(num) / num
    num_hidden = round(share * num)
    hidden = draw(scores, num, num_hidden, EXACT, seed)
    assert set(np.flatnonzero(hidden)) == set(np.argsort(-scores)[:num_hidden])


@settings(deadline=None)
@given(num=st.integers(10, 80), hints=st.floats(0, 1), seed=st.integers(0, 999))
def test_hints_of_the_hardest_tenth_stay_visible(num, hints, seed):
    scores = np.random.default_rng(seed).permutation(num) / num
    config = replace(EXACT, hint_share=hints)
    hidden = draw(scores, num, num // 2, config, seed)
    hardest = np.argsort(-scores)[: max(num // 10, 1)]
    assert (~hidden[hardest]).sum() == round(hints * hardest.size)


def test_hints_give_way_when_nearly_all_is_hidden():
    hidden = draw(np.arange(20) / 20, 20, 20, SelectionConfig(hint_share=1.0))
    assert hidden.all()


@settings(deadline=None)
@given(num=st.integers(2, 80), seed=st.integers(0, 999))
def test_no_hard_share_is_random_masking(num, seed):
    scores = np.arange(num) / num
    config = SelectionConfig(hard_share=0.0, hint_share=1.0)
    assert (
        draw(scores, num, num // 2, config, seed) == draw(None, num, num // 2, config, seed)
    ).all()


def test_without_scores_it_is_random_whatever_the_config():
    first = draw(None, 64, 32, EXACT, 5)
    assert (first == draw(None, 64, 32, SelectionConfig(), 5)).all()
    times = sum(draw(None, 64, 32, EXACT, seed).astype(int) for seed in range(400))
    assert abs(times / 400 - 0.5).max() < 0.12


def test_each_draw_is_fresh():
    scores = np.arange(64) / 64
    draws = {draw(scores, 64, 32, SelectionConfig(), seed).tobytes() for seed in range(20)}
    assert len(draws) == 20


def frequency(config, num_draws=600):
    scores = np.linspace(0, 1, 100)
    return sum(draw(scores, 100, 50, config, s).astype(int) for s in range(num_draws)) / num_draws


def test_hard_patches_are_hidden_more_often():
    times = frequency(SelectionConfig(hard_share=0.5, hint_share=0.0))
    fifths = times.reshape(5, 20).mean(1)
    assert (np.diff(fifths) > 0).all()
    assert fifths[-1] - fifths[0] > 0.2
    assert fifths[0] > 0.15  # the easy ones are hidden too


def test_sharper_draws_are_more_selective():
    spreads = []
    for beta in (0.0, 1.0, 3.0, 10.0, math.inf):
        fifths = (
            frequency(SelectionConfig(hard_share=0.5, beta=beta, hint_share=0.0), 300)
            .reshape(5, 20)
            .mean(1)
        )
        spreads.append(fifths[-1] - fifths[0])
    assert spreads == sorted(spreads)
    assert abs(spreads[0]) < 0.05
    assert spreads[-1] > 0.6


# --- over time ---------------------------------------------------------------------------------

lengths = st.builds(
    PretrainConfig,
    steps=st.integers(0, 500),
    stages=st.integers(1, 12),
    first_stage_share=st.floats(0, 1),
)


@given(pretrain=lengths)
def test_stages_cover_the_steps_in_order(pretrain):
    borders = selection.stage_borders(pretrain)
    assert len(borders) == pretrain.stages + 1
    assert borders[0] == 0
    assert borders[-1] == pretrain.steps
    assert list(borders) == sorted(borders)


def test_stages_of_the_default_recipe():
    config = PretrainConfig(steps=1000, stages=5, first_stage_share=0.1)
    assert selection.stage_borders(config) == (0, 100, 325, 550, 775, 1000)
    assert selection.stage_borders(replace(config, stages=1)) == (0, 1000)


@given(pretrain=lengths, rising=st.booleans(), hard=st.floats(0, 1))
def test_the_hard_share_starts_after_the_random_stage(pretrain, rising, hard):
    config = SelectionConfig(hard_share=hard, rising=rising)
    first = selection.first_selective_step(pretrain)
    shares = [selection.hard_share_at(s, config, pretrain) for s in range(pretrain.steps)]
    assert not any(shares[:first])
    assert shares[first:] == sorted(shares[first:])
    assert all(0 <= share <= hard + 1e-12 for share in shares)
    if first < pretrain.steps:
        assert shares[-1] == pytest.approx(hard)
    if not rising:
        assert set(shares[first:]) <= {hard}


def test_one_stage_never_selects():
    config = PretrainConfig(steps=50, stages=1)
    assert not any(selection.hard_share_at(s, SelectionConfig(), config) for s in range(50))


def test_entropy_is_one_when_all_are_hidden_equally():
    assert selection.entropy(np.ones((4, 4))) == pytest.approx(1)
    assert selection.entropy(np.zeros((4, 4))) == 1
    one = np.zeros((4, 4))
    one[0, 0] = 5
    assert selection.entropy(one) == 0
    half = np.zeros(16)
    half[:4] = 1
    assert selection.entropy(half) == pytest.approx(0.5)


def test_every_recipe_survives_json():
    """A run folder keeps its recipe as JSON, which knows no infinity."""
    for name in recipe_names():
        recipe = load_recipe(name)
        text = json.dumps(recipe.to_dict(), allow_nan=False)
        assert Recipe.from_dict(json.loads(text), "recipe.json") == recipe
