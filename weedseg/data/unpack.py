"""Unpack an archive that nobody has checked: plain files below one folder, and never too many.

Refused are names that lead elsewhere or that some file system takes for one name, links, devices,
encryption, and archives that grow beyond bounds; all is counted while it is written.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from weedseg.errors import FieldDataError, OutputError, RuntimeUnavailableError

RAR_TOOLS = {
    "unar": ("-quiet", "-no-directory", "-force-overwrite", "-output-directory"),
    "unrar": ("x", "-idq", "-o+", "-p-", "--"),
}
"""Programs that unpack RAR, the best first, and how they are called."""

_BLOCK_BYTES = 1 << 20
_LOOK_EVERY_S = 0.5
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large an archive may become."""

    max_bytes: int = 200 << 30
    max_files: int = 1_000_000
    max_growth: int = 200
    """Unpacked over packed size, of each file and of all; small files may grow more."""
    small_bytes: int = 16 << 20
    spare_bytes: int = 256 << 20
    """What stays free on the disk."""


@dataclass
class _Tally:
    """What has been unpacked so far."""

    archive: Path
    out: Path
    limits: Limits
    num_bytes: int = 0
    num_files: int = 0
    names: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def enter(self, name: str) -> Path:
        """Check the name of a file; return where it goes.

        Raises:
            FieldDataError: It leads elsewhere or collides.
        """
        plain = name.replace("\\", "/")
        parts = PurePosixPath(plain).parts
        odd = not parts or plain.startswith("/") or ".." in parts or ":" in parts[0]
        if odd or any(ord(c) < 32 for c in plain):
            raise self.refuse(f"the name {name[:120]!r}", "names inside the folder")
        for depth in range(1, len(parts) + 1):
            spelt, is_file = "/".join(parts[:depth]), depth == len(parts)
            key = unicodedata.normalize("NFC", spelt).casefold()
            other = self.names.setdefault(key, (spelt, is_file))
            if other != (spelt, is_file):
                raise self.refuse(f"'{spelt[:120]}' twice, in one spelling or two", "each once")
        self.num_files += 1
        if self.num_files > self.limits.max_files:
            raise self.refuse("too many files", f"at most {self.limits.max_files}")
        return self.out.joinpath(*parts)

    def grow(self, num_bytes: int, unpacked: int, packed: int) -> None:
        """Count bytes of a file that is now `unpacked` bytes long and was `packed`.

        Raises:
            FieldDataError: That is too much.
        """
        self.num_bytes += num_bytes
        limits = self.limits
        if unpacked > max(limits.small_bytes, limits.max_growth * packed):
            raise self.refuse(f"a file that grows from {packed} bytes to {unpacked}", "photos")
        if self.num_bytes > limits.max_bytes:
            raise self.refuse(f"more than {limits.max_bytes} bytes", "a data set")

    def check_room(self, num_bytes: int) -> None:
        """Check that bytes fit on the disk.

        Raises:
            OutputError: They do not.
        """
        free = shutil.disk_usage(self.out).free
        if free < num_bytes + self.limits.spare_bytes:
            raise OutputError(
                f"{free >> 20} MiB free for {self.out.parent}",
                f"{(num_bytes + self.limits.spare_bytes) >> 20} MiB",
                "free some space and fetch again",
            )

    def refuse(self, found: str, expected: str) -> FieldDataError:
        """Make the error for an archive that is not unpacked."""
        return FieldDataError(
            f"{self.archive} holds {found}", expected, "do not use it; report it to its publisher"
        )


def unpack(archive: Path, out: Path, limits: Limits | None = None) -> None:
    """Unpack a ZIP or RAR file.

    Args:
        archive: The file; of a RAR in several parts, the first, with the others beside it.
        out: Empty folder.
        limits: How large it may become.

    Raises:
        FieldDataError: It is damaged, or holds what is refused.
        OutputError: There is no room.
        RuntimeUnavailableError: It is a RAR, and no program for it is installed.
    """
    tally = _Tally(archive, out, limits or Limits())
    try:
        if archive.suffix.lower() == ".rar":
            _unpack_rar(tally)
        elif zipfile.is_zipfile(archive):
            _unpack_zip(tally)
        else:
            raise FieldDataError(f"{archive} is no archive", "a ZIP or RAR file", "fetch it again")
    except _BROKEN as error:
        raise FieldDataError(
            f"{archive} cannot be unpacked: {' '.join(str(error).split())[:200]}",
            "a whole archive",
            f"delete {archive} and fetch it again",
        ) from error
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: {error.strerror or error}", "room", "free some space"
        ) from error


def _unpack_zip(tally: _Tally) -> None:
    """Unpack a ZIP file, one block at a time.

    Raises:
        FieldDataError: It holds what is refused.
    """
    with zipfile.ZipFile(tally.archive) as archive:
        entries = archive.infolist()
        tally.check_room(sum(entry.file_size for entry in entries))
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.flag_bits & 1:
                raise tally.refuse(f"{entry.filename[:120]!r}, no plain file", "plain files")
            if "\0" in entry.orig_filename:
                raise tally.refuse(f"the name {entry.orig_filename[:120]!r}", "plain names")
            if entry.is_dir():
                continue
            path = tally.enter(entry.filename)
            if path.exists():
                raise tally.refuse(f"'{entry.filename[:120]}' twice", "each file once")
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(tally, archive, entry, path)


def _copy(tally: _Tally, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Write one file of a ZIP; its checksum is compared at its end."""
    written = 0
    with archive.open(entry) as source, path.open("xb") as target:
        for block in iter(lambda: source.read(_BLOCK_BYTES), b""):
            written += len(block)
            tally.grow(len(block), written, entry.compress_size)
            target.write(block)
            if written % (64 * _BLOCK_BYTES) == 0:
                tally.check_room(0)


def _unpack_rar(tally: _Tally) -> None:
    """Unpack a RAR file with an installed program, and look at what it writes.

    Raises:
        RuntimeUnavailableError: There is no such program.
        FieldDataError: It fails, or the archive holds what is refused.
    """
    tool = next((path for name in RAR_TOOLS if (path := shutil.which(name))), None)
    if tool is None:
        raise RuntimeUnavailableError(
            f"no program that unpacks {tally.archive.name}",
            " or ".join(RAR_TOOLS),
            "install it, e.g. apt install unar, and fetch again: nothing is downloaded twice",
        )
    name = Path(tool).name
    archive, out = str(tally.archive.resolve()), str(tally.out.resolve())
    where = [out, archive] if name == "unar" else [archive, f"{out}/"]
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(
            [tool, *RAR_TOOLS[name], *where],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            while running.poll() is None:
                _look(_Tally(tally.archive, tally.out, tally.limits))
                time.sleep(_LOOK_EVERY_S)
        finally:
            running.kill()
            running.wait()
        said.seek(0)
        last = said.read(1 << 16).decode("utf-8", "replace").split("\n")
    if running.returncode:
        reason = " ".join([line for line in last if line.strip()][-1:])[:200]
        raise FieldDataError(
            f"{name} cannot unpack {tally.archive}: {reason or running.returncode}",
            "all parts, whole",
            "delete the part that is damaged and fetch it again",
        )
    _look(tally)
    if not tally.num_files:
        raise tally.refuse("no file", "photos")


def _look(tally: _Tally) -> None:
    """Count what lies in the folder.

    Raises:
        FieldDataError: It holds what is refused.
    """
    packed = sum(f.stat().st_size for f in tally.archive.parent.glob("*.rar"))
    tally.check_room(0)
    for path in _files(tally.out):
        try:
            state = path.lstat()
        except FileNotFoundError:  # a temporary file of the program
            continue
        if not stat.S_ISREG(state.st_mode):
            raise tally.refuse(f"{path.name[:120]!r}, no plain file", "plain files")
        tally.grow(state.st_size, tally.num_bytes + state.st_size, packed)
        tally.enter(path.relative_to(tally.out).as_posix())


def _files(folder: Path) -> Iterator[Path]:
    """Yield all that is no folder; links are not followed."""
    for place, folders, files in os.walk(folder):
        for name in files:
            yield Path(place, name)
        for name in folders:
            if Path(place, name).is_symlink():
                yield Path(place, name)
