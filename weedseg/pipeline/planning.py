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
from weedseg.pipeline.stages import NUM_WEED_CANDIDATES, fold_photos
from weedseg.pretraining import run as pretraining
from weedseg.training import distributed
from weedseg.training.timing import step_seconds

PRETRAIN_SHARE = 0.6
"""Share of the training time that goes into pretraining."""
FEWEST_STEPS = 40
"""Fewer steps than this in a phase are of no use."""
USED_SHARE = 0.95
"""Share of the budget that is planned; the rest is for a machine that slows down."""
FIXED_SECONDS = 15.0
"""Start-up, first checkpoints, batch-norm statistics, graph export, report; s."""
LOOP_FACTOR = 1.08
"""A step of the loop against the bare step: waiting for data, logging, checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What was measured, s."""

    pretrain_step: float
    finetune_step: float
    photo: float
    """Segmenting one photo."""


def measure(run: Run) -> Pace:
    """Time a few steps of both phases and one prediction.

    Raises:
        FieldDataError: The training masks cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        pretrain_step = finetune_step = photo = 0.0
        if run.pretrain:
            options = pretraining.PretrainOptions(
                folder=Path(folder), device=run.device, seed=run.seed
            )
            recipe = replace(run.recipe, pretrain=replace(run.recipe.pretrain, stages=1))
            task = pretraining.build_task(run.farm, run.pretrain_photos, recipe, options)
            pretrain_step = step_seconds(task, run.device)
        if run.split.train:
            labelled = finetuning.FinetuneOptions(
                folder=Path(folder), device=run.device, seed=run.seed, scale=run.scale
            )
            tuning = finetuning.build_task(
                run.farm, (run.split.train, ()), run.recipe, labelled
            )
            finetune_step = step_seconds(tuning, run.device)
            export = run.recipe.export
            image = tuning.pool.image(0)
            predict_class_map(tuning.net, image, export.tile_px, export.overlap_px)
            started = time.perf_counter()
            predict_class_map(tuning.net, image, export.tile_px, export.overlap_px)
            photo = time.perf_counter() - started
    return Pace(pretrain_step=pretrain_step, finetune_step=finetune_step, photo=photo)


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
    started = time.perf_counter()
    pace = measure(run)
    pace = distributed.gather(pace)[0]  # all processes follow the first one's clock
    elapsed += time.perf_counter() - started
    fixed = elapsed + FIXED_SECONDS + _photo_seconds(run, pace)
    budget = 60 * minutes * USED_SHARE - fixed
    if distributed.world_size() > 1:
        budget = distributed.gather(budget)[0]
    share = PRETRAIN_SHARE if run.pretrain and run.split.train else float(run.pretrain)
    pretrain_cost, finetune_cost = _costs(run, pace)
    pretrain_steps = math.floor(budget * share / pretrain_cost) if pretrain_cost else 0
    finetune_steps = math.floor(budget * (1 - share) / finetune_cost) if finetune_cost else 0
    short = (pretrain_cost and pretrain_steps < FEWEST_STEPS) or (
        finetune_cost and finetune_steps < FEWEST_STEPS
    )
    if short:
        parts = [FEWEST_STEPS * pretrain_cost / share if pretrain_cost else 0.0]
        parts.append(FEWEST_STEPS * finetune_cost / (1 - share) if finetune_cost else 0.0)
        needed = math.ceil((max(parts) + fixed) / USED_SHARE / 6) / 10
        raise ConfigError(
            f"--minutes {minutes:g} leaves {pretrain_steps if pretrain_cost else finetune_steps} "
            "training steps in a phase",
            f"at least {FEWEST_STEPS}",
            f"give it --minutes {needed:g} or more",
        )
    return with_steps(
        run,
        pretrain_steps or run.recipe.pretrain.steps,
        finetune_steps or run.recipe.finetune.steps,
    )


def _costs(run: Run, pace: Pace) -> tuple[float, float]:
    """Return seconds per planned step: pretraining with scoring, fine-tuning over all folds."""
    config = run.recipe
    scoring = config.scoring.time_share if config.selection.hard_share else 0.0
    pretrain = pace.pretrain_step * LOOP_FACTOR / (1 - min(scoring, 0.9))
    fits = len(run.split.folds) + 1 if run.split.kind == "cross-validation" else 1
    return pretrain, pace.finetune_step * LOOP_FACTOR * fits


def _photo_seconds(run: Run, pace: Pace) -> float:
    """Estimate everything that is done per photo: validation, export's parity, evaluation."""
    evaluations = run.recipe.finetune.evaluations
    validated = len(run.split.val) * evaluations
    validated += sum(len(fold_photos(run.split.folds, i)[1]) for i in range(len(run.split.folds))) * evaluations
    tested = len(run.split.test) + sum(len(fold) for fold in run.split.folds)
    parity = NUM_WEED_CANDIDATES + 30
    return pace.photo * (validated + 1.5 * tested + parity)
