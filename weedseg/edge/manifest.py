"""Which photos of an output folder are done: one JSON line each, so that a stopped run goes on.

A photo is done when its line names the same size and time of change, the same model and the same
kind of results, and the results are there in full. Results are written before the line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

from weedseg.edge.photos import FoundPhoto
from weedseg.errors import ImageError, OutputError
from weedseg.imaging import write_bytes

MANIFEST_NAME = "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One photo that is done."""

    photo: str
    """Its name, see `FoundPhoto`."""
    size_bytes: int
    mtime_ns: int
    model_sha256: str
    files: dict[str, int]
    """Results below the output folder -> their size, bytes."""
    height_px: int
    width_px: int
    coverage: dict[str, float]
    """Class name -> share, 0-1."""
    mean_confidence: float
    """Mean of the confidence, per cent."""


class Manifest:
    """The done photos of one output folder and one model."""

    def __init__(self, out: Path, model_sha256: str) -> None:
        """Read what is there; a line cut short by a crash is dropped.

        Raises:
            OutputError: The manifest cannot be read or written.
        """
        self._out = out
        self._path = out / MANIFEST_NAME
        self._model_sha256 = model_sha256
        self._entries = {e.photo: e for e in self._read() if e.model_sha256 == model_sha256}
        self._file: IO[str] | None = None

    @property
    def entries(self) -> list[Entry]:
        """All entries by name."""
        return [self._entries[name] for name in sorted(self._entries)]

    def done(self, photo: FoundPhoto, names: Iterable[str]) -> bool:
        """Tell whether a photo needs no work.

        Args:
            photo: The photo.
            names: The results that are wanted, below the output folder.
        """
        entry = self._entries.get(photo.name)
        if entry is None or sorted(entry.files) != sorted(names):
            return False
        try:
            size_bytes, mtime_ns = source_state(photo.path)
            here = {name: (self._out / name).stat().st_size for name in entry.files}
        except (OSError, ImageError):
            return False
        return (size_bytes, mtime_ns) == (entry.size_bytes, entry.mtime_ns) and here == entry.files

    def add(self, entry: Entry) -> None:
        """Append a photo; it counts as done from now on.

        Raises:
            OutputError: The disk is full or not writable.
        """
        try:
            if self._file is None:
                self.rewrite()  # a line cut short must not swallow the next one
                self._file = self._path.open("a", encoding="utf-8", newline="\n")
            self._file.write(_line(entry))
            self._file.flush()
            self._entries[entry.photo] = entry
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def remove(self, name: str) -> None:
        """Forget a photo whose newer version is bad."""
        self._entries.pop(name, None)

    def rewrite(self) -> None:
        """Write all lines anew, sorted, so that a resumed run ends in the same bytes.

        Raises:
            OutputError: The disk is full or not writable.
        """
        self.close()
        write_bytes(self._path, "".join(map(_line, self.entries)).encode("utf-8"))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> list[Entry]:
        """Read the lines that are whole.

        Raises:
            OutputError: There is a manifest that cannot be read.
        """
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unwritable(self._path, error) from error
        return [entry for entry in map(_parse, lines) if entry is not None]


def source_state(path: Path) -> tuple[int, int]:
    """Return size in bytes and time of change in ns of a photo.

    Raises:
        ImageError: It is gone.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror}", "a photo", "replace or remove it"
        ) from error
    return status.st_size, status.st_mtime_ns


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry), ensure_ascii=True, sort_keys=True) + "\n"


def _parse(line: bytes) -> Entry | None:
    """Return an entry, or None when the line is not one."""
    try:
        values: Any = json.loads(line)
        wanted = {f.name for f in fields(Entry)}
        if not isinstance(values, dict) or set(values) != wanted:
            return None
        sizes = all(isinstance(v, int) for v in values["files"].values())
        shares = all(isinstance(v, float) for v in values["coverage"].values())
        named = isinstance(values["photo"], str) and isinstance(values["mean_confidence"], float)
        return Entry(**values) if sizes and shares and named else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: {error.strerror or error}", "a folder that can be written", "choose another --out"
    )
