"""``weedseg bench cost | scorers``: what pretraining costs, and what its scorers point at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.cli import options

DataRoot = Annotated[Path, typer.Option(help="Folder that holds cwfid/ and peanut/.")]
DatasetName = Annotated[str, typer.Option(help="cwfid or peanut.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
LINES = Path("models/benchmarks")


def cost(
    data: DataRoot,
    *,
    dataset: DatasetName = "cwfid",
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="File of the lines, written anew.")] = LINES
    / "cost.jsonl",
    threads: Threads = 1,
) -> None:
    """Measure how pretraining's cost grows with tile size, photos and stages.

    Raises:
        ConfigError: Data set or setting is unknown.
    """
    import torch

    from weedseg.bench.cost import cost_table, measure_cost
    from weedseg.bench.lines import append_line
    from weedseg.bench.pretraining import SCALES, load_dataset
    from weedseg.config import load_recipe

    torch.set_num_threads(threads)
    recipe = load_recipe("selective", list(settings or (f"data.scale={SCALES[dataset]}",)))
    lines = measure_cost(load_dataset(dataset, data / dataset), recipe)
    out.unlink(missing_ok=True)
    for line in lines:
        append_line(out, line)
    typer.echo(cost_table(lines))


def scorers(
    data: DataRoot,
    *,
    dataset: DatasetName = "cwfid",
    steps: Annotated[int, typer.Option(min=8, help="Pretraining steps, random masks.")] = 200,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES
    / "pretraining/diagnosis/scorers.jsonl",
    threads: Threads = 1,
) -> None:
    """Rank patches of soil, crop and weed by every scorer, on labelled photos outside the test.

    Raises:
        ConfigError: Data set or setting is unknown.
    """
    import torch

    from weedseg.bench.lines import append_line
    from weedseg.bench.pretraining import SCALES, load_dataset
    from weedseg.bench.scorers import measure_scorers, scorers_table
    from weedseg.bench.throughput import with_few_steps
    from weedseg.config import load_recipe

    torch.set_num_threads(threads)
    recipe = load_recipe("default", list(settings or (f"data.scale={SCALES[dataset]}",)))
    line = measure_scorers(load_dataset(dataset, data / dataset), with_few_steps(recipe, steps))
    append_line(out, line)
    typer.echo(scorers_table([line]))
