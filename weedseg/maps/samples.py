"""Geotagged photos as sample points with their cover: never areas, never a prescription.

A phone knows its place to some metres, and photos show a small, chosen part of the field. What
they say is true of the spot alone.

Photos that do not say where they were taken are segmented as well, but listed apart. Elsewhere
weedseg leaves positions out of what it writes; here they are what is asked for.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pyogrio.raw
import shapely
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError, FieldError

from weedseg.classes import ClassTable, Role
from weedseg.edge.manifest import Entry, Manifest
from weedseg.edge.photos import FoundPhoto, find_photos
from weedseg.edge.predict import ERRORS_NAME, Progress, predict_folder
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import GeoreferenceError, ImageError
from weedseg.imaging import capture_time
from weedseg.maps.gps import Position, read_position
from weedseg.maps.together import written_together
from weedseg.maps.trust import Trust, trust_in

GEOPACKAGE, GEOJSON, CSV, README = (
    *("samples.gpkg", "samples.geojson", "samples.csv"),
    "samples_README.txt",
)
NO_POSITION = "no_position.csv"
COLUMNS = {
    "photo": "file below the folder that was given",
    "lon": "longitude, degrees, WGS 84",
    "lat": "latitude, degrees, WGS 84",
    "alt_m": "height above the sea, m; empty if the photo does not say",
    "gps_err_m": "how far off the camera believes it may be, m; empty if it does not say",
    "taken": "when the photo was taken by the camera's clock; empty if it does not say",
    "weed_pct": "weed cover, per cent of the photo",
    "crop_pct": "crop cover, per cent of the photo",
    "conf": "mean confidence of the model, per cent",
}
"""Columns of a sample and what they mean."""

_LAYER = "samples"
_DECIMALS, _PLACE_DECIMALS = 6, 7
_NUMBERS = ("lon", "lat", "alt_m", "gps_err_m", "weed_pct", "crop_pct", "conf")
_FAULTS = (
    *(DataLayerError, DataSourceError, FeatureError, FieldError),
    *(OSError, ValueError, RuntimeError),
)

Table = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """What a run has done."""

    num_samples: int
    no_position: dict[str, str]
    """Photo -> why it is no sample."""
    errors: dict[str, str]
    """Photo -> why it could not be segmented."""
    trust: Trust
    """What is known of the model on this crop."""
    files: tuple[Path, ...]


def map_photos(
    folder: Path,
    segmenter: Segmenter,
    out: Path,
    *,
    crop: str = "",
    progress: Callable[[Progress], None] | None = None,
) -> SampleReport:
    """Segment geotagged photos and write a point with the cover of each.

    Beside what `predict_folder` writes, these are ``samples.gpkg``, ``.geojson`` and ``.csv``, and
    ``no_position.csv`` when photos lack a position.

    Args:
        folder: A folder of photos, or one photo.
        segmenter: The model.
        out: Output folder; a stopped run goes on there.
        crop: Crop that grows on the field; '' is not said.
        progress: Called after every photo.

    Raises:
        ImageError: There is no photo at all, or none with a position can be read.
        GeoreferenceError: No photo says where it was taken.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: ONNX Runtime fails.
    """
    photos = find_photos(folder, out)
    places, no_position = _positions(photos)
    if not places:
        first = photos[0]
        reason = no_position[first.name]
        raise GeoreferenceError(
            f"none of {len(photos)} photos in {folder} has a usable position: {reason.found}",
            reason.expected,
            reason.remedy,
        )
    report = predict_folder(segmenter, folder, out, progress=progress)
    entries = {entry.photo: entry for entry in Manifest(out, segmenter.sha256).entries}
    samples = [
        (photo, places[photo.name], entries[photo.name])
        for photo in photos
        if photo.name in places and photo.name in entries
    ]
    if not samples:
        raise ImageError(
            f"none of the {len(places)} photos with a position can be read",
            "whole photos",
            f"see {out / ERRORS_NAME}",
        )
    trust = trust_in(segmenter.metadata.properties, crop)
    reasons = {n: str(error) for n, error in no_position.items() if n not in report.errors}
    files = _save(_table(samples, segmenter.classes), trust.note, reasons, out)
    return SampleReport(
        num_samples=len(samples),
        no_position=reasons,
        errors=report.errors,
        trust=trust,
        files=(*files, report.table),
    )


def _positions(
    photos: list[FoundPhoto],
) -> tuple[dict[str, Position], dict[str, GeoreferenceError]]:
    """Return position or error of every photo, by name."""
    places: dict[str, Position] = {}
    errors: dict[str, GeoreferenceError] = {}
    for photo in photos:
        try:
            places[photo.name] = read_position(photo.path)
        except GeoreferenceError as error:
            errors[photo.name] = error
    return places, errors


def _table(samples: list[tuple[FoundPhoto, Position, Entry]], classes: ClassTable) -> Table:
    """Return the columns of all samples, (n,) each; NaN and '' where a photo does not say."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    roles = {
        role: [classes.names[i] for i in classes.ids_of(role)] for role in (Role.WEED, Role.CROP)
    }
    for photo, place, entry in samples:
        taken = capture_time(photo.path)
        weed, crop = (sum(entry.coverage[name] for name in names) for names in roles.values())
        row = (
            photo.name,
            round(place.lon, _PLACE_DECIMALS),
            round(place.lat, _PLACE_DECIMALS),
            np.nan if place.altitude_m is None else round(place.altitude_m, 2),
            np.nan if place.error_m is None else round(place.error_m, 2),
            "" if taken is None else taken.isoformat(),
            round(100 * weed, _DECIMALS),
            round(100 * crop, _DECIMALS),
            round(entry.mean_confidence, 2),
        )
        for name, value in zip(COLUMNS, row):
            columns[name].append(value)
    return {
        name: np.array(values, np.float64 if name in _NUMBERS else object)
        for name, values in columns.items()
    }


def _save(table: Table, note: str, reasons: dict[str, str], out: Path) -> list[Path]:
    """Write all files or none; those of an earlier run are replaced.

    Raises:
        OutputError: The folder cannot be written or the disk is full.
    """
    names = [GEOPACKAGE, GEOJSON, CSV, README]
    with written_together(out, "samples") as made:
        _write_points(made / GEOPACKAGE, table, note, driver="GPKG")
        _write_points(made / GEOJSON, table, note, driver="GeoJSON", RFC7946="YES")
        rows = zip(*(values.tolist() for values in table.values()))
        shown = [["" if _is_nan(value) else value for value in row] for row in rows]
        _write_csv(made / CSV, list(table), shown)
        (made / README).write_text(_readme(note, len(reasons)), encoding="utf-8")
        if reasons:
            _write_csv(made / NO_POSITION, ["photo", "reason"], sorted(reasons.items()))
            names.append(NO_POSITION)
        for name in names:
            os.replace(made / name, out / name)
        if not reasons:
            (out / NO_POSITION).unlink(missing_ok=True)
    return [out / name for name in names]


def _write_points(path: Path, table: Table, note: str, *, driver: str, **options: str) -> None:
    """Write the samples as points and count what arrived: GDAL may only warn of a full disk.

    Raises:
        OSError: Something is missing.
    """
    points = shapely.points(np.stack([table["lon"], table["lat"]], axis=1))
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(points),
        field_data=list(table.values()),
        fields=np.array(list(table), object),
        layer=_LAYER,
        driver=driver,
        geometry_type="Point",
        crs="EPSG:4326",
        nan_as_null=True,
        layer_options={"DESCRIPTION": note, **options},
    )
    if pyogrio.read_info(path, force_feature_count=True)["features"] != len(points):
        raise OSError(f"{path.name} misses samples")


def _write_csv(path: Path, head: list[str], rows: Any) -> None:
    """Write a table; a file name that is no text is spelled out."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    path.write_bytes(file.getvalue().encode("utf-8", errors="backslashreplace"))


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _readme(note: str, num_without: int) -> str:
    """Return the text that goes with the files."""
    lines = [
        f"The model is {note}.",
        "",
        "Each point is one photo. Its cover is that of the photo and not of the field around it:",
        "the position of a phone is off by metres, and photos are no even sample of a field. So",
        "there are no areas and no prescriptions from these points; map an orthomosaic for them.",
        *([f"{num_without} photos without position: see {NO_POSITION}."] if num_without else []),
        "",
        *(f"{name:<10} {meaning}" for name, meaning in COLUMNS.items()),
    ]
    return "\n".join(lines) + "\n"
