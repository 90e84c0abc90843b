"""fit(): the one training loop. A task brings batches and a loss; the loop brings the rest.

The batch of a step depends on (seed, attempt, step) alone, so resuming needs no sampler state: the
checkpoint holds the network, the optimiser, what the task adds, and the step.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from weedseg.data.datasets import Prefetcher
from weedseg.errors import NonFiniteLossError
from weedseg.training import checkpoint, distributed
from weedseg.training.schedule import Schedule

logger = logging.getLogger(__name__)

MAX_RELOADS = 3
CLIP_NORM = 5.0


class Batch(Protocol):
    """What a task prepares for one step."""

    @property
    def names(self) -> list[str]:
        """Names of the photos in the batch, for messages."""


class Task(Protocol):
    """What is being trained."""

    net: nn.Module

    def prepare(self, step: int, attempt: int) -> Any:
        """Make the batch of a step; called in a background thread, must not touch the network."""

    def begin_step(self, step: int) -> None:
        """Do what has to happen before a step, e.g. score at a stage border."""

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of a batch through `model` (the network, perhaps wrapped)."""

    def end_step(self, step: int) -> dict[str, float] | None:
        """Do what follows a step; returned scores are logged, `selection` among them is judged."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a kill beside network and optimiser."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""


class Reporter(Protocol):
    """Who is told about progress."""

    def update(self, phase: str, step: int, total: int, values: dict[str, float]) -> None:
        """Hear that a step is done."""


class SilentReporter:
    """Tells nobody."""

    def update(self, phase: str, step: int, total: int, values: dict[str, float]) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How long and how fast."""

    phase: str
    folder: Path
    steps: int
    lr: float
    schedule: Schedule
    device: torch.device
    weight_decay: float = 0.0
    decoupled: bool = True
    """AdamW; otherwise Adam."""
    resume: bool = False
    log_every: int = 10
    checkpoint_every: int = 200


@dataclass
class FitResult:
    """What a fit did."""

    steps: int
    seconds: float
    step_seconds: list[float] = field(default_factory=list)
    """Time of each step of this process's own, s, waiting for data included."""
    best_step: int = 0
    best_score: float | None = None
    num_reloads: int = 0

    @property
    def median_step_seconds(self) -> float:
        """Median time of a step, s."""
        return statistics.median(self.step_seconds) if self.step_seconds else math.nan


class _Stop:
    """Remembers SIGTERM and SIGINT until the step's end."""

    number: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.number = number


@contextmanager
def _signals() -> Iterator[_Stop]:
    stop = _Stop()
    old = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            old[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread: whoever owns the signals handles them
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Run:
    """State of one fit."""

    def __init__(self, task: Task, options: FitOptions, reporter: Reporter) -> None:
        self.task, self.options, self.reporter = task, options, reporter
        self.net = task.net.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = distributed.wrap(self.net, options.device)
        make = torch.optim.AdamW if options.decoupled else torch.optim.Adam
        self.optimiser = make(
            self.net.parameters(), options.lr, weight_decay=options.weight_decay
        )
        self.step, self.attempt = 0, 0
        self.result = FitResult(steps=options.steps, seconds=0.0)
        self.checkpoints = options.folder / "checkpoints"
        self.metrics = options.folder / "metrics.jsonl"
        self.leader = distributed.rank() == 0

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "attempt": self.attempt,
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "task": self.task.state_dict(),
            "best_step": self.result.best_step,
            "best_score": self.result.best_score,
            "torch_rng": torch.get_rng_state(),
            "seconds": self.result.seconds,
        }

    def save(self) -> None:
        if self.leader:
            checkpoint.save_checkpoint(
                self.checkpoints, checkpoint.step_name(self.step), self.state()
            )
            checkpoint.keep_newest(self.checkpoints)

    def restore(self) -> bool:
        state = checkpoint.load_newest(self.checkpoints)
        if state is None:
            return False
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.task.load_state_dict(state["task"])
        self.step, self.attempt = state["step"], state["attempt"]
        self.result.best_step, self.result.best_score = state["best_step"], state["best_score"]
        self.result.seconds = state["seconds"]
        torch.set_rng_state(state["torch_rng"])
        if self.leader:
            _cut_metrics(self.metrics, self.step)
        return True

    def train_step(self, batch: Any) -> dict[str, float]:
        """Do one optimiser update.

        Raises:
            NonFiniteLossError: Loss or gradient is NaN or infinite; weights are untouched.
        """
        factor = self.options.schedule.factor(self.step) * 0.5**self.attempt
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.lr * factor
        loss, values = self.task.loss(self.model, batch, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        if not bool(torch.isfinite(loss.detach()) & torch.isfinite(norm)):
            raise NonFiniteLossError(
                f"loss {loss.item()} and gradient {norm.item()} at {self.options.phase} "
                f"step {self.step}, photos {', '.join(sorted(set(batch.names)))}",
                "finite numbers",
                "look at these photos, or lower the learning rate",
            )
        self.optimiser.step()
        return {"loss": loss.item(), "lr": self.options.lr * factor, **values}

    def finish_step(self, values: dict[str, float], started: float) -> None:
        scores = self.task.end_step(self.step) or {}
        self.step += 1
        now = time.perf_counter()
        self.result.step_seconds.append(now - started)
        self.result.seconds += now - started
        last = self.step == self.options.steps
        chosen = scores.get("selection")
        best = self.result.best_score
        if chosen is not None and (best is None or chosen > best):
            self.result.best_score, self.result.best_step = chosen, self.step
            if self.leader:
                checkpoint.save_checkpoint(
                    self.checkpoints, checkpoint.BEST, {"net": self.net.state_dict()}
                )
        if self.leader and (scores or last or self.step % self.options.log_every == 0):
            line = {"step": self.step, **values, **scores, "seconds": self.result.seconds}
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps({k: _finite(v) for k, v in line.items()}) + "\n")
        self.reporter.update(
            self.options.phase, self.step, self.options.steps, {**values, **scores}
        )
        if last or self.step % self.options.checkpoint_every == 0:
            self.save()

    def recover(self, error: NonFiniteLossError) -> None:
        """Go back to the last good checkpoint with other batches and half the learning rate.

        Raises:
            NonFiniteLossError: It happened too often, or there is nothing to go back to.
        """
        attempt = self.attempt + 1
        if attempt > MAX_RELOADS:
            raise error
        logger.warning("%s; going back to the last good checkpoint", error.found)
        if not self.restore():
            raise error
        self.attempt = attempt
        self.result.num_reloads += 1


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cut_metrics(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        checkpoint.write_durably(path, "".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut short by a kill
        return math.inf


def fit(task: Task, options: FitOptions, reporter: Reporter | None = None) -> FitResult:
    """Train a task.

    Args:
        task: Brings network, batches and loss.
        options: Length, learning rate, folder, device.
        reporter: Is told about every step.

    Returns:
        Steps, times and the best step by the task's `selection` score.

    Raises:
        NonFiniteLossError: The loss stayed NaN after three tries from the last good checkpoint.
        SystemExit: After SIGTERM (143) or SIGINT (130), with a checkpoint of the last full step.
    """
    run = _Run(task, options, reporter or SilentReporter())
    if run.leader:
        run.checkpoints.mkdir(parents=True, exist_ok=True)
    if not (options.resume and run.restore()):
        if run.leader:
            run.metrics.unlink(missing_ok=True)
        run.save()
    with _signals() as stop:
        while run.step < options.steps:
            try:
                _train(run, stop)
            except NonFiniteLossError as error:
                run.recover(error)
    return run.result


def _train(run: _Run, stop: _Stop) -> None:
    def make(step: int) -> Any:
        return run.task.prepare(step, run.attempt)

    batches = Prefetcher(make, run.step, run.options.steps)
    started = time.perf_counter()
    try:
        for batch in batches:
            run.task.begin_step(run.step)
            run.finish_step(run.train_step(batch), started)
            started = time.perf_counter()
            if distributed.any_process(stop.number is not None):
                run.save()
                number = stop.number or signal.SIGTERM
                logger.warning("stopped by a signal at step %d; --resume goes on there", run.step)
                raise SystemExit(128 + number)
    finally:
        batches.close()
