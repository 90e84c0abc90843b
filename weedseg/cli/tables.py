"""Figures as a person reads them in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

BASELINES = {
    "exg_otsu_all_weed": "ExG + Otsu, all plants weeds",
    "exg_otsu_all_crop": "ExG + Otsu, all plants crop",
    "colour_threshold": "colour threshold",
}


def show_evaluation(evaluation: dict[str, Any]) -> None:
    """Print the accuracy of a run beside the baselines that a real model must beat."""
    console = Console(highlight=False, width=None)
    if evaluation.get("miou") is None:
        console.print(evaluation.get("note") or "accuracy unknown", markup=False)
        return
    label = f", {evaluation['label']}" if evaluation.get("label") else ""
    table = Table(title=f"IoU on {evaluation['num_photos']} photos{label}")
    for column in ("", "weed IoU", "crop IoU", "mIoU"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {"this model": evaluation["roles"]}
    rows |= {BASELINES.get(k, k): v for k, v in evaluation.get("baselines", {}).items()}
    for name, roles in rows.items():
        scores = [_share(roles.get(key)) for key in ("weed_iou", "crop_iou", "miou")]
        table.add_row(name, *scores)
    console.print(table)
    interval = evaluation["intervals"].get("weed_iou")
    if interval:
        console.print(
            f"weed IoU, 95 % interval over photos: {interval[0]:.3f} to {interval[1]:.3f}",
            markup=False,
        )
    if evaluation.get("note"):
        console.print(evaluation["note"], markup=False)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
