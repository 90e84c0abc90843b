"""``weedseg bench cluster``: what Ray costs on one machine, and many machines on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

LINES = Path("models/benchmarks")
PAGE = Path("deploy/cluster.md")


def cluster(
    *,
    model: Annotated[
        Path | None, typer.Option(help="A model file; the released one by default.")
    ] = None,
    megapixels: Annotated[float, typer.Option(min=4, help="Size of the mosaic.")] = 60,
    workers: Annotated[int, typer.Option(min=1, help="Workers of both engines.")] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the run lines.")] = LINES,
    page: Annotated[Path, typer.Option(help="Markdown file whose table is drawn anew.")] = PAGE,
) -> None:
    """Run the shards of a mosaic on Ray and on the local engine in turns, and compare.

    Raises:
        RuntimeUnavailableError: Ray is not installed.
    """
    from weedseg.bench.cluster import LINES as NAME
    from weedseg.bench.cluster import cluster_text, draw_cluster, measure_cluster
    from weedseg.bench.lines import append_line
    from weedseg.bench.tables import fill
    from weedseg.edge.released import default_model

    line = measure_cluster(model or default_model(), megapixels, workers)
    append_line(out / NAME, line)
    typer.echo(cluster_text(line))
    if page.is_file():
        drawn = fill(page.read_text(encoding="utf-8"), {"cluster": draw_cluster(out)})
        page.write_text(drawn, encoding="utf-8")
