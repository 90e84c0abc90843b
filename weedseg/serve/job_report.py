"""The report of a job: one HTML page that loads nothing and is fit to be sent on."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from weedseg.classes import Role
from weedseg.edge.result import percent
from weedseg.imaging import read_small
from weedseg.serve.job_tables import Step, StepStatus
from weedseg.serve.models import ServedModel
from weedseg.serve.results import encode_jpeg, photo_file, replacing, role_share

MAX_PICTURES = 60
"""Photos shown with a picture, those with most weeds first; the table holds all."""
_PICTURE_PX = 640


def write_report(
    path: Path,
    photos: Sequence[Step],
    model: ServedModel,
    *,
    created_s: float,
    mm_per_px: float | None,
) -> None:
    """Write the report.

    Args:
        path: Where; the pictures lie in the same folder.
        photos: The photos of the job.
        model: What segmented them.
        created_s: When the job was handed in, s since 1970.
        mm_per_px: Ground resolution that the owner gave; None is unknown.

    Raises:
        OutputError: The disk is full or not writable.
    """
    from jinja2 import Environment, PackageLoader

    pages = Environment(
        loader=PackageLoader("weedseg.serve", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    good = [photo for photo in photos if photo.status == StepStatus.DONE.value]
    weediest = sorted(good, key=lambda p: (-role_share(p.summary, Role.WEED), p.number))
    content = {
        "day": datetime.fromtimestamp(created_s, timezone.utc).strftime("%d %B %Y").lstrip("0"),
        "model": model,
        "classes": model.metadata.classes.classes,
        "mm_per_px": mm_per_px,
        "numbers": _numbers(good, mm_per_px),
        "rows": [_row(photo) for photo in weediest],
        "bad": [(p.name, p.error) for p in photos if p.status != StepStatus.DONE.value],
        "pictures": _pictures(path.parent, weediest[:MAX_PICTURES]),
        "num_pictures": min(len(good), MAX_PICTURES),
    }
    stream = pages.get_template("job_report.html.j2").stream(content)
    stream.enable_buffering(50)
    with replacing(path) as file:
        stream.dump(file, encoding="utf-8", errors="backslashreplace")


def _numbers(good: Sequence[Step], mm_per_px: float | None) -> list[dict[str, str]]:
    """Return the headline figures: name, value, meaning."""
    if not good:
        return []
    weeds = sorted(role_share(photo.summary, Role.WEED) for photo in good)
    crops = [role_share(photo.summary, Role.CROP) for photo in good]
    rows = [
        ("Photos", str(len(good)), "segmented"),
        ("Weed cover", percent(sum(weeds) / len(weeds)), "mean over the photos"),
        (
            "Weed cover, range",
            f"{percent(weeds[0])} to {percent(weeds[-1])}",
            "cleanest to weediest",
        ),
        ("Crop cover", percent(sum(crops) / len(crops)), "mean over the photos"),
    ]
    if mm_per_px:
        area = sum(
            row["area_m2"]
            for photo in good
            for row in photo.summary["classes"]
            if row["role"] == Role.WEED.value
        )
        rows.append(
            ("Weed area", f"{area:.2f} m²", f"in all photos, at {mm_per_px:g} mm per pixel")
        )
    return [{"name": name, "value": value, "meaning": meaning} for name, value, meaning in rows]


def _row(photo: Step) -> dict[str, Any]:
    summary = photo.summary
    return {
        "name": photo.name,
        "weed": percent(role_share(summary, Role.WEED)),
        "crop": percent(role_share(summary, Role.CROP)),
        "patches": summary["num_patches"],
        "confidence": f"{100 * summary['confidence']:.0f} %",
        "size": f"{summary['width']} x {summary['height']}",
        "warnings": summary["warnings"],
    }


def _pictures(results: Path, photos: Sequence[Step]) -> Iterator[dict[str, str]]:
    """Yield the overlays one by one, as addresses that hold the picture."""
    for photo in photos:
        small = read_small(photo_file(results, photo.number, "overlay"), _PICTURE_PX)
        data = base64.b64encode(encode_jpeg(small, quality=80)).decode("ascii")
        yield {
            "name": photo.name,
            "weed": percent(role_share(photo.summary, Role.WEED)),
            "uri": f"data:image/jpeg;base64,{data}",
        }
