"""``weedseg serve``: the service on this machine, for the web page and for programs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weedseg.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from weedseg.serve.settings import Settings

_SPARE_S = 15
"""The server's process may take so much longer to stop than requests may take to finish."""
_LISTEN_QUEUE = 1024


def serve(
    *,
    model: Annotated[
        Path | None, typer.Option(help="A model.onnx or its folder; the released one by default.")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="A folder of model folders, all of them served.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; others than 127.0.0.1 need a key.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for database and results.")] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="Show every setting with its variable, and exit.")
    ] = False,
) -> None:
    """Serve the web page and the API.

    Raises:
        RuntimeUnavailableError: The packages of the service are not installed, or the port is
            taken.
    """
    try:
        import granian  # noqa: F401 - is it there?

        from weedseg.serve.settings import export_settings, read_settings, settings_table
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"no package {error.name}", "the packages of the service", "pip install weedseg[serve]"
        ) from error
    if settings:
        typer.echo(settings_table(), nl=False)
        return
    given = {"model": model, "models": models, "host": host, "port": port, "data": data}
    chosen = read_settings(**given)
    chosen = chosen.model_copy(update={"port": _free_port(chosen.host, chosen.port)})
    _check(chosen)
    export_settings(chosen)
    typer.echo(f"weedseg: http://{chosen.host}:{chosen.port} (stop with Ctrl-C)", err=True)
    _server(chosen).serve()


def _check(settings: Settings) -> None:
    """Open the services once, so that a mistake is one sentence and not a dying server."""
    from weedseg.serve.app import check_services

    check_services(settings)


def _server(settings: Settings) -> Any:
    """Make the server: one process for HTTP, restarted if it dies."""
    from granian import Granian
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    return Granian(
        "weedseg.serve.app:app_for_server",
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        factory=True,
        workers=1,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_timeout_s * 1000)),
        websockets=False,
        backlog=_LISTEN_QUEUE,
        respawn_failed_workers=True,
        workers_kill_timeout=int(settings.stop_s) + _SPARE_S,
        log_level=LogLevels.warning,
    )


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        RuntimeUnavailableError: It is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeUnavailableError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                "a free port of this machine",
                "choose another with --port",
            ) from error
        return int(probe.getsockname()[1])
