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
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same farm.")] = 0,
) -> None:
    """Draw a small synthetic farm: soil, crop rows, weeds, exact masks.

    Raises:
        ConfigError: More masks than photos are wanted.
        OutputError: The folder is not empty, or cannot be written.
    """
    if labelled > photos:
        raise ConfigError(f"--labelled {labelled}", f"at most --photos {photos}", "lower it")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out} is not empty", "a new or empty folder", "choose another --out")
    from weedseg.data.synthetic import write_farm

    write_farm(out, seed=seed, num_photos=photos, num_labelled=labelled)
    typer.echo(f"{photos} photos, {labelled} of them labelled, in {out}")
    typer.echo(f"next: weedseg train --farm-images {out} --out RUN")
