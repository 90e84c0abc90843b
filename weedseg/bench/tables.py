"""Tables for people, drawn from the lines that runs wrote and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

ARM_NAMES = {
    "N": "scratch",
    "I": "ImageNet, no masking",
    "R": "random masking",
    "P": "random masking, staged",
    "F": "selective, as published",
    "S+": "selective, ours",
    "I+R": "ImageNet + random",
    "I+S+": "ImageNet + selective",
}

Lines = Sequence[dict[str, Any]]


def pretraining_table(lines: Lines) -> str:
    """Draw a Markdown table of the arms of each data set: means over seeds, range in brackets.

    Args:
        lines: Run lines of `weedseg.bench.pretraining`, of any data sets and arms.
    """
    rows = [
        "| data set | first weights | seeds | weed IoU | crop IoU | mIoU | minutes |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for dataset, labels in sorted({(line["dataset"], line["labels"]) for line in lines}):
        for arm, name in ARM_NAMES.items():
            chosen = [
                line
                for line in lines
                if (line["dataset"], line["labels"], line["arm"]) == (dataset, labels, arm)
            ]
            if chosen:
                rows.append(_row(f"{dataset}, {labels} labels", f"{name} ({arm})", chosen))
    return "\n".join(rows) + "\n"


def _row(dataset: str, name: str, lines: Lines) -> str:
    minutes = [(line["pretrain_seconds"] + line["finetune_seconds"]) / 60 for line in lines]
    cells = [
        dataset,
        name,
        str(len(lines)),
        _mean_and_range(line["iou"]["weed"] for line in lines),
        _mean_and_range(line["iou"]["crop"] for line in lines),
        _mean_and_range(line["miou"] for line in lines),
        f"{statistics.mean(minutes):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _mean_and_range(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3f}"
    return mean if len(known) == 1 else f"{mean} [{min(known):.3f}, {max(known):.3f}]"


def verdict(lines: Lines, better: str = "S+", worse: str = "R") -> str:
    """Say in one sentence per data set how two arms compare, seed by seed.

    Args:
        lines: Run lines.
        better: Arm that is hoped to win.
        worse: Arm it is compared with.
    """
    sentences = []
    for dataset in sorted({line["dataset"] for line in lines}):
        scores: dict[str, dict[int, float]] = {better: {}, worse: {}}
        for line in lines:
            if line["dataset"] == dataset and line["arm"] in scores and line["miou"] is not None:
                scores[line["arm"]][line["finetune_seed"]] = line["miou"]
        pairs = [
            100 * (scores[better][seed] - scores[worse][seed])
            for seed in sorted(scores[better].keys() & scores[worse].keys())
        ]
        if pairs:
            each = ", ".join(f"{pair:+.1f}" for pair in pairs)
            sentences.append(
                f"{dataset}: mIoU of {better} minus {worse} is {statistics.mean(pairs):+.1f} points"
                f" (by seed: {each})."
            )
    return "\n".join(sentences) + "\n" if sentences else ""
