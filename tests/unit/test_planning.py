"""Steps that fit into the minutes a person has, with measured times that are made up."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weedseg.config import FinetuneConfig, Recipe, load_recipe
from weedseg.data.index import Photo
from weedseg.data.splits import Split
from weedseg.errors import ConfigError
from weedseg.pipeline import planning
from weedseg.pipeline.planning import Pace, fixed_seconds, step_costs, steps_within
from weedseg.pipeline.run import Run

PACE = Pace(pretrain_step=0.3, finetune_step=0.2, photo=0.5, set_up=4.0)


def photos(start, number):
    return tuple(
        Photo(name=f"{i}.png", path=Path(f"{i}.png")) for i in range(start, start + number)
    )


def holdout(train=12, val=4, test=4):
    return Split(
        kind="holdout",
        basis="field",
        train=photos(0, train),
        val=photos(train, val),
        test=photos(train + val, test),
    )


def folds(number, each=2):
    parts = tuple(photos(i * each, each) for i in range(number))
    everything = tuple(p for part in parts for p in part)
    return Split(kind="cross-validation", basis="within-field", train=everything, folds=parts)


def run(split, pretrain=True, recipe=None):
    return SimpleNamespace(split=split, pretrain=pretrain, recipe=recipe or Recipe())


def spent(job, pace, steps, elapsed):
    """Seconds that the whole command takes if every estimate is right."""
    costs = step_costs(job, pace)
    return elapsed + fixed_seconds(job, pace) + sum(n * c for n, c in zip(steps, costs))


SPLITS = st.sampled_from(
    [
        holdout(),
        holdout(60, 20, 20),
        folds(5),
        folds(4, 1),
        folds(2, 5),
        Split(kind="untested", basis="field", train=photos(0, 2)),
        Split(kind="unlabelled", basis="field"),
    ]
)
TIMES = st.floats(1e-3, 5)
PACES = st.builds(Pace, pretrain_step=TIMES, finetune_step=TIMES, photo=TIMES, set_up=TIMES)


@given(SPLITS, st.booleans(), PACES, st.floats(0.1, 300), st.floats(0, 60))
def test_the_plan_fills_the_budget_or_names_the_minimum(split, pretrain, pace, minutes, elapsed):
    """The total is within the budget and near it; a named minimum is enough when given."""
    labelled = bool(split.train)
    job = run(split, pretrain or not labelled)
    pace = replace(
        pace,
        pretrain_step=pace.pretrain_step * job.pretrain,
        finetune_step=pace.finetune_step * labelled,
    )
    costs = step_costs(job, pace)
    try:
        steps = steps_within(job, pace, minutes, elapsed)
    except ConfigError as error:
        named = float(re.search(r"give it --minutes ([\d.e+]+)$", str(error))[1])
        assert named > minutes
        minutes = named
        steps = steps_within(job, pace, minutes, elapsed)
        fewest = planning.FEWEST_STEPS * max(
            costs[0] / planning.PRETRAIN_SHARE if labelled else costs[0],
            costs[1] / (1 - planning.PRETRAIN_SHARE) if job.pretrain else costs[1],
        )
        needed = (fewest + fixed_seconds(job, pace) + elapsed) * planning.MARGIN
        assert 60 * minutes * planning.USED_SHARE <= needed + 6
    total = spent(job, pace, steps, elapsed)
    assert total <= 60 * minutes * planning.USED_SHARE + 1e-6
    assert total > 60 * minutes * planning.USED_SHARE - sum(costs) - 1e-6
    for wanted, cost, number in zip((job.pretrain, labelled), costs, steps):
        assert (number >= planning.FEWEST_STEPS) if wanted else number == 0
        assert bool(cost) == wanted


def test_pretraining_gets_its_share_of_the_training_time():
    job = run(holdout())
    steps = steps_within(job, PACE, 30, 10)
    pretraining, finetuning = (n * c for n, c in zip(steps, step_costs(job, PACE)))
    share = pretraining / (pretraining + finetuning)
    assert share == pytest.approx(planning.PRETRAIN_SHARE, abs=0.01)


def test_every_fold_of_a_cross_validation_is_paid_for():
    one, six = (step_costs(run(split), PACE)[1] for split in (holdout(), folds(5)))
    assert six == pytest.approx(6 * one)
    few, many = (steps_within(run(split), PACE, 30, 0)[1] for split in (folds(5), holdout()))
    assert 5 <= many / few <= 7


def test_scoring_is_part_of_the_price_of_a_step():
    recipe = load_recipe("selective")
    passes = replace(recipe, scoring=replace(recipe.scoring, masks="pair"))
    random = replace(passes, selection=replace(passes.selection, hard_share=0.0))
    one_stage = replace(passes, pretrain=replace(passes.pretrain, stages=1))
    with_scoring = step_costs(run(holdout(), recipe=passes), PACE)[0]
    for free in (recipe, random, one_stage):
        without = step_costs(run(holdout(), recipe=free), PACE)[0]
        assert with_scoring == pytest.approx(without / (1 - recipe.scoring.time_share))


def test_validation_and_test_photos_take_time():
    small, large = (fixed_seconds(run(split), PACE) for split in (holdout(), holdout(12, 14, 4)))
    # Ten photos more: in every validation, and once to calibrate.
    assert large - small == pytest.approx((10 * Recipe().finetune.evaluations + 10) * PACE.photo)
    small, large = (fixed_seconds(run(split), PACE) for split in (holdout(), holdout(12, 4, 24)))
    assert large > small + 20 * PACE.photo


def test_a_budget_that_is_too_small_names_the_minimum():
    with pytest.raises(ConfigError) as caught:
        steps_within(run(holdout()), PACE, 0.5, 3)
    assert str(caught.value).startswith("--minutes 0.5 is too short for a useful model; expected ")


def whole_run(split):
    return Run(
        folder=None,
        farm=None,
        split=split,
        recipe=Recipe(),
        device=None,
        seed=0,
        init="none",
        pretrain=True,
        check={},
        resume=False,
        scale=1.0,
        notes=(),
    )


@pytest.mark.parametrize(("minutes", "practises"), [(30, True), (4, False)])
def test_a_budget_that_is_too_short_for_practice_is_planned_without_it(
    monkeypatch, minutes, practises
):
    """A step with practice takes twice the time here; without it the step is what was measured."""

    def measured(job):
        practice = job.recipe.finetune.consistency_weight > 0
        return replace(PACE, finetune_step=0.8 if practice else 0.4)

    monkeypatch.setattr(planning, "measure", measured)
    job = whole_run(holdout())
    planned = planning.plan_steps(job, minutes, 5)
    config = planned.recipe.finetune
    assert (config.consistency_weight > 0) == practises
    with_practice = config.steps / (1 if practises else 2)
    assert (with_practice >= config.consistency_min_steps) == practises
    expected = steps_within(job, measured(planned), minutes, 5)
    assert config.steps == pytest.approx(expected[1], abs=1)


def test_the_plan_changes_the_recipe(monkeypatch):
    monkeypatch.setattr(planning, "measure", lambda _: PACE)
    job = whole_run(holdout())
    planned = planning.plan_steps(job, 20, 5)
    steps = (planned.recipe.pretrain.steps, planned.recipe.finetune.steps)
    assert steps == pytest.approx(steps_within(job, PACE, 20, 5), abs=1)
    assert replace(planned, recipe=job.recipe) == job


def test_a_recipe_of_few_steps_is_measured_as_long_as_it_may_become(monkeypatch, tmp_path):
    """Or a budget that allows many steps would be planned without practice and trained with it."""
    seen = []

    class Measured(Exception):
        pass

    def build(_farm, _photos, recipe, _options):
        seen.append(recipe.finetune.steps)
        raise Measured

    monkeypatch.setattr(planning.finetuning, "build_task", build)
    short = Recipe(finetune=FinetuneConfig(steps=100))
    with pytest.raises(Measured):
        planning._measure_finetuning(replace(whole_run(holdout()), recipe=short), tmp_path)
    assert seen == [short.finetune.consistency_min_steps]
