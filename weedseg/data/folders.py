"""Write a new folder whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weedseg.errors import OutputError


def check_new(out: Path) -> None:
    """Check that a folder is new or empty.

    Raises:
        OutputError: Something is there.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out} is not empty", "a new or empty folder", "choose another --out")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside `out`, which takes its place when all went well.

    Args:
        out: New or empty folder.

    Yields:
        Where to write.

    Raises:
        OutputError: The folder is not empty, or the disk is full or not writable.
    """
    check_new(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{out.name}.making-", dir=out.parent))
    except OSError as error:
        raise OutputError(
            f"{out.parent} cannot be written: {error.strerror}", "a folder", "choose another --out"
        ) from error
    try:
        yield made
        made.chmod(0o755)
        if out.is_dir():
            out.rmdir()
        made.rename(out)
    except OSError as error:
        raise OutputError(
            f"{error.filename or out}: {error.strerror or error}", "room", "choose another --out"
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
