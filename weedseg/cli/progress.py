"""What a person sees while a network trains: a bar with rate, time left and the latest values."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

SHOWN = {
    "loss": "loss {:.3f}",
    "hidden_l1": "hidden L1 {:.3f}",
    "val_weed_iou": "val weed IoU {:.3f}",
}
LINE_EVERY_S = 30.0
"""Where nobody watches, as in a log file, a line is written so often, s."""


class TrainingBar:
    """A `weedseg.training.loop.Reporter`: a bar per phase; lines where there is no terminal."""

    def __init__(self, silent: bool = False) -> None:
        """Prepare; nothing is drawn before the first step.

        Args:
            silent: Write nothing, as every process but the first should.
        """
        self._silent = silent
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", table_column=_whole()),
            BarColumn(bar_width=16),
            MofNCompleteColumn(table_column=_whole()),
            TextColumn("{task.fields[rate]}", table_column=_whole()),
            TimeElapsedColumn(table_column=_whole()),
            TextColumn("left", table_column=_whole()),
            TimeRemainingColumn(table_column=_whole()),
            TextColumn("{task.fields[values]}", table_column=Column(no_wrap=True, ratio=1)),
            console=self._console,
            refresh_per_second=2,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._latest: dict[str, dict[str, float]] = {}
        self._first: dict[str, tuple[int, float]] = {}
        self._steps: dict[str, int] = {}
        self._last_line_s = time.monotonic()

    def __enter__(self) -> TrainingBar:
        """Wait for the first step."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        if self._tasks:
            self._bar.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        if not self._silent:
            self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def update(self, phase: str, step: int, total: int, values: dict[str, float]) -> None:
        """Show that a step is done; a smaller one than before begins the phase anew."""
        if self._silent:
            return
        if step < self._steps.get(phase, 0):
            self._begin_anew(phase, total)
        self._steps[phase] = step
        latest = self._latest.setdefault(phase, {})
        latest.update(values)
        shown = ", ".join(text.format(latest[key]) for key, text in SHOWN.items() if key in latest)
        if self._console.is_terminal:
            self._draw(phase, step, total, shown)
        else:
            self._write_line(phase, step, total, shown)

    def _begin_anew(self, phase: str, total: int) -> None:
        """Forget the last run of a phase of this name: its values and its clock."""
        self._latest.pop(phase, None)
        self._first.pop(phase, None)
        if phase in self._tasks:
            self._bar.reset(self._tasks[phase], total=total, rate="", values="")

    def _draw(self, phase: str, step: int, total: int, shown: str) -> None:
        """Move the bar of a phase."""
        if not self._tasks:
            self._bar.start()
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(
                phase, total=total, completed=step, rate="", values=""
            )
        task = self._bar.tasks[self._tasks[phase]]
        speed = task.finished_speed or task.speed
        rate = f"{speed:.1f} steps/s" if speed else ""
        self._bar.update(self._tasks[phase], completed=step, rate=rate, values=shown)

    def _write_line(self, phase: str, step: int, total: int, shown: str) -> None:
        """Write a line now and then, and at the end of a phase."""
        now = time.monotonic()
        first_step, first_s = self._first.setdefault(phase, (step, now))
        if step < total and now - self._last_line_s < LINE_EVERY_S:
            return
        self._last_line_s = now
        rate = (step - first_step) / (now - first_s) if step > first_step else 0.0
        pace = f", {rate:.1f} steps/s, {(total - step) / rate / 60:.1f} min left" if rate else ""
        self.say(f"{phase} {step}/{total}{pace}, {shown}")


def _whole() -> Column:
    """Make a column that is never cut short."""
    return Column(no_wrap=True, overflow="ignore")
