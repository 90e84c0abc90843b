"""``weedseg bench maps``: throughput, memory, seams and areas of the map of a large mosaic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LINES = Path("models/benchmarks/maps.jsonl")


def maps(
    *,
    model: Annotated[
        Path | None, typer.Option(help="A model file; the released one by default.")
    ] = None,
    megapixels: Annotated[float, typer.Option(min=1, help="Size of the mosaic.")] = 1000,
    photos: Annotated[
        Path | None, typer.Option(help="Farm folder of labelled photos to lay it out with.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="File with the names of some of them.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of one thread.")] = 2,
    out: Annotated[Path, typer.Option(help="File of the lines.")] = LINES,
) -> None:
    """Map a large mosaic with known truth, of real photos or drawn, and compare with bare loops.

    The folder for temporary files (TMPDIR) needs room for 7 bytes a pixel.

    Raises:
        FieldDataError: There are too few labelled photos.
        ModelFileError: The model cannot be run.
    """
    from weedseg.bench.lines import append_line
    from weedseg.bench.maps import MapsPlan, maps_table, measure_maps
    from weedseg.bench.maps_mosaic import drawn_block, photo_block
    from weedseg.edge.released import default_model

    names = frozenset(test.read_text(encoding="utf-8").split()) if test else frozenset[str]()
    plan = MapsPlan(
        model=model or default_model(),
        block=photo_block(photos, names) if photos else drawn_block(),
        megapixels=megapixels,
        workers=workers,
    )
    line = measure_maps(plan)
    append_line(out, line)
    typer.echo(maps_table(line))
