"""``weedseg bench calibration`` and ``weedseg bench edge``: figures of the robot runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.errors import FieldDataError

ModelPath = Annotated[Path, typer.Argument(help="A model file.")]
MostPhotos = Annotated[int, typer.Option(min=1, help="At most so many photos of each set.")]
LINES = Path("models/benchmarks/edge")


def calibration(
    model: ModelPath,
    *,
    in_domain: Annotated[Path, typer.Option(help="Farm folder of the model's own field.")],
    test: Annotated[
        Path | None, typer.Option(help="File with the names of its test photos.")
    ] = None,
    other: Annotated[
        list[Path] | None, typer.Option(help="Farm folder of another field; may be given again.")
    ] = None,
    most: MostPhotos = 60,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "calibration.jsonl",
) -> None:
    """Measure calibration error and out-of-distribution scores in the own field and in others.

    Raises:
        FieldDataError: A folder has no labelled photos.
        ModelFileError: The model cannot be run.
    """
    from weedseg.bench.calibration import CalibrationPlan, calibration_table, measure_calibration
    from weedseg.bench.lines import append_line

    plan = CalibrationPlan(
        model=model, in_domain=in_domain, test=test, others=tuple(other or ()), most=most
    )
    line = measure_calibration(plan)
    append_line(out, line)
    typer.echo(calibration_table(line))


def edge(
    model: ModelPath,
    *,
    photos: Annotated[Path, typer.Option(help="Farm folder of real photos.")],
    test: Annotated[Path | None, typer.Option(help="File with the names of some of them.")] = None,
    most: MostPhotos = 60,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES / "edge.jsonl",
) -> None:
    """Measure what the runtime costs beyond the network, and what a shifted tiling changes.

    Raises:
        FieldDataError: There is no such photo.
        ModelFileError: The model cannot be run.
    """
    from weedseg.bench.edge_figures import edge_table, measure_edge
    from weedseg.bench.lines import append_line
    from weedseg.data.index import index_farm
    from weedseg.imaging import read_image

    names = set(test.read_text(encoding="utf-8").split()) if test else set()
    chosen = [p for p in index_farm(photos).photos if not names or p.name in names]
    if not chosen:
        raise FieldDataError(f"no such photo in {photos}", "at least one", "check --test")
    step = max(-(-len(chosen) // most), 1)
    line = measure_edge(model, [read_image(photo.path) for photo in chosen[::step]])
    append_line(out, line)
    typer.echo(edge_table(line))
