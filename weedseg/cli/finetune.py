"""``weedseg finetune``: train the segmenter of a run on its few labels."""

from __future__ import annotations

import typer

from weedseg.cli import options


def finetune(run: options.RunPath) -> None:
    """Fine-tune a run on its labelled photos; goes on where a stopped one was.

    Raises:
        WeedsegError: The run has no labels, or training cannot go on.
    """
    from weedseg.cli.progress import TrainingBar
    from weedseg.errors import FieldDataError
    from weedseg.pipeline.run import reopen
    from weedseg.pipeline.stages import finetune_stage
    from weedseg.training import distributed

    with distributed.process_group():
        first = not distributed.rank()
        with TrainingBar(silent=not first) as bar:
            opened = reopen(run)
            if opened.split.kind == "unlabelled":
                raise FieldDataError(
                    f"{run} was made without labels",
                    "labelled photos",
                    f"label some, then weedseg train --no-pretrain --init {run}",
                )
            summary = finetune_stage(opened, bar)
    if first:
        typer.echo(f"best step {summary['best_step']} of {summary['steps']}")
        typer.echo(f"next: weedseg evaluate {run}")
