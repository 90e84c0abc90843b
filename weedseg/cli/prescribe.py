"""``weedseg prescribe``: from a weed map to what a sprayer does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.maps.prescription import Prescription, RateStep


def prescribe(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of weedseg map.")],
    *,
    threshold: Annotated[
        float | None, typer.Option(help="Weed cover from which on a cell is treated, per cent.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Litres per hectare; with --steps, of a broadcast spray.")
    ] = None,
    steps: Annotated[
        str, typer.Option(help="Instead of a threshold: per cent:l/ha steps, e.g. '1:100,5:200'.")
    ] = "",
    buffer_m: Annotated[
        float, typer.Option(help="Treat cells closer than this to a treated cell too, m.")
    ] = 0.0,
    merge_m: Annotated[float, typer.Option(help="Treat gaps up to this length too, m.")] = 0.0,
    min_patch_m2: Annotated[
        float, typer.Option("--min-patch-m2", help="Drop patches with less ground to treat, m2.")
    ] = 0.0,
    isoxml_cell_m: Annotated[
        float | None,
        typer.Option(help="Cell of the ISOXML grid, m; the section's width by default."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write it although the model is not known enough.")
    ] = False,
) -> None:
    """Write Shapefile, GeoJSON, KML and ISOXML of what to spray, from the folder of a weed map.

    Raises:
        WeedsegError: An option is wrong, the folder holds no weed map, or the model is not known
            well enough on this crop.
    """
    from weedseg.maps.prescription import PrescriptionOptions
    from weedseg.maps.prescription_files import prescribe_folder

    options = PrescriptionOptions(
        steps=_steps(threshold, rate, steps),
        broadcast_rate=rate,
        buffer_m=buffer_m,
        merge_m=merge_m,
        min_patch_m2=min_patch_m2,
        isoxml_cell_m=isoxml_cell_m,
        force=force,
    )
    prescription, files = prescribe_folder(folder, options)
    _tell(prescription)
    for path in files:
        typer.echo(f"written: {path}")


def _steps(threshold: float | None, rate: float | None, steps: str) -> tuple[RateStep, ...]:
    """Make rate steps from the flags.

    Raises:
        ConfigError: Both or neither are given, or they are no numbers.
    """
    from weedseg.maps.prescription import RateStep

    if steps and threshold is not None:
        raise ConfigError("--threshold and --steps", "one of them", "leave one out")
    if not steps:
        if threshold is None or rate is None:
            raise ConfigError(
                "no threshold with a rate", "--threshold 2 --rate 200 or --steps", "add them"
            )
        return (RateStep(threshold / 100, rate),)
    try:
        pairs = [[float(part) for part in step.split(":")] for step in steps.split(",")]
        return tuple(RateStep(cover / 100, litres) for cover, litres in pairs)
    except ValueError as error:
        raise ConfigError(f"--steps {steps}", "steps such as 1:100,5:200", "correct it") from error


def _tell(prescription: Prescription) -> None:
    """Print what it says and what it saves."""
    for sentence in prescription.sentences:
        typer.echo(sentence)
    if not prescription.treat.any():
        typer.echo("nothing to treat: no cell, or no large enough patch, reaches the threshold")
    saved = prescription.savings()
    values = saved.to_dict()
    typer.echo(
        f"treats {values['treated_ha']:.4g} of {values['field_ha']:.4g} ha with "
        f"{saved.prescribed_l:.4g} l; broadcast {saved.broadcast_l:.4g} l; saves "
        f"{values['saved_area_percent']:.1f} % of the area, "
        f"{values['saved_volume_percent']:.1f} % of the volume"
    )
