"""A process that does the steps of jobs, one after the other, until it is told to stop.

It may be killed at any moment: its step is free again when the lease runs out.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from types import TracebackType

from weedseg.errors import FieldDataError, ModelFileError, TileError, WeedsegError
from weedseg.serve.database import Database
from weedseg.serve.job_store import Claim, JobStore
from weedseg.serve.job_tables import JobStatus
from weedseg.serve.job_work import JobWork
from weedseg.serve.models import ModelShelf
from weedseg.serve.predicting import Predictor
from weedseg.serve.problems import Problem
from weedseg.serve.settings import Settings

_log = logging.getLogger(__name__)

POLL_S = 0.5
"""Pause before an idle worker looks for work again."""
STEP_LIMIT_S = 1800.0
"""A worker whose step takes longer hangs: it ends itself, and the step counts one attempt more."""
WAIT_S = 2.0
"""A step that met a fault of the machine waits so long, times its attempts."""
EXIT_HANGS = 70
_FINAL = (FieldDataError, TileError, ModelFileError)
"""Errors that come again however often the step is tried."""
_BUSY = 503


class Worker:
    """Takes steps and does them."""

    def __init__(self, store: JobStore, work: JobWork, poll_s: float = POLL_S) -> None:
        """Give the worker a name that no other one has or had.

        Args:
            store: Where steps are taken.
            work: What does them.
            poll_s: Pause of an idle worker.
        """
        self.name = f"{socket.gethostname()[:30]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._store = store
        self._work = work
        self._poll_s = poll_s

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; a step that has begun is finished."""
        _log.info("worker %s waits for jobs", self.name)
        while not stop.is_set():
            try:
                busy = self.work_once()
            except WeedsegError as error:  # the database is away; leases take care of the step
                _log.error("worker %s: %s", self.name, error)
                busy = False
            if not busy:
                stop.wait(self._poll_s)
        _log.info("worker %s stops", self.name)

    def work_once(self) -> bool:
        """Do one step.

        Returns:
            False when there was nothing to do.

        Raises:
            RuntimeUnavailableError: The database does not answer.
        """
        claim = self._store.claim(self.name)
        if claim is None:
            return False
        with _Lease(self._store, claim):
            self._do(claim)
        status = self._store.status(claim.job_id)
        if status in (JobStatus.SUCCESSFUL, JobStatus.FAILED):
            self._work.remove_photos(claim)
        elif status in (JobStatus.DISMISSED, None):
            self._work.remove_all(claim)
        return True

    def _do(self, claim: Claim) -> None:
        """Do a step and write down how it ended, if the step is still this worker's."""
        try:
            return self._perform(claim)
        except _FINAL as error:
            return self._fail(claim, str(error))
        except Problem as problem:
            if problem.status != _BUSY:
                return self._fail(claim, problem.detail)
            reason = problem.detail
        except MemoryError:
            reason = f"'{claim.name}' takes more memory than this machine has"
        except WeedsegError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - the outer edge: one photo must not end the worker
            _log.exception("step %s/%d failed", claim.job_id, claim.number)
            reason = f"internal error ({type(error).__name__}); please report it"
        _log.warning(
            "step %s/%d, attempt %d: %s", claim.job_id, claim.number, claim.attempt, reason
        )
        self._store.try_again(claim, reason, WAIT_S * claim.attempt)
        return None

    def _fail(self, claim: Claim, sentence: str) -> None:
        self._store.finish(claim, error=sentence)

    def _perform(self, claim: Claim) -> None:
        if claim.kind == "unpack":
            num_shards = self._work.plan_map(claim)
            photos = [] if num_shards else self._work.unpack(claim)
            self._store.unpacked(claim, photos, num_shards)
        elif claim.kind == "photo":
            self._store.finish(claim, summary=self._work.photo(claim))
        elif claim.kind == "shard":
            self._work.shard(claim)
            self._store.finish(claim)
        else:
            self._store.finish(claim, error=self._work.report(claim))


class _Lease:
    """Renews a claim from a thread, and ends a worker that hangs."""

    def __init__(self, store: JobStore, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="weedseg-lease", daemon=True)

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()

    def _renew(self) -> None:
        until = time.monotonic() + STEP_LIMIT_S
        while not self._done.wait(self._store.lease_s / 3):
            if time.monotonic() > until:
                _log.critical("a step takes longer than %g s: this worker ends", STEP_LIMIT_S)
                os._exit(EXIT_HANGS)
            try:
                if not self._store.renew(self._claim):
                    return
            except WeedsegError as error:
                _log.warning("a lease could not be renewed: %s", error)


def run_worker(settings: Settings, stop: threading.Event, lease_s: float = 15.0) -> None:
    """Open the data folder and work until told to stop.

    Args:
        settings: Those of the server: data folder, database, models.
        stop: Set it to end the worker after its step.
        lease_s: How long this worker may be silent before others take over its step.

    Raises:
        WeedsegError: The data folder, database or model cannot be used.
    """
    one = settings.model_copy(update={"decode_workers": 1, "infer_workers": 1, "queue_length": 0})
    database = Database.open(settings.data, settings.database_url)
    predictor = Predictor(one, ModelShelf(one))
    try:
        work = JobWork(settings, database, predictor)
        Worker(JobStore(database, lease_s), work).run(stop)
    finally:
        predictor.close()
        database.close()
