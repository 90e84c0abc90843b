"""``weedseg train``: a folder of field photos in, a model and its report out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from weedseg.cli import options
from weedseg.cli.tables import show_evaluation

if TYPE_CHECKING:
    from weedseg.pipeline.train import Outcome


def train(
    farm_images: options.FarmImages,
    *,
    labels: options.Labels = None,
    out: options.Out = None,
    recipe: options.RecipeName = "default",
    settings: options.Settings = None,
    init: options.Init = "auto",
    pretrain: Annotated[
        bool, typer.Option("--pretrain/--no-pretrain", help="Learn from all photos first.")
    ] = True,
    minutes: options.Minutes = 0,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    resume: options.Resume = False,
) -> None:
    """Pretrain on all photos, fine-tune on the labelled ones, export, measure and report.

    Raises:
        WeedsegError: Something is wrong with folder, options or machine.
    """
    started = time.perf_counter()
    from weedseg.cli.progress import TrainingBar
    from weedseg.pipeline.train import train as run_train
    from weedseg.training import distributed

    chosen = options.run_options(
        farm_images,
        out,
        recipe=recipe,
        settings=settings,
        device=device,
        labels=labels,
        init=init,
        pretrain=pretrain,
        minutes=minutes,
        seed=seed,
        resume=resume,
    )
    with distributed.process_group():
        first = not distributed.rank()
        with TrainingBar(silent=not first) as bar:
            outcome = run_train(chosen, bar.say, bar, started)
    if first:
        _show(outcome)


def _show(outcome: Outcome) -> None:
    folder = outcome.run.folder.path
    if outcome.evaluation is None:
        typer.echo("no labels yet: pretrained weights are kept; label these photos first:")
        for name in outcome.label_first:
            typer.echo(f"  {name}")
        typer.echo(f"list: {folder / 'label_first.csv'}, pictures: {outcome.report}")
        typer.echo(f"then: weedseg train --farm-images DIR --no-pretrain --init {folder}")
        return
    show_evaluation(outcome.evaluation)
    typer.echo(f"model:  {outcome.run.folder.model}")
    typer.echo(f"report: {outcome.report}")
    typer.echo(f"next:   weedseg predict --model {outcome.run.folder.model} PHOTOS --out DIR")
