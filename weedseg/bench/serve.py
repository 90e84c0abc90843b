"""What the service costs beyond the bare edge runtime, and what it does under load.

Bare runtime and service take turns in one run, with as many workers and threads. A bare worker is
a process that decodes and segments photos from memory and does nothing else; the service receives,
decodes in its sandbox, segments, and answers JSON with areas, patches and run lengths.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from weedseg import __version__
from weedseg.bench.latency import Camera, camera_pictures
from weedseg.bench.lines import commit
from weedseg.bench.serve_load import (
    ACCEPTED,
    REFUSED,
    STAGES,
    Clients,
    Reply,
    ServerProcess,
    poisson_times,
    rate_of,
)
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import FieldDataError
from weedseg.imaging import IMAGE_SUFFIXES, decode_image

LOAD, BURST = 0.7, 10
"""Of the measured capacity: a usual load, and far too much."""
MAX_PHOTOS = 32
_DRAWN = Camera(width_px=960, height_px=720)
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]
_CONNECTIONS_PER_WORKER = 3
_OPEN_CONNECTIONS = 96


@dataclass(frozen=True, kw_only=True)
class ServePlan:
    """What is measured."""

    model: Path
    photos: Sequence[bytes]
    """Photo files."""
    workers: int = 1
    threads: int = 1
    """CPU threads of each worker's network."""
    rounds: int = 5
    """Turns of bare runtime and service."""
    round_s: float = 8.0
    """Length of a turn; `BURST` times the capacity arrives for as long."""
    requests: int = 400
    """At `LOAD`; that many make the 99th percentile."""


def photo_files(folder: Path | None, model: Path) -> list[bytes]:
    """Take photos of a folder, or draw some from the golden sample of the model.

    Args:
        folder: Folder of photos; None draws.
        model: The model file.

    Raises:
        FieldDataError: There is no photo in the folder.
    """
    if folder is None:
        return [to_jpeg(picture) for picture in camera_pictures(model, _DRAWN)]
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FieldDataError(f"no photo in {folder}", "JPEG, PNG, TIFF or WebP", "check --photos")
    step = max(1, len(paths) // MAX_PHOTOS)
    return [path.read_bytes() for path in paths[::step][:MAX_PHOTOS]]


def to_jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image, uint8 (H, W, 3)."""
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)[1])


def measure_serve(plan: ServePlan) -> dict[str, Any]:
    """Measure throughput beside the bare runtime, latency at `LOAD`, and a burst.

    Args:
        plan: What is measured.

    Returns:
        One line. share_kept is the median over rounds of served / bare photos per second; cpu_ms
        is processor time per photo.

    Raises:
        ModelFileError: The model cannot be run.
        RuntimeUnavailableError: The service does not start.
        ServiceError: It answers almost nothing.
    """
    segmenter = Segmenter(plan.model, threads=1)
    settings = {"infer_workers": plan.workers, "infer_threads": plan.threads}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        bare = stack.enter_context(BareWorkers(plan))
        server = stack.enter_context(ServerProcess(plan.model, Path(folder) / "data", settings))
        turns = _take_turns(plan, bare, server)
        capacity = turns["served"]["photos_s"]
        idle_mib = server.memory_mib()
        load = _at_load(plan, server, capacity)
        burst = _burst(plan, server, capacity)
        grown_mib = server.memory_mib() - idle_mib
    height, width = decode_image(plan.photos[0], "photo").shape[:2]
    return {
        "bench": "serve",
        "model_sha256": segmenter.sha256,
        "workers": plan.workers,
        "threads": plan.threads,
        "photos": len(plan.photos),
        "photo_px": [width, height],
        "decode": "in both",
        **turns,
        "load": load,
        "burst": burst,
        "memory_mib": idle_mib,
        "memory_grown_mib": grown_mib,
        **machine_facts(segmenter),
    }


def machine_facts(segmenter: Segmenter) -> dict[str, Any]:
    """Return what a line says about machine, how busy it was at the end, and versions."""
    return {
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "provider": segmenter.runtime.provider,
        "onnxruntime": segmenter.runtime.onnxruntime,
        "machine": platform.processor() or platform.machine(),
        "version": __version__,
        "commit": commit(),
    }


def _take_turns(plan: ServePlan, bare: BareWorkers, server: ServerProcess) -> dict[str, Any]:
    """Measure bare runtime and service in turns."""
    rows, replies = [], []
    with Clients(server.url, plan.photos, _CONNECTIONS_PER_WORKER * plan.workers) as clients:
        clients.flood(1.0)  # loads what first requests load
        before = server.stages()
        for _ in range(plan.rounds):
            bare_rate, bare_cpu_s = bare.run(plan.round_s)
            cpu_s = server.cpu_s()
            found = clients.flood(plan.round_s)
            replies += found
            cpu_s = (server.cpu_s() - cpu_s) / max(1, len(found))
            rows.append([bare_rate, rate_of(found), bare_cpu_s, cpu_s])
        after = server.stages()
    bare_rates, served_rates, bare_cpu, served_cpu = np.array(rows).T
    return {
        "bare": _rate(bare_rates, bare_cpu),
        "served": {
            **_rate(served_rates, served_cpu),
            **_latencies(replies),
            "failed": sum(reply.failed for reply in replies),
        },
        "share_kept": float(np.median(served_rates / bare_rates)),
        "cpu_share_kept": float(np.median(bare_cpu / served_cpu)),
        "stage_ms": {name: _stage_ms(before[name], after[name]) for name in STAGES},
    }


def _rate(rates: npt.NDArray[np.float64], cpu_s: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {
        "photos_s": float(np.median(rates)),
        "rounds": [round(rate, 3) for rate in rates.tolist()],
        "cpu_ms": 1e3 * float(np.median(cpu_s)),
    }


def _stage_ms(before: tuple[float, float], after: tuple[float, float]) -> float:
    return 1e3 * (after[0] - before[0]) / max(1.0, after[1] - before[1])


def _at_load(plan: ServePlan, server: ServerProcess, capacity: float) -> dict[str, Any]:
    """Let photos arrive at random, at a share of the capacity."""
    rate = LOAD * capacity
    with Clients(server.url, plan.photos, _OPEN_CONNECTIONS) as clients:
        replies = clients.arrive(poisson_times(rate, plan.requests))
    found = _latencies(replies)
    return {
        "share": LOAD,
        "requests_s": rate,
        "requests": len(replies),
        **found,
        "p99_over_p50": found["p99_ms"] / found["p50_ms"],
        "refused": sum(reply.status in REFUSED for reply in replies),
        "failed": sum(reply.failed for reply in replies),
    }


def _burst(plan: ServePlan, server: ServerProcess, capacity: float) -> dict[str, Any]:
    """Let far more arrive than can be done: the rest must be refused, and quickly."""
    rate = BURST * capacity
    times = poisson_times(rate, max(BURST, round(rate * plan.round_s)), seed=1)
    with Clients(server.url, plan.photos, _OPEN_CONNECTIONS) as clients:
        replies = clients.arrive(times)
    refused = [reply for reply in replies if reply.status in REFUSED]
    return {
        "factor": BURST,
        "requests_s": rate,
        "requests": len(replies),
        "accepted": sum(reply.status in ACCEPTED for reply in replies),
        "accepted_s": rate_of(replies),
        "refused": len(refused),
        "failed": sum(reply.failed for reply in replies),
        "refusal": _latencies(refused, REFUSED),
    }


def _latencies(replies: Sequence[Reply], statuses: tuple[int, ...] = ACCEPTED) -> dict[str, float]:
    """Return p50, p99 and the worst of the replies with these statuses, ms; 0 for none."""
    chosen = [1e3 * reply.latency_s for reply in replies if reply.status in statuses] or [0.0]
    return {
        "p50_ms": float(np.percentile(chosen, 50)),
        "p99_ms": float(np.percentile(chosen, 99)),
        "worst_ms": max(chosen),
    }


class BareWorkers:
    """Processes that decode and segment photos, and do nothing else."""

    def __init__(self, plan: ServePlan) -> None:
        """Start them and wait until all have segmented a photo.

        Args:
            plan: Model, photos, workers and threads.
        """
        context = get_context("spawn")
        self._pipes, self._processes = [], []
        for _ in range(plan.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work_bare, args=(theirs, plan), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self.run(0.0)

    def __enter__(self) -> BareWorkers:
        """Return the workers themselves."""
        return self

    def __exit__(self, *error: object) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def run(self, seconds: float) -> tuple[float, float]:
        """Let all work at once.

        Args:
            seconds: How long; every worker does at least one photo.

        Returns:
            Photos per second of all together, and processor time per photo, s.
        """
        for pipe in self._pipes:
            pipe.send(seconds)
        found = [pipe.recv() for pipe in self._pipes]
        photos = sum(num for num, _, _ in found)
        return sum(num / took for num, took, _ in found), sum(cpu for _, _, cpu in found) / photos


def _work_bare(pipe: Connection, plan: ServePlan) -> None:
    """Answer each number of seconds with photos done, seconds taken and processor seconds."""
    segmenter = Segmenter(plan.model, threads=plan.threads)
    number = 0
    while True:
        try:
            seconds = pipe.recv()
        except EOFError:
            return
        first, start, cpu_start = number, time.perf_counter(), time.process_time()
        while number == first or time.perf_counter() - start < seconds:
            photo = plan.photos[number % len(plan.photos)]
            segmenter.segment(decode_image(photo, "photo"))
            number += 1
        took_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
        pipe.send((number - first, took_s, cpu_s))
