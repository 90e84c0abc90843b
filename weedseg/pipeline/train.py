"""The whole way: photos in, model, figures and report out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from weedseg.pipeline.evaluating import evaluate_stage
from weedseg.pipeline.labelling import label_first_stage
from weedseg.pipeline.planning import plan_steps
from weedseg.pipeline.report import write_report
from weedseg.pipeline.run import Run, RunOptions, record, settle
from weedseg.pipeline.stages import (
    describe_stage,
    export_stage,
    finetune_stage,
    pretrain_stage,
)
from weedseg.training import distributed
from weedseg.training.loop import Reporter

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run led to."""

    run: Run
    report: Path
    evaluation: dict[str, Any] | None
    """What ``evaluation.json`` holds; None when there is no label."""
    label_first: tuple[str, ...] = ()
    """Photos to label first, when there is no label."""


def prepare(options: RunOptions, say: Say, started: float) -> Run:
    """Settle the run, plan its steps and record both before step 0.

    Args:
        options: What was asked for.
        say: Hears sentences for the person.
        started: `time.perf_counter()` at the start of the command.

    Raises:
        ConfigError: Options, recipe or budget do not fit.
        FieldDataError: The farm folder has faults.
    """
    options = replace(options, out=distributed.gather(options.out)[0])
    run = settle(options)
    distributed.wait_for_all()
    for note in run.notes:
        say(note)
    if options.resume:
        return run
    if options.minutes:
        run = plan_steps(run, options.minutes, time.perf_counter() - started)
        say(
            f"planned for {options.minutes:g} minutes: "
            f"{run.recipe.pretrain.steps if run.pretrain else 0} pretraining and "
            f"{run.recipe.finetune.steps} fine-tuning steps"
        )
    record(run, options)
    return run


def train(
    options: RunOptions, say: Say, reporter: Reporter | None = None, started: float | None = None
) -> Outcome:
    """Pretrain, fine-tune, export, evaluate, report; without labels, say what to label first.

    Args:
        options: What was asked for.
        say: Hears sentences for the person.
        reporter: Is told about every training step.
        started: `time.perf_counter()` at the start of the command; None is now.

    Returns:
        Where the report is and what was measured.

    Raises:
        WeedsegError: A stage cannot go on; what was done before is kept.
    """
    started = time.perf_counter() if started is None else started
    run = prepare(options, say, started)
    pretrain_stage(run, reporter)
    if run.split.kind == "unlabelled":
        return _without_labels(run, started)
    finetune_stage(run, reporter)
    return finish(run, say, started)


def _without_labels(run: Run, started: float) -> Outcome:
    names: list[str] = []
    if distributed.rank() == 0:
        names = label_first_stage(run)
    distributed.wait_for_all()
    run.folder.update("run.json", {"seconds": {"total": time.perf_counter() - started}})
    return Outcome(run=run, report=_report(run), evaluation=None, label_first=tuple(names))


def finish(run: Run, say: Say, started: float) -> Outcome:
    """Export, evaluate and report; the first process does, the others wait.

    The model is exported before it is evaluated, because the exported file is what is measured,
    and its metadata are completed with the figures afterwards.

    Raises:
        ParityError: The exported model differs from the network.
    """
    evaluation: dict[str, Any] = {}
    if distributed.rank() == 0:
        say("exporting the model and comparing it with the network")
        export_stage(run)
        say("measuring it, drawing the report")
        evaluation = evaluate_stage(run)
        describe_stage(run)
    distributed.wait_for_all()
    run.folder.update("run.json", {"seconds": {"total": time.perf_counter() - started}})
    return Outcome(run=run, report=_report(run), evaluation=evaluation)


def _report(run: Run) -> Path:
    if distributed.rank() == 0:
        write_report(run.folder.path)
    distributed.wait_for_all()
    return run.folder.path / "report.html"
