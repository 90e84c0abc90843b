"""YOLO segmentation: one text file a photo, a class number and relative x, y on each line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from weedseg.data.importers.items import Collection, ImportOptions, understood
from weedseg.data.importers.naming import resolve
from weedseg.data.importers.photos import PhotoFinder, blank
from weedseg.data.pairing import walk
from weedseg.data.shapes import fill_polygon
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask

LABEL_FOLDER, IMAGE_FOLDER = "labels", "images"
_SHEETS = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
_PARTS = ("train", "val", "test")


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read YOLO labels; later lines cover earlier ones, an empty file means bare soil.

    Args:
        src: Folder with ``labels/``, ``images/`` and ``data.yaml`` or ``classes.txt``; folders
            called train, val and test give the split.
        options: Where the photos are; roles of class names.

    Returns:
        One item a photo; those without a text file are unlabelled.

    Raises:
        FieldDataError: Names or photos are missing.
    """
    names = _names(src)
    classes, by_name = resolve(names.values(), src, options)
    ids = {number: by_name[name] for number, name in names.items()}
    finder = PhotoFinder(src, options)
    skipped = {src / sheet for sheet in _SHEETS}
    texts = {
        _stem(f.relative_to(src)): f
        for f in walk(src)
        if f.suffix == ".txt" and f not in skipped and LABEL_FOLDER in f.relative_to(src).parts
    }
    items = []
    for key in finder.keys:
        path = texts.pop(_stem(Path(key)), None)
        drawer = None if path is None else _drawer(finder.path(key), path, ids)
        folders = [p for p in key.split("/")[:-1] if p in _PARTS]
        items.append(finder.item(key, drawer, folders[-1] if folders and drawer else ""))
    if texts:
        lost = next(iter(texts.values()))
        raise FieldDataError(f"{lost} has no photo", "a photo of the same name", "check --photos")
    return Collection(items=items, classes=classes)


def _stem(path: Path) -> str:
    """Return a path without ending and without ``labels`` or ``images``."""
    parts = [p for p in path.with_suffix("").parts if p not in (LABEL_FOLDER, IMAGE_FOLDER)]
    return "/".join(parts)


def _names(src: Path) -> dict[int, str]:
    """Read class names from ``names:`` (list or numbered lines) or one name a line.

    Raises:
        FieldDataError: They are not there.
    """
    path = next((src / sheet for sheet in _SHEETS if (src / sheet).is_file()), src / _SHEETS[0])
    with understood(path, "a file with the class names"):
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".yaml":
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        listed = re.search(r"^names:\s*[\[{]([^\]}]*)[\]}]", text, re.MULTILINE)
        block = re.search(r"^names:[ \t]*\n((?:[ \t]*(?:-|\d+:).*\n?)+)", text, re.MULTILINE)
        lines = listed[1].split(",") if listed else block[1].splitlines() if block else []
        found = dict(_named(i, line) for i, line in enumerate(lines))
    if not found:
        raise FieldDataError(f"{path} without 'names:'", "the class names", "add them")
    return found


def _named(place: int, text: str) -> tuple[int, str]:
    """Read ``name``, ``- name`` or ``3: name``, quoted or not; a number overrides the place."""
    number, colon, name = text.partition(":")
    if not colon or not number.strip().isdigit():
        number, name = str(place), re.sub(r"^\s*-\s", "", text)
    return int(number), name.split(" #")[0].strip().strip("'\"")


def _drawer(photo: Path, path: Path, ids: dict[int, int]) -> Callable[[], Mask]:
    def draw() -> Mask:
        mask = blank(photo)
        height, width = mask.shape
        with understood(path, "lines of YOLO segmentation"):
            for line in path.read_text(encoding="utf-8-sig").splitlines():
                numbers = line.split()
                if not numbers:
                    continue
                if len(numbers) < 7 or not len(numbers) % 2:
                    raise MaskError(
                        f"{path} has a line of {len(numbers)} numbers",
                        "a class and 3 or more points; boxes do not do",
                        "export it as segmentation",
                    )
                points = np.array(numbers[1:], np.float64).reshape(-1, 2) * (width, height)
                fill_polygon(mask, points, ids[_number(numbers[0])])
        return mask

    return draw


def _number(text: str) -> int:
    """Read a class number.

    Raises:
        ValueError: It is none.
    """
    if not text.isdigit():
        raise ValueError(f"class number {text!r}")
    return int(text)
