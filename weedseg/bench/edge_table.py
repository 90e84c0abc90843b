"""Tables of the edge runtime, drawn from the lines of ``weedseg bench calibration | edge``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weedseg.bench.lines import read_lines

Lines = Sequence[dict[str, Any]]


def draw_edge(folder: Path) -> str:
    """Draw both tables from the newest line of each file; empty without lines."""
    calibration = read_lines(folder / "calibration.jsonl")
    edge = read_lines(folder / "edge.jsonl")
    parts = [calibration_table(calibration[-1])] if calibration else []
    parts += [figures_table(edge[-1])] if edge else []
    return "\n".join(parts)


def calibration_table(line: dict[str, Any]) -> str:
    """Draw a Markdown table: how honest confidence is, and whether strange photos are noticed.

    Args:
        line: What `measure_calibration` gave.
    """
    rows = [
        "| set | photos | ECE | ECE before | weed IoU | told from own photos (AUROC) | OK |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, values in {**line["sets"], **line["corruptions"]}.items():
        auroc = values.get("auroc", {}).get("ood_score")
        cells = (
            name,
            str(values.get("photos", "")),
            _number(values.get("ece"), 3),
            _number(values.get("ece_before"), 3),
            _number(values.get("weed_iou"), 2),
            _number(auroc, 2),
            f"{100 * values['ok_share']:.0f} %",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def figures_table(line: dict[str, Any]) -> str:
    """Draw a Markdown table of the runtime's figures beside what was aimed at.

    Args:
        line: What `measure_edge` gave.
    """
    shifted, memory = line["shifted_tiling"], line["memory"]
    rest = max(memory["rest_bytes"]) / 2**20
    figures = (
        ("photo to class map against the bare runs", f"{line['overhead']['ratio']:.2f} x", "1.15"),
        ("memory beyond the arrays of a photo", f"{rest:.0f} MiB", "as many tiles as a batch"),
        ("shifted tiling: pixels that change", f"{100 * shifted['changed']:.2f} %", "0.5 %"),
        ("shifted tiling: weed pixels lost", f"{100 * shifted['weed_lost']:.1f} %", "5 %"),
        (
            "`import weedseg.edge` against numpy, cv2, onnxruntime",
            f"{line['import']['ratio']:.2f} x",
            "1.5",
        ),
    )
    rows = [f"| {name} | {found} | {aim} |" for name, found, aim in figures]
    return "\n".join(["| figure | found | at most |", "|---|---:|---:|", *rows]) + "\n"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
