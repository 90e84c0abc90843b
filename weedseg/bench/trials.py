"""Table of the trials: every idea that was judged on development photos, also the losing ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Lines = Sequence[dict[str, Any]]

SIZING = (
    "pretrain.tile_px=128",
    "pretrain.steps=2000",
    "finetune.tile_px=128",
    "finetune.steps=500",
    "finetune.evaluations=1",
)
"""Size of a run, named in models/benchmarks/pretraining/PLAN.md."""


def trials_table(lines: Lines) -> str:
    """Draw a Markdown table of all trials: one row an idea, one figure a fine-tuning seed.

    Args:
        lines: Run lines that read development photos; settings that they share with the core are
            left out.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[dict[str, Any]]] = {}
    for line in lines:
        own = _settings(line["settings"])
        groups.setdefault((line["dataset"], line["arm"], own), []).append(line)
    rows = [
        "| data set | arm | settings | weed IoU by seed | mIoU by seed | mean mIoU |",
        "|---|---|---|---|---|---:|",
    ]
    for (dataset, arm, own), found in groups.items():
        found.sort(key=lambda x: x["finetune_seed"])
        cells = (
            dataset,
            arm,
            ", ".join(f"`{setting}`" for setting in own) or "as the core",
            _points(line["iou"]["weed"] for line in found),
            _points(line["miou"] for line in found),
            f"{100 * statistics.mean(line['miou'] for line in found):.1f}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _settings(settings: Sequence[str]) -> tuple[str, ...]:
    """List what differs from the core's size; of settings with one key the last one counts."""
    chosen, core = (dict(s.split("=", 1) for s in x) for x in (settings, SIZING))
    chosen.pop("data.scale", None)
    changed = [f"{key}={value}" for key, value in chosen.items() if core.get(key) != value]
    return (*changed, *(f"{key}: default" for key in core if key not in chosen))


def _points(values: Any) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in values)
