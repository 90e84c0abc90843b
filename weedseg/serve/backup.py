"""Backup and restore of the data folder: one zip archive that proves itself whole.

The archive's last entry lists every other one with its size and SHA-256. SQLite files are copied
by SQLite's own backup, first of all: whatever their rows speak of is on the disk by then, so the
service may run meanwhile. A PostgreSQL database is not in the archive: `pg_dump` is its tool.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import weedseg
from weedseg.errors import ConfigError, OutputError
from weedseg.serve.database import read_address
from weedseg.serve.files import sync, writing

FORMAT = "weedseg-backup"
FORMAT_VERSION = 1
SQLITE, POSTGRESQL = "sqlite", "postgresql"
LISTING = "weedseg-backup.json"
MAX_LISTING_BYTES = 1 << 30

_BLOCK = 1 << 20
_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_ASIDE = ("-journal", "-wal", "-shm")


@dataclass(frozen=True)
class Listing:
    """What an archive says about itself."""

    format: str
    version: int
    weedseg_version: str
    made_s: float
    database: str
    """``sqlite`` (in the archive) or ``postgresql`` (not in it)."""
    files: dict[str, tuple[int, str]]
    """Size in bytes and SHA-256 by name."""

    @property
    def num_bytes(self) -> int:
        """Sum of all files."""
        return sum(size for size, _ in self.files.values())


def back_up(data: Path, archive: Path, database_url: str = "") -> Listing:
    """Write a data folder into an archive.

    Args:
        data: The data folder; the service may run on it.
        archive: File to write; must not exist. Only its owner may read it.
        database_url: Address of the database; empty for the SQLite file in the folder.

    Returns:
        What the archive holds.

    Raises:
        ConfigError: The folder is not there, its database is damaged, or it is a SQLite file
            somewhere else.
        OutputError: The archive exists already or cannot be written.
    """
    if not data.is_dir():
        raise ConfigError(f"{data} is not there", "the data folder of a service", "correct --data")
    database = _kind(data, database_url)
    if archive.exists():
        raise OutputError(f"{archive} is there already", "a new file", "choose another --out")
    if archive.resolve().is_relative_to(data.resolve()):
        raise OutputError(f"{archive} is in the data folder", "a file outside of it", "move --out")
    with _written(archive) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as out:
        files = _add_all(data, out, archive.parent)
        listing = Listing(FORMAT, FORMAT_VERSION, weedseg.__version__, time.time(), database, files)
        out.writestr(LISTING, json.dumps(asdict(listing), ensure_ascii=True))
    return listing


def restore(archive: Path, data: Path) -> Listing:
    """Write an archive back into a data folder: all of it, checked, or nothing.

    Args:
        archive: What `back_up` wrote.
        data: New or empty folder.

    Returns:
        What the archive holds.

    Raises:
        ConfigError: The archive is damaged, foreign or from a newer weedseg.
        OutputError: The folder is not empty or cannot be written.
    """
    if data.is_symlink() or data.is_file() or (data.is_dir() and any(data.iterdir())):
        raise OutputError(f"{data} is not empty", "a new or empty folder", "choose another --data")
    with writing(data):
        data.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{data.name}.restoring-", dir=data.parent))
    try:
        listing = _extract(archive, made)
        with writing(data):
            if data.is_dir():
                data.rmdir()
            made.rename(data)
            sync(data.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return listing


def _kind(data: Path, database_url: str) -> str:
    """Tell whether the rows are in the data folder or with PostgreSQL.

    Raises:
        ConfigError: They are in a SQLite file somewhere else.
    """
    if not database_url:
        return SQLITE
    address = read_address(database_url)
    if address.get_backend_name() != SQLITE:
        return POSTGRESQL
    if Path(address.database or "").resolve().parent != data.resolve():
        raise ConfigError(
            f"the SQLite file {address.database} is not in {data}",
            "the database in the data folder",
            "move it there, or leave --database-url out",
        )
    return SQLITE


def _add_all(data: Path, out: zipfile.ZipFile, scratch: Path) -> dict[str, tuple[int, str]]:
    """Add databases first, then everything else; a file that vanishes meanwhile is left out.

    Raises:
        ConfigError: A file has a name that cannot be restored.
    """
    files = {}
    paths = sorted(_files(data))
    databases = [path for path in paths if path.parent == data and _is_sqlite(path)]
    aside = {Path(f"{path}{end}") for path in databases for end in _SQLITE_ASIDE}
    for path in databases:
        with _snapshot(path, scratch) as copy:
            files[path.name] = _add(copy, path.name, out)
    for path in paths:
        name = path.relative_to(data).as_posix()
        if name in files or path in aside:
            continue
        if not _is_safe(name):
            raise ConfigError(f"file {name!r} in {data}", "a plain name", "rename or remove it")
        try:
            files[name] = _add(path, name, out)
        except FileNotFoundError:
            continue
    return files


def _files(data: Path) -> Iterator[Path]:
    """List what a data folder holds: plain files, no links."""
    for folder, _, names in os.walk(data):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except FileNotFoundError:
        return False


@contextmanager
def _snapshot(path: Path, scratch: Path) -> Iterator[Path]:
    """Copy a SQLite file as it is at one moment, while others write to it.

    Raises:
        ConfigError: The database is damaged.
    """
    with tempfile.TemporaryDirectory(prefix=".weedseg-backup-", dir=scratch) as folder:
        copy = Path(folder, path.name)
        with (
            closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as live,
            closing(sqlite3.connect(copy)) as still,
        ):
            try:
                live.execute("BEGIN")
                live.execute("SELECT count(*) FROM sqlite_master")  # writers wait from here on
                live.backup(still)
                state = still.execute("PRAGMA quick_check(1)").fetchone()[0]
            except sqlite3.DatabaseError as error:
                state = str(error)
        if state != "ok":
            raise ConfigError(f"{path}: {state}", "a sound database", "restore an older backup")
        yield copy


def _add(path: Path, name: str, out: zipfile.ZipFile) -> tuple[int, str]:
    with path.open("rb") as source:
        info = zipfile.ZipInfo(name, time.gmtime(path.stat().st_mtime)[:6])
        with out.open(info, "w", force_zip64=True) as target:
            return _copy(source, target)


def _copy(source: IO[bytes], target: IO[bytes], most: int | None = None) -> tuple[int, str]:
    """Copy bytes; return how many, and their SHA-256.

    Args:
        source: Read to its end, or until there are more than ``most``.
        target: Written.
        most: Stop soon after this many bytes.
    """
    digest, size = hashlib.sha256(), 0
    while block := source.read(_BLOCK):
        target.write(block)
        digest.update(block)
        size += len(block)
        if most is not None and size > most:
            break
    return size, digest.hexdigest()


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears whole, on the disk and readable by its owner only, or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.writing-", dir=path.parent)
        try:
            with open(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _extract(archive: Path, made: Path) -> Listing:
    """Write all files of an archive into a folder and compare each with the listing.

    Raises:
        ConfigError: The archive is damaged, foreign or from a newer weedseg.
        OutputError: There is no room.
    """
    try:
        with zipfile.ZipFile(archive) as entries:
            listing = _listing(entries, archive)
            for name, expected in listing.files.items():
                target = made / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with entries.open(name) as source, target.open("xb") as file:
                    found = _copy(source, file, most=expected[0])
                    file.flush()
                    os.fsync(file.fileno())
                if found != tuple(expected):
                    raise _damaged(archive, f"'{name}' differs from its checksum")
    except (zipfile.BadZipFile, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        place = error.filename or archive
        raise OutputError(
            f"{place}: {error.strerror or error}", "readable, and room", "check both paths"
        ) from error
    return listing


def _listing(entries: zipfile.ZipFile, archive: Path) -> Listing:
    """Read what an archive says about itself, and hold it against its table of contents.

    Raises:
        ConfigError: The archive is damaged, foreign or from a newer weedseg.
    """
    names = entries.namelist()
    if LISTING not in names or entries.getinfo(LISTING).file_size > MAX_LISTING_BYTES:
        raise _damaged(archive, f"it has no {LISTING}, so it is cut off or not one of weedseg's")
    try:
        values: dict[str, Any] = json.loads(entries.read(LISTING))
        version = int(values["version"])
        if values["format"] == FORMAT and version > FORMAT_VERSION:
            raise ConfigError(
                f"{archive} is of backup format {version}",
                f"{FORMAT_VERSION} at most",
                f"restore it with weedseg {values['weedseg_version']}",
            )
        files = {str(n): (int(size), str(digest)) for n, (size, digest) in values["files"].items()}
        listing = Listing(**{**values, "files": files})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(archive, "its list of files cannot be read") from error
    if listing.format != FORMAT or sorted(names) != sorted([*files, LISTING]):
        raise _damaged(archive, "it holds other files than it lists")
    unsafe = [name for name in files if not _is_safe(name)]
    if unsafe:
        raise _damaged(archive, f"it holds the unsafe name {unsafe[0]!r}")
    return listing


def _is_safe(name: str) -> bool:
    """Tell whether a name stays within the folder that it is written to."""
    path = PurePosixPath(name)
    plain = "\\" not in name and ":" not in name and name.isprintable()
    return plain and path.as_posix() == name and not path.is_absolute() and ".." not in path.parts


def _damaged(archive: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{archive} is damaged or foreign: {why}",
        "an archive as weedseg backup wrote it",
        "fetch it again or take another one",
    )
