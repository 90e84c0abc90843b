"""The shapes of what jobs are asked and answer, after OGC API Processes."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from weedseg.serve.job_tables import JobStatus, StepStatus

ID_PATTERN = r"^[A-Za-z0-9_-]{1,40}$"
MAX_UPLOADS = 2000
"""Uploads of one job; a zip is one."""


class Strict(BaseModel):
    """A part of a request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class JobInputs(Strict):
    """What to work on and how."""

    photos: list[Annotated[str, Field(pattern=ID_PATTERN)]] = Field(
        min_length=1,
        max_length=MAX_UPLOADS,
        description="ids of complete uploads: photos and zips of photos",
        examples=[["q83vEjRWeJASNFZ4kBI0Vg"]],
    )
    model: str = Field("", max_length=100, description="name of the model; the default if empty")
    mm_per_px: float | None = Field(
        None, gt=0, le=1000, description="ground resolution of the photos: adds areas in m2"
    )


class Execution(Strict):
    """A job that is handed in."""

    inputs: JobInputs
    response: Literal["document", "raw"] = "document"


class Link(BaseModel):
    """Where something is."""

    href: str
    rel: str
    type: str
    title: str = ""


class PhotoCount(BaseModel):
    """Photos of a job."""

    total: int = Field(description="0 until the uploads are unpacked")
    bad: int = Field(description="could not be segmented")


class StatusInfo(BaseModel):
    """How far a job is, OGC API Processes."""

    type: Literal["process"] = "process"
    processID: Literal["weed-map"] = "weed-map"
    jobID: str
    status: JobStatus
    message: str
    progress: int = Field(ge=0, le=100, description="per cent")
    created: datetime
    started: datetime | None
    finished: datetime | None
    updated: datetime
    expires: datetime | None = Field(description="results are removed then")
    photos: PhotoCount
    inputs: dict[str, Any] = Field(description="model, mm_per_px and the names of the uploads")
    links: list[Link]


class JobList(BaseModel):
    """An owner's jobs, the newest first."""

    jobs: list[StatusInfo]
    links: list[Link]


class PhotoStatus(BaseModel):
    """One photo of a job."""

    number: int
    photo: str = Field(examples=["plot-7.jpg"])
    status: StepStatus
    problem: str = Field(description="why it could not be segmented")
    summary: dict[str, Any] | None = Field(description="size, classes, patches, mean confidence")
    links: dict[str, str] = Field(description="pictures and JSON of the photo")


class JobResults(BaseModel):
    """What a job found."""

    csv: Link
    masks: Link
    report: Link
    photos: list[PhotoStatus]
    total: int = Field(description="photos in all; ask on with offset")


class Kind(str, Enum):
    """What there is of a photo."""

    PHOTO = "photo"
    OVERLAY = "overlay"
    CLASSMAP = "classmap"
    CLASSMAP_PREVIEW = "classmap_preview"
    CONFIDENCE = "confidence"
    JSON = "json"
