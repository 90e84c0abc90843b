"""The finished shards of a map on disk, so that a stopped run goes on where it was.

Every part is one file with its own checksum, written whole or not at all. They belong to one state
of the mosaic, one model and one plan, which a file beside them names.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weedseg.edge.manifest import source_state
from weedseg.errors import OutputError
from weedseg.imaging import write_bytes
from weedseg.maps.shards import ShardPlan, is_whole

FOLDER, STATE = ".parts", "state.json"


def map_state(path: Path, plan: ShardPlan, model_sha256: str) -> dict[str, Any]:
    """Describe what parts depend on.

    Args:
        path: The mosaic.
        plan: All shards.
        model_sha256: Checksum of the model file.

    Returns:
        Size and time of change of the mosaic, checksum of the model, the plan; as JSON holds it.

    Raises:
        ImageError: The mosaic is gone.
    """
    size_bytes, mtime_ns = source_state(path)
    described = {
        "mosaic": str(path.resolve()),
        "size_bytes": size_bytes,
        "mtime_ns": mtime_ns,
        "model_sha256": model_sha256,
        "plan": asdict(plan),
    }
    state: dict[str, Any] = json.loads(json.dumps(described))
    return state


class PartFolder:
    """Parts in a folder below the output folder."""

    def __init__(self, out: Path, state: dict[str, Any]) -> None:
        """Open the folder; parts of another mosaic, model or plan are thrown away.

        Args:
            out: The output folder; made if missing.
            state: What `map_state` gives.

        Raises:
            OutputError: The disk is full or not writable.
        """
        self.path = out / FOLDER
        self.thrown_away = ""
        """Why older parts are gone, one sentence; empty when there were none."""
        self.done: set[int] = set()
        """Shards that an earlier run has finished."""
        try:
            found = self._read_state()
            if found is not None and found != state:
                self.thrown_away = _what_changed(found, state)
            if found != state:
                self.delete()
                write_bytes(self.path / STATE, json.dumps(state).encode())
            self.done = {n for n in self._listed() if is_whole(self._file(n).read_bytes())}
        except OSError as error:
            raise OutputError(
                f"{self.path}: {error.strerror or error}",
                "a folder that can be written",
                "choose another --out",
            ) from error

    def save(self, number: int, data: bytes) -> None:
        """Keep a part; called from several threads.

        There is no fsync: a part that a power cut shortens fails its checksum and is made again.

        Raises:
            OutputError: The disk is full or not writable.
        """
        try:
            write_bytes(self._file(number), data)
        except OutputError as error:
            raise OutputError(
                error.found, error.expected, f"{error.remedy}; what is done is kept, run it again"
            ) from error

    def load(self, number: int) -> bytes:
        """Read a part.

        Raises:
            OutputError: It is gone.
        """
        try:
            return self._file(number).read_bytes()
        except OSError as error:
            raise OutputError(
                f"part {number} of the map is gone: {error.strerror}",
                "a folder that nobody else changes",
                "run the map again",
            ) from error

    def delete(self) -> None:
        """Remove the folder."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def _read_state(self) -> Any:
        """Return what the parts belong to; None without parts, {} when nobody knows."""
        try:
            return json.loads((self.path / STATE).read_bytes())
        except FileNotFoundError:
            return {} if self.path.exists() and any(self.path.iterdir()) else None
        except ValueError:
            return {}

    def _listed(self) -> list[int]:
        names = [file.stem for file in self.path.glob("[0-9]*.part")]
        return sorted(int(name) for name in names if name.isdecimal())

    def _file(self, number: int) -> Path:
        return self.path / f"{number:08d}.part"


def _what_changed(found: Any, state: dict[str, Any]) -> str:
    """Say why parts of an earlier run cannot be used."""
    known = found if isinstance(found, dict) else {}
    if known.get("model_sha256") != state["model_sha256"]:
        what = "another model"
    elif known.get("plan") != state["plan"]:
        what = "another scale or tiling"
    else:
        what = "another mosaic or another version of it"
    return f"what an earlier run left in the output folder came from {what}: begun anew"
