"""Table and plot of the comparison with other networks, drawn from its lines alone."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from weedseg.bench.lines import read_lines
from weedseg.evaluation import drawing
from weedseg.imaging import write_bytes

LABELS = {
    "ours": "weedseg lite0",
    "lraspp": "LR-ASPP MobileNetV3-L (torchvision)",
    "unet": "U-Net lite0 (SMP)",
    "fpn": "FPN lite0 (SMP)",
    "unet-resnet34": "U-Net ResNet-34 (SMP)",
}
FIRST_WEIGHTS = {"none": "scratch", "imagenet": "ImageNet"}
COLUMNS = (
    *("network", "first weights", "parameters", "multiply-adds", "file", "latency"),
    *("runs", "weed IoU", "crop IoU", "mIoU"),
)
TIMING = "timing.jsonl"
PLOT = "latency-accuracy.png"

Lines = Sequence[dict[str, Any]]


def read_peers(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Read a folder of lines.

    Returns:
        The lines of all training runs, and the last line of timing ({} if there is none).
    """
    files = [path for path in sorted(folder.glob("*.jsonl")) if path.name != TIMING]
    timings = read_lines(folder / TIMING)
    return [line for path in files for line in read_lines(path)], timings[-1] if timings else {}


def peers_table(lines: Lines, timing: dict[str, Any]) -> str:
    """Draw a Markdown table, then what it says in sentences; '' without lines.

    Args:
        lines: Run lines of `weedseg.bench.peers`.
        timing: Line of `weedseg.bench.peers_timing`, or {}.
    """
    if not lines:
        return ""
    rows = [
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for init, first in FIRST_WEIGHTS.items():
        for name, label in LABELS.items():
            chosen = _chosen(lines, name, init)
            if chosen:
                cells = [label, first, *_sizes(timing, name), str(len(chosen)), *_scores(chosen)]
                rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, "", *_sentences(lines, timing)]) + "\n"


def _chosen(lines: Lines, name: str, init: str) -> list[dict[str, Any]]:
    return [line for line in lines if (line["network"], line["init"]) == (name, init)]


def _sizes(timing: dict[str, Any], name: str) -> list[str]:
    found = timing.get("networks", {}).get(name)
    if found is None:
        return ["-"] * 4
    return [
        f"{found['parameters'] / 1e6:.2f} M",
        f"{found['macs'] / 1e9:.2f} G",
        f"{found['file_bytes'] / 1e6:.1f} MB",
        f"{found['ms']:.1f} ms",
    ]


def _scores(lines: Lines) -> list[str]:
    return [
        mean_and_range(values)
        for values in (
            [line["iou"].get("weed") for line in lines],
            [line["iou"].get("crop") for line in lines],
            [line["miou"] for line in lines],
        )
    ]


def mean_and_range(values: Iterable[float | None]) -> str:
    """Write the mean of the known values, and their range in brackets; '-' without any."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3f}"
    return mean if len(known) == 1 else f"{mean} [{min(known):.3f}, {max(known):.3f}]"


def _sentences(lines: Lines, timing: dict[str, Any]) -> list[str]:
    """Say how ours compares with each other network: time, and IoU seed by seed."""
    networks = timing.get("networks", {})
    said = []
    if "ours" in networks:
        shares = [
            f"{networks['ours']['ms'] / networks[name]['ms']:.2f} x the time of {label}"
            for name, label in LABELS.items()
            if name != "ours" and name in networks
        ]
        shipped = networks.get("ours, as shipped", {}).get("ms")
        end = f" With class map and confidence in the graph: {shipped:.1f} ms." if shipped else ""
        said.append(
            f"Latency at {timing['tile_px']} x {timing['tile_px']} px, batch 1, "
            f"{timing['threads']} thread, to the logits: ours takes {', '.join(shares)}.{end}"
        )
    for init, first in FIRST_WEIGHTS.items():
        for name, label in LABELS.items():
            weed, miou = (_gains(lines, name, init, kind) for kind in ("weed", "miou"))
            if name != "ours" and weed and miou:
                said.append(
                    f"Ours minus {label}, {first}, points by seed: weed IoU {_points(weed)}; "
                    f"mIoU {_points(miou)}."
                )
    return [f"- {sentence}" for sentence in said]


def _gains(lines: Lines, name: str, init: str, kind: str) -> list[float]:
    """Return ours minus another network, points, of each seed that both have."""

    def score(line: dict[str, Any]) -> float | None:
        value: float | None = line["miou"] if kind == "miou" else line["iou"].get(kind)
        return value

    ours = {line["seed"]: score(line) for line in _chosen(lines, "ours", init)}
    theirs = {line["seed"]: score(line) for line in _chosen(lines, name, init)}
    pairs = [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]
    return [100 * (a - b) for a, b in pairs if a is not None and b is not None]


def _points(gains: Sequence[float]) -> str:
    each = ", ".join(f"{gain:+.1f}" for gain in gains)
    return f"{statistics.mean(gains):+.1f} ({each})"


def draw_peers_plot(folder: Path) -> Path | None:
    """Write ``latency-accuracy.png`` beside the lines of a folder.

    Returns:
        Its path; None if runs or timing are missing.

    Raises:
        OutputError: The file cannot be written.
    """
    from matplotlib.ticker import LogLocator

    lines, timing = read_peers(folder)
    if not lines or not timing:
        return None
    with drawing.style():
        figure, panels = drawing.panels(2, 4.6, 3.9)
        for axes, kind, title in zip(panels, ("weed", "miou"), ("Weed IoU", "mIoU")):
            for name, colour in zip(LABELS, drawing.COLOURS):
                for init, first in FIRST_WEIGHTS.items():
                    scores = _known(_chosen(lines, name, init), kind)
                    if scores and name in timing["networks"]:
                        _point(axes, timing["networks"][name]["ms"], scores, colour, first)
            axes.set(xscale="log", xlabel="latency, ms (log scale)", ylabel=title)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.set_title(f"{title} over latency")
        handles = [
            _handle(colour, label) for colour, label in zip(drawing.COLOURS, LABELS.values())
        ]
        handles += [_handle(drawing.GREY, "from scratch"), _handle(drawing.GREY, "ImageNet", True)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    write_bytes(folder / PLOT, buffer.getvalue())
    return folder / PLOT


def _known(lines: Lines, kind: str) -> list[float]:
    found = [line["miou"] if kind == "miou" else line["iou"].get(kind) for line in lines]
    return [value for value in found if value is not None]


def _point(axes: Any, ms: float, scores: Sequence[float], colour: str, first: str) -> None:
    mean = statistics.mean(scores)
    reach = [[mean - min(scores)], [max(scores) - mean]]
    face = "white" if first == "ImageNet" else colour
    axes.errorbar(ms, mean, reach, color=colour, marker="o", markerfacecolor=face, capsize=3)


def _handle(colour: str, label: str, hollow: bool = False) -> Any:
    from matplotlib.lines import Line2D

    face = "white" if hollow else colour
    return Line2D([], [], color=colour, marker="o", markerfacecolor=face, ls="", label=label)
