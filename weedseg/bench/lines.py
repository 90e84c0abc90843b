"""Lines of JSON that runs write: whole, in order, never changed afterwards."""

from __future__ import annotations

import json
import os
import subprocess
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
