"""The two tables of jobs: what was asked for, and the steps of the work."""

from __future__ import annotations

from enum import Enum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from weedseg.serve.database import Base


class JobStatus(str, Enum):
    """Status of a job, OGC API Processes."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    DISMISSED = "dismissed"


class StepStatus(str, Enum):
    """How far one step of a job is."""

    BLOCKED = "blocked"
    """The report waits for the others."""
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


ACTIVE = (JobStatus.ACCEPTED.value, JobStatus.RUNNING.value)
"""Jobs that workers still have to do something about."""


class Job(Base):
    """What somebody asked for; times are seconds since 1970."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("owner", "request_key"),
        Index("jobs_by_status", "status", "served_s"),
        Index("jobs_by_owner", "owner", "created_s"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    request_key: Mapped[str | None]
    """The client's Idempotency-Key: a repeated request finds the first job."""
    options: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(default=JobStatus.ACCEPTED.value)
    message: Mapped[str] = mapped_column(Text, default="")
    created_s: Mapped[float]
    updated_s: Mapped[float]
    served_s: Mapped[float]
    """When a step was last taken; the job that waits longest comes next."""
    started_s: Mapped[float | None]
    finished_s: Mapped[float | None]


class Step(Base):
    """One piece of a job's work."""

    __tablename__ = "job_steps"
    __table_args__ = (Index("job_steps_by_status", "job_id", "status", "number"),)

    job_id: Mapped[str] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """0 unpacks, 1 and up are photos or shards of a mosaic, the last one writes the report."""
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(Text, default="")
    """Name of the photo as the owner gave it."""
    source: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    status: Mapped[str] = mapped_column(default=StepStatus.WAITING.value)
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str] = mapped_column(default="")
    lease_s: Mapped[float] = mapped_column(default=0.0)
    """A waiting or running step is free from this time on."""
    error: Mapped[str] = mapped_column(Text, default="")
    summary: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
