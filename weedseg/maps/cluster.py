"""Run the shards of a map on a Ray cluster (extra ``weedseg[cluster]``).

Every shard is a task of its own: Ray runs it again elsewhere when its worker or machine is lost,
and machines may join while a map is made. The bytes of a shard are those of the local engine.

Without ``RAY_ADDRESS`` a cluster of this machine alone is started, that listens on loopback only
and asks for a token nobody else knows. Ray reports nothing home.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from weedseg.data.mosaics import Mosaic
from weedseg.edge.segmenter import Segmenter
from weedseg.edge.session import physical_cores
from weedseg.errors import (
    FieldDataError,
    ModelFileError,
    RuntimeUnavailableError,
    WeedsegError,
)
from weedseg.maps.engine import Save, ShardJob, open_mosaic
from weedseg.maps.shards import segment_shard
from weedseg.maps.storage import fetch, origin

Item = TypeVar("Item")

ADDRESS_VARIABLE = "RAY_ADDRESS"
ATTEMPTS = 3
"""A shard whose worker dies so often fails the map."""
_OBJECT_STORE_BYTES = 256 << 20
_REFRESH_S = 5.0
_ALONE = {
    # Ray binds to loopback only where it expects no cluster, which is what this says.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # 15 by default: behind everything else on the machine
    "RAY_task_oom_retries": str(ATTEMPTS - 1),
}
_open_jobs: dict[str, tuple[Mosaic, Segmenter]] = {}
"""What a worker process has open: the job of the last shard."""


def run_ray(
    job: ShardJob, numbers: Sequence[int], save: Save, workers: int = 0
) -> Generator[int, None, None]:
    """Run shards on a Ray cluster.

    Args:
        job: Mosaic, model and plan. The mosaic is a copy of `weedseg.maps.storage.fetch`, or lies
            on a disk that all machines share.
        numbers: The shards to run.
        save: Called with a shard's number and bytes, on this machine.
        workers: Shards at a time; 0 takes all cores of the cluster.

    Yields:
        The number of each shard that is saved.

    Raises:
        FieldDataError: The mosaic is damaged, or not on a worker's machine.
        ModelFileError: The model cannot be used.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: Ray is not there or fails, or workers die.
    """
    if not numbers:
        return
    try:
        model = job.model.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{job.model} cannot be read: {error.strerror}", "a model file", "check the path"
        ) from error
    with cluster(workers) as ray:
        shared = [
            ray.put(value) for value in (_job_key(str(job.mosaic)), job, origin(job.mosaic), model)
        ]
        run = remote(ray, _segment, job.require_provider)
        for number, data in run_each(ray, numbers, lambda n: run(*shared, n), workers):
            save(number, data)
            yield number


def remote(
    ray: Any, work: Callable[..., Any], require_provider: str | None = None
) -> Callable[..., Any]:
    """Make a task of a function: a core each, and a GPU if that is required.

    Args:
        ray: The module.
        work: A function of a module of weedseg.
        require_provider: tensorrt, cuda or cpu.
    """
    gpus = 0 if require_provider in (None, "cpu") else 1
    task = ray.remote(work).options(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)
    submit: Callable[..., Any] = task.remote
    return submit


def run_each(
    ray: Any, items: Iterable[Item], submit: Callable[[Item], Any], workers: int
) -> Generator[tuple[Item, Any], None, None]:
    """Run a task for each item; results come in the order in which they are ready.

    Args:
        ray: The module.
        items: What to run tasks for; taken only as workers get free.
        submit: Submits the task of an item.
        workers: Tasks at a time; 0 takes all cores of the cluster.

    Yields:
        Item and result.

    Raises:
        WeedsegError: A task failed on its own account.
        RuntimeUnavailableError: Its worker died again and again, or Ray failed.
    """
    pending: dict[Any, Item] = {}
    waiting, room = iter(items), _Room(ray, workers)
    while True:
        while len(pending) < room.num_tasks() and (item := next(waiting, None)) is not None:
            pending[submit(item)] = item
        if not pending:
            return
        done, _ = ray.wait(list(pending), num_returns=1)
        ready = pending.pop(done[0])
        yield ready, _result(ray, done[0], ready)


@contextmanager
def cluster(workers: int = 0) -> Iterator[Any]:
    """Connect to the cluster that ``RAY_ADDRESS`` names, or start one on this machine.

    Within another one of these, that one is used.

    Args:
        workers: Cores of a cluster that is started; 0 takes all of this machine.

    Yields:
        The module ray.

    Raises:
        RuntimeUnavailableError: Ray is not installed, or does not start.
    """
    address = os.environ.get(ADDRESS_VARIABLE)
    settings = {"RAY_USAGE_STATS_ENABLED": "0"}
    if not address:
        settings |= _ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with _environment(settings):
        ray = _import()
        if ray.is_initialized():
            yield ray
            return
        with _own_signals():
            _start(ray, address, workers)
        try:
            yield ray
        finally:
            ray.shutdown()


def _segment(key: str, job: ShardJob, url: str | None, model: bytes, number: int) -> bytes:
    """Run one shard in a worker process, which keeps mosaic and model open for the next one."""
    if key not in _open_jobs:
        _open_jobs.clear()
        segmenter = Segmenter(model, threads=1, require_provider=job.require_provider)
        mosaic = fetch(url) if url else job.mosaic
        if not mosaic.is_file():
            raise FieldDataError(
                f"{mosaic} is not on machine {socket.gethostname()}",
                "a mosaic that all machines of the cluster reach",
                "give its URL (s3://...), or put it on a shared disk",
            )
        _open_jobs[key] = open_mosaic(replace(job, mosaic=mosaic)), segmenter
    opened, segmenter = _open_jobs[key]
    return segment_shard(opened, job.plan, number, segmenter.metadata, segmenter.run_tiles)


def _job_key(name: str) -> str:
    """Name a job, so that a worker that served another one, or an older mosaic, opens anew."""
    return f"{name}\n{secrets.token_hex(8)}"


def _result(ray: Any, reference: Any, item: object) -> Any:
    """Return the result of a task.

    Raises:
        WeedsegError: It failed on its own account.
        RuntimeUnavailableError: Its worker died again and again, or Ray failed.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, WeedsegError):
            raise error.cause from error
        raise _failed(item, error) from error
    except ray.exceptions.RayError as error:
        raise _failed(item, error) from error


def _failed(item: object, error: Exception) -> RuntimeUnavailableError:
    reason = " ".join(str(error).split())[:200]
    return RuntimeUnavailableError(
        f"part {item} failed on the cluster: {reason}",
        f"workers that live through it in {ATTEMPTS} attempts",
        "look at their memory and at Ray's logs; what is done is kept, run it again",
    )


class _Room:
    """How many tasks may be under way: two per core, so that no worker waits for this process."""

    def __init__(self, ray: Any, workers: int) -> None:
        self._ray, self._workers = ray, workers
        self._num, self._asked_s = 0, -math.inf

    def num_tasks(self) -> int:
        """Count, again from time to time: machines come and go."""
        now = time.monotonic()
        if now - self._asked_s >= _REFRESH_S:
            cores = max(int(self._ray.cluster_resources().get("CPU", 1)), 1)
            self._num = self._workers if 0 < self._workers < cores else 2 * cores
            self._asked_s = now
        return self._num


def _import() -> Any:
    """Load Ray when it is needed.

    Raises:
        RuntimeUnavailableError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeUnavailableError(
            "ray is not installed", "it, for --engine ray", "run: pip install 'weedseg[cluster]'"
        ) from error
    return ray


def _start(ray: Any, address: str | None, workers: int) -> None:
    """Connect, or start a cluster here.

    Raises:
        RuntimeUnavailableError: Ray does not start.
    """
    own = {
        "address": "local",
        "num_cpus": workers or physical_cores(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    try:
        ray.init(
            **({"address": address} if address else own),
            log_to_driver=False,
            logging_level="error",
            configure_logging=False,
        )
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RuntimeUnavailableError(
            f"Ray does not start: {reason}",
            f"a cluster at {address}" if address else "a cluster on this machine",
            "see deploy/cluster.md, or use --engine local",
        ) from error


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables for a while; what a person has set stays."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does on SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
