"""How much of the bare training step is left when the whole loop runs around it?"""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.bench.pretraining import Dataset
from weedseg.config import Recipe
from weedseg.pretraining import run as pretraining
from weedseg.training.timing import step_seconds


def measure_throughput(dataset: Dataset, recipe: Recipe, rounds: int = 5) -> dict[str, Any]:
    """Compare the pretraining loop with its bare step, in turns, in one process.

    The bare step is forward, loss, backward and optimiser on a batch in memory. The loop adds
    decoding, cutting, jitter, selection of patches, teacher, logging and checkpoints; its step
    time is the median, so that scoring, which happens at stage borders only, stays out.

    Args:
        dataset: Photos to train on.
        recipe: Its number of steps is done once per round.
        rounds: How often both are measured.

    Returns:
        One line: medians in s, their ratio, scoring share, peak memory, machine.
    """
    photos = dataset.split(0, 0).unlabelled
    bare, loop, shares = [], [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            options = pretraining.PretrainOptions(
                folder=Path(folder), device=torch.device("cpu"), seed=number
            )
            task = pretraining.build_task(dataset.farm, photos, recipe, options)
            bare.append(step_seconds(task, options.device, num=8))
            summary = pretraining.pretrain(dataset.farm, photos, recipe, options)
            loop.append(summary["step_seconds"])
            shares.append(summary["scoring_share"])
    unit = 1024 if sys.platform != "darwin" else 1
    return {
        "bench": "training-throughput",
        "dataset": dataset.name,
        "encoder": recipe.net.encoder,
        "tile_px": recipe.pretrain.tile_px,
        "batch": recipe.pretrain.batch,
        "steps": recipe.pretrain.steps,
        "rounds": rounds,
        "bare_step_seconds": statistics.median(bare),
        "loop_step_seconds": statistics.median(loop),
        "ratio": statistics.median(b / one for b, one in zip(bare, loop)),
        "scoring_share": statistics.median(shares),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "commit": commit(),
        "version": __version__,
        "torch": str(torch.__version__),
    }


def with_few_steps(recipe: Recipe, steps: int) -> Recipe:
    """Return the recipe with so many pretraining steps."""
    return replace(recipe, pretrain=replace(recipe.pretrain, steps=steps))
