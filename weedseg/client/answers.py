"""What the service answers, as values of Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from weedseg.data import rle
from weedseg.errors import FieldDataError, ServiceError
from weedseg.imaging import ClassMap

_FINISHED = ("successful", "failed", "dismissed")


class Download(str, Enum):
    """Files of a finished job."""

    TABLE = "csv"
    MASKS = "masks.zip"
    """Of photos."""
    REPORT = "report.html"
    MAP_REPORT = "map/report.pdf"
    MAP_CLASSES = "map/classes.tif"
    MAP_CONFIDENCE = "map/confidence.tif"
    MAP_GEOPACKAGE = "map/cells.gpkg"
    MAP_GEOJSON = "map/cells.geojson"
    MAP_TABLE = "map/cells.csv"
    MAP_DETAILS = "map/map.json"
    MAP_OVERVIEW = "map/overview.png"
    """The last eight of an orthomosaic."""


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """How to map an orthomosaic."""

    crop: str = ""
    """Crop on the field: tells whether the model was tested on it."""
    cell_m: float = 5.0
    """Side of the cells, m."""
    resample: bool = False
    """Resize a mosaic whose ground resolution the model was not trained at, instead of refusing."""
    boundary: Path | None = None
    """GeoJSON with the outline of the field; ground outside it does not count."""

    def to_inputs(self) -> dict[str, Any]:
        """Return them as a job's inputs.

        Raises:
            FieldDataError: The boundary is no GeoJSON file.
        """
        told: dict[str, Any] = {"crop": self.crop, "cell_m": self.cell_m, "resample": self.resample}
        return told | ({"boundary": _features(self.boundary)} if self.boundary else {})


def _features(path: Path) -> dict[str, Any]:
    """Read GeoJSON of any kind as a collection of features.

    Raises:
        FieldDataError: It is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        kind = found["type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FieldDataError(
            f"{path} is no GeoJSON file", "the outline of the field", "export it as GeoJSON"
        ) from error
    if kind == "FeatureCollection":
        return dict(found)
    feature = found if kind == "Feature" else {"type": "Feature", "geometry": found}
    return {"type": "FeatureCollection", "features": [feature]}


@dataclass(frozen=True, kw_only=True)
class MapResult:
    """What a job found on an orthomosaic."""

    weed_share: float
    """Share of the ground that was looked at, 0-1."""
    crop_share: float
    weed_m2: float
    """As predicted; `details` has the 95 % interval, where it is known."""
    mm_per_px: float
    warnings: tuple[str, ...]
    details: dict[str, Any]
    """The whole answer: totals, areas, worst cells, what is known of the model, files."""


@dataclass(frozen=True, kw_only=True)
class PhotoResult:
    """What the model says about one photo."""

    photo: str
    size: tuple[int, int]
    """(height, width), px."""
    confidence: float
    """Mean over the photo, 0-1."""
    evaluated: bool
    """Whether the model's accuracy was ever measured on photos like its training's."""
    evaluation_note: str
    warnings: tuple[str, ...]
    details: dict[str, Any]
    """The whole answer: classes with areas and run lengths, patches, model."""

    def coverage(self, name: str) -> float:
        """Return the share of the photo that a class covers, 0-1.

        Raises:
            ServiceError: The model has no such class.
        """
        return float(self._class(name)["coverage"])

    def class_map(self) -> ClassMap:
        """Decode the class map, uint8 (H, W).

        Raises:
            MaskError: The run lengths do not fit the size.
        """
        found = np.zeros(self.size, np.uint8)
        for row in self.details["classes"]:
            found[rle.from_coco(row["rle"]["counts"], self.size)] = row["id"]
        return found

    def _class(self, name: str) -> dict[str, Any]:
        rows = {row["name"]: row for row in self.details["classes"]}
        if name not in rows:
            raise ServiceError(f"class '{name}'", f"one of {', '.join(rows)}", "choose one of them")
        return dict(rows[name])


@dataclass(frozen=True, kw_only=True)
class Job:
    """How far a job is."""

    id: str
    status: str
    """accepted, running, successful, failed or dismissed."""
    progress: int
    """Per cent."""
    message: str
    num_photos: int
    num_bad: int
    """Photos that could not be segmented; the others are done all the same."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in _FINISHED


def job_of(document: dict[str, Any]) -> Job:
    """Read a status document."""
    return Job(
        id=document["jobID"],
        status=document["status"],
        progress=document["progress"],
        message=document["message"],
        num_photos=document["photos"]["total"],
        num_bad=document["photos"]["bad"],
    )


def map_of(answer: dict[str, Any]) -> MapResult:
    """Read what is said of a map."""
    totals = answer["totals"]
    return MapResult(
        weed_share=totals["weed_share"],
        crop_share=totals["crop_share"],
        weed_m2=totals["weed_m2"],
        mm_per_px=answer["mm_per_px"],
        warnings=tuple(answer["warnings"]),
        details=answer,
    )


def photo_of(answer: dict[str, Any]) -> PhotoResult:
    """Read the answer about one photo."""
    return PhotoResult(
        photo=answer["photo"],
        size=(answer["height"], answer["width"]),
        confidence=answer["confidence"],
        evaluated=answer["evaluated"],
        evaluation_note=answer["evaluation_note"],
        warnings=tuple(answer["warnings"]),
        details=answer,
    )
