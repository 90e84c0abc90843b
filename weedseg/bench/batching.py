"""Is it worth running several tiles at once? Times one tile in runs of several sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weedseg.bench.serve import machine_facts
from weedseg.edge.segmenter import Segmenter

SIZES = (1, 2, 4)
_WARM_UP = 2


def measure_batching(
    model: Path, *, threads: int = 1, rounds: int = 20, sizes: Sequence[int] = SIZES
) -> dict[str, Any]:
    """Time the network alone, all sizes in turns, so that a busy machine slows all of them.

    Args:
        model: A model file.
        threads: CPU threads.
        rounds: Turns.
        sizes: Tiles per run; the first is what others are compared with.

    Returns:
        One line: by size, the median time of one tile, ms, and tile_time_share, the median over
        rounds of the time beside that of the first size; < 1 is faster.

    Raises:
        ModelFileError: The model cannot be run.
    """
    segmenter = Segmenter(model, threads=threads)
    run, side = segmenter.run_tiles, segmenter.metadata.tile_px
    as_bytes = getattr(run, "takes_bytes", False)
    rng = np.random.default_rng(0)
    if as_bytes:
        tiles = rng.integers(0, 256, (max(sizes), side, side, 3), np.uint8)
    else:
        tiles = rng.random((max(sizes), 3, side, side), np.float32)
    rows = []
    for _ in range(rounds + _WARM_UP):
        times = []
        for size in sizes:
            start = time.perf_counter()
            run(tiles[:size])
            times.append((time.perf_counter() - start) / size)
        rows.append(times)
    tile_s = np.array(rows[_WARM_UP:])
    shares = tile_s / tile_s[:, :1]
    return {
        "bench": "batching",
        "model_sha256": segmenter.sha256,
        "tile_px": side,
        "threads": threads,
        "rounds": rounds,
        "tile_ms": {str(n): 1e3 * float(t) for n, t in zip(sizes, np.median(tile_s, axis=0))},
        "tile_time_share": {str(n): float(s) for n, s in zip(sizes, np.median(shares, axis=0))},
        **machine_facts(segmenter),
    }
