"""``weedseg map``: an orthomosaic in, a weed map with rasters, cells and a report out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from weedseg.edge.predict import Progress as PhotoProgress
    from weedseg.maps.engine import MapProgress
    from weedseg.maps.run import MapOptions, MapReport


EXIT_BAD_PHOTOS = 3
"""Some photos could not be segmented; the others are done."""
Source = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="A GeoTIFF orthomosaic, or a folder of geotagged photos."),
]
Out = Annotated[Path, typer.Option(help="Folder for the map; a stopped run goes on there.")]
Model = Annotated[
    Path | None, typer.Option(help="A model.onnx or a run folder; the released one by default.")
]
Section = Annotated[
    float | None, typer.Option(help="Width of a boom section: of a cell across the heading, m.")
]
Heading = Annotated[
    float, typer.Option(metavar="DEG", help="Direction of travel, clockwise from north.")
]
Boundary = Annotated[
    Path | None, typer.Option(help="Outline of the field: GeoJSON, GeoPackage, Shapefile or KML.")
]
MinPatch = Annotated[float | None, typer.Option(help="Smallest weed patch that is counted, m2.")]
Resample = Annotated[
    bool, typer.Option("--resample", help="Resize a mosaic to the model's ground resolution.")
]
AsIs = Annotated[
    bool, typer.Option("--as-is", help="Map it although the ground resolution does not fit.")
]
TrainedAt = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="What the model was trained at, if it does not say."),
]
Provider = Annotated[
    str | None, typer.Option(help="tensorrt, cuda or cpu: fail instead of falling back.")
]


def map(
    source: Source,
    out: Out,
    *,
    model: Model = None,
    crop: Annotated[str, typer.Option(help="Crop that grows on the field.")] = "",
    cell_m: Annotated[float, typer.Option(help="Side of a cell of the map, m.")] = 5.0,
    section_m: Section = None,
    heading: Heading = 0.0,
    boundary: Boundary = None,
    min_patch_m2: MinPatch = None,
    resample: Resample = False,
    as_is: AsIs = False,
    mm_per_px: TrainedAt = None,
    engine: Annotated[str, typer.Option(help="What runs the shards: local or ray.")] = "local",
    workers: Annotated[int, typer.Option(min=0, help="Shards at a time; 0: one per core.")] = 0,
    require_provider: Provider = None,
) -> None:
    """Make a weed map of a field from an orthomosaic.

    Writes classes.tif, confidence.tif, cells.gpkg, .geojson and .csv, map.json and a report as
    HTML and PDF. A folder of geotagged photos gives sample points with their cover instead.

    Raises:
        ConfigError: An option makes no sense.
    """
    from weedseg.edge.released import default_model
    from weedseg.maps.cells import CellOptions
    from weedseg.maps.run import MapOptions

    path = model or default_model()
    path = path / "model.onnx" if path.is_dir() else path
    if source.is_dir():
        _map_photos(source, path, out, crop)
        return
    cells = CellOptions(cell_m=cell_m, section_m=section_m, heading_deg=heading)
    if min_patch_m2 is not None:
        cells = replace(cells, min_patch_m2=min_patch_m2)
    options = MapOptions(
        mosaic=source,
        out=out,
        model=path,
        crop=crop,
        cells=cells,
        boundary=boundary,
        resample=resample,
        as_is=as_is,
        training_mm=mm_per_px,
        engine=engine,
        workers=workers,
        require_provider=require_provider,
    )
    _map_mosaic(options)


def _map_mosaic(options: MapOptions) -> None:
    """Map and tell what came of it."""
    from weedseg.maps.stored_map import make_stored_map

    typer.echo(f"model {options.model}; a stopped run goes on with the same command")
    with _MapBar() as bar:
        report = make_stored_map(options, bar.update)
    for sentence in report.values["warnings"]:
        typer.echo(f"note: {sentence}", err=True)
    _tell(options, report)


def _tell(options: MapOptions, report: MapReport) -> None:
    """Say what was found, and what to do next."""
    from weedseg.maps.storage import url_of

    totals = report.values["totals"]
    if report.num_run < report.num_shards:
        typer.echo(f"{report.num_shards - report.num_run} shards were done by an earlier run")
    typer.echo(
        f"{totals['ground_m2'] / 1e4:.4g} ha in {totals['num_cells']} cells: weeds on "
        f"{totals['weed_m2']:.4g} m2 ({100 * totals['weed_share']:.2f} %), crop on "
        f"{totals['crop_m2']:.4g} m2, {totals['num_patches']} weed patches"
    )
    stored = url_of(options.out)
    typer.echo(f"map and report: {stored or options.out}")
    if stored is None:
        typer.echo(f"next: weedseg prescribe {options.out} --threshold PERCENT --rate L_PER_HA")


def _map_photos(folder: Path, model: Path, out: Path, crop: str) -> None:
    """Make sample points of photos.

    Raises:
        Exit: With code 3 when some photos could not be segmented.
    """
    from weedseg.edge.segmenter import Segmenter
    from weedseg.maps.samples import NO_POSITION, map_photos

    with _MapBar("photos") as bar:
        report = map_photos(folder, Segmenter(model), out, crop=crop, progress=bar.update_photo)
    typer.echo(f"note: {report.trust.note}", err=True)
    typer.echo(
        f"{report.num_samples} sample points in {out}; photos give no areas and no prescription"
    )
    if report.no_position:
        num = len(report.no_position)
        typer.echo(f"{num} photos do not say where they lie: see {out / NO_POSITION}", err=True)
    if report.errors:
        typer.echo(f"photos left out: see {out / 'errors.csv'}", err=True)
        raise typer.Exit(EXIT_BAD_PHOTOS)


class _MapBar:
    """A line with the shards or photos and the time left."""

    def __init__(self, what: str = "shards") -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(what),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("checking", total=None, note="")

    def __enter__(self) -> _MapBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def update(self, progress: MapProgress) -> None:
        """Show one more shard."""
        seconds = progress.seconds_left
        left = "" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"
        self._show(progress.done, progress.total, progress.what, left)

    def update_photo(self, progress: PhotoProgress) -> None:
        """Show one more photo."""
        self._show(progress.done, progress.total, "segmenting", progress.photo)

    def _show(self, done: int, total: int, what: str, note: str) -> None:
        self._bar.update(self._task, completed=done, total=total, description=what, note=note)
