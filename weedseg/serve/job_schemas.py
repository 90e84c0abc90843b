"""The shapes of what jobs are asked and answer, after OGC API Processes."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from weedseg.serve.geojson import FieldBoundary
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
        description="ids of complete uploads: photos and zips of photos, or one orthomosaic, a "
        "GeoTIFF with a CRS",
        examples=[["q83vEjRWeJASNFZ4kBI0Vg"]],
    )
    model: str = Field("", max_length=100, description="name of the model; the default if empty")
    mm_per_px: float | None = Field(
        None, gt=0, le=1000, description="ground resolution of the photos: adds areas in m2"
    )

    crop: str = Field(
        "", max_length=100, description="crop on the field; for a mosaic", examples=["sugar beet"]
    )
    cell_m: float = Field(
        5.0, gt=0, le=1000, description="side of the cells of the weed map, m; for a mosaic"
    )
    resample: bool = Field(
        False,
        description="resize a mosaic whose ground resolution the model was not trained at; "
        "without it such a mosaic is refused",
    )
    boundary: FieldBoundary | None = Field(
        None, description="outline of the field: ground of a mosaic outside it does not count"
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


class ShardCount(BaseModel):
    """Shards of a mosaic."""

    total: int = Field(description="0 for photos, and until the mosaic is looked at")
    done: int


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
    shards: ShardCount
    inputs: dict[str, Any] = Field(
        description="as they were given, with the names of the uploads; of a boundary, if there is"
    )
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


class MapResults(BaseModel):
    """What a map found; shares are 0-1, areas m2."""

    crop: str
    mm_per_px: float
    boundary: str | None = Field(None, description="file with the outline of the field, if given")
    cell_m: tuple[float, float] = Field(description="along the heading and across it")
    totals: dict[str, Any]
    areas: dict[str, Any] = Field(description="weed and crop with the 95 % interval, if known")
    trust: dict[str, Any] = Field(description="what is known of the model on this crop")
    warnings: list[str]
    worst: list[dict[str, Any]] = Field(description="the weediest cells; numbers in the picture")
    legend: list[dict[str, str]] = Field(description="weed cover of a cell and its colour")
    overview: Link = Field(description="picture of the map")
    prescription: Link = Field(description="what to spray: works out with threshold and rate")
    files: list[Link] = Field(description="what can be downloaded")


class PrescriptionWanted(Strict):
    """How a weed map becomes a prescription."""

    threshold: float = Field(ge=0, le=1, description="weed cover from which on, share 0-1")
    rate: float = Field(gt=0, le=5000, description="litres per hectare")
    buffer_m: float = Field(0, ge=0, le=1000, description="treat cells closer than this too, m")
    merge_m: float = Field(0, ge=0, le=1000, description="treat gaps up to this length too, m")
    min_patch_m2: float = Field(
        0, ge=0, le=1e6, description="drop patches with less ground to treat, m2"
    )
    force: bool = Field(
        False, description="make it although the model is not known well enough on this crop"
    )


class PrescriptionResults(BaseModel):
    """What to spray, and what it saves against spraying everywhere."""

    num_cells: int
    num_treated: int
    field_m2: float = Field(description="ground that was seen")
    treated_m2: float
    broadcast_l: float = Field(description="litres for the whole field at the same rate")
    prescribed_l: float
    sentences: list[str] = Field(description="how well the model is known, and what was forced")
    forced: bool
    files: Link = Field(description="zip of Shapefile, GeoJSON, KML and ISOXML")


class JobResults(BaseModel):
    """What a job found."""

    csv: Link
    masks: Link | None = Field(description="of photos")
    report: Link
    map: MapResults | None = Field(description="of a mosaic")
    photos: list[PhotoStatus]
    total: int = Field(description="photos in all; ask on with offset")


class MapFile(str, Enum):
    """Files of a map."""

    REPORT = "report.pdf"
    CLASSES = "classes.tif"
    CONFIDENCE = "confidence.tif"
    GEOPACKAGE = "cells.gpkg"
    GEOJSON = "cells.geojson"
    CSV = "cells.csv"
    JSON = "map.json"
    OVERVIEW = "overview.png"


class Kind(str, Enum):
    """What there is of a photo."""

    PHOTO = "photo"
    OVERLAY = "overlay"
    CLASSMAP = "classmap"
    CLASSMAP_PREVIEW = "classmap_preview"
    CONFIDENCE = "confidence"
    JSON = "json"
