"""``weedseg restore``: a data folder from an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def restore(
    archive: Annotated[Path, typer.Argument(help="What `weedseg backup` wrote.")],
    *,
    data: Annotated[Path, typer.Option(help="Data folder to write; new or empty.")],
) -> None:
    """Write an archive back, every file checked, or nothing at all.

    Raises:
        ConfigError: The archive is damaged, foreign or from a newer weedseg.
        OutputError: The folder is not empty or cannot be written.
    """
    from weedseg.serve import backup

    listing = backup.restore(archive, data)
    typer.echo(f"{len(listing.files)} files, {listing.num_bytes / 1e6:.1f} MB: {data}")
    if listing.database == backup.POSTGRESQL:
        typer.echo("the database was not in it: restore the pg_dump of the same time as well")
