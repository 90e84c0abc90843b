"""metrics.jsonl: whole lines, also after a kill or on a full disk."""

import json
from pathlib import Path

import pytest

from weedseg.errors import OutputError
from weedseg.training import metrics


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append_line(path, {"step": 1, "loss": float("nan"), "lr": float("inf"), "x": 0.5})
    metrics.append_line(path, {"step": 2})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": None, "lr": None, "x": 0.5}, {"step": 2}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_said_in_a_sentence():
    with pytest.raises(OutputError, match=r"No space left.*--resume"):
        metrics.append_line(Path("/dev/full"), {"step": 1})


@pytest.mark.parametrize("rest", ["", '{"step": 4, "lo', "[]\n", '{"loss": 1}\n', "\n", "\x00\x00"])
def test_later_and_broken_lines_are_dropped(tmp_path, rest):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3, 4):
        metrics.append_line(path, {"step": step})
    with path.open("a") as file:
        file.write(rest)
    metrics.cut_after(path, 3)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]
    metrics.append_line(path, {"step": 4})
    assert path.read_text().count("\n") == 4


def test_no_file_is_no_matter(tmp_path):
    metrics.cut_after(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())
