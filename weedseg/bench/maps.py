"""A large mosaic through `weedseg map`: throughput, memory, seams, areas against the truth.

Throughput is compared with three loops over the same tiles, run before and after the map with as
many workers of one thread: the network alone; the runtime on shards that lie in memory; and a plain
loop that reads each tile from the mosaic, resizes it, runs the network and writes nothing. All of
them keep every core busy, so processor time is compared: a busy machine does not count.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.bench.maps_mosaic import Block, Truth, write_large_mosaic
from weedseg.classes import Role
from weedseg.data.mosaics import Mosaic, Window
from weedseg.edge.segmenter import Segmenter, fill_tile, segment_scaled
from weedseg.errors import OutputError
from weedseg.imaging import resize_to
from weedseg.maps.ground import NO_DATA
from weedseg.maps.shards import ShardPlan, plan_shards, read_part, segment_shard

ORIGINS = ((-48, -48), (-96, -240), (-336, -192))
"""Shifts of the shards, px of the mosaic."""
PHASES = (7, 16)
"""Shifts of the mosaic, px down and right."""
SHIFT_PX = 6000
_SHARE, _LEAST = 0.05, 3
_WATCH_S = 0.05


@dataclass(frozen=True, kw_only=True)
class MapsPlan:
    """What to measure."""

    model: Path
    block: Block
    megapixels: float = 1000.0
    workers: int = 2


def measure_maps(plan: MapsPlan) -> dict[str, Any]:
    """Make a mosaic, map it with the real command, and compare.

    Both lie in the folder for temporary files, which needs room for 7 bytes a pixel.

    Args:
        plan: Model, mosaic and workers.

    Returns:
        One line.

    Raises:
        OutputError: The command failed.
        ModelFileError: The model cannot be used.
    """
    side = round((plan.megapixels * 1e6) ** 0.5)
    segmenter = Segmenter(plan.model, threads=1)
    with tempfile.TemporaryDirectory() as name:
        mosaic = Path(name) / "mosaic.tif"
        truth = write_large_mosaic(mosaic, plan.block, (side, side))
        shards = plan_shards((side, side), segmenter.metadata)
        loops = _Loops(plan, mosaic, shards)
        before = loops.measure()
        run = _run_command(plan, mosaic, Path(name) / "out")
        after = loops.measure()
        values = json.loads((Path(name) / "out" / "map.json").read_bytes())
        shift = measure_shift(segmenter, mosaic, SHIFT_PX)
    bare = {key: (before[key] + after[key]) / 2 for key in before}
    return {
        "bench": "maps",
        "model_sha256": segmenter.sha256,
        "mosaic": {"size_px": [side, side], "megapixels": side * side / 1e6, "of": plan.block.what},
        "tiles": shards.num_tiles(),
        "workers": plan.workers,
        **_rates(bare, shards.num_tiles(), run, values),
        "peak_rss_bytes": run["peak_rss_bytes"],
        **shift,
        "areas": _areas(values, truth),
        "cores": os.cpu_count(),
        "onnxruntime": segmenter.runtime.onnxruntime,
        "version": __version__,
        "commit": commit(),
    }


def measure_shift(segmenter: Segmenter, path: Path, side_px: int) -> dict[str, Any]:
    """Map a corner of a mosaic in other ways and compare.

    Args:
        segmenter: The model.
        path: The mosaic.
        side_px: Side of the corner, px.

    Returns:
        shifted_origin: shards begin elsewhere, on the network's grid; shifted_mosaic: the corner
        begins elsewhere, so that the network sees all pixels in another phase. Both hold the worst
        shares: changed, of all pixels; weed_lost, of those that were weed; weed_differs, of those
        that are weed in one of the two.
    """
    mosaic = Mosaic(path, 4096)
    side = min(side_px, *mosaic.size) - max(PHASES)
    weeds = segmenter.classes.ids_of(Role.WEED)

    def mapped(origin: tuple[int, int] = (0, 0), phase: int = 0) -> npt.NDArray[np.uint8]:
        return _map_corner(segmenter, mosaic, Window(phase, phase, side, side), origin)

    def compare(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> list[float]:
        first, second = np.isin(one, weeds), np.isin(other, weeds)
        return [
            float((one != other).sum() / max((one != NO_DATA).sum(), 1)),
            float((first & ~second).sum() / max(first.sum(), 1)),
            float((first ^ second).sum() / max((first | second).sum(), 1)),
        ]

    plain = mapped()
    origins = [compare(plain, mapped(origin)) for origin in ORIGINS]
    phases = [
        compare(plain[phase:, phase:], mapped(phase=phase)[:-phase, :-phase]) for phase in PHASES
    ]
    names = ("changed", "weed_lost", "weed_differs")
    return {
        "shifted_origin": {
            "origins_px": [list(origin) for origin in ORIGINS],
            **dict(zip(names, np.max(origins, axis=0).tolist())),
        },
        "shifted_mosaic": {
            "by_px": list(PHASES),
            **dict(zip(names, np.max(phases, axis=0).tolist())),
        },
    }


class _Loops:
    """The loops that the map is compared with, on a share of the tiles."""

    def __init__(self, plan: MapsPlan, mosaic: Path, shards: ShardPlan) -> None:
        self._mosaic, self._shards, self._workers = mosaic, shards, plan.workers
        self._segmenters = [Segmenter(plan.model, threads=1) for _ in range(plan.workers)]
        self._both = Segmenter(plan.model, threads=plan.workers)
        whole = [n for n in range(shards.num_shards) if self._windows(n)]
        num = max(_LEAST * plan.workers, round(_SHARE * shards.num_shards))
        places = np.linspace(0, len(whole) - 1, num + 2)[1:-1]
        self._chosen = [whole[round(place)] for place in places]
        self._images = [self._read(number) for number in self._chosen[: plan.workers]]

    def measure(self) -> dict[str, float]:
        """Return seconds of processor time per tile of each loop."""
        metadata = self._segmenters[0].metadata
        tile = np.random.default_rng(0).random((1, 3, *(2 * (metadata.tile_px,))), np.float32)
        num = sum(len(self._windows(number)) for number in self._chosen)

        def network(segmenter: Segmenter, numbers: list[int]) -> int:
            tiles = [window for number in numbers for window in self._windows(number)]
            for _ in tiles:
                segmenter.run_tiles(tile)
            return len(tiles)

        self._both.run_tiles(tile)
        start = time.process_time()
        for _ in range(num):
            self._both.run_tiles(tile)
        one_session = (time.process_time() - start) / num
        return {
            "network": self._time(network),
            "network_one_session": one_session,
            "runtime": self._time(self._runtime),
            "reading": self._time(self._reading),
        }

    def _time(self, work: Callable[[Segmenter, list[int]], int]) -> float:
        """Share the chosen shards among the workers; return processor seconds per tile."""
        shares = [self._chosen[i :: self._workers] for i in range(self._workers)]
        for segmenter, share in zip(self._segmenters, shares):
            work(segmenter, share[:1])
        with ThreadPoolExecutor(self._workers) as pool:
            start = time.process_time()
            num = sum(pool.map(work, self._segmenters, shares))
            return (time.process_time() - start) / num

    def _runtime(self, segmenter: Segmenter, numbers: list[int]) -> int:
        """Resize and segment shards that lie in memory."""
        image = self._images[self._segmenters.index(segmenter)]
        metadata = replace(segmenter.metadata, overlap_px=self._shards.overlap_px)
        for number in numbers:
            scaled = resize_to(image, self._shards.shard(number).working)
            segment_scaled(scaled, metadata, segmenter.run_tiles)
        return sum(len(self._windows(number)) for number in numbers)

    def _read(self, number: int) -> npt.NDArray[np.uint8]:
        window = self._shards.shard(number).window
        image, _ = Mosaic(self._mosaic, 4096).read(window)
        return np.zeros((window.height, window.width, 3), np.uint8) if image is None else image

    def _reading(self, segmenter: Segmenter, numbers: list[int]) -> int:
        """Read, resize and run tile by tile."""
        side = segmenter.metadata.tile_px
        mosaic = Mosaic(self._mosaic, 4096)
        buffer = np.empty((1, 3, side, side), np.float32)
        num = 0
        for number in numbers:
            for window in self._windows(number):
                image, _ = mosaic.read(window)
                if image is not None:
                    fill_tile(buffer[0], resize_to(image, (side, side)))
                    segmenter.run_tiles(buffer)
                num += 1
        return num

    def _windows(self, number: int) -> list[Window]:
        """Return where in the mosaic the tiles of a whole shard lie; none at the far edges."""
        shard, plan = self._shards.shard(number), self._shards
        reach, step = (
            round(px / plan.scale[0]) for px in (plan.tile_px, plan.tile_px - plan.overlap_px)
        )
        if shard.working != 2 * (plan.step_px + plan.overlap_px,):
            return []
        tops = range(shard.window.top, shard.window.top + shard.window.height - reach + 1, step)
        lefts = range(shard.window.left, shard.window.left + shard.window.width - reach + 1, step)
        return [Window(top, left, reach, reach) for top in tops for left in lefts]


def _run_command(plan: MapsPlan, mosaic: Path, out: Path) -> dict[str, float]:
    """Run ``weedseg map`` in a process of its own and watch the memory of all its processes.

    Raises:
        OutputError: It failed.
    """
    command = [sys.executable, "-m", "weedseg", "map", str(mosaic), "--out", str(out)]
    command += ["--model", str(plan.model), "--workers", str(plan.workers)]
    start, before = time.perf_counter(), _children_seconds()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak))
    watch.start()
    _, said = process.communicate()
    seconds = time.perf_counter() - start
    watch.join()
    if process.returncode:
        raise OutputError(f"weedseg map failed: {said[-300:]!r}", "a map", "run it by hand")
    return {
        "command_seconds": seconds,
        "processor_seconds": _children_seconds() - before,
        "peak_rss_bytes": peak[0],
    }


def _children_seconds() -> float:
    """Return the processor time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _watch(pid: int, peak: list[int]) -> None:
    """Keep the largest sum of the resident memory of a process and its children."""
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            members = [process, *process.children(recursive=True)]
            peak[0] = max(peak[0], sum(member.memory_info().rss for member in members))
            time.sleep(_WATCH_S)
    except psutil.Error:
        return


def _rates(
    bare: dict[str, float], num_tiles: int, run: dict[str, float], values: dict[str, Any]
) -> dict[str, Any]:
    """Compare processor seconds per tile of the map and of the loops."""
    segmenting = values["segmenting_processor_seconds"] / num_tiles
    whole = run["processor_seconds"] / num_tiles
    megapixels = np.prod(values["ground"]["size"]) / 1e6
    return {
        "processor_seconds_per_tile": {**bare, "map_segmenting": segmenting, "map_whole": whole},
        "ratio_segmenting": {key: value / segmenting for key, value in bare.items()},
        "ratio_whole": {key: value / whole for key, value in bare.items()},
        "command_seconds": run["command_seconds"],
        "segmenting_seconds": values["segmenting_seconds"],
        "processor_seconds": run["processor_seconds"],
        "megapixels_per_second": megapixels / run["command_seconds"],
    }


def _areas(values: dict[str, Any], truth: Truth) -> dict[str, Any]:
    """Compare shares of the ground with the truth."""
    found = values["totals"]
    told: dict[str, Any] = {"truth": asdict(truth)}
    for role, px in (("weed", truth.weed_px), ("crop", truth.crop_px)):
        real = px / truth.valid_px
        told[role] = {
            "true_share": real,
            "found_share": found[f"{role}_share"],
            "error_share": found[f"{role}_share"] - real,
        }
    return told


class _Corner:
    """A part of a mosaic that passes for one of its own."""

    def __init__(self, mosaic: Mosaic, window: Window) -> None:
        self._mosaic, self._window = mosaic, window

    def read(self, window: Window) -> Any:
        top, left = self._window.top + window.top, self._window.left + window.left
        return self._mosaic.read(Window(top, left, window.height, window.width))


def _map_corner(
    segmenter: Segmenter, mosaic: Mosaic, window: Window, origin: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    size = window.height, window.width
    plan = plan_shards(size, segmenter.metadata, origin=origin)
    found = np.empty(size, np.uint8)
    corner: Any = _Corner(mosaic, window)
    for number in range(plan.num_shards):
        data = segment_shard(corner, plan, number, segmenter.metadata, segmenter.run_tiles)
        (top, left, height, width), class_map, _ = read_part(plan, number, data)
        found[top : top + height, left : left + width] = class_map
    return found


def maps_table(line: dict[str, Any]) -> str:
    """Word a line.

    Args:
        line: What `measure_maps` gave.
    """
    areas, seconds = line["areas"], line["processor_seconds_per_tile"]
    loops = (
        ("network", "the network alone"),
        ("runtime", "the runtime on shards in memory"),
        ("reading", "a plain loop that reads its tiles"),
    )
    mosaic = line["mosaic"]
    memory = f"peak memory {line['peak_rss_bytes'] / 2**20:.0f} MiB"
    rows = [f"{mosaic['megapixels']:.0f} megapixels of {mosaic['of']}, {line['tiles']} tiles"]
    rows += [f"{line['workers']} workers: {line['command_seconds']:.0f} s, {memory}"]
    for key, name in loops:
        part, whole = 100 * line["ratio_segmenting"][key], 100 * line["ratio_whole"][key]
        said = f"{part:.1f} % segmenting, {whole:.1f} % the whole command"
        rows.append(f"throughput against {name}: {said} ({1e3 * seconds[key]:.1f} ms a tile)")
    rows.append(f"one session for all cores: {1e3 * seconds['network_one_session']:.1f} ms a tile")
    for key, name in (("shifted_origin", "origin"), ("shifted_mosaic", "mosaic")):
        changed, lost = 100 * line[key]["changed"], 100 * line[key]["weed_lost"]
        rows.append(
            f"a shifted {name} changes {changed:.2f} % of pixels, takes away {lost:.1f} % of weeds"
        )
    for role in ("weed", "crop"):
        found, true = (100 * areas[role][f"{key}_share"] for key in ("found", "true"))
        rows.append(f"{role}: {found:.2f} % of the ground, truly {true:.2f} %")
    return "\n".join(rows)
