"""Checkpoints that survive kills, full disks and flipped bits.

A checkpoint is written to a temporary file in its own folder, flushed, synced and renamed, the
folder is synced, and a sha256 sidecar is written last. Loading verifies the sidecar and falls back
to the checkpoint before.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251 - the error alone; nothing is unpickled
from typing import Any

import torch

from weedseg.errors import CheckpointError, OutputError

logger = logging.getLogger(__name__)

_UNREADABLE = (
    *(UnpicklingError, RuntimeError, ValueError, EOFError, OSError),
    *(AttributeError, LookupError, TypeError),
)
"""What torch raises for bytes that are no checkpoint."""
STEP, BEST = "step", "best"
"""Kinds of checkpoints: where to go on, and what to keep."""


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a crash either the old or the new one is there, whole.

    Raises:
        OutputError: The disk is full or the folder cannot be written; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OutputError(
            f"{path} cannot be written ({error.strerror})",
            f"{len(data) / 1e6:.0f} MB of free space in a writable folder",
            "free some space and run again with --resume; nothing written before is lost",
        ) from error


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".sha256")


def save_checkpoint(folder: Path, name: str, state: dict[str, Any]) -> Path:
    """Save a state durably as ``<name>.pt``.

    Args:
        folder: Where checkpoints live.
        name: From `checkpoint_name`.
        state: Tensors, numbers, strings, and lists and dicts of them.

    Raises:
        OutputError: The disk is full; older checkpoints are intact.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"{name}.pt"
    write_durably(path, data)
    write_durably(_sidecar(path), hashlib.sha256(data).hexdigest().encode())
    return path


def checkpoint_name(kind: str, step: int) -> str:
    """Name the checkpoint of a step so that names of a kind sort by step."""
    return f"{kind}-{step:09d}"


def list_checkpoints(folder: Path, kind: str) -> list[Path]:
    """List the checkpoints of a kind, oldest step first, damaged ones included."""
    return sorted(folder.glob(f"{kind}-*.pt"))


def keep_newest(folder: Path, number: int = 2) -> None:
    """Delete all step checkpoints but the newest ones; the best ones are never touched."""
    delete(list_checkpoints(folder, STEP)[:-number])


def delete(paths: list[Path]) -> None:
    """Delete checkpoints and their checksums."""
    for path in paths:
        _sidecar(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load one checkpoint after verifying its checksum; never runs code from the file.

    Raises:
        CheckpointError: The file is missing, damaged or not a checkpoint.
    """
    remedy = "use an older checkpoint or start anew"
    try:
        data = path.read_bytes()
        wanted = _sidecar(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        found = f"{path} cannot be read"
        raise CheckpointError(found, "it and its .sha256 file", remedy) from error
    if hashlib.sha256(data).hexdigest() != wanted:
        raise CheckpointError(f"{path} is damaged", "the bytes its .sha256 file names", remedy)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        found = f"{path} is no checkpoint"
        raise CheckpointError(found, "one that weedseg wrote", remedy) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds {type(state).__name__}", "a dict", remedy)
    return state


def load_newest(folder: Path, kind: str = STEP) -> dict[str, Any] | None:
    """Load the newest checkpoint of a kind that is whole; None when there is none.

    Damaged ones are named in a warning and passed over.
    """
    for path in reversed(list_checkpoints(folder, kind)):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("%s; falling back to the checkpoint before it", error.found)
    return None
