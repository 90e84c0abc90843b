"""Photos of strangers are decoded in processes of their own, with limits on memory and time.

A process that dies or takes too long is replaced; its photo is refused and the service goes on.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import numpy as np

import weedseg
from weedseg.imaging import Image
from weedseg.serve.problems import Problem, too_late
from weedseg.serve.settings import Settings

_log = logging.getLogger(__name__)

_PHOTOS_PER_PROCESS = 1000
_PIPE_BYTES = 1 << 20
_MAX_LINE = 4096
_MAX_NAME = 100
_F_SETPIPE_SZ = 1031


class Decoder:
    """A few sandboxed processes that turn bytes into pixels; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Start the processes.

        Args:
            settings: Number, memory and time of the processes, largest photo.
        """
        self._max_pixels = settings.max_pixels
        self._workers = [_Worker(settings) for _ in range(settings.decode_workers)]
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for worker in self._workers:
            worker.start()
            self._idle.put(worker)

    def decode(self, data: bytes, name: str, wait_s: float | None = None) -> Image:
        """Decode one photo.

        Args:
            data: The bytes of the file.
            name: Its name, for messages.
            wait_s: How long to wait for a process at most.

        Returns:
            uint8 (H, W, 3), RGB, as a person sees it.

        Raises:
            Problem: It is no photo (415), damaged (422) or too large (413), or no process became
                free in time (504).
        """
        try:
            worker = self._idle.get(timeout=wait_s)
        except queue.Empty as error:
            raise too_late() from error
        try:
            return worker.decode(data, clean_name(name), self._max_pixels)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.stop()


def clean_name(name: str) -> str:
    """Return the last part of a file name, short and printable, for messages and results.

    Args:
        name: As the client gave it.
    """
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-_MAX_NAME:] or "photo"


class _Worker:
    """One process; used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.decode_s
        self._memory_bytes = settings.decode_memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._photos = 0
        self._stopped = False

    def start(self) -> None:
        """Start a new process."""
        limits = [str(self._memory_bytes), str(int(self._seconds) + 1)]
        self._photos = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "weedseg.serve.sandbox", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=sandbox_environment(),
            start_new_session=True,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)

    def stop(self) -> None:
        """End the process."""
        self._stopped = True
        self._end()

    def decode(self, data: bytes, name: str, max_pixels: int) -> Image:
        """Decode one photo.

        Raises:
            Problem: The photo is refused, or the process died of it.
        """
        if self._process is None or self._photos >= _PHOTOS_PER_PROCESS:
            self._end()
            self.start()
        self._photos += 1
        late = threading.Event()
        timer = threading.Timer(self._seconds, self._kill, [late])
        timer.start()
        try:
            return self._ask({"name": name, "bytes": len(data), "max_pixels": max_pixels}, data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._end()
            if not self._stopped:
                self.start()
            _log.warning("a decoder process ended: %s", "too slow" if late.is_set() else error)
            reason = "takes too long" if late.is_set() else "takes too much memory or time"
            raise Problem(
                422,
                "Unprocessable content",
                f"{name}: decoding {reason}; expected an ordinary photo; save it again",
            ) from error
        finally:
            timer.cancel()

    def _ask(self, request: dict[str, Any], data: bytes) -> Image:
        """Send a photo and read the answer.

        Raises:
            Problem: The photo is refused.
            OSError: The process died.
            ValueError: The answer is none.
        """
        stdin, stdout = self._pipes()
        stdin.write(json.dumps(request).encode("ascii") + b"\n")
        stdin.write(data)
        stdin.flush()
        answer = json.loads(stdout.readline(_MAX_LINE))
        if "status" in answer:
            status = int(answer["status"])
            title = {413: "Content too large", 415: "Unsupported media type"}
            raise Problem(status, title.get(status, "Unprocessable content"), str(answer["detail"]))
        size = (int(answer["height"]), int(answer["width"]))
        if min(size) < 1 or size[0] * size[1] > request["max_pixels"]:
            raise ValueError("a size that cannot be")
        image = np.empty((*size, 3), np.uint8)
        view = memoryview(image.data).cast("B")
        while view:
            num = stdout.readinto(view)  # type: ignore[attr-defined]
            if not num:
                raise BrokenPipeError("no more pixels")
            view = view[num:]
        return image

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise BrokenPipeError("no process")
        return process.stdin, process.stdout

    def _kill(self, late: threading.Event) -> None:
        late.set()
        if self._process is not None:
            self._process.kill()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # unwritten bytes for a dead process
                    continue


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold a mebibyte, for speed; the kernel may refuse."""
    if pipe is None:
        return
    try:
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return


def sandbox_environment() -> dict[str, str]:
    """Return the few variables that the process gets: no secrets, one thread."""
    package = str(Path(weedseg.__file__).resolve().parents[1])
    kept = {k: os.environ[k] for k in ("LANG", "LD_LIBRARY_PATH", "PATH") if k in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**kept, **threads, "PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"}
