"""A real ``weedseg serve`` process, and clients that load it: as fast as it goes, or at a rate."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import numpy.typing as npt
import psutil

from weedseg.errors import RuntimeUnavailableError, ServiceError

T = TypeVar("T")

START_S, STOP_S = 120.0, 60.0
ACCEPTED, REFUSED = (200,), (429, 503)
STAGES = ("decode", "infer", "encode")
_MIB = 1 << 20
_PREFIX = "WEEDSEG_"


class ServerProcess:
    """``weedseg serve`` on a free port, without job worker and rate limit unless told so."""

    def __init__(self, model: Path, data: Path, settings: Mapping[str, object]) -> None:
        """Start it and wait until it is ready.

        Args:
            model: The model file.
            data: Folder for its data; its log lies beside it.
            settings: Fields of `weedseg.serve.settings.Settings`.

        Raises:
            RuntimeUnavailableError: It does not start.
        """
        chosen = {"job_worker": "false", "requests_per_minute": 0, **settings}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_PREFIX)}
        own = {f"{_PREFIX}{name.upper()}": str(value) for name, value in chosen.items()}
        self._log = data.with_suffix(".log")
        flags = ["--model", str(model), "--port", "0", "--data", str(data)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "weedseg", "serve", *flags],
                stdout=log,
                stderr=log,
                env={**kept, **own},
            )
        try:
            self.url = self._wait()
        except RuntimeUnavailableError:
            self.close()
            raise

    def __enter__(self) -> ServerProcess:
        """Return the server itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop it."""
        self.close()

    def close(self) -> None:
        """Stop it, in peace if it can be."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def cpu_s(self) -> float:
        """Return the processor time that all its processes took until now, s."""
        times = self._ask(lambda process: process.cpu_times())
        return float(sum(t.user + t.system + t.children_user + t.children_system for t in times))

    def memory_mib(self) -> float:
        """Return the memory of all its processes, MiB; shared pages count by their part."""
        return float(sum(self._ask(lambda process: process.memory_full_info().pss))) / _MIB

    def stages(self) -> dict[str, tuple[float, float]]:
        """Read stage -> (seconds, photos) since the start, from its own figures."""
        text = httpx.get(f"{self.url}/metrics").text
        return {name: (_figure(text, name, "sum"), _figure(text, name, "count")) for name in STAGES}

    def _ask(self, question: Callable[[psutil.Process], T]) -> list[T]:
        """Ask every process of the server; a decoder may end meanwhile, as it does now and then."""
        first = psutil.Process(self._process.pid)
        answers = []
        for process in (first, *first.children(recursive=True)):
            try:
                answers.append(question(process))
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return answers

    def _wait(self) -> str:
        """Return the address once it is ready.

        Raises:
            RuntimeUnavailableError: It is not, in time.
        """
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            found = re.search(r"http://\S+", self._log.read_text(errors="replace"))
            if found and _is_ready(found[0]):
                return found[0]
            time.sleep(0.1)
        told = self._log.read_text(errors="replace").strip()[-300:]
        raise RuntimeUnavailableError(
            f"weedseg serve does not start: {told}", "a service that is ready", "start it by hand"
        )


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _figure(text: str, stage: str, kind: str) -> float:
    name = f"weedseg_stage_duration_seconds_{kind}"
    found = re.search(rf'^{name}\{{stage="{stage}"\}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What became of one request."""

    status: int
    """0: no answer at all."""
    latency_s: float
    """From the moment when it was to be sent, so that a late sender hides nothing."""
    ended_s: float
    """`time.perf_counter` at its end."""

    @property
    def failed(self) -> bool:
        """Neither answered nor refused in the agreed way."""
        return self.status not in (*ACCEPTED, *REFUSED)


class Clients:
    """Keep-alive connections that send photos to ``POST /v1/predict``; threads may share them."""

    def __init__(self, url: str, photos: Sequence[bytes], connections: int) -> None:
        """Prepare; connections open with the first requests.

        Args:
            url: Address of the service.
            photos: Files that are sent in turns.
            connections: At most so many requests at once.
        """
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=60
        )
        self._http = httpx.Client(base_url=url, limits=limits, timeout=60)
        self._photos = photos
        self._connections = connections
        self._turn = count()

    def __enter__(self) -> Clients:
        """Return the clients themselves."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connections."""
        self._http.close()

    def post(self, planned_s: float | None = None) -> Reply:
        """Send one photo and read the whole answer.

        Args:
            planned_s: `time.perf_counter` when it was to be sent; now if None.
        """
        start = time.perf_counter() if planned_s is None else planned_s
        photo = self._photos[next(self._turn) % len(self._photos)]
        try:
            status = self._http.post("/v1/predict", content=photo).status_code
        except httpx.HTTPError:
            status = 0
        end = time.perf_counter()
        return Reply(status=status, latency_s=end - start, ended_s=end)

    def flood(self, seconds: float) -> list[Reply]:
        """Send on every connection as soon as the last answer is there (closed loop).

        Args:
            seconds: How long.
        """
        replies: list[Reply] = []
        ending = threading.Event()

        def send() -> None:
            while not ending.is_set():
                replies.append(self.post())

        threads = [threading.Thread(target=send) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        ending.set()
        for thread in threads:
            thread.join()
        return replies

    def arrive(self, offsets_s: npt.NDArray[np.float64]) -> list[Reply]:
        """Send at given times, whatever became of those before (open loop).

        Args:
            offsets_s: When each is to be sent, from now, rising, (N,).
        """
        with ThreadPoolExecutor(self._connections) as pool:
            start = time.perf_counter()
            sent = []
            for offset_s in offsets_s.tolist():
                time.sleep(max(0.0, start + offset_s - time.perf_counter()))
                sent.append(pool.submit(self.post, start + offset_s))
            return [future.result() for future in sent]


def poisson_times(rate: float, num: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Draw when independent clients send, s, (N,).

    Args:
        rate: Requests per second.
        num: How many.
        seed: Of the draw.
    """
    gaps = np.random.default_rng(seed).exponential(1 / rate, num)
    return np.asarray(np.cumsum(gaps), np.float64)


def rate_of(replies: Sequence[Reply]) -> float:
    """Return accepted photos per second, from the first to the last that was answered.

    Raises:
        ServiceError: Fewer than two were.
    """
    ends = sorted(reply.ended_s for reply in replies if reply.status in ACCEPTED)
    if len(ends) < 2:
        raise ServiceError(
            f"{len(ends)} of {len(replies)} photos answered", "two or more", "measure longer"
        )
    return (len(ends) - 1) / (ends[-1] - ends[0])
