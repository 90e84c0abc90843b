"""How the cost of pretraining grows with tile size, photos and stages, and a model of it.

seconds = steps x step(tile) + (stages - 1) x photos x score(photo): a step does not know how many
photos there are, and scoring does not know how large tiles are. The lines hold both parts measured;
the plot lays what the formula says over what was measured.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.bench.pretraining import Dataset
from weedseg.config import Recipe
from weedseg.evaluation import drawing
from weedseg.nets.segmenter import build_net
from weedseg.pretraining import run as pretraining
from weedseg.training.timing import step_seconds

TILES_PX = (128, 192, 256, 384)
PHOTOS = (5, 10, 20, 40)
STAGES = (2, 3, 5, 9)
_MIDDLE_PHOTOS, _MIDDLE_STAGES = 10, 3
_BACKWARD = 3
"""Forward and backward pass together, in forward passes."""
_NO_LIMIT = 0.99

Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A graphics card on paper."""

    name: str
    tflops: float
    """Peak in float32, 10^12 operations/s, as its maker says."""
    used_share: float
    """Share of the peak that small networks of depthwise convolutions reach; an assumption."""


GPUS = (
    Gpu(name="Jetson Orin Nano 8 GB", tflops=1.3, used_share=0.15),
    Gpu(name="RTX 4060", tflops=15.1, used_share=0.15),
    Gpu(name="H100", tflops=67.0, used_share=0.15),
)
PAPER_TILES, PAPER_EPOCHS, PAPER_STAGES = 40_000, 100, 10


def measure_cost(dataset: Dataset, recipe: Recipe) -> list[dict[str, Any]]:
    """Measure step and scoring for several tile sizes, numbers of photos, and stages.

    Args:
        dataset: Photos to train on.
        recipe: Network, batch, scale; its scoring is freed of its time limit.

    Returns:
        One line a measurement, ``swept`` and ``value`` say which.
    """
    recipe = replace(recipe, scoring=replace(recipe.scoring, time_share=_NO_LIMIT))
    lines = [_step(dataset, recipe, tile_px) for tile_px in TILES_PX]
    lines += [_scoring(dataset, recipe, ("photos", n), n, _MIDDLE_STAGES) for n in PHOTOS]
    lines += [_scoring(dataset, recipe, ("stages", n), _MIDDLE_PHOTOS, n) for n in STAGES]
    return lines


def _step(dataset: Dataset, recipe: Recipe, tile_px: int) -> dict[str, Any]:
    recipe = replace(recipe, pretrain=replace(recipe.pretrain, tile_px=tile_px))
    photos = dataset.split(0, 0).unlabelled[:_MIDDLE_PHOTOS]
    with tempfile.TemporaryDirectory() as folder:
        task = pretraining.build_task(dataset.farm, photos, recipe, _options(folder))
        seconds = step_seconds(task, torch.device("cpu"), num=6)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build_net(recipe.net, 3).eval()(torch.zeros(1, 3, tile_px, tile_px))
    found = {"step_seconds": seconds, "macs_per_tile": counter.get_total_flops() // 2}
    return {**_common(dataset, recipe, ("tile_px", tile_px)), **found}


def _scoring(
    dataset: Dataset, recipe: Recipe, swept: tuple[str, int], num_photos: int, stages: int
) -> dict[str, Any]:
    """Pretrain for as few steps as there are stages, which scores all photos at every border."""
    few = replace(recipe.pretrain, steps=2 * stages, stages=stages, tile_px=TILES_PX[0])
    recipe = replace(recipe, pretrain=few)
    photos = dataset.split(0, 0).unlabelled[:num_photos]
    with tempfile.TemporaryDirectory() as folder:
        task = pretraining.build_task(dataset.farm, photos, recipe, _options(folder))
        task.scorer.score_all(task.net, [0], 0)  # loads what the first photo loads
        task.scorer.seconds = 0.0
        for number in range(stages - 1):
            task.scorer.score_all(task.net, list(range(len(photos))), number)
        height, width = task.pool.image(0).shape[:2]
    return {
        **_common(dataset, recipe, swept),
        "photos": len(photos),
        "stages": stages,
        "photo_px": [width, height],
        "scoring_seconds": task.scorer.seconds,
    }


def _options(folder: str) -> pretraining.PretrainOptions:
    return pretraining.PretrainOptions(folder=Path(folder), device=torch.device("cpu"), seed=0)


def _common(dataset: Dataset, recipe: Recipe, swept: tuple[str, int]) -> dict[str, Any]:
    return {
        "bench": "pretraining-cost",
        "swept": swept[0],
        "value": swept[1],
        "dataset": dataset.name,
        "encoder": recipe.net.encoder,
        "batch": recipe.pretrain.batch,
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "version": __version__,
    }


def score_seconds(lines: Lines) -> float:
    """Return seconds to score one photo once: median over the lines that scored."""
    each = [
        float(line["scoring_seconds"]) / (line["photos"] * (line["stages"] - 1))
        for line in lines
        if "scoring_seconds" in line
    ]
    return float(statistics.median(each))


def draw_cost(lines: Lines, folder: Path) -> Path | None:
    """Write ``cost.svg``: what was measured (points) and what the formula says (lines)."""
    if not lines:
        return None
    each = score_seconds(lines)
    steps = [line for line in lines if line["swept"] == "tile_px"]
    per_px = statistics.median(line["step_seconds"] / line["value"] ** 2 for line in steps)
    formulas = {
        "tile_px": lambda n: per_px * n**2,
        "photos": lambda n: (_MIDDLE_STAGES - 1) * n * each,
        "stages": lambda n: (n - 1) * _MIDDLE_PHOTOS * each,
    }
    titles = {
        "tile_px": ("One step", "tile, px", "step_seconds"),
        "photos": (f"Scoring, {_MIDDLE_STAGES} stages", "photos", "scoring_seconds"),
        "stages": (f"Scoring, {_MIDDLE_PHOTOS} photos", "stages", "scoring_seconds"),
    }
    with drawing.style():
        figure, axes = drawing.panels(3)
        for panel, (swept, (title, label, key)) in zip(axes, titles.items()):
            own = sorted((x for x in lines if x["swept"] == swept), key=lambda x: x["value"])
            places = [line["value"] for line in own]
            expected = [formulas[swept](n) for n in places]
            panel.plot(places, expected, color=drawing.GREY, label="formula")
            measured = [line[key] for line in own]
            panel.plot(places, measured, "o", color=drawing.BLUE, label="measured")
            panel.set(title=title, xlabel=label, ylabel="seconds", xticks=places, ylim=(0, None))
            panel.legend(loc="upper left")
        (folder / "cost.svg").write_bytes(drawing.svg(figure))
    return folder / "cost.svg"


def cost_table(lines: Lines) -> str:
    """Draw what 40,000 tiles would take on one card, from operations: on paper, not measured."""
    tile_px = 256
    own = [line for line in lines if (line["swept"], line["value"]) == ("tile_px", tile_px)]
    if not own:
        return ""
    tera = own[-1]["macs_per_tile"] * 2 / 1e12
    seen = PAPER_TILES * PAPER_EPOCHS * _BACKWARD * tera
    scored = PAPER_TILES * (PAPER_STAGES - 1) * 2 * tera
    paper = (
        f"On paper: {PAPER_TILES:,} tiles of {tile_px} px, {PAPER_EPOCHS} epochs, {PAPER_STAGES} "
        f"stages; two masks score every tile at each border; {tera * 500:.2f} GMAC a tile."
    )
    rows = [
        paper,
        "",
        "| card | peak, float32 | used (assumed) | training | scoring | scoring share |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for gpu in GPUS:
        hours = 1 / (gpu.tflops * gpu.used_share * 3600)
        rows.append(
            f"| {gpu.name} | {gpu.tflops:g} TFLOP/s | {100 * gpu.used_share:.0f} % "
            f"| {seen * hours:.1f} h | {60 * scored * hours:.0f} min "
            f"| {100 * scored / (seen + scored):.1f} % |"
        )
    return "\n".join(rows) + "\n"
