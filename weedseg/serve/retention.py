"""Old things go: expired uploads, jobs and sessions, and files that no row speaks of.

A row is deleted before its files, and a new thing's files may be there before its row. A crash
in between leaves files without a row, never the reverse; the sweep removes them an hour later.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from weedseg.errors import WeedsegError
from weedseg.serve.keys import OWNER_PATTERN, KeyStore

ORPHAN_AGE_S = 3600.0
"""A file without a row is removed when it is this old, s."""

SWEEP_EVERY_S = 3600.0

_log = logging.getLogger(__name__)


class Store(Protocol):
    """A kind of thing that owners have: uploads, jobs."""

    @property
    def folder(self) -> str:
        """Name of the folder in ``owners/<owner>/``; holds ``<id>`` or ``<id>.<anything>``."""

    def expire(self, before_s: float) -> int:
        """Delete finished things last changed before a moment, row first; return how many."""

    def known(self, owner: str) -> set[str]:
        """Return the ids of an owner's things."""


@dataclass(frozen=True)
class Swept:
    """What a sweep removed."""

    expired: int
    orphans: int
    sessions: int


class Retention:
    """Removes what is older than the operator wants to keep."""

    def __init__(
        self,
        data: Path,
        retention_s: float,
        stores: Sequence[Store],
        keys: KeyStore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set what is swept.

        Args:
            data: The data folder.
            retention_s: How long finished things are kept, s.
            stores: Uploads and jobs.
            keys: Ended sessions are forgotten too.
            clock: Seconds since 1970.
        """
        self._owners = data / "owners"
        self._retention_s = retention_s
        self._stores = stores
        self._keys = keys
        self._clock = clock

    def sweep(self) -> Swept:
        """Remove everything that is too old; safe at any time and in several processes.

        Returns:
            How much was removed.

        Raises:
            RuntimeUnavailableError: The database does not answer.
        """
        before_s = self._clock() - self._retention_s
        expired = sum(store.expire(before_s) for store in self._stores)
        orphans = sum(self._sweep_orphans(store) for store in self._stores)
        return Swept(expired, orphans, self._keys.forget_ended())

    def _sweep_orphans(self, store: Store) -> int:
        removed = 0
        for owner in _entries(self._owners):
            if not OWNER_PATTERN.fullmatch(owner.name):
                continue
            old = [e for e in _entries(self._owners / owner.name / store.folder) if self._old(e)]
            known = store.known(owner.name) if old else set()
            for entry in old:
                if entry.name.partition(".")[0] not in known:
                    removed += _remove(entry)
        return removed

    def _old(self, entry: os.DirEntry[str]) -> bool:
        try:
            changed_s = entry.stat(follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return False
        return self._clock() - changed_s > ORPHAN_AGE_S

    @contextmanager
    def running(self, every_s: float = SWEEP_EVERY_S) -> Iterator[None]:
        """Sweep now and then in a thread, as long as the context lasts.

        Args:
            every_s: Pause between two sweeps, s.
        """
        stop = threading.Event()

        def sweep_on() -> None:
            while True:
                try:
                    swept = self.sweep()
                    _log.info("swept", extra={"fields": vars(swept)})
                except (WeedsegError, OSError) as error:
                    _log.error("sweep failed: %s", error)
                if stop.wait(every_s):
                    return

        thread = threading.Thread(target=sweep_on, name="retention", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=10)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(entry: os.DirEntry[str]) -> bool:
    """Remove a file or folder; return whether it is gone."""
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        Path(entry.path).unlink(missing_ok=True)
    return not os.path.lexists(entry.path)
