"""Progress of a training: lines in a log, a bar on a terminal."""

import io

import pytest
from rich.console import Console

from weedseg.cli import progress
from weedseg.cli.progress import LINE_EVERY_S, TrainingBar


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def test_a_phase_that_begins_again_has_a_clock_and_values_of_its_own(clock, capsys):
    """A benchmark trains many networks in one process."""
    bar = TrainingBar()
    for start in (0.0, 3600.0):
        for step in range(1, 51):
            clock.now = start + step * LINE_EVERY_S / 10
            bar.update("fine-tune", step, 50, {"val_weed_iou": 0.5} if step == 50 else {})
    lines = capsys.readouterr().err.splitlines()
    assert {rate for line in lines if (rate := line.split(", ")[1])} == {"0.3 steps/s"}
    assert [line for line in lines if "val weed IoU" in line] == [lines[-1]] * 2


def test_a_bar_that_begins_again_starts_at_nothing():
    bar = TrainingBar()
    bar._console = bar._bar.live.console = Console(file=io.StringIO(), force_terminal=True)
    with bar:
        for step in (1, 50, 2):
            bar.update("fine-tune", step, 50, {})
        (task,) = bar._bar.tasks
    assert task.completed == 2
    assert not task.finished
