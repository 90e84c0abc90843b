"""What a person sees while a network trains: a bar with rate, time left and the latest values."""

from __future__ import annotations

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

SHOWN = {
    "loss": "loss {:.3f}",
    "hidden_l1": "hidden L1 {:.3f}",
    "val_weed_iou": "val weed IoU {:.3f}",
}


class TrainingBar:
    """A `weedseg.training.loop.Reporter` that draws one bar per phase."""

    def __init__(self) -> None:
        """Prepare; nothing is drawn before the first step."""
        self._bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=Console(stderr=True),
            refresh_per_second=2,
        )
        self._tasks: dict[str, TaskID] = {}
        self._latest: dict[str, dict[str, float]] = {}

    def __enter__(self) -> TrainingBar:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """Print a sentence above the bars."""
        self._bar.console.print(sentence, markup=False, highlight=False)

    def update(self, phase: str, step: int, total: int, values: dict[str, float]) -> None:
        """Show that a step is done."""
        if phase not in self._tasks:
            self._tasks[phase] = self._bar.add_task(
                phase, total=total, completed=step, rate="", values=""
            )
        latest = self._latest.setdefault(phase, {})
        latest.update(values)
        task = self._bar.tasks[self._tasks[phase]]
        shown = [text.format(latest[key]) for key, text in SHOWN.items() if key in latest]
        rate = f"{task.speed:.1f} steps/s" if task.speed else ""
        self._bar.update(self._tasks[phase], completed=step, rate=rate, values=", ".join(shown))
