"""``weedseg release``: a finished run becomes a model folder with card and checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weedseg.cli import options


def release(
    run: options.RunPath,
    out: Annotated[
        Path, typer.Option(help="Folder of the released model; its name is the model's.")
    ],
    *,
    license_name: Annotated[str, typer.Option("--license", help="SPDX name, e.g. CC-BY-SA-4.0.")],
    license_text: Annotated[Path, typer.Option(help="File with the licence's text.")],
    data: Annotated[list[str], typer.Option(help="A source of data: title, licence, citation.")],
    failures: Annotated[str, typer.Option(help="What you saw go wrong in the test pictures.")],
) -> None:
    """Write model, configuration, card, golden sample and checksums of a finished run.

    Raises:
        WeedsegError: The run has no model with a measured accuracy.
    """
    from weedseg.pipeline.release import ReleaseNotes
    from weedseg.pipeline.release import release as write

    notes = ReleaseNotes(
        name=out.name,
        license=license_name,
        license_text=license_text,
        data=tuple(data),
        failures=failures,
    )
    typer.echo(f"released: {write(run, out, notes)}")
