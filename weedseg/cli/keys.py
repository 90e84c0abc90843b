"""``weedseg keys``: who may use the service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weedseg.errors import ConfigError

if TYPE_CHECKING:
    from weedseg.serve.keys import ApiKey, KeyStore

keys = typer.Typer(help="The API keys of the service.", rich_markup_mode=None)

Data = Annotated[Path, typer.Option(envvar="WEEDSEG_DATA", help="Data folder of the service.")]
DatabaseUrl = Annotated[
    str, typer.Option(envvar="WEEDSEG_DATABASE_URL", help="PostgreSQL, if rows are kept there.")
]


@keys.command()
def make(
    *,
    data: Data,
    name: Annotated[str, typer.Option(help="What people call the key.")],
    owner: Annotated[str, typer.Option(help="Whose photos it reaches: a-z, 0-9 and hyphens.")],
    scopes: Annotated[str, typer.Option(help="Of predict, jobs, models, admin.")] = "predict,jobs",
    days: Annotated[float, typer.Option(min=0, help="How long it is good; 0 for ever.")] = 0,
    database_url: DatabaseUrl = "",
) -> None:
    """Make a key and print it: the only time that it can be read.

    The key alone goes to standard output. From the first key on, the service asks for one.

    Raises:
        ConfigError: Name, owner or a scope is not allowed.
    """
    expires_s = time.time() + days * 86400 if days else None
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    key = _open(data, database_url, new=True).make(name, owner, wanted, expires_s)
    typer.echo("Keep this key now; only its hash is stored:", err=True)
    typer.echo(key)


@keys.command("list")
def list_(*, data: Data, database_url: DatabaseUrl = "") -> None:
    """List all keys ever made; none of them can be read back.

    Raises:
        ConfigError: There is no service in that folder.
    """
    made_so_far = _open(data, database_url).list_keys()
    typer.echo(f"{'id':14}{'owner':20}{'scopes':28}{'made':12}{'last used':12}{'state':21}name")
    for key in made_so_far:
        made, used = _day(key.made_s), _day(key.last_used_s)
        typer.echo(
            f"{key.key_id:13} {key.owner:19} {key.scopes:27} {made:11} {used:11} "
            f"{_state(key):20} {key.name}"
        )


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `weedseg keys list` shows it.")],
    *,
    data: Data,
    database_url: DatabaseUrl = "",
) -> None:
    """End a key and all its sessions at once.

    Raises:
        ConfigError: There is no such key.
    """
    if not _open(data, database_url).revoke(key_id):
        raise ConfigError(f"no key has the id {key_id}", "one of weedseg keys list", "look there")
    typer.echo(f"revoked: {key_id}")


def _open(data: Path, database_url: str, new: bool = False) -> KeyStore:
    """Open the keys of a data folder.

    Raises:
        ConfigError: There is no service in that folder.
    """
    from weedseg.serve.database import SQLITE_FILE, Database
    from weedseg.serve.keys import KeyStore

    if not (new or database_url or (data / SQLITE_FILE).exists()):
        raise ConfigError(
            f"{data} holds no {SQLITE_FILE}", "the data folder of a service", "correct --data"
        )
    return KeyStore(Database.open(data, database_url))


def _day(moment_s: float | None) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment_s)) if moment_s is not None else "never"


def _state(key: ApiKey) -> str:
    if key.revoked_s is not None:
        return f"revoked {_day(key.revoked_s)}"
    if not key.is_good(time.time()):
        return f"ended {_day(key.expires_s)}"
    return f"until {_day(key.expires_s)}" if key.expires_s is not None else "good"
