"""``weedseg validate-map``: re-read written map files with other code and say what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.errors import FieldDataError


def validate_map(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A map file, a folder TASKDATA, or a map's folder."),
    ],
) -> None:
    """Check CRS, columns, units, ranges, rings, the order of rows and the rates of map files.

    Raises:
        FieldDataError: There are faults, or nothing to check.
    """
    from weedseg.maps.validate import validate

    found = validate(file)
    for checked in found:
        typer.echo(f"{checked.path}: {checked.kind}, {'faulty' if checked.faults else 'ok'}")
        for text in (*checked.notes, *map(str, checked.faults)):
            typer.echo(f"  {text}")
    faults = sum(len(checked.faults) for checked in found)
    if faults:
        raise FieldDataError(
            f"{faults} fault{'s' * (faults > 1)} in {file}", "none", "do what is said above"
        )
