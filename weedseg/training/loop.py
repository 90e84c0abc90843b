"""fit(): the one training loop. A task brings batches and a loss; the loop brings the rest.

The batch of a step depends on (seed, attempt, step) alone, so resuming needs no sampler state: the
checkpoint holds the network, the optimiser, what the task adds, and the step.
"""

from __future__ import annotations

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
from weedseg.errors import CheckpointError, NonFiniteLossError
from weedseg.training import checkpoint, distributed, metrics
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

    @property
    def net(self) -> nn.Module:
        """The network."""

    @property
    def kept(self) -> nn.Module:
        """The network whose weights are the result: itself, or an average of it."""

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
        self.optimiser = make(self.net.parameters(), options.lr, weight_decay=options.weight_decay)
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
            "torch_rng": torch.get_rng_state(),
            "seconds": self.result.seconds,
        }

    def start(self) -> None:
        """Begin at step 0; what an earlier run left in the folder goes."""
        if self.leader:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for kind in (checkpoint.STEP, checkpoint.BEST):
                checkpoint.delete(checkpoint.list_checkpoints(self.checkpoints, kind))
            self.metrics.unlink(missing_ok=True)
        self.save()

    def save(self) -> None:
        if self.leader:
            name = checkpoint.checkpoint_name(checkpoint.STEP, self.step)
            checkpoint.save_checkpoint(self.checkpoints, name, self.state())
            checkpoint.keep_newest(self.checkpoints)

    def restore(self) -> bool:
        """Go back to the newest whole checkpoint; tells whether there is one.

        Raises:
            CheckpointError: It belongs to another network or task.
        """
        state = checkpoint.load_newest(self.checkpoints)
        if state is None:
            return False
        try:
            self.net.load_state_dict(state["net"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.task.load_state_dict(state["task"])
            self.step, self.attempt = state["step"], state["attempt"]
            self.result.seconds = state["seconds"]
            torch.set_rng_state(state["torch_rng"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"the checkpoint in {self.checkpoints} does not fit this run",
                "one of the same recipe",
                "use another folder, or run without --resume",
            ) from error
        self.result.num_reloads = self.attempt
        self._restore_best()
        if self.leader:
            newer = checkpoint.checkpoint_name(checkpoint.STEP, self.step + 1)
            found = checkpoint.list_checkpoints(self.checkpoints, checkpoint.STEP)
            checkpoint.delete([path for path in found if path.stem >= newer])  # all damaged
            metrics.cut_after(self.metrics, self.step)
        return True

    def _restore_best(self) -> None:
        """Find the best weights on disk; they may be newer than the checkpoint gone back to."""
        self.result.best_step, self.result.best_score = 0, None
        for path in checkpoint.list_checkpoints(self.checkpoints, checkpoint.BEST):
            try:
                state = checkpoint.load_checkpoint(path)
            except CheckpointError as error:
                logger.warning("%s; it is left out", error.found)
                continue
            best: float | None = self.result.best_score
            if best is None or state["score"] > best:
                self.result.best_step, self.result.best_score = state["step"], state["score"]

    def _keep_best(self, score: float) -> None:
        """Save the kept network if no step before was better."""
        best = self.result.best_score
        if best is not None and score <= best:
            return
        self.result.best_score, self.result.best_step = score, self.step
        if self.leader:
            old = checkpoint.list_checkpoints(self.checkpoints, checkpoint.BEST)
            name = checkpoint.checkpoint_name(checkpoint.BEST, self.step)
            state = {"net": self.task.kept.state_dict(), "step": self.step, "score": score}
            new = checkpoint.save_checkpoint(self.checkpoints, name, state)
            checkpoint.delete([path for path in old if path != new])

    def train_step(self, batch: Any) -> dict[str, float]:
        """Do one optimiser update.

        Raises:
            NonFiniteLossError: Loss or gradient is NaN or infinite in any process; weights are
                untouched.
        """
        factor = self.options.schedule.factor(self.step) * 0.5**self.attempt
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.lr * factor
        loss, values = self.task.loss(self.model, batch, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
        finite = bool(torch.isfinite(loss.detach()) & torch.isfinite(norm))
        if distributed.any_process(not finite):
            names = {name for part in distributed.gather(batch.names) for name in part}
            raise NonFiniteLossError(
                f"loss {loss.item()} and gradient {norm.item()} at {self.options.phase} "
                f"step {self.step}, photos {', '.join(sorted(names))}",
                "finite numbers",
                "look at these photos, or lower the learning rate",
            )
        self.optimiser.step()
        return {"loss": loss.item(), "lr": self.options.lr * factor, **values}

    def finish_step(self, values: dict[str, float], started: float) -> None:
        scores = self.task.end_step(self.step) or {}
        if scores:  # batch norm differs a little between processes: the first one's count
            scores = distributed.gather(scores)[0]
        self.step += 1
        now = time.perf_counter()
        self.result.step_seconds.append(now - started)
        self.result.seconds += now - started
        last = self.step == self.options.steps
        if "selection" in scores:
            self._keep_best(scores["selection"])
        if self.leader and (scores or last or self.step % self.options.log_every == 0):
            line = {"step": self.step, **values, **scores, "seconds": self.result.seconds}
            metrics.append_line(self.metrics, line)
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
        self.attempt = self.result.num_reloads = attempt


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
        CheckpointError: What is to be resumed belongs to another network or task.
        OutputError: The disk is full; the last checkpoint is intact.
        SystemExit: After SIGTERM (143) or SIGINT (130), with a checkpoint of the last full step.
    """
    run = _Run(task, options, reporter or SilentReporter())
    if not (options.resume and run.restore()):
        run.start()
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
