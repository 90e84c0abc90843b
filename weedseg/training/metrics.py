"""``metrics.jsonl``: one line of JSON per logged step."""

from __future__ import annotations

import json
import math
from pathlib import Path

from weedseg.errors import OutputError
from weedseg.training.checkpoint import write_durably


def append_line(path: Path, values: dict[str, float]) -> None:
    """Add a line; a number that is not finite becomes null.

    Raises:
        OutputError: The disk is full.
    """
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror})",
            "free space in a writable folder",
            "free some space and run again with --resume; nothing written before is lost",
        ) from error


def cut_after(path: Path, step: int) -> None:
    """Drop the lines of later steps, which will be done again, and a line cut short by a kill.

    Raises:
        OutputError: The disk is full.
    """
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _step_of(line) <= step]
        write_durably(path, "".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
