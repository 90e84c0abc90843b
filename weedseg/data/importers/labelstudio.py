"""Label Studio JSON: brush strokes (run lengths) and polygons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from weedseg.data.importers.items import Collection, ImportOptions, Item, understood
from weedseg.data.importers.naming import resolve
from weedseg.data.importers.photos import PhotoFinder, blank, label_file, read_json
from weedseg.data.rle import from_brush
from weedseg.data.shapes import fill_polygon
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask

_KINDS = {"brushlabels": "brushlabels", "polygonlabels": "polygonlabels"}
_PLACES = re.compile(r"^(?:https?://[^/]+)?/?(?:(data/upload/)|(data/local-files/\?d=)|data/)?")
_PROJECT = re.compile(r"^\d+/")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read tasks as Label Studio's JSON export writes them; later strokes cover earlier ones.

    What a model said counts only under the mapping ``predictions``, where no person has said more.
    A task without annotation is unlabelled; one whose annotation is empty shows bare soil. Of
    several annotations the last one that was not cancelled counts.

    Args:
        src: The JSON file, or the folder that holds it.
        options: Where the photos are; roles of label names; `mapping`.

    Returns:
        One item a task.

    Raises:
        FieldDataError: It is no such export, or a photo is missing.
    """
    path = label_file(src, (".json",))
    tasks = read_json(path)
    finder = PhotoFinder(path.parent, options)
    with understood(path, "tasks of Label Studio's JSON export"):
        regions = [_regions(task, options.mapping == "predictions") for task in tasks]
        names = [_label(r) for found in regions for r in found or () if r["type"] in _KINDS]
        classes, ids = resolve(names, path, options)
        items = [_item(finder, task, found, ids) for task, found in zip(tasks, regions)]
    return Collection(items=items, classes=classes)


def _regions(task: dict[str, Any], predicted: bool) -> list[dict[str, Any]] | None:
    """Return what was drawn; None if nobody has annotated the task."""
    done = [a for a in task.get("annotations") or [] if not a.get("was_cancelled")]
    if predicted and not done:
        done = list(task.get("predictions") or [])
    return list(done[-1]["result"]) if done else None


def _label(region: dict[str, Any]) -> str:
    """Return the one label of a region.

    Raises:
        MaskError: It has none or several.
    """
    labels = region["value"][_KINDS[region["type"]]]
    if len(labels) != 1:
        raise MaskError(f"a region with labels {labels}", "one label", "correct it")
    return str(labels[0])


def _item(
    finder: PhotoFinder,
    task: dict[str, Any],
    regions: list[dict[str, Any]] | None,
    ids: dict[str, int],
) -> Item:
    key = _find(finder, _address(task["data"]))
    if regions is None:
        return finder.item(key, None)
    return finder.item(key, _drawer(finder.path(key), regions, ids))


def _address(data: dict[str, Any]) -> str:
    """Return where the task's photo is.

    Raises:
        FieldDataError: The task has no photo.
    """
    for name in ("image", *data):
        if isinstance(data.get(name), str):
            return str(data[name])
    raise FieldDataError("a task without photo", "data.image", "export it again")


def split_address(address: str) -> tuple[str, str]:
    """Tell where Label Studio keeps a photo.

    Args:
        address: ``data.image`` of a task.

    Returns:
        ``upload`` (path with the project's number), ``local`` (file storage) or ``plain``, and the
        path there, unquoted.
    """
    found = _PLACES.match(address)
    kind = "plain" if found is None else "upload" if found[1] else "local" if found[2] else "plain"
    return kind, unquote(address[found.end() :] if found else address)


def without_prefix(name: str) -> str:
    """Return the name that an upload had before Label Studio put eight letters before it."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + _UPLOAD.sub("", base)


def _find(finder: PhotoFinder, address: str) -> str:
    """Find a photo by its path or, for uploads, without the eight letters put before it."""
    kind, plain = split_address(address)
    plain = _PROJECT.sub("", plain) if kind == "upload" else plain
    if without_prefix(plain) == plain:
        return finder.find(plain)
    try:
        return finder.find(plain)
    except FieldDataError:
        return finder.find(without_prefix(plain))


def _drawer(photo: Path, regions: list[dict[str, Any]], ids: dict[str, int]) -> Callable[[], Mask]:
    def draw() -> Mask:
        mask = blank(photo, next(_sizes(regions), None))
        for region in regions:
            _draw(mask, region, ids)
        return mask

    return draw


def _sizes(regions: list[dict[str, Any]]) -> Iterator[tuple[Any, Any]]:
    for region in regions:
        if region["type"] in _KINDS:
            yield region["original_height"], region["original_width"]


def _draw(mask: Mask, region: dict[str, Any], ids: dict[str, int]) -> None:
    """Draw one region; remarks and choices say nothing about pixels.

    Raises:
        MaskError: It is a box or another shape without outline.
    """
    kind, value = region["type"], region["value"]
    size = (mask.shape[0], mask.shape[1])
    if kind == "brushlabels":
        mask[from_brush(value["rle"], size)] = ids[_label(region)]
    elif kind == "polygonlabels":
        points = np.asarray(value["points"], np.float64) * (size[1] / 100, size[0] / 100)
        fill_polygon(mask, points, ids[_label(region)])
    elif "x" in value:
        raise MaskError(f"a region of type {kind}", "brush or polygon", "redraw it")
