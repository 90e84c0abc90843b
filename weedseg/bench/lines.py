"""Lines of JSON that runs write: whole, in order, never changed afterwards."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_lines(lines: Path) -> list[dict[str, Any]]:
    """Read a file of run lines; an empty list when there is none."""
    if not lines.exists():
        return []
    return [json.loads(text) for text in lines.read_text(encoding="utf-8").splitlines() if text]


def append_line(lines: Path, line: dict[str, Any]) -> None:
    """Add a line, whole, also when several processes do."""
    lines.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line, allow_nan=False) + "\n"
    descriptor = os.open(lines, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit() -> str:
    """Return the commit of this checkout, with '+' when files differ from it; '' outside git."""
    try:
        here = Path(__file__).parent
        command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def finished(lines: Path) -> set[str]:
    """Read the keys of all finished runs."""
    return {str(line["key"]) for line in read_lines(lines)}


def file_name(key: str) -> str:
    """Turn a run's key into a file name: readable at the front, unique by its checksum."""
    front = "".join(c if c.isalnum() or c in "+-." else "_" for c in key[:40])
    return f"{front}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


@contextmanager
def claim(path: Path, wait: bool = False) -> Iterator[bool]:
    """Claim a run for this process; a claim dies with its process.

    Args:
        path: Lock file of the run; made if missing.
        wait: Wait until another process is done with it.

    Yields:
        Whether the run is this process's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
