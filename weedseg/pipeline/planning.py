"""How many steps fit into the minutes that a person has: measured once, fixed before step 0."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from weedseg.errors import ConfigError
from weedseg.finetuning import run as finetuning
from weedseg.nets.prediction import predict_class_map
from weedseg.pipeline.run import Run, with_steps
from weedseg.pipeline.stages import NUM_WEED_CANDIDATES
from weedseg.pretraining import run as pretraining
from weedseg.training import distributed
from weedseg.training.timing import step_seconds

PRETRAIN_SHARE = 0.1
"""Share of the training time that goes into pretraining; more showed no gain (DECISIONS.md)."""
FEWEST_STEPS = 40
"""Fewer steps than this in a phase are of no use."""
USED_SHARE = 0.95
"""Share of the budget that is planned; the rest is for a machine that slows down."""
MOST_CALIBRATED = 100
"""Photos that fit the temperature and that measure it, at most."""
FIXED_SECONDS = 18.0
"""Start-up, first checkpoints, batch-norm statistics, graph export, report; s."""
MARGIN = 1.05
"""The minimum that a person is told is so much more than the estimate."""
LOOP_FACTOR = 1.08
"""A step of the loop against the bare step: waiting for data, logging, checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What was measured, s."""

    pretrain_step: float = 0.0
    """0 when there is no pretraining."""
    finetune_step: float = 0.0
    """0 when there is no label."""
    photo: float = 0.0
    """Segmenting one photo."""
    set_up: float = 0.0
    """Building the tasks of both phases once, first photos decoded."""


def measure(run: Run) -> Pace:
    """Time a few steps of both phases and one prediction.

    Raises:
        FieldDataError: The training masks cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        pretrain_step, first = (
            _measure_pretraining(run, Path(folder)) if run.pretrain else (0.0, 0.0)
        )
        if not run.split.train:
            return Pace(pretrain_step=pretrain_step, set_up=first)
        finetune_step, photo, second = _measure_finetuning(run, Path(folder))
    return Pace(
        pretrain_step=pretrain_step,
        finetune_step=finetune_step,
        photo=photo,
        set_up=first + second * _num_fits(run),
    )


def _measure_pretraining(run: Run, folder: Path) -> tuple[float, float]:
    """Return seconds of a step and of the set-up."""
    started = time.perf_counter()
    options = pretraining.PretrainOptions(folder=folder, device=run.device, seed=run.seed)
    recipe = replace(run.recipe, pretrain=replace(run.recipe.pretrain, stages=1))
    task = pretraining.build_task(run.farm, run.pretrain_photos, recipe, options)
    set_up = time.perf_counter() - started
    return step_seconds(task, run.device), set_up


def _measure_finetuning(run: Run, folder: Path) -> tuple[float, float, float]:
    """Return seconds of a step, of segmenting a photo and of the set-up."""
    started = time.perf_counter()
    options = finetuning.FinetuneOptions(
        folder=folder,
        device=run.device,
        seed=run.seed,
        scale=run.scale,
        practice=run.split.unlabelled,
    )
    # As long as practice needs: how many steps there will be is what is being found out.
    config = run.recipe.finetune
    steps = max(config.steps, config.consistency_min_steps)
    recipe = replace(run.recipe, finetune=replace(config, steps=steps))
    task = finetuning.build_task(run.farm, (run.split.train, ()), recipe, options)
    set_up = time.perf_counter() - started
    step = step_seconds(task, run.device)
    export, image = run.recipe.export, task.pool.image(0)
    predict_class_map(task.net, image, export.tile_px, export.overlap_px)
    started = time.perf_counter()
    predict_class_map(task.net, image, export.tile_px, export.overlap_px)
    return step, time.perf_counter() - started, set_up


def plan_steps(run: Run, minutes: float, elapsed: float) -> Run:
    """Fix the numbers of steps so that the whole command takes about so many minutes.

    Args:
        run: The run, with the recipe's numbers of steps.
        minutes: Wall-clock budget of the command.
        elapsed: Seconds that the command has taken already.

    Returns:
        The run with the planned steps.

    Raises:
        ConfigError: The budget is too small to be useful.
    """
    started = time.perf_counter() - elapsed
    pace = measure(run)
    if _too_short_to_practise(run, pace, minutes, time.perf_counter() - started):
        config = replace(run.recipe.finetune, consistency_weight=0.0)
        run = replace(run, recipe=replace(run.recipe, finetune=config))
        pace = measure(run)
    # All processes follow the first one's clock.
    pace, elapsed = distributed.gather((pace, time.perf_counter() - started))[0]
    pretrain_steps, finetune_steps = steps_within(run, pace, minutes, elapsed)
    return with_steps(
        run,
        pretrain_steps or run.recipe.pretrain.steps,
        finetune_steps or run.recipe.finetune.steps,
    )


def _too_short_to_practise(run: Run, pace: Pace, minutes: float, elapsed: float) -> bool:
    """Tell whether practice would leave too few fine-tuning steps to be of use, in any process."""
    config = run.recipe.finetune
    if not run.split.train or not config.consistency_weight:
        return False
    budget = 60 * minutes * USED_SHARE - elapsed - fixed_seconds(run, pace)
    steps = budget * _shares(run)[1] / step_costs(run, pace)[1]
    return distributed.any_process(steps < config.consistency_min_steps)


def steps_within(run: Run, pace: Pace, minutes: float, elapsed: float) -> tuple[int, int]:
    """Divide a budget between both phases.

    Args:
        run: What is to be done.
        pace: What was measured.
        minutes: Wall-clock budget of the command.
        elapsed: Seconds that are gone already.

    Returns:
        Pretraining and fine-tuning steps; 0 for a phase that does not take place.

    Raises:
        ConfigError: The budget is too small to be useful.
    """
    fixed = elapsed + fixed_seconds(run, pace)
    budget = 60 * minutes * USED_SHARE - fixed
    phases = []
    for cost, share in zip(step_costs(run, pace), _shares(run)):
        phases.append((cost, share) if share else None)
    steps = [math.floor(budget * p[1] / p[0]) if p else 0 for p in phases]
    if any(p and n < FEWEST_STEPS for p, n in zip(phases, steps)):
        training = max(FEWEST_STEPS * p[0] / p[1] for p in phases if p)
        needed = math.ceil((training + fixed) * MARGIN / USED_SHARE / 6) / 10
        raise ConfigError(
            f"--minutes {minutes:g} is too short for a useful model",
            f"{needed:g} or more: {FEWEST_STEPS} steps a phase, export and test",
            f"give it --minutes {needed:g}",
        )
    return steps[0], steps[1]


def step_costs(run: Run, pace: Pace) -> tuple[float, float]:
    """Return seconds per planned step: pretraining with scoring, fine-tuning over all folds."""
    config = run.recipe
    has_passes = config.uses_scores and config.scoring.has_own_passes
    scoring = config.scoring.time_share if has_passes else 0.0
    pretrain = pace.pretrain_step * LOOP_FACTOR / (1 - min(scoring, 0.9))
    return pretrain, pace.finetune_step * LOOP_FACTOR * _num_fits(run)


def fixed_seconds(run: Run, pace: Pace) -> float:
    """Estimate all that does not grow with the steps: set-up, validation, export, evaluation."""
    split = run.split
    validated = len(split.val)
    tested = len(split.test) + sum(len(fold) for fold in split.folds)
    calibrated = min(validated + tested, MOST_CALIBRATED)
    photos = validated * run.recipe.finetune.evaluations + 1.5 * tested + calibrated
    photos += NUM_WEED_CANDIDATES + 30
    return FIXED_SECONDS + pace.set_up + pace.photo * photos


def _shares(run: Run) -> tuple[float, float]:
    """Return the share of the training time of each phase; 0 for one that does not take place."""
    if not run.split.train:
        return float(run.pretrain), 0.0
    return (PRETRAIN_SHARE, 1 - PRETRAIN_SHARE) if run.pretrain else (0.0, 1.0)


def _num_fits(run: Run) -> int:
    """Count how often the run fine-tunes: once per fold, and once on all labels."""
    return len(run.split.folds) + 1
