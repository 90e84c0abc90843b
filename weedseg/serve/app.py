"""The web app: built from settings alone, served by granian (`weedseg.cli.serve`)."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

from fastapi import FastAPI

import weedseg
from weedseg.errors import WeedsegError
from weedseg.serve.auth import is_loopback, refuse_open_network
from weedseg.serve.database import Database
from weedseg.serve.jobs import JobQueue
from weedseg.serve.keys import KeyStore
from weedseg.serve.limits import Limits
from weedseg.serve.metrics import Metrics
from weedseg.serve.middleware import BodyLimits, BodyMiddleware, RequestMiddleware
from weedseg.serve.models import ModelShelf
from weedseg.serve.openapi import describe
from weedseg.serve.predicting import Predictor
from weedseg.serve.problems import install_problem_handlers
from weedseg.serve.request_log import set_up_service_logging
from weedseg.serve.retention import Retention, Store
from weedseg.serve.routes import (
    health,
    inference_protocol,
    jobs,
    models,
    pages,
    predict,
    prescriptions,
    session,
    uploads,
)
from weedseg.serve.services import Condition, Services
from weedseg.serve.settings import Settings, read_settings
from weedseg.serve.uploads import UploadStore
from weedseg.serve.worker_process import WorkerProcess

_log = logging.getLogger(__name__)

_FORM_BYTES = 16 << 10
"""What a form may add to a photo."""
_USUAL_BODY_BYTES = 1 << 20
_BODIES_IN_MEMORY = 8
"""So many photos of the largest size may be held while they are received."""
_POLL_S = 0.05
_WORKER_STOP_S = 5.0


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; its services start with it.

    Args:
        settings: By default those of the environment.

    Raises:
        ConfigError: A setting is wrong.
    """
    settings = settings or read_settings()
    metrics, condition = Metrics(), Condition()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with open_services(settings, metrics, condition) as services, _job_worker(settings):
            app.state.services = services
            threading.Thread(target=_warm_up, args=[services], daemon=True).start()
            _drain_at_sigterm(services)
            yield
            _log.info("stopped: %d requests were not finished", condition.inflight)

    app = FastAPI(
        title="weedseg",
        version=weedseg.__version__,
        description="Crop and weed in field photos.",
        lifespan=lifespan,
        docs_url=None,  # Swagger and ReDoc pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json" if is_loopback(settings.host) else None,
    )
    for module in (health, predict, inference_protocol, models, session, uploads):
        app.include_router(module.router)
    for module in (prescriptions, jobs):  # in this order: a path of jobs fits theirs too
        app.include_router(module.router)
    pages.add_pages(app, settings)
    install_problem_handlers(app)
    describe(app)
    app.add_middleware(BodyMiddleware, limits=_body_limits(settings))
    app.add_middleware(RequestMiddleware, metrics=metrics, condition=condition)
    return app


def app_for_server() -> FastAPI:
    """Build the app in the server's process, which logs JSON; granian calls it."""
    _end_with_parent()
    set_up_service_logging()
    return create_app()


@contextmanager
def open_services(
    settings: Settings, metrics: Metrics | None = None, condition: Condition | None = None
) -> Iterator[Services]:
    """Open everything that the routes need, and close it at the end.

    Args:
        settings: Of the service.
        metrics: Where figures are counted.
        condition: Whether the service stops.

    Raises:
        ConfigError: The service listens to others without a key, or a setting is wrong.
        ModelFileError: A model is not one that weedseg may run.
        OutputError: The data folder cannot be made.
        RuntimeUnavailableError: The database does not answer.
    """
    metrics = metrics or Metrics()
    with ExitStack() as stack:
        database = Database.open(settings.data, settings.database_url)
        stack.callback(database.close)
        keys = KeyStore(database)
        refuse_open_network(settings.host, keys)
        limits = Limits(settings.data, settings.requests_per_minute, settings.quota_bytes)
        shelf = ModelShelf(settings)
        predictor = Predictor(settings, shelf, metrics)
        stack.callback(predictor.close)
        services = _assemble(settings, predictor, database, keys, limits, condition or Condition())
        metrics.watch_jobs(services.jobs.count_by_status, services.jobs.num_waiting)
        stack.enter_context(_sweeping(services))
        yield services


def _assemble(
    settings: Settings,
    predictor: Predictor,
    database: Database,
    keys: KeyStore,
    limits: Limits,
    condition: Condition,
) -> Services:
    store = UploadStore(
        database,
        settings.data,
        limits,
        max_bytes=settings.max_upload_bytes,
        retention_days=settings.retention_days,
    )
    return Services(
        settings=settings,
        models=predictor.models,
        predictor=predictor,
        database=database,
        keys=keys,
        limits=limits,
        uploads=store,
        jobs=JobQueue(database, settings.data, store, limits),
        condition=condition,
    )


def check_services(settings: Settings) -> None:
    """Find out whether the services can be opened, without starting anything.

    Args:
        settings: Of the service.

    Raises:
        ConfigError: The service listens to others without a key, or a setting is wrong.
        ModelFileError: A model is not one that weedseg may run.
        OutputError: The data folder cannot be made.
        RuntimeUnavailableError: The database does not answer.
    """
    ModelShelf(settings)
    database = Database.open(settings.data, settings.database_url)
    try:
        refuse_open_network(settings.host, KeyStore(database))
    finally:
        database.close()


@contextmanager
def _job_worker(settings: Settings) -> Iterator[None]:
    """Keep a worker process for jobs, unless the operator starts some elsewhere."""
    if not settings.job_worker:
        yield
        return
    worker = WorkerProcess(settings)
    worker.start()
    try:
        yield
    finally:
        worker.stop(_WORKER_STOP_S)


@contextmanager
def _sweeping(services: Services) -> Iterator[None]:
    settings = services.settings
    stores: list[Store] = [services.uploads, services.jobs]
    seconds = settings.retention_days * 86400
    with Retention(settings.data, seconds, stores, services.keys).running():
        yield


def _warm_up(services: Services) -> None:
    try:
        services.predictor.warm_up()
    except WeedsegError as error:
        services.predictor.not_ready = "the model cannot be loaded"
        _log.error("not ready: %s", error)
    else:
        _log.info("ready" if not services.predictor.not_ready else services.predictor.not_ready)


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, or it would keep the port.

    Decoders end when their input does, and the job worker watches its parent by itself.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="weedseg-parent", daemon=True).start()


def _drain_at_sigterm(services: Services) -> None:
    """Finish what was accepted at SIGTERM, then stop the server as its own SIGINT does."""

    def begin() -> None:
        if not services.condition.draining:
            services.condition.draining = True
            tasks.add(asyncio.get_running_loop().create_task(_drain(services)))

    tasks: set[asyncio.Task[None]] = set()
    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, begin)


async def _drain(services: Services) -> None:
    _log.info("stopping: %d requests are finished first", services.condition.inflight)
    end = asyncio.get_running_loop().time() + services.settings.stop_s
    while services.condition.inflight and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(_POLL_S)
    os.kill(os.getpid(), signal.SIGINT)


def _body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(
        usual_bytes=_USUAL_BODY_BYTES,
        by_prefix={
            "/v1/predict": settings.max_photo_bytes + _FORM_BYTES,
            "/v1/uploads": settings.max_upload_bytes,
            "/v2/models": inference_protocol.MAX_BODY_BYTES,
        },
        memory_bytes=_BODIES_IN_MEMORY * settings.max_photo_bytes,
        streamed_prefix="/v1/uploads",
        pause_s=settings.header_timeout_s,
    )
