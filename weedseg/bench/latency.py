"""How long from photo to class map, and how many frames of a camera arrive in time to act on?"""

from __future__ import annotations

import platform
import re
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.edge.boom import Boom, cell_shares
from weedseg.edge.golden import GOLDEN_NAME
from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.segmenter import RunTiles, Segmenter, segment_photo
from weedseg.edge.stream import Frame, Stream
from weedseg.edge.watch import DEFAULT_LIMITS, Limits, PictureWatch
from weedseg.errors import ConfigError
from weedseg.imaging import Image, read_image

PHASES = ("watch", "network", "around", "decide", "total")
"""Checks of the frame; ONNX Runtime; resize, tiles and stitching; cells of a boom; their sum."""
CELL_PX = 4
"""The head gives one value per so many px of the working resolution."""
NUM_PICTURES = 16
_WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera, as ``1920x1200@20`` says it."""

    width_px: int = 1920
    height_px: int = 1200
    fps: float = 20.0


def parse_camera(text: str) -> Camera:
    """Read ``WIDTHxHEIGHT@FPS``.

    Raises:
        ConfigError: It is something else, or out of range.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})@(\d{1,4}(?:\.\d{1,3})?)", text.strip())
    width, height, fps = match.groups() if match else ("0", "0", "0")
    camera = Camera(width_px=int(width), height_px=int(height), fps=float(fps))
    if min(camera.width_px, camera.height_px, camera.fps) <= 0:
        raise ConfigError(f"--camera {text}", "e.g. 1920x1200@20", "give width, height and fps")
    return camera


@dataclass(frozen=True, kw_only=True)
class LatencyPlan:
    """What is measured."""

    model: Path
    camera: Camera = Camera()
    threads: tuple[int, ...] = (1,)
    rounds: int = 20
    """Frames per number of threads."""
    stream_seconds: float = 10.0
    """How long the camera runs in real time, s; 0: not at all."""
    deadline_ms: float = DEFAULT_LIMITS.deadline_ms
    speed_km_h: float = 7.2


def measure_latency(plan: LatencyPlan) -> list[dict[str, Any]]:
    """Time a model on frames of a camera, once per number of threads.

    Args:
        plan: What is measured.

    Returns:
        One line per number of threads: percentiles per phase in ms, megapixels/s, memory, share
        of OK frames, smallest weed, distance travelled.

    Raises:
        ModelFileError: The model cannot be run.
        ConfigError: A limit is out of range.
    """
    pictures = camera_pictures(plan.model, plan.camera)
    return [_one(plan, pictures, threads) for threads in plan.threads]


def _one(plan: LatencyPlan, pictures: Sequence[Image], threads: int) -> dict[str, Any]:
    segmenter = Segmenter(plan.model, threads=threads)
    times = _time_phases(segmenter, pictures, plan.rounds)
    phases = {name: percentiles(times[:, i]) for i, name in enumerate(PHASES)}
    median_ms = phases["total"]["p50"]
    unit = 1024 if sys.platform != "darwin" else 1
    line: dict[str, Any] = {
        "bench": "latency",
        "model": plan.model.name,
        "model_sha256": segmenter.sha256,
        "quantisation": segmenter.metadata.properties.get("quantisation", "none"),
        "camera": f"{plan.camera.width_px}x{plan.camera.height_px}@{plan.camera.fps:g}",
        "provider": segmenter.runtime.provider,
        "threads": threads,
        "rounds": plan.rounds,
        "ms": phases,
        "megapixels_s": plan.camera.width_px * plan.camera.height_px / 1e3 / median_ms,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "smallest_weed": smallest_weed(segmenter.metadata),
        "cm_travelled": {
            name: travelled_cm(phases["total"][name], plan.speed_km_h) for name in ("p50", "p99")
        },
        "speed_km_h": plan.speed_km_h,
        "machine": platform.processor() or platform.machine(),
        "onnxruntime": segmenter.runtime.onnxruntime,
        "version": __version__,
        "commit": commit(),
    }
    if plan.stream_seconds > 0:
        line["stream"] = _run_stream(plan, segmenter, pictures)
    return line


def camera_pictures(model: Path, camera: Camera) -> list[Image]:
    """Draw different frames of a moving camera from the golden photo; noise if there is none.

    Args:
        model: The model file, with ``golden`` beside it.
        camera: Size of the frames.
    """
    golden = model.parent / GOLDEN_NAME / "in.png"
    if golden.is_file():
        photo = read_image(golden)
    else:
        photo = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    size = (camera.height_px, camera.width_px)
    times = [-(-wanted // length) for wanted, length in zip(size, photo.shape)]
    whole = np.tile(photo, (*times, 1))[: size[0], : size[1]]
    step = max(size[0] // NUM_PICTURES, 1)
    return [np.roll(whole, step * number, axis=0) for number in range(NUM_PICTURES)]


def _time_phases(
    segmenter: Segmenter, pictures: Sequence[Image], rounds: int
) -> npt.NDArray[np.float64]:
    """Return times in ms, (rounds, phases)."""
    boom = Boom(mm_per_px=1.0, nozzle_mm=60.0, cell_mm=60.0)
    watch = PictureWatch(DEFAULT_LIMITS)
    network = _Timed(segmenter.run_tiles)
    rows = []
    for number in range(rounds + _WARM_UP):
        picture = pictures[number % len(pictures)]
        network.seconds = 0.0
        marks = [time.perf_counter()]
        watch.judge(picture)
        marks.append(time.perf_counter())
        class_map = segment_photo(picture, segmenter.metadata, network).class_map
        marks.append(time.perf_counter())
        cell_shares(class_map > 1, boom)
        marks.append(time.perf_counter())
        watched, segmented, decided = np.diff(marks)
        around = segmented - network.seconds
        rows.append([watched, network.seconds, around, decided, marks[-1] - marks[0]])
    return 1e3 * np.array(rows[_WARM_UP:])


class _Timed:
    """Sums up the time of the network alone."""

    def __init__(self, run: RunTiles) -> None:
        self._run = run
        self.takes_bytes: bool = getattr(run, "takes_bytes", False)
        self.seconds = 0.0

    def __call__(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        start = time.perf_counter()
        found = self._run(images)
        self.seconds += time.perf_counter() - start
        return found


def percentiles(times_ms: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return p50, p90, p95, p99 and the worst, ms."""
    found = {f"p{q}": float(np.percentile(times_ms, q)) for q in (50, 90, 95, 99)}
    return {**found, "worst": float(times_ms.max())}


def smallest_weed(metadata: ModelMetadata) -> dict[str, float]:
    """Return the side of the smallest weed that the head can mark: two of its values, nominally.

    Args:
        metadata: What the model says.

    Returns:
        px of the photo, and mm at the finest ground resolution of training when it is known.
    """
    side_px = 2 * CELL_PX / metadata.scale
    if metadata.mm_per_px is None:
        return {"px": side_px}
    return {"px": side_px, "mm": side_px * metadata.mm_per_px[0]}


def travelled_cm(milliseconds: float, speed_km_h: float) -> float:
    """Return how far a machine goes in a time, cm."""
    return speed_km_h / 36 * milliseconds


def _run_stream(
    plan: LatencyPlan, segmenter: Segmenter, pictures: Sequence[Image]
) -> dict[str, Any]:
    """Let the camera run in real time, and ask for the status once per frame."""
    limits = Limits(deadline_ms=plan.deadline_ms)
    statuses: Counter[str] = Counter()
    ages, reason = [], ""
    interval_s = 1 / plan.camera.fps
    num = max(int(plan.stream_seconds * plan.camera.fps), 1)
    with Stream(segmenter, limits) as stream:
        time.sleep(2 * interval_s)
        start = time.monotonic()
        for number in range(num):
            time.sleep(max(start + number * interval_s - time.monotonic(), 0))
            result = stream.latest()
            if number > limits.settle_frames:
                statuses[result.status.value] += 1
                reason = result.reason or reason
                ages.append(result.age_ms)
            picture = pictures[number % len(pictures)].copy()
            picture[0, 0] = number // len(pictures) % 256  # no sensor gives a frame twice
            stream.offer(Frame(image=picture, captured_s=time.monotonic(), number=number))
    known = [age for age in ages if np.isfinite(age)]
    return {
        "deadline_ms": plan.deadline_ms,
        "frames": sum(statuses.values()),
        "ok_share": statuses["OK"] / max(sum(statuses.values()), 1),
        "statuses": dict(statuses),
        "last_reason": reason,
        "median_age_ms": float(np.median(known)) if known else 0.0,
    }


def latency_table(lines: Sequence[dict[str, Any]]) -> str:
    """Word lines as a table: one row per number of threads and phase.

    Args:
        lines: What `measure_latency` gave.
    """
    rows = ["threads phase        p50     p90     p95     p99   worst  ms"]
    for line in lines:
        for phase, ms in line["ms"].items():
            cells = " ".join(f"{ms[key]:7.1f}" for key in ("p50", "p90", "p95", "p99", "worst"))
            rows.append(f"{line['threads']:7d} {phase:9s} {cells}")
        travelled = line["cm_travelled"]
        weed = ", ".join(f"{value:.1f} {unit}" for unit, value in line["smallest_weed"].items())
        rows.append(
            f"        {line['megapixels_s']:.2f} megapixels/s, peak memory "
            f"{line['peak_memory_bytes'] / 2**20:.0f} MiB, smallest weed {weed} (nominal), "
            f"{travelled['p50']:.0f} cm (p99 {travelled['p99']:.0f} cm) travelled at "
            f"{line['speed_km_h']:g} km/h"
        )
        if "stream" in line:
            stream = line["stream"]
            rows.append(
                f"        {100 * stream['ok_share']:.0f} % of {stream['frames']} frames OK within "
                f"{stream['deadline_ms']:g} ms; {stream['last_reason']}"
            )
    return "\n".join(rows)
