"""``weedseg worker``: a further process that works on the jobs of a service."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer


def worker(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Data folder of the service; default: weedseg-data.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="As for weedseg serve.")] = None,
    models: Annotated[Path | None, typer.Option(help="As for weedseg serve.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="As for weedseg serve; default: a file in --data.")
    ] = None,
    lease: Annotated[
        float,
        typer.Option(min=0.5, max=600, help="Seconds of silence until others take its work over."),
    ] = 15.0,
) -> None:
    """Work on the jobs of a service, beside it or on another machine that shares its data folder.

    Start as many as there are processors to spare; any of them may be killed at any time. Further
    settings come from the environment, as for weedseg serve.
    """
    from weedseg.serve.request_log import set_up_service_logging
    from weedseg.serve.settings import read_settings
    from weedseg.serve.worker import run_worker
    from weedseg.serve.worker_process import WITH_PARENT_VARIABLE

    settings = read_settings(data=data, model=model, models=models, database_url=database_url)
    set_up_service_logging()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parent = os.environ.get(WITH_PARENT_VARIABLE, "")
    if parent:
        _stop_without(int(parent), stop)
    run_worker(settings, stop, lease)


def _stop_without(parent: int, stop: threading.Event) -> None:
    """Stop when the server that brought this worker along is gone."""

    def watch() -> None:
        while os.getppid() == parent and not stop.wait(1.0):
            continue
        stop.set()

    threading.Thread(target=watch, name="weedseg-parent", daemon=True).start()
