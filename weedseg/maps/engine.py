"""Run the shards of a map on this machine, then read all parts once, in order.

Threads are enough: network, GDAL, OpenCV and zlib all work without Python's lock. Each has its own
session with one thread (measured: two sessions of one thread do as much as one of two threads,
and reading and packing of one go on while the other runs the network). A thread takes shards that
lie side by side, so that the blocks of the mosaic at their common border are decoded once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeAlias

from weedseg.data.mosaics import Mosaic
from weedseg.edge.segmenter import Segmenter
from weedseg.edge.session import physical_cores
from weedseg.errors import ConfigError
from weedseg.maps.ground import MapPart
from weedseg.maps.parts import PartFolder
from weedseg.maps.shards import ShardPlan, read_part, segment_shard

_MOST_CACHE_WINDOW_PX = 8192
_SIDE_BY_SIDE = 8


@dataclass(frozen=True, kw_only=True)
class ShardJob:
    """What a worker must know; it may be on another machine."""

    mosaic: Path
    model: Path
    plan: ShardPlan
    require_provider: str | None = None


@dataclass(frozen=True, kw_only=True)
class MapProgress:
    """How far a map is."""

    done: int
    """Shards."""
    total: int
    seconds_left: float | None
    """None before the first shard of this run."""
    what: str = "segmenting"
    """Or ``writing``."""


Tell: TypeAlias = Callable[[MapProgress], None]
Save: TypeAlias = Callable[[int, bytes], None]
Engine: TypeAlias = Callable[[ShardJob, Sequence[int], Save, int], Generator[int, None, None]]
"""Runs shards with so many workers, saves each and yields its number once it is saved."""


class Accumulator(Protocol):
    """Takes all parts of a map, one after the other."""

    def add(self, part: MapPart) -> object:
        """Take one part."""


class _Worker(threading.local):
    """Mosaic and model of one thread, opened when it gets its first shard."""

    mosaic: Mosaic | None = None
    segmenter: Segmenter


def run_local(
    job: ShardJob, numbers: Sequence[int], save: Save, workers: int = 0
) -> Generator[int, None, None]:
    """Run shards in threads of this process.

    Args:
        job: Mosaic, model and plan.
        numbers: The shards to run.
        save: Called with a shard's number and bytes, in the threads.
        workers: Threads; 0 takes one per physical core.

    Yields:
        The number of each shard that is saved.

    Raises:
        FieldDataError: The mosaic is damaged.
        ModelFileError: The model cannot be used.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: ONNX Runtime fails.
    """
    local = _Worker()
    stop = threading.Event()
    news: SimpleQueue[int | Future[None]] = SimpleQueue()

    def work(run: Sequence[int]) -> None:
        for number in run:
            if stop.is_set():
                return
            if local.mosaic is None:
                local.segmenter = Segmenter(
                    job.model, threads=1, require_provider=job.require_provider
                )
                local.mosaic = open_mosaic(job)
            metadata, run_tiles = local.segmenter.metadata, local.segmenter.run_tiles
            save(number, segment_shard(local.mosaic, job.plan, number, metadata, run_tiles))
            news.put(number)

    workers = workers or physical_cores()
    length = max(1, min(_SIDE_BY_SIDE, len(numbers) // (4 * workers)))
    left = len(numbers)
    with ThreadPoolExecutor(workers, thread_name_prefix="weedseg-map") as pool:
        try:
            for first in range(0, len(numbers), length):
                pool.submit(work, numbers[first : first + length]).add_done_callback(news.put)
            while left:
                what = news.get()
                if isinstance(what, Future):
                    what.result()  # raises what it has raised
                    continue
                left -= 1
                yield what
        finally:
            stop.set()


def open_mosaic(job: ShardJob) -> Mosaic:
    """Open the mosaic of a job for reading by shards.

    Raises:
        FieldDataError: It is no GeoTIFF.
    """
    shard = job.plan.shard(0)
    side = max(shard.window.height, shard.window.width, 16)
    return Mosaic(job.mosaic, min(side, _MOST_CACHE_WINDOW_PX))


def _run_ray(
    job: ShardJob, numbers: Sequence[int], save: Save, workers: int = 0
) -> Generator[int, None, None]:
    """Load Ray only when it is asked for."""
    from weedseg.maps.cluster import run_ray

    yield from run_ray(job, numbers, save, workers)


ENGINES: dict[str, Engine] = {"local": run_local, "ray": _run_ray}
"""Name -> what runs the shards; all of them save the same bytes."""


def find_engine(name: str) -> Engine:
    """Return an engine by name.

    Raises:
        ConfigError: There is none.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine '{name}'", f"one of {', '.join(ENGINES)}", "change --engine")
    return ENGINES[name]


def run_shards(
    job: ShardJob, parts: PartFolder, tell: Tell, run: Engine = run_local, workers: int = 0
) -> int:
    """Run all shards that are not done.

    Args:
        job: Mosaic, model and plan.
        parts: Where they go.
        tell: Called after every shard.
        run: What runs them.
        workers: How many of its workers; 0 takes as many as it has.

    Returns:
        How many were run.

    Raises:
        WeedsegError: As `run_local`.
    """
    total = job.plan.num_shards
    left = [number for number in range(total) if number not in parts.done]
    start = time.monotonic()
    tell(MapProgress(done=total - len(left), total=total, seconds_left=None))
    with closing(run(job, left, parts.save, workers)) as finished:
        for count, _ in enumerate(finished, start=1):
            seconds = (time.monotonic() - start) / count * (len(left) - count)
            done = total - len(left) + count
            tell(MapProgress(done=done, total=total, seconds_left=seconds))
    return len(left)


def read_parts(plan: ShardPlan, parts: PartFolder) -> Iterator[MapPart]:
    """Yield all parts of a map in order; the next one is unpacked in the meantime.

    Raises:
        FieldDataError: A part is damaged.
        OutputError: A part is gone.
    """

    def load(number: int) -> MapPart:
        return read_part(plan, number, parts.load(number))

    with ThreadPoolExecutor(1, thread_name_prefix="weedseg-parts") as pool:
        coming = pool.submit(load, 0)
        for number in range(plan.num_shards):
            part = coming.result()
            if number + 1 < plan.num_shards:
                coming = pool.submit(load, number + 1)
            yield part
