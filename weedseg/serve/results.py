"""What a job leaves behind: pictures and JSON per photo, a table and a zip over all of them.

The same photos and model give the same bytes, however often the work was interrupted.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

import cv2
import numpy as np

from weedseg.classes import Role
from weedseg.errors import OutputError
from weedseg.imaging import Image, resize_class_map, resize_to, scaled_size
from weedseg.serve.answers import (
    MAX_PATCHES,
    classmap_png,
    confidence_png,
    overlay_jpeg,
    to_json,
)
from weedseg.serve.files import sync, write_durably, writing
from weedseg.serve.job_tables import Step, StepStatus
from weedseg.serve.predicting import Prediction

PREVIEW_PX = 1600
"""Longer side of photo and overlay previews."""
CSV_NAME, ZIP_NAME, REPORT_NAME = "weeds.csv", "masks.zip", "report.html"
OVERVIEW_NAME, MAP_SUMMARY_NAME = "overview.png", "map_summary.json"

PHOTO_FILES: dict[str, tuple[str, str]] = {
    "photo": ("photo.jpg", "image/jpeg"),
    "overlay": ("overlay.jpg", "image/jpeg"),
    "classmap": ("classmap.png", "image/png"),
    "classmap_preview": ("classmap_preview.png", "image/png"),
    "confidence": ("confidence.png", "image/png"),
    "json": ("answer.json", "application/json"),
}
"""What there is of each photo: its ending and media type."""

MAP_FILES: dict[str, tuple[str, str]] = {
    "report.pdf": ("application/pdf", "report to print"),
    "classes.tif": ("image/tiff; application=geotiff", "class map"),
    "confidence.tif": ("image/tiff; application=geotiff", "confidence, per cent"),
    "cells.gpkg": ("application/geopackage+sqlite3", "cells for a GIS"),
    "cells.geojson": ("application/geo+json", "cells in longitude and latitude"),
    "cells.csv": ("text/csv", "table of cells"),
    "map.json": ("application/json", "totals, settings and origin of the map"),
    OVERVIEW_NAME: ("image/png", "picture of the map"),
}
"""What there is of a map: media type and what it is; beside them lies the report."""

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def photo_file(results: Path, number: int, what: str) -> Path:
    """Return where a result of a photo lies; `what` is a key of `PHOTO_FILES`."""
    return results / f"{number:05d}_{PHOTO_FILES[what][0]}"


def write_photo(
    results: Path, number: int, name: str, prediction: Prediction, mm_per_px: float | None
) -> dict[str, Any]:
    """Write everything about one photo; nothing of the original file goes along, so no GPS.

    Args:
        results: The job's folder of results.
        number: Number of the photo in the job.
        name: Name of the photo as the owner gave it.
        prediction: The photo and its result.
        mm_per_px: Ground resolution; None is unknown.

    Returns:
        What tables and lists need to know, plain JSON.

    Raises:
        OutputError: The disk is full or not writable.
    """
    answer = {**to_json(prediction, mm_per_px), "photo": name}
    small = preview(prediction)
    made = {
        "photo": encode_jpeg(small.image),
        "overlay": overlay_jpeg(small),
        "classmap": classmap_png(prediction),
        "classmap_preview": classmap_png(small),
        "confidence": confidence_png(prediction),
        "json": json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace"),
    }
    for what, content in made.items():
        write_durably(photo_file(results, number, what), content)
    with writing(results):
        sync(results)
    return summarise(answer, prediction)


def preview(prediction: Prediction) -> Prediction:
    """Return a prediction at the size of a screen."""
    height, width = prediction.image.shape[:2]
    size = scaled_size((height, width), min(1.0, PREVIEW_PX / max(height, width)))
    result = replace(
        prediction.result, class_map=resize_class_map(prediction.result.class_map, size)
    )
    return replace(prediction, image=resize_to(prediction.image, size), result=result)


def encode_jpeg(image: Image, quality: int = 88) -> bytes:
    """Encode RGB pixels, and nothing else, as JPEG.

    Raises:
        OutputError: OpenCV cannot.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OutputError(f"a picture of {image.shape} px", "one that fits", "leave it out")
    return bytes(data)


def summarise(answer: dict[str, Any], prediction: Prediction) -> dict[str, Any]:
    """Return an answer without run lengths and single patches."""
    kept = ("width", "height", "confidence", "warnings")
    classes = [{k: v for k, v in row.items() if k != "rle"} for row in answer["classes"]]
    num = len(answer["patches"])
    if num >= MAX_PATCHES:
        num = _count_patches(prediction)
    return {**{key: answer[key] for key in kept}, "classes": classes, "num_patches": num}


def _count_patches(prediction: Prediction) -> int:
    class_map = prediction.result.class_map
    ids = prediction.model.metadata.classes.ids_of(Role.WEED)
    return sum(
        cv2.connectedComponents((class_map == i).astype(np.uint8), connectivity=8)[0] - 1
        for i in ids
    )


def role_share(summary: dict[str, Any], role: Role) -> float:
    """Return the share of a photo that all classes of a role cover, 0-1."""
    return float(sum(row["coverage"] for row in summary["classes"] if row["role"] == role.value))


def write_table(path: Path, photos: Sequence[Step], model: dict[str, str]) -> None:
    """Write one line per photo as CSV, bad photos too.

    Args:
        path: Where.
        photos: The photos of the job.
        model: Name, version and checksum.

    Raises:
        OutputError: The disk is full or not writable.
    """
    good = [photo.summary for photo in photos if photo.status == StepStatus.DONE.value]
    names = [row["name"] for row in good[0]["classes"]] if good else []
    has_areas = any("area_m2" in row for row in (good[0]["classes"] if good else []))
    head = ["number", "photo", "width_px", "height_px", *(f"share_{name}" for name in names)]
    head += ["crop_percent", "weed_percent", *(["weed_area_m2"] if has_areas else [])]
    head += ["weed_patches", "confidence_percent", "problem", "model", "model_sha256"]
    with replacing(path) as binary:
        file = io.TextIOWrapper(binary, "utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_plain, head))
        for photo in photos:
            cells = (
                _cells(photo.summary, has_areas) if photo.status == StepStatus.DONE.value else None
            )
            blank = [""] * (len(head) - 5)
            row = [photo.number, _plain(photo.name), *(cells or blank)]
            error = "" if cells else _plain(photo.error)
            writer.writerow([*row, error, model["name"], model["sha256"]])
        file.flush()
        file.detach()


def _cells(summary: dict[str, Any], has_areas: bool) -> list[str | int]:
    """Return the middle of a photo's line."""
    weeds = [row for row in summary["classes"] if row["role"] == Role.WEED.value]
    areas = [f"{sum(row['area_m2'] for row in weeds):.4f}"] if has_areas else []
    return [
        summary["width"],
        summary["height"],
        *(f"{row['coverage']:.6f}" for row in summary["classes"]),
        f"{100 * role_share(summary, Role.CROP):.4f}",
        f"{100 * role_share(summary, Role.WEED):.4f}",
        *areas,
        summary["num_patches"],
        f"{100 * summary['confidence']:.2f}",
    ]


def _plain(text: str) -> str:
    """Keep a spreadsheet from taking a file name for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_masks(path: Path, results: Path, photos: Iterable[Step]) -> None:
    """Put the class maps of all photos into a zip, named after the photos.

    Raises:
        OutputError: The disk is full or not writable.
    """
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for photo in photos:
            if photo.status == StepStatus.DONE.value:
                stem = PurePosixPath(photo.name.replace("\\", "/")).stem
                kept = "".join(c if c.isalnum() or c in "._- " else "_" for c in stem)[:80]
                entry = zipfile.ZipInfo(f"{photo.number:05d}_{kept}_classes.png", _ZIP_TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, photo_file(results, photo.number, "classmap").read_bytes())


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed worker had begun to write; call it when all photos are done."""
    for path in folder.glob(".*"):
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file of any size whole or not at all, for good.

    Raises:
        OutputError: The disk is full or not writable.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
        sync(path.parent)
