"""What the robot runtime costs beyond the network, and whether tiling and time change anything.

Overhead and start-up are ratios of times taken in turns in one run, so that a busy machine does
not matter.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.classes import Role
from weedseg.edge.segmenter import GRID_PX, Segmenter, segment_scaled
from weedseg.imaging import Image, resize_to, scaled_size
from weedseg.tiles import plan_tiles

ORIGINS = ((-32, -32), (-64, -160), (-250, -130))
"""Shifts of the tiling, px; the plan rounds them to its grid."""
MOST_TIMED, TURNS = 20, 3
"""Photos that are timed, and how often; the best turn counts, as others may use the machine."""
MEGAPIXELS = (2, 8, 16, 32)
_IMPORTS = {
    "plain": "import numpy, cv2, onnxruntime",
    "edge": "import weedseg.edge",
    "edge_and_onnxruntime": "import weedseg.edge, onnxruntime",
}


def measure_edge(model: Path, photos: Sequence[Image], rounds: int = 5) -> dict[str, Any]:
    """Measure all figures of the runtime.

    Args:
        model: A model file.
        photos: uint8 (H, W, 3) each, real ones.
        rounds: How often each import is timed.

    Returns:
        One line: overhead, memory, shifted_tiling, import_ratio.

    Raises:
        ModelFileError: The model cannot be run.
    """
    segmenter = Segmenter(model, threads=1)
    return {
        "bench": "edge",
        "model_sha256": segmenter.sha256,
        "photos": len(photos),
        "overhead": measure_overhead(segmenter, photos[:: -(-len(photos) // MOST_TIMED)]),
        "memory": measure_memory(segmenter, photos[0], MEGAPIXELS),
        "shifted_tiling": measure_shift(segmenter, photos),
        "import": measure_import(rounds),
        "onnxruntime": segmenter.runtime.onnxruntime,
        "version": __version__,
        "commit": commit(),
    }


def measure_overhead(segmenter: Segmenter, photos: Sequence[Image]) -> dict[str, Any]:
    """Compare photo to class map with the bare runs of the network on as many tiles.

    Args:
        segmenter: The model.
        photos: uint8 (H, W, 3) each.

    Returns:
        ratio (median over photos), and the median times, ms.
    """
    metadata = segmenter.metadata
    shape = (1, 3, metadata.tile_px, metadata.tile_px)
    tile = np.random.default_rng(0).random(shape, np.float32)
    run = segmenter.run_tiles
    run(tile)
    pairs = []
    for photo in photos:
        size = scaled_size((photo.shape[0], photo.shape[1]), metadata.scale)
        plan = plan_tiles(size, metadata.tile_px, metadata.overlap_px, grid_px=GRID_PX)
        turns = []
        for _ in range(TURNS):
            marks = [time.perf_counter()]
            for _ in plan.placements:
                run(tile)
            marks.append(time.perf_counter())
            segmenter.segment(photo)
            marks.append(time.perf_counter())
            turns.append(np.diff(marks))
        pairs.append(np.min(turns, axis=0))
    bare, whole = np.array(pairs).T
    return {
        "ratio": float(np.median(whole / bare)),
        "bare_ms": 1e3 * float(np.median(bare)),
        "whole_ms": 1e3 * float(np.median(whole)),
    }


def measure_memory(segmenter: Segmenter, photo: Image, megapixels: Sequence[int]) -> dict[str, Any]:
    """Measure what segmenting photos of several sizes needs beyond the photo itself.

    All that Python, numpy and OpenCV hand out is counted; what ONNX Runtime keeps for a batch of
    tiles is not, and does not depend on the photo.

    Args:
        segmenter: The model.
        photo: uint8 (H, W, 3); repeated to the sizes.
        megapixels: The sizes.

    Returns:
        bytes_per_px: measured slope; arrays_per_px: what result, photo and class map at working
        size take by their nature; rest_bytes: by size, all that is neither, the batch of tiles.
    """
    scale = segmenter.metadata.scale
    arrays = 2.0 if scale == 1 else 2.0 + 5.0 * scale**2
    segmenter.segment(photo)
    sizes, peaks = [], []
    for million in megapixels:
        side = round((million * 1e6) ** 0.5)
        times = [-(-side // length) for length in photo.shape[:2]]
        large = np.ascontiguousarray(np.tile(photo, (*times, 1))[:side, :side])
        peaks.append(_peak_bytes(partial(segmenter.segment, large)))
        sizes.append(side * side)
    slope = float(np.polyfit(sizes, peaks, 1)[0])
    rest = [int(peak - arrays * size) for peak, size in zip(peaks, sizes)]
    return {
        "megapixels": list(megapixels),
        "peak_bytes": peaks,
        "bytes_per_px": slope,
        "arrays_per_px": arrays,
        "rest_bytes": rest,
    }


def _peak_bytes(work: Callable[[], object]) -> int:
    """Return the most memory that a piece of work holds at a time, bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure_shift(segmenter: Segmenter, photos: Sequence[Image]) -> dict[str, Any]:
    """Compare class maps under shifted tilings.

    Args:
        segmenter: The model.
        photos: uint8 (H, W, 3) each.

    Returns:
        By the worst of the shifts, shares: changed, of all pixels; weed_lost, of the pixels that
        were weed; weed_differs, of those that are weed in one of the two, the stricter measure.
    """
    weeds = segmenter.classes.ids_of(Role.WEED)
    counts = np.zeros((len(ORIGINS), 5), np.int64)
    for photo in photos:
        size = scaled_size((photo.shape[0], photo.shape[1]), segmenter.metadata.scale)
        scaled = resize_to(photo, size)
        maps = [
            segment_scaled(scaled, segmenter.metadata, segmenter.run_tiles, origin=origin)[0]
            for origin in ((0, 0), *ORIGINS)
        ]
        first = np.isin(maps[0], weeds)
        for row, other in zip(counts, maps[1:]):
            weed = np.isin(other, weeds)
            parts = (maps[0] != other, first & ~weed, first, first ^ weed, first | weed)
            row += [int(part.sum()) for part in parts]
    total = sum(
        int(np.prod(scaled_size((p.shape[0], p.shape[1]), segmenter.metadata.scale)))
        for p in photos
    )
    return {
        "origins": [list(origin) for origin in ORIGINS],
        "changed": float((counts[:, 0] / total).max()),
        "weed_lost": float((counts[:, 1] / np.maximum(counts[:, 2], 1)).max()),
        "weed_differs": float((counts[:, 3] / np.maximum(counts[:, 4], 1)).max()),
    }


def measure_import(rounds: int) -> dict[str, float]:
    """Compare importing the runtime with importing what it needs, each in new processes.

    Processor time is taken, so that a busy machine does not count.

    Args:
        rounds: Processes of each, in turns.

    Returns:
        ratio; the medians of importing numpy, cv2 and onnxruntime (plain), of ``weedseg.edge``
        (edge), which leaves onnxruntime to the first model, and of both together, s.
    """
    times: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for _ in range(rounds + 1):
        for name, code in _IMPORTS.items():
            timed = f"import time; t = time.process_time()\n{code}\nprint(time.process_time() - t)"
            run = subprocess.run(
                [sys.executable, "-c", timed], capture_output=True, text=True, check=True
            )
            times[name].append(float(run.stdout))
    medians = {f"{name}_s": statistics.median(found[1:]) for name, found in times.items()}
    return {"ratio": medians["edge_s"] / medians["plain_s"], **medians}  # the first: cold files


def measure_growth(work: Callable[[int], object], frames: int) -> dict[str, float]:
    """Measure whether memory grows with the number of frames.

    Args:
        work: Handles the frame of a number.
        frames: How many; the first fifth warms up, >= 100.

    Returns:
        frames; bytes_per_frame, the slope of the resident memory (the median over all pairs, so
        that a step that happens once does not count); mib_per_100000.
    """
    from scipy.stats import theilslopes

    process, every = psutil.Process(), max(frames // 100, 1)
    places: list[int] = []
    memory: list[int] = []
    for number in range(frames):
        work(number)
        if number >= frames // 5 and not number % every:
            places.append(number)
            memory.append(process.memory_info().rss)
    slope = float(theilslopes(memory, places)[0])
    return {"frames": frames, "bytes_per_frame": slope, "mib_per_100000": slope * 1e5 / 2**20}


def edge_table(line: dict[str, Any]) -> str:
    """Word a line.

    Args:
        line: What `measure_edge` gave.
    """
    overhead, memory = line["overhead"], line["memory"]
    shift, start = line["shifted_tiling"], line["import"]
    rest: npt.NDArray[np.float64] = np.array(memory["rest_bytes"]) / 2**20
    return "\n".join(
        [
            (
                f"photo to class map {overhead['ratio']:.3f} x the bare runs "
                f"({overhead['whole_ms']:.0f} against {overhead['bare_ms']:.0f} ms)"
            ),
            (
                f"memory {memory['bytes_per_px']:.1f} bytes per px of the photo, "
                f"{memory['arrays_per_px']:.1f} of them result and photo at working size; "
                f"the rest {rest.min():.0f} to {rest.max():.0f} MiB at "
                f"{', '.join(map(str, memory['megapixels']))} megapixels"
            ),
            (
                f"a shifted tiling changes {100 * shift['changed']:.2f} % of pixels, takes away "
                f"{100 * shift['weed_lost']:.1f} % of weed pixels; weed differs on "
                f"{100 * shift['weed_differs']:.1f} % of the pixels that are weed in either"
            ),
            (
                f"import {start['ratio']:.2f} x that of numpy, cv2 and onnxruntime "
                f"({start['edge_s']:.2f} against {start['plain_s']:.2f} s; with onnxruntime "
                f"{start['edge_and_onnxruntime_s']:.2f} s)"
            ),
        ]
    )
