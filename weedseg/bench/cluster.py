"""What a Ray cluster costs and brings: overhead measured here, many machines on paper.

The same shards go through both engines in turns, with two workers on this machine. Processor time
is compared, since both keep every core busy and a busy machine does not count there.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from weedseg import __version__
from weedseg.bench.lines import commit, read_lines
from weedseg.bench.maps_mosaic import Block, drawn_block, write_large_mosaic
from weedseg.edge.session import physical_cores
from weedseg.maps.cluster import cluster, run_ray
from weedseg.maps.engine import Engine, ShardJob, run_local
from weedseg.maps.run import MapOptions, make_map, plan_map

LINES = "cluster.jsonl"
NODES = (1, 10, 100)
_SMALL_SIDE_PX = 1024
_MM_PER_PX = (1.0, 5.0)
_FIELD_HA = 100.0
_M2_PER_HA = 1e4
_HEAD = (
    "| ground resolution | machines | one field | of it writing | one field: ha per euro "
    "| many fields: ha per hour | many fields: ha per euro |"
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine of the paper cluster is taken to be; assumptions, not measurements."""

    cores: int = 16
    """Each as fast as one of the machine that was measured."""
    euro_per_hour: float = 0.6
    network_bytes_s: float = 1.25e9
    """From the store to each machine: 10 Gbit/s."""


def measure_cluster(model: Path, megapixels: float, workers: int = 2) -> dict[str, Any]:
    """Run the shards of a drawn mosaic through both engines in turns, then write the map.

    Args:
        model: A model file.
        megapixels: Size of the mosaic.
        workers: Of both engines.

    Returns:
        One line; seconds are of processor time where they say so.

    Raises:
        RuntimeUnavailableError: Ray is not there.
        ModelFileError: The model cannot be used.
    """
    side = round((megapixels * 1e6) ** 0.5)
    block = drawn_block()
    with tempfile.TemporaryDirectory() as name:
        options = [
            _draw(block, size, Path(name) / str(size), model, workers)
            for size in (_SMALL_SIDE_PX, side)
        ]
        job, _ = plan_map(options[1])
        start = time.perf_counter()
        with cluster(workers):
            start_seconds = time.perf_counter() - start
            list(run_ray(job, range(2 * workers), _forget, workers))  # workers open what they need
            rounds = [_round(job, engine, workers) for engine in (run_local, run_ray) * 2]
        finishing, whole = (_writing(o) for o in options)
        mosaic_bytes = job.mosaic.stat().st_size
    seconds = {
        kind: {
            name: statistics.mean(r[kind] for r in rounds if r["engine"] == engine.__name__)
            for name, engine in (("local", run_local), ("ray", run_ray))
        }
        for kind in ("processor_seconds", "seconds")
    }
    return {
        "bench": "cluster",
        "megapixels": side * side / 1e6,
        "mosaic_bytes": mosaic_bytes,
        "num_shards": job.plan.num_shards,
        "workers": workers,
        "identical": len({r["sha256"] for r in rounds}) == 1,
        "start_seconds": start_seconds,
        **seconds,
        "overhead_share": seconds["processor_seconds"]["ray"]
        / seconds["processor_seconds"]["local"]
        - 1,
        "writing_processor_seconds": whole - finishing,
        "finishing_processor_seconds": finishing,
        "cores": physical_cores(),
        "version": __version__,
        "commit": commit(),
    }


def _draw(block: Block, side: int, folder: Path, model: Path, workers: int) -> MapOptions:
    """Draw a square mosaic; return how it is to be mapped."""
    folder.mkdir()
    write_large_mosaic(folder / "field.tif", block, (side, side))
    return MapOptions(
        mosaic=folder / "field.tif",
        out=folder / "map",
        model=model,
        as_is=True,
        workers=workers,
    )


def _round(job: ShardJob, engine: Engine, workers: int) -> dict[str, Any]:
    """Run all shards; return seconds and the checksum of all parts."""
    sums: dict[int, bytes] = {}

    def save(number: int, data: bytes) -> None:
        sums[number] = hashlib.sha256(data).digest()

    start, before = time.perf_counter(), _processor_seconds()
    list(engine(job, range(job.plan.num_shards), save, workers))
    return {
        "engine": engine.__name__,
        "seconds": time.perf_counter() - start,
        "processor_seconds": _processor_seconds() - before,
        "sha256": hashlib.sha256(b"".join(sums[n] for n in sorted(sums))).hexdigest(),
    }


def _writing(options: MapOptions) -> float:
    """Make a map whose shards are done; return seconds of processor time."""
    job, parts = plan_map(options)
    list(run_local(job, range(job.plan.num_shards), parts.save, options.workers))
    before = time.process_time()
    make_map(options)
    return time.process_time() - before


def _processor_seconds() -> float:
    """Return the processor time of this process and all that live below it."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def _forget(number: int, data: bytes) -> None:
    """Save nothing."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a cluster makes of fields of 100 ha, on paper."""

    hours: float
    """For one field."""
    writing_share: float
    """Share of that in which one machine puts the map together and the others wait."""
    ha_per_euro: float
    """For one field."""
    many_ha_per_hour: float
    """With many fields at a time, so that every core is busy."""
    many_ha_per_euro: float


def estimate(line: dict[str, Any], nodes: int, mm_per_px: float, machine: Machine) -> Estimate:
    """Work out fields of 100 ha on a number of machines.

    One field: all machines fetch the mosaic at once and share its shards, then one core writes the
    map. Many fields: each is fetched by one machine, and no core waits.

    Args:
        line: What `measure_cluster` gave.
        nodes: Number of machines.
        mm_per_px: Ground resolution of the mosaics.
        machine: What a machine is.
    """
    times = _FIELD_HA * _M2_PER_HA / mm_per_px**2 / line["megapixels"]
    fetching = times * line["mosaic_bytes"] / machine.network_bytes_s
    segmenting = times * line["processor_seconds"]["ray"]
    writing = times * line["writing_processor_seconds"] + line["finishing_processor_seconds"]
    one = line["start_seconds"] + fetching + segmenting / (machine.cores * nodes) + writing
    many = (max(fetching, (segmenting + writing) / machine.cores)) / nodes
    euro_per_second = nodes * machine.euro_per_hour / 3600
    return Estimate(
        hours=one / 3600,
        writing_share=writing / one,
        ha_per_euro=_FIELD_HA / (one * euro_per_second),
        many_ha_per_hour=_FIELD_HA * 3600 / many,
        many_ha_per_euro=_FIELD_HA / (many * euro_per_second),
    )


def cluster_text(line: dict[str, Any]) -> str:
    """Word a line: what Ray costs on one machine."""
    seconds, words = line["processor_seconds"], "identical" if line["identical"] else "DIFFERENT"
    return (
        f"{line['megapixels']:.0f} megapixels, {line['num_shards']} shards, {line['workers']} "
        f"workers: {seconds['local']:.1f} s of processor time with the local engine, "
        f"{seconds['ray']:.1f} s with Ray ({100 * line['overhead_share']:+.1f} %), after "
        f"{line['start_seconds']:.1f} s to start; the parts are {words}"
    )


def cluster_table(line: dict[str, Any], machine: Machine) -> str:
    """Draw a Markdown table of the paper cluster.

    Args:
        line: What `measure_cluster` gave.
        machine: What a machine is.
    """
    rows = [_HEAD, "|---:|---:|---:|---:|---:|---:|---:|"]
    for mm_per_px in _MM_PER_PX:
        for nodes in NODES:
            made = estimate(line, nodes, mm_per_px, machine)
            cells = (
                f"{mm_per_px:g} mm",
                str(nodes),
                f"{made.hours:.1f} h",
                f"{100 * made.writing_share:.0f} %",
                _digits(made.ha_per_euro),
                _digits(made.many_ha_per_hour),
                _digits(made.many_ha_per_euro),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _digits(value: float) -> str:
    """Write a number with three digits that count, without powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw_cluster(lines: Path) -> str:
    """Draw what the newest line says: overhead, assumptions, table; '' without a line.

    Args:
        lines: Folder of all lines.
    """
    found = read_lines(lines / LINES)
    if not found:
        return ""
    machine = Machine()
    taken = (
        f"Fields of {_FIELD_HA:g} ha; machines of {machine.cores} cores, each as fast as one of "
        f"the machine measured, at {machine.euro_per_hour:g} euro an hour, fetching "
        f"{machine.network_bytes_s * 8 / 1e9:g} Gbit/s each (assumptions)."
    )
    return f"{cluster_text(found[-1])}.\n\n{taken}\n\n{cluster_table(found[-1], machine)}"
