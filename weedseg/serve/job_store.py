"""Jobs in the database: a lease table, so that no work is lost, stuck or done twice.

A job is a row; so is each of its steps: unpack the uploads, one step per photo or per shard of a
mosaic, then the report.
A worker takes a step for a few seconds and renews that lease while it works. A lease that runs out
is free for any other worker: this is how the work of a dead worker is adopted. Taking a step
counts as an attempt before the work begins, so that a photo that kills its worker ends too. A
result counts only from the worker that holds the lease. Every change of a job locks its row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from weedseg.serve.database import Database
from weedseg.serve.job_tables import ACTIVE, Job, JobStatus, Step, StepStatus

MAX_ATTEMPTS = 3
"""Attempts at a step, also when the attempt ends the worker process."""

_OPEN = (StepStatus.WAITING.value, StepStatus.RUNNING.value)
_ENDED = (StepStatus.DONE.value, StepStatus.FAILED.value)


@dataclass(frozen=True, kw_only=True)
class PhotoSource:
    """Where a photo of a job comes from."""

    name: str
    file: str = ""
    """File below the job's ``photos`` folder."""
    member: str = ""
    """Name inside that zip; empty for a plain photo."""
    error: str = ""
    """Why it cannot be segmented; empty if it may be."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A step that this worker holds; `attempt` makes an older claim of the same step void."""

    job_id: str
    owner: str
    number: int
    kind: str
    name: str
    source: dict[str, Any]
    options: dict[str, Any]
    created_s: float
    worker: str
    attempt: int


class JobStore:
    """Claims, renews and finishes steps; safe for any number of processes."""

    def __init__(self, database: Database, lease_s: float = 15.0) -> None:
        """Remember the database.

        Args:
            database: Where the jobs are.
            lease_s: How long a worker may be silent before others take over its step.
        """
        self._database = database
        self.lease_s = lease_s

    def claim(self, worker: str) -> Claim | None:
        """Take the next free step, of the job that has waited longest.

        Args:
            worker: Name of the worker, unique among all that ever ran.

        Returns:
            None when there is nothing to do.
        """
        while True:
            with self._database.read() as session:  # looking needs no write lock
                free = select(Step.number).where(Step.job_id == Job.id, *_free())
                waiting = select(Job.id).where(Job.status.in_(ACTIVE), free.exists())
                job_id = session.scalar(waiting.order_by(Job.served_s, Job.id).limit(1))
            if job_id is None:
                return None
            with self._database.begin() as session:
                job = _lock(session, job_id)
                mine = select(Step).where(Step.job_id == job_id, *_free()).order_by(Step.number)
                step = session.scalar(mine.limit(1))
                if job is None or step is None or job.status not in ACTIVE:
                    continue  # another worker was faster
                if step.attempts < MAX_ATTEMPTS:
                    return self._take(job, step, worker)
                _end(session, job, step, error=_given_up(step))

    def _take(self, job: Job, step: Step, worker: str) -> Claim:
        now = time.time()
        step.status, step.worker = StepStatus.RUNNING.value, worker
        step.attempts, step.lease_s = step.attempts + 1, now + self.lease_s
        job.served_s = job.updated_s = now
        job.status, job.started_s = JobStatus.RUNNING.value, job.started_s or now
        return Claim(
            job_id=job.id,
            owner=job.owner,
            number=step.number,
            kind=step.kind,
            name=step.name,
            source=step.source,
            options=job.options,
            created_s=job.created_s,
            worker=worker,
            attempt=step.attempts,
        )

    def renew(self, claim: Claim) -> bool:
        """Hold a step for longer.

        Returns:
            False when it is not this worker's any more, or the job was cancelled.
        """
        active = select(Job.id).where(Job.status.in_(ACTIVE)).scalar_subquery()
        with self._database.begin() as session:
            changed: Any = session.execute(
                update(Step)
                .where(*_held(claim), Step.job_id.in_(active))
                .values(lease_s=time.time() + self.lease_s)
            )
            return bool(changed.rowcount == 1)

    def status(self, job_id: str) -> JobStatus | None:
        """Return the status of a job; None when it was deleted."""
        with self._database.read() as session:
            found = session.scalar(select(Job.status).where(Job.id == job_id))
        return None if found is None else JobStatus(found)

    def finish(
        self, claim: Claim, *, summary: dict[str, Any] | None = None, error: str = ""
    ) -> bool:
        """Write down that a step is done, or failed for good when there is an error.

        Returns:
            False when the step is not this worker's any more; its result does not count.
        """
        with self._database.begin() as session:
            job, step = (
                _lock(session, claim.job_id),
                session.scalar(select(Step).where(*_held(claim))),
            )
            if job is None or step is None or job.status not in ACTIVE:
                return False
            _end(session, job, step, error=error, summary=summary)
            return True

    def unpacked(self, claim: Claim, photos: Sequence[PhotoSource], num_shards: int = 0) -> bool:
        """Finish the first step: one step per photo or shard, and the report behind them.

        Args:
            claim: The step that unpacked.
            photos: All photos in the order of the results, bad ones too.
            num_shards: Shards of a mosaic; a job has photos or shards.

        Returns:
            False when the step is not this worker's any more.
        """
        with self._database.begin() as session:
            job, step = (
                _lock(session, claim.job_id),
                session.scalar(select(Step).where(*_held(claim))),
            )
            if job is None or step is None or job.status not in ACTIVE:
                return False
            for number, photo in enumerate(photos, start=1):
                session.add(
                    Step(
                        job_id=job.id,
                        number=number,
                        kind="photo",
                        name=photo.name,
                        source={"file": photo.file, "member": photo.member},
                        status=StepStatus.FAILED.value if photo.error else StepStatus.WAITING.value,
                        error=photo.error,
                    )
                )
            for number in range(1, num_shards + 1):
                session.add(
                    Step(job_id=job.id, number=number, kind="shard", name=f"shard {number}")
                )
            last = len(photos) + num_shards + 1
            session.add(
                Step(job_id=job.id, number=last, kind="report", status=StepStatus.BLOCKED.value)
            )
            session.flush()
            _end(session, job, step, error="")
            return True

    def try_again(self, claim: Claim, error: str, wait_s: float) -> bool:
        """Give a step back after a fault that may pass; the last attempt fails for good.

        Args:
            claim: The step.
            error: The fault, one sentence.
            wait_s: Nobody takes the step before this time has passed.
        """
        if claim.attempt >= MAX_ATTEMPTS:
            return self.finish(claim, error=error)
        with self._database.begin() as session:
            changed: Any = session.execute(
                update(Step)
                .where(*_held(claim))
                .values(status=StepStatus.WAITING.value, error=error, lease_s=time.time() + wait_s)
            )
            return bool(changed.rowcount == 1)


def count_steps(session: Session, job_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count the steps of jobs by status; ``bad`` are photos that failed, ``photos`` all photos.

    ``shards`` are all of a mosaic, ``mapped`` those that are done.
    """
    rows = session.execute(
        select(Step.job_id, Step.kind, Step.status, func.count())
        .where(Step.job_id.in_(job_ids))
        .group_by(Step.job_id, Step.kind, Step.status)
    )
    names = ("steps", "ended", "photos", "bad", "shards", "mapped")
    counts = {job_id: dict.fromkeys(names, 0) for job_id in job_ids}
    for job_id, kind, status, num in rows:
        count = counts[job_id]
        count["steps"] += num
        count["ended"] += num if status in _ENDED else 0
        count["photos"] += num if kind == "photo" else 0
        count["bad"] += num if (kind, status) == ("photo", StepStatus.FAILED.value) else 0
        count["shards"] += num if kind == "shard" else 0
        count["mapped"] += num if (kind, status) == ("shard", StepStatus.DONE.value) else 0
    return counts


def _free() -> tuple[Any, ...]:
    """Say of a step that anybody may take it now."""
    return Step.status.in_(_OPEN), Step.lease_s <= time.time()


def _held(claim: Claim) -> tuple[Any, ...]:
    """Say of a step that the claim still holds it."""
    return (
        Step.job_id == claim.job_id,
        Step.number == claim.number,
        Step.status == StepStatus.RUNNING.value,
        Step.worker == claim.worker,
        Step.attempts == claim.attempt,
    )


def _lock(session: Session, job_id: str) -> Job | None:
    """Read a job; nobody else changes it or its steps until this transaction ends."""
    return session.scalar(select(Job).where(Job.id == job_id).with_for_update())


def _given_up(step: Step) -> str:
    what = f"'{step.name}'" if step.name else "this job"
    before = f"; its last error was: {step.error}" if step.error else ""
    return (
        f"{what}: the worker process ended {step.attempts} times while it worked on it{before}; "
        "expected what fits the memory of the machine; look at it or leave it out"
    )


def _end(
    session: Session, job: Job, step: Step, *, error: str, summary: dict[str, Any] | None = None
) -> None:
    """End a step, and with it what waits for it: the report, then the job."""
    now = time.time()
    step.status, step.error = (StepStatus.FAILED.value if error else StepStatus.DONE.value), error
    step.summary = summary or {}
    job.updated_s = now
    if step.kind == "photo" or not error:
        session.flush()
        if step.kind != "report":
            return _unblock_report(session, job)
    job.status = (JobStatus.FAILED if error else JobStatus.SUCCESSFUL).value
    job.message, job.finished_s = error, now
    return None


def _unblock_report(session: Session, job: Job) -> None:
    """Let the report begin when nothing else is left."""
    others = select(Step.number).where(Step.job_id == job.id, Step.kind != "report")
    if session.scalar(others.where(Step.status.in_(_OPEN)).limit(1)) is None:
        session.execute(
            update(Step)
            .where(
                Step.job_id == job.id,
                Step.kind == "report",
                Step.status == StepStatus.BLOCKED.value,
            )
            .values(status=StepStatus.WAITING.value)
        )
