"""Jobs as their owners see them: hand in, look, fetch results, cancel, expire.

A job is accepted when its photos have a name of their own in the job's folder and its rows are in
the database, both on the disk for good. The work itself is in `weedseg.serve.worker`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from weedseg.serve.database import Database
from weedseg.serve.files import jobs_folder, link_or_copy, make_folder, remove_folder, sync
from weedseg.serve.job_store import count_steps
from weedseg.serve.job_tables import ACTIVE, Job, JobStatus, Step, StepStatus
from weedseg.serve.limits import Limits
from weedseg.serve.problems import Problem, not_found
from weedseg.serve.uploads import Upload, UploadStore

PHOTOS, RESULTS = "photos", "results"
"""Folders of a job: what came in, until it is finished; what goes out."""


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job with how far it is; times are seconds since 1970."""

    id: str
    status: JobStatus
    message: str
    options: dict[str, Any]
    created_s: float
    updated_s: float
    started_s: float | None
    finished_s: float | None
    num_photos: int
    """0 until the uploads are unpacked."""
    num_bad: int
    num_shards: int
    """Shards of a mosaic; 0 for photos."""
    num_mapped: int
    progress: int
    """Per cent."""


class JobQueue:
    """The jobs of all owners."""

    folder = "jobs"
    """Name of the folder of an owner's jobs."""

    def __init__(
        self, database: Database, data: Path, uploads: UploadStore, limits: Limits
    ) -> None:
        """Remember where things are.

        Args:
            database: Holds the rows.
            data: The data folder.
            uploads: Where the photos come from.
            limits: Is asked for room.
        """
        self._database = database
        self._data = data
        self._uploads = uploads
        self._limits = limits

    def submit(
        self,
        owner: str,
        upload_ids: Sequence[str],
        options: dict[str, Any],
        request_key: str | None = None,
    ) -> JobView:
        """Accept a job; when this returns it is not lost any more.

        Args:
            owner: Whose it is.
            upload_ids: Complete uploads: photos and zips of photos.
            options: What the worker has to know, plain JSON.
            request_key: The same key again gives the same job, not a second one.

        Raises:
            Problem: An upload is not there or not complete, or there is no room.
            OutputError: The disk is full or not writable.
        """
        if request_key and (known := self._by_key(owner, request_key)):
            return known
        uploads = [self._complete(owner, upload_id) for upload_id in upload_ids]
        job_id, now = secrets.token_urlsafe(16), time.time()
        inputs = [
            {"file": f"{number:05d}", "name": upload.name}
            for number, upload in enumerate(uploads, start=1)
        ]
        job = Job(
            id=job_id,
            owner=owner,
            request_key=request_key,
            options={**options, "inputs": inputs},
            created_s=now,
            updated_s=now,
            served_s=now,
        )
        folder = self.job_folder(owner, job_id)
        try:
            with self._database.begin() as session:
                self._limits.demand(owner, sum(upload.size_bytes for upload in uploads))
                self._take_photos(folder, uploads)
                session.add(job)
                session.flush()
                session.add(Step(job_id=job_id, number=0, kind="unpack"))
        except IntegrityError:  # the same request came twice at once
            remove_folder(folder)
            known = self._by_key(owner, request_key or "")
            if known is None:
                raise
            return known
        return self.get(owner, job_id)

    def _complete(self, owner: str, upload_id: str) -> Upload:
        """Find a complete upload.

        Raises:
            Problem: It is not there or not complete.
        """
        upload = self._uploads.get(owner, upload_id)
        if not upload.complete:
            raise Problem(
                409,
                "Upload not complete",
                f"'{upload.name}' has {upload.offset_bytes} of {upload.size_bytes} bytes; "
                "expected all of them; finish the upload first",
            )
        return upload

    def _take_photos(self, folder: Path, uploads: Sequence[Upload]) -> None:
        """Give the uploads names in the job's folder, which outlive the uploads' own."""
        make_folder(folder.parent)
        make_folder(folder)
        make_folder(folder / PHOTOS)
        for number, upload in enumerate(uploads, start=1):
            source = self._uploads.path(upload.owner, upload.id)
            link_or_copy(source, folder / PHOTOS / f"{number:05d}")
        sync(folder / PHOTOS)

    def job_folder(self, owner: str, job_id: str) -> Path:
        """Return the folder of a job."""
        return jobs_folder(self._data, owner) / job_id

    def _by_key(self, owner: str, request_key: str) -> JobView | None:
        with self._database.read() as session:
            job_id = session.scalar(
                select(Job.id).where(Job.owner == owner, Job.request_key == request_key)
            )
        return None if job_id is None else self.get(owner, job_id)

    def get(self, owner: str, job_id: str) -> JobView:
        """Find a job.

        Raises:
            Problem: This owner has none of that id.
        """
        with self._database.read() as session:
            job = session.scalar(select(Job).where(Job.owner == owner, Job.id == job_id))
            if job is None:
                raise not_found("job")
            return _view(job, count_steps(session, [job_id])[job_id])

    def list(
        self, owner: str, limit: int, offset: int = 0, status: JobStatus | None = None
    ) -> list[JobView]:
        """List an owner's jobs, the newest first."""
        wanted = select(Job).where(Job.owner == owner)
        if status is not None:
            wanted = wanted.where(Job.status == status.value)
        order = wanted.order_by(Job.created_s.desc(), Job.id).limit(limit).offset(offset)
        with self._database.read() as session:
            jobs = session.scalars(order).all()
            counts = count_steps(session, [job.id for job in jobs])
            return [_view(job, counts[job.id]) for job in jobs]

    def photos(
        self, owner: str, job_id: str, limit: int | None = None, offset: int = 0
    ) -> Sequence[Step]:
        """List the photos of a job with what is known of each, by number.

        Raises:
            Problem: This owner has no such job.
        """
        self.get(owner, job_id)
        with self._database.read() as session:
            return list_photos(session, job_id, limit, offset)

    def photo(self, owner: str, job_id: str, number: int) -> Step:
        """Find a photo of a job.

        Raises:
            Problem: There is none.
        """
        self.get(owner, job_id)
        with self._database.read() as session:
            step = session.get(Step, (job_id, number))
        if step is None or step.kind != "photo":
            raise not_found("photo")
        return step

    def remove(self, owner: str, job_id: str) -> JobView:
        """Cancel a job that is not finished; delete one that is, with its results.

        Returns:
            The job as it was left: dismissed.

        Raises:
            Problem: This owner has none of that id.
        """
        with self._database.begin() as session:
            job = session.scalar(
                select(Job).where(Job.owner == owner, Job.id == job_id).with_for_update()
            )
            if job is None:
                raise not_found("job")
            counts = count_steps(session, [job_id])[job_id]
            if job.status in ACTIVE:
                job.finished_s = job.updated_s = time.time()
                job.status, job.message = JobStatus.DISMISSED.value, "cancelled"
                view = _view(job, counts)
            else:
                job.status = JobStatus.DISMISSED.value
                view = _view(job, counts)
                session.delete(job)
        remove_folder(self.job_folder(owner, job_id))
        return view

    def expire(self, before_s: float) -> int:
        """Delete finished jobs last changed before a moment.

        Returns:
            How many.
        """
        with self._database.begin() as session:
            rows = session.execute(
                delete(Job)
                .where(Job.updated_s < before_s, Job.status.not_in(ACTIVE))
                .returning(Job.owner, Job.id)
            ).all()
        for owner, job_id in rows:
            remove_folder(self.job_folder(owner, job_id))
        return len(rows)

    def known(self, owner: str) -> set[str]:
        """Return the ids of an owner's jobs that have files."""
        with self._database.read() as session:
            return set(
                session.scalars(
                    select(Job.id).where(
                        Job.owner == owner, Job.status != JobStatus.DISMISSED.value
                    )
                )
            )

    def count_by_status(self) -> dict[str, int]:
        """Count the jobs of all owners by status, for the metrics."""
        with self._database.read() as session:
            rows = session.execute(select(Job.status, func.count()).group_by(Job.status))
            found = {row[0]: row[1] for row in rows}
        return {status.value: found.get(status.value, 0) for status in JobStatus}

    def num_waiting(self) -> int:
        """Count the steps that are neither done nor failed, for the metrics."""
        with self._database.read() as session:
            return int(
                session.scalar(
                    select(func.count())
                    .select_from(Step)
                    .join(Job, Step.job_id == Job.id)
                    .where(
                        Job.status.in_(ACTIVE),
                        Step.status.in_((StepStatus.WAITING.value, StepStatus.RUNNING.value)),
                    )
                )
                or 0
            )


def list_photos(
    session: Any, job_id: str, limit: int | None = None, offset: int = 0
) -> Sequence[Step]:
    """Read the photo steps of a job, by number."""
    found: Sequence[Step] = session.scalars(
        select(Step)
        .where(Step.job_id == job_id, Step.kind == "photo")
        .order_by(Step.number)
        .limit(limit)
        .offset(offset)
    ).all()
    return found


def _view(job: Job, counts: dict[str, int]) -> JobView:
    status = JobStatus(job.status)
    progress = 100 * counts["ended"] // max(1, counts["steps"])
    if status is JobStatus.SUCCESSFUL:
        progress = 100
    elif counts["photos"] + counts["shards"] == 0:
        progress = 0
    return JobView(
        id=job.id,
        status=status,
        message=job.message,
        options=job.options,
        created_s=job.created_s,
        updated_s=job.updated_s,
        started_s=job.started_s,
        finished_s=job.finished_s,
        num_photos=counts["photos"],
        num_bad=counts["bad"],
        num_shards=counts["shards"],
        num_mapped=counts["mapped"],
        progress=progress,
    )
