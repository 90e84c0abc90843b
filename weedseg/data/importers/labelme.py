"""LabelMe: one JSON file a photo, polygons and masks; an empty one means bare soil."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from weedseg.data.importers.items import Collection, ImportOptions, understood
from weedseg.data.importers.naming import resolve
from weedseg.data.importers.photos import PhotoFinder, blank, read_json
from weedseg.data.pairing import walk
from weedseg.data.shapes import fill_polygon, paste
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask, decode_image


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read a folder of LabelMe files; later shapes cover earlier ones.

    Args:
        src: Folder with the JSON files; photos beside them or below `options.photos`.
        options: Where the photos are; roles of label names.

    Returns:
        One item a JSON file.

    Raises:
        FieldDataError: A file is not LabelMe's, or its photo is missing.
    """
    files = [f for f in walk(src) if f.suffix.lower() == ".json"] if src.is_dir() else [src]
    finder = PhotoFinder(src, options)
    sheets: list[tuple[str, dict[str, Any]]] = []
    names: list[str] = []
    for path in files:
        content = read_json(path)
        with understood(path, "a LabelMe file"):
            # Only the last part: LabelMe writes paths such as ..\images\1.jpg.
            base = PureWindowsPath(str(content["imagePath"])).name
            names += [str(shape["label"]) for shape in content["shapes"]]
            sheets.append((_find(finder, path, base), content))
    if not files:
        raise FieldDataError(f"no JSON file in {src}", "LabelMe files", "check the path")
    classes, ids = resolve(names, src, options)
    items = [finder.item(key, _drawer(finder.path(key), content, ids)) for key, content in sheets]
    return Collection(items=items, classes=classes)


def _find(finder: PhotoFinder, path: Path, base: str) -> str:
    """Find the photo beside its JSON file, or else the only one of that name."""
    if finder.root in path.parents:
        folder = path.parent.relative_to(finder.root).as_posix()
        beside = base if folder == "." else f"{folder}/{base}"
        if (finder.root / beside).is_file():
            return finder.find(beside)
    return finder.find(base)


def _drawer(photo: Path, content: dict[str, Any], ids: dict[str, int]) -> Callable[[], Mask]:
    def draw() -> Mask:
        height, width = content.get("imageHeight"), content.get("imageWidth")
        mask = blank(photo, (height, width) if height and width else None)
        for shape in content["shapes"]:
            _draw(mask, shape, ids[str(shape["label"])])
        return mask

    return draw


def _draw(mask: Mask, shape: dict[str, Any], value: int) -> None:
    """Draw one shape.

    Raises:
        MaskError: It is a line or a point, which says nothing about pixels.
    """
    kind = shape.get("shape_type") or "polygon"
    points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
    if kind == "polygon":
        fill_polygon(mask, points, value)
    elif kind == "mask":
        data = base64.b64decode(shape["mask"], validate=True)
        pixels = decode_image(data, "a mask of LabelMe", mask.size)[..., 0] > 0
        left, top = points[0].round().astype(int).tolist()
        paste(mask, pixels, (top, left), value)
    else:
        raise MaskError(f"a shape of type {kind}", "polygon or mask", "redraw it")
