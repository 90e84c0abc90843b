"""``weedseg evaluate``: score the segmenter of a run on held-out photos."""

from __future__ import annotations

import typer

from weedseg.cli import options
from weedseg.cli.tables import show_evaluation


def evaluate(run: options.RunPath) -> None:
    """Score a run's exported model on the photos held out from the start, and write the report.

    Raises:
        WeedsegError: The run is not trained yet.
    """
    from weedseg.pipeline.evaluating import evaluate_stage
    from weedseg.pipeline.report import write_report
    from weedseg.pipeline.run import reopen
    from weedseg.pipeline.stages import describe_stage, export_stage

    opened = reopen(run)
    if not opened.folder.model.exists():
        export_stage(opened)
    values = evaluate_stage(opened)
    describe_stage(opened)
    show_evaluation(values)
    typer.echo(f"report: {write_report(run)}")
