"""``weedseg synth``: a small synthetic farm to try everything on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.errors import ConfigError, OutputError


def synth(
    out: Annotated[Path, typer.Option(help="Folder of the new farm; new or empty.")],
    photos: Annotated[int, typer.Option(min=1, max=100_000, help="Number of photos.")] = 60,
    labelled: Annotated[int, typer.Option(min=0, help="How many of them get a mask.")] = 24,
    seed: Annotated[
        int, typer.Option(min=0, help="Same seed, same farm; 0, 1, 2 grow beet, a legume, maize.")
    ] = 0,
    mosaic: Annotated[
        str, typer.Option(help="WIDTHxHEIGHT, px: a GeoTIFF orthomosaic instead of photos.")
    ] = "",
) -> None:
    """Draw a small synthetic farm: soil, crop rows, weeds, exact masks.

    Raises:
        ConfigError: More masks than photos are wanted, or the mosaic's size is odd.
        OutputError: The folder is not empty, or cannot be written.
        RuntimeUnavailableError: A mosaic is wanted and rasterio is not installed.
    """
    if labelled > photos:
        raise ConfigError(f"--labelled {labelled}", f"at most --photos {photos}", "lower it")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out} is not empty", "a new or empty folder", "choose another --out")
    if mosaic:
        _draw_mosaic(out, seed, mosaic)
        return
    from weedseg.data.synthetic import write_farm

    write_farm(out, seed=seed, num_photos=photos, num_labelled=labelled)
    typer.echo(f"{photos} photos, {labelled} of them labelled, in {out}")
    typer.echo(f"next: weedseg train --farm-images {out} --out RUN")


def _draw_mosaic(out: Path, seed: int, text: str) -> None:
    """Write an orthomosaic and its labels.

    Raises:
        ConfigError: The size cannot be understood.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise ConfigError(f"--mosaic {text}", "WIDTHxHEIGHT such as 3072x2048", "correct it")
    from weedseg.data.synthetic_mosaic import EPSG, OUTLINES, write_mosaic

    mm_per_px = write_mosaic(out, seed, (int(sides[1]), int(sides[0])))
    typer.echo(f"an orthomosaic of {text} px at {mm_per_px:g} mm a px, EPSG:{EPSG}, in {out}")
    typer.echo(f"next: weedseg data import geotiff {out / OUTLINES} --out FARM")
