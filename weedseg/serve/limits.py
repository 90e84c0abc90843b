"""What one owner may take: requests per minute, bytes on the disk."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path

from weedseg.serve.problems import Problem

WINDOW_S = 60.0
SPARE_BYTES = 256 << 20
"""What is always left free on the disk, so that the database can go on writing."""


class Limits:
    """Counts requests in memory and bytes on the disk; safe to share between threads.

    The counts live in this process: behind a load balancer every server counts for itself.
    """

    def __init__(
        self,
        data: Path,
        requests_per_minute: int,
        quota_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the limits.

        Args:
            data: The data folder.
            requests_per_minute: Most requests of one owner within any 60 s; 0 for no limit.
            quota_bytes: Most bytes that one owner's files may take; 0 for no limit.
            clock: Seconds that never run backwards.
        """
        self._data = data
        self._most = requests_per_minute
        self._quota_bytes = quota_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._recent: defaultdict[str, deque[float]] = defaultdict(deque)

    def count_request(self, owner: str) -> None:
        """Count one request; refused ones do not count.

        Raises:
            Problem: 429, with the seconds until the next one is welcome.
        """
        if not self._most:
            return
        with self._lock:
            now, recent = self._clock(), self._recent[owner]
            while recent and now - recent[0] >= WINDOW_S:
                recent.popleft()
            if len(recent) < self._most:
                recent.append(now)
                return
            wait_s = max(1, math.ceil(recent[0] + WINDOW_S - now))
        raise Problem(
            429,
            "Too many requests",
            f"more than {self._most} requests within a minute; try again in {wait_s} s",
            {"Retry-After": str(wait_s)},
        )

    def demand(self, owner: str, num_bytes: int, promised_bytes: int = 0) -> None:
        """Ask for room before anything is written.

        Call it inside the writing transaction that makes the row, so that two requests cannot
        be given the same room.

        Args:
            owner: Who wants to write.
            num_bytes: How much.
            promised_bytes: What unfinished uploads of this owner may still bring.

        Raises:
            Problem: 413 if it is more than the whole quota, 507 if the quota or the disk is full.
        """
        if self._quota_bytes:
            if num_bytes > self._quota_bytes:
                raise Problem(
                    413,
                    "Larger than the quota",
                    f"{num_bytes} bytes; the quota is {self._quota_bytes} bytes in all",
                )
            room = self._quota_bytes - self.used_bytes(owner) - promised_bytes
            if num_bytes > room:
                raise Problem(
                    507,
                    "Quota is full",
                    f"{num_bytes} bytes; {max(room, 0)} of {self._quota_bytes} bytes are left; "
                    "delete old jobs or uploads",
                )
        if shutil.disk_usage(self._data).free < num_bytes + promised_bytes + SPARE_BYTES:
            raise Problem(507, "Disk is full", "the service has no room for this; try again later")

    def used_bytes(self, owner: str) -> int:
        """Add up the files of an owner: what lies on the disk is the truth, after crashes too.

        A file that has several names, as a job's link to an upload, counts once.
        """
        sizes: dict[int, int] = {}
        for folder, _, names in os.walk(self._data / "owners" / owner):
            for name in names:
                try:
                    facts = os.lstat(os.path.join(folder, name))
                except FileNotFoundError:  # deleted since the folder was listed
                    continue
                sizes[facts.st_ino] = facts.st_size
        return sum(sizes.values())
