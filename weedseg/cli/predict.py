"""``weedseg predict``: photos in, class maps, confidence, overlays and a table of coverage out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.edge.predict import Progress as PhotoProgress
    from weedseg.edge.segmenter import Segmenter

EXIT_BAD_PHOTOS = 3
"""Some photos could not be segmented; the others are done."""


def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="A photo, a folder or a glob.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; a stopped run goes on there.")],
    *,
    model: Annotated[
        Path | None, typer.Option(help="A model.onnx or a run folder; the released one by default.")
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Draw the class colours over each photo.")] = True,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Tiles per run.")] = 1,
    require_provider: Annotated[
        str | None, typer.Option(help="tensorrt, cuda or cpu: fail instead of falling back.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray: one photo a core of the cluster.")
    ] = "local",
) -> None:
    """Segment photos with an exported model.

    Writes a class map, a confidence map and an overlay per photo and coverage.csv for all.

    Raises:
        ConfigError: There is no such engine.
        Exit: With code 3 when some photos could not be segmented.
    """
    from weedseg.edge.predict import predict_folder
    from weedseg.edge.released import default_model
    from weedseg.edge.segmenter import Segmenter

    if engine not in ("local", "ray") or (engine == "ray" and require_provider):
        given = f"--engine {engine}" + (" --require-provider" if require_provider else "")
        raise ConfigError(given, "local, or ray without a provider", "change --engine")
    path = model or default_model()
    file = path / "model.onnx" if path.is_dir() else path
    if engine == "ray":
        from weedseg.maps.cluster_predict import predict_on_cluster

        with _ProgressBar() as bar:
            report = predict_on_cluster(file, inputs, out, overlay=overlay, progress=bar.update)
    else:
        segmenter = Segmenter(file, threads=threads, batch=batch, require_provider=require_provider)
        _introduce(path, segmenter)
        with _ProgressBar() as bar:
            report = predict_folder(segmenter, inputs, out, overlay=overlay, progress=bar.update)
    typer.echo(
        f"{report.num_segmented} photos segmented, {report.num_skipped} were done before, "
        f"{len(report.errors)} left out; coverage: {report.table}"
    )
    if report.errors:
        typer.echo(f"photos left out: see {out / 'errors.csv'}", err=True)
        raise typer.Exit(EXIT_BAD_PHOTOS)


def _introduce(path: Path, segmenter: Segmenter) -> None:
    """Say what runs where."""
    runtime = segmenter.runtime
    typer.echo(
        f"model {path} ({', '.join(segmenter.classes.names)}) on {runtime.provider}, "
        f"{runtime.threads} threads"
    )


class _ProgressBar:
    """A line with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("segmenting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[photo]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("photos", total=None, photo="", rate="")
        self._start_s = time.monotonic()

    def __enter__(self) -> _ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, progress: PhotoProgress) -> None:
        """Show one more photo."""
        rate = progress.done / max(time.monotonic() - self._start_s, 1e-3)
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            photo=progress.photo,
            rate=f"{rate:.2f} photos/s",
        )
