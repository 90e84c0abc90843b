"""Tables of the service, drawn from lines of ``weedseg bench serve``, ``batching``, ``upload``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weedseg.bench.lines import read_lines

LOAD, BATCHING, UPLOAD = "load.jsonl", "batching.jsonl", "upload.jsonl"

_HEAD = (
    "| workers | bare runtime | service | kept | p50, p99 at 70 % load | p99 / p50 "
    "| 10 x too much: accepted, refused, failed | refused within (p50, p99) |\n"
    "|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def serve_table(lines: Sequence[dict[str, Any]]) -> str:
    """Draw a Markdown table: one row per number of workers, the newest line of each.

    Args:
        lines: What `measure_serve` gave.
    """
    newest = {(line["workers"], line["threads"]): line for line in lines}
    rows = [_row(line) for _, line in sorted(newest.items())]
    return "\n".join([_HEAD, *rows]) + "\n" if rows else ""


def _row(line: dict[str, Any]) -> str:
    load, burst = line["load"], line["burst"]
    threads = f"{line['threads']} thread{'s' if line['threads'] > 1 else ''}"
    cells = (
        f"{line['workers']} with {threads}",
        f"{line['bare']['photos_s']:.2f} photos/s",
        f"{line['served']['photos_s']:.2f} photos/s",
        f"{100 * line['share_kept']:.0f} %",
        f"{load['p50_ms']:.0f}, {load['p99_ms']:.0f} ms",
        f"{load['p99_over_p50']:.1f}",
        f"{burst['accepted']}, {burst['refused']}, {burst['failed']}",
        f"{burst['refusal']['p50_ms']:.0f}, {burst['refusal']['p99_ms']:.0f} ms",
    )
    return f"| {' | '.join(cells)} |"


def draw_serve(folder: Path) -> str:
    """Draw what the lines of a folder say: the table, the phone photo, tiles at once.

    Args:
        folder: ``serve`` below the folder of all lines.
    """
    parts = [serve_table(read_lines(folder / LOAD))]
    parts += [f"{upload_text(line)}.\n" for line in read_lines(folder / UPLOAD)[-1:]]
    parts += [f"{batching_text(line)}.\n" for line in read_lines(folder / BATCHING)[-1:]]
    return "\n".join(part for part in parts if part)


def batching_text(line: dict[str, Any]) -> str:
    """Word a line of `weedseg.bench.batching`: one sentence part per size."""
    parts = [
        f"{size} tile{'s' if int(size) > 1 else ''} a run {ms:.1f} ms a tile "
        f"({line['tile_time_share'][size]:.2f} x)"
        for size, ms in line["tile_ms"].items()
    ]
    return ", ".join(parts)


def upload_text(line: dict[str, Any]) -> str:
    """Word a line of `weedseg.bench.upload`: both times and the share of every stage."""
    whole = line["direct_s"]
    parts = sorted(line["stages_s"].items(), key=lambda part: -part[1])
    stages = ", ".join(f"{name} {s:.2f} s ({100 * s / whole:.0f} %)" for name, s in parts)
    return (
        f"{line['photo']}, {line['photo_bytes'] / 2**20:.1f} MiB, {line['threads']} threads: "
        f"upload to overlay {whole:.2f} s: {stages}; by the web page's way, as a job: "
        f"{line['page_s']:.2f} s"
    )
