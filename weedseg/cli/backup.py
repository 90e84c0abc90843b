"""``weedseg backup``: the service's data folder as one archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def backup(
    *,
    data: Annotated[Path, typer.Option(envvar="WEEDSEG_DATA", help="Data folder of the service.")],
    out: Annotated[Path, typer.Option(help="Archive to write, e.g. weedseg-2026-05-01.zip.")],
    database_url: Annotated[
        str, typer.Option(envvar="WEEDSEG_DATABASE_URL", help="PostgreSQL, if rows are kept there.")
    ] = "",
) -> None:
    """Write a data folder into one archive with checksums; the service may go on running.

    With PostgreSQL the archive holds the files only; run pg_dump first, then this.

    Raises:
        ConfigError: There is no such folder, or its database is damaged.
        OutputError: The archive cannot be written.
    """
    from weedseg.serve.backup import POSTGRESQL, back_up

    listing = back_up(data, out, database_url)
    typer.echo(f"{len(listing.files)} files, {listing.num_bytes / 1e6:.1f} MB: {out}")
    if listing.database == POSTGRESQL:
        typer.echo("the database is not in it: keep the output of pg_dump beside it")
