"""Where things lie in the data folder, and how they reach the disk for good.

``owners/<owner>/uploads/<upload>`` and ``owners/<owner>/jobs/<job>/{photos,results}``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weedseg.errors import OutputError
from weedseg.imaging import write_bytes


def uploads_folder(data: Path, owner: str) -> Path:
    """Return the folder of an owner's uploads."""
    return data / "owners" / owner / "uploads"


def jobs_folder(data: Path, owner: str) -> Path:
    """Return the folder of an owner's jobs."""
    return data / "owners" / owner / "jobs"


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; when this returns it outlives a power cut.

    The folder's entry is not forced: call `sync` on the folder once for all files in it.

    Args:
        path: Where; the folder is made.
        data: What.

    Raises:
        OutputError: The disk is full or the folder is not writable.
    """
    write_bytes(path, data)
    with writing(path):
        sync(path)


def sync(path: Path) -> None:
    """Force a file, or the entries of a folder, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder that only this user may read, and force its entry onto the disk.

    Raises:
        OutputError: It cannot be made.
    """
    with writing(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that is in it, even while somebody still writes there."""
    shutil.rmtree(path, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links.

    Raises:
        OutputError: The disk is full or not writable.
    """
    with writing(target):
        try:
            os.link(source, target)
        except FileExistsError:
            return
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV):
                raise
            temporary = target.with_name(f".{target.name}")
            shutil.copyfile(source, temporary)
            sync(temporary)
            os.replace(temporary, target)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a fault of the disk into an error with a remedy.

    Raises:
        OutputError: The disk is full or not writable.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{path.name} cannot be written: {error.strerror or error}",
            "room on the disk" if full else "a data folder that can be written",
            "free some space" if full else "check the data folder",
        ) from error
