"""``weedseg pretrain``: learn from all photos, labelled or not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import typer

from weedseg.cli import options


def pretrain(
    farm_images: options.FarmImages,
    *,
    labels: options.Labels = None,
    out: options.Out = None,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    init: options.Init = "auto",
    device: options.Device = "auto",
    seed: options.Seed = 0,
    resume: options.Resume = False,
) -> None:
    """Pretrain only; weedseg finetune, evaluate and export go on with the run folder.

    Raises:
        WeedsegError: Something is wrong with folder, options or machine.
    """
    started = time.perf_counter()
    from weedseg.cli.progress import TrainingBar
    from weedseg.pipeline.stages import pretrain_stage
    from weedseg.pipeline.train import prepare
    from weedseg.training import distributed

    chosen = options.run_options(
        farm_images,
        out,
        recipe=recipe,
        settings=settings,
        device=device,
        labels=labels,
        init=init,
        seed=seed,
        resume=resume,
    )
    with distributed.process_group():
        first = not distributed.rank()
        with TrainingBar(silent=not first) as bar:
            run = prepare(chosen, bar.say, started)
            summary = pretrain_stage(run, bar)
    if first:
        _show(summary, run.folder.path, run.recipe.uses_scores)


def _show(summary: dict[str, Any], folder: Path, has_scored: bool) -> None:
    share = 100 * summary["scoring_share"]
    scored = f"; scoring took {share:.1f} % of the time" if has_scored else ""
    typer.echo(f"{summary['steps']} steps on {summary['num_photos']} photos{scored}")
    typer.echo(f"next: weedseg finetune {folder}")
