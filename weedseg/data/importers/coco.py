"""COCO JSON: run lengths (holes kept) and polygons; WeedCOCO's category names are understood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from weedseg.data.importers.items import Collection, ImportOptions, Item, understood
from weedseg.data.importers.naming import resolve
from weedseg.data.importers.photos import PhotoFinder, blank, label_file, read_json
from weedseg.data.rle import from_coco
from weedseg.data.shapes import fill_polygon
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask

_WHAT = "COCO annotations"


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read COCO annotations; where they overlap, later ones cover earlier ones.

    Args:
        src: The JSON file, or the folder that holds it.
        options: Where the photos are; roles of category names; `empty`.

    Returns:
        One item per entry of ``images``.

    Raises:
        FieldDataError: The file is not COCO, or a photo is missing or labelled twice.
    """
    path = label_file(src, (".json",))
    content = read_json(path)
    finder = PhotoFinder(path.parent, options)
    with understood(path, _WHAT):
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        classes, by_name = resolve(names.values(), path, options)
        ids = {number: by_name[name] for number, name in names.items()}
        drawn: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
        if len(drawn) < len(content["images"]):
            raise FieldDataError(f"{path} uses an image id twice", "each once", "export it again")
        for annotation in content["annotations"]:
            drawn[annotation["image_id"]].append(annotation)
        items = [
            _item(finder, image, drawn[image["id"]], (ids, options.empty))
            for image in content["images"]
        ]
    bare = sum(item.mask is None for item in items)
    notes = [f"{bare} photos without annotation count as unlabelled; --empty if they are bare"]
    return Collection(items=items, classes=classes, notes=tuple(notes if bare else ()))


def _item(
    finder: PhotoFinder,
    image: dict[str, Any],
    annotations: list[dict[str, Any]],
    reading: tuple[dict[Any, int], bool],
) -> Item:
    ids, empty = reading
    key = finder.find(image["file_name"])
    size = (int(image["height"]), int(image["width"]))
    if not annotations and not empty:
        return finder.item(key, None)
    return finder.item(key, _drawer(finder.path(key), size, annotations, ids))


def _drawer(
    photo: Path, size: tuple[int, int], annotations: list[dict[str, Any]], ids: dict[Any, int]
) -> Callable[[], Mask]:
    def draw() -> Mask:
        mask = blank(photo, size)
        for annotation in annotations:
            draw_segmentation(mask, annotation.get("segmentation"), ids[annotation["category_id"]])
        return mask

    return draw


def draw_segmentation(mask: Mask, segmentation: Any, value: int) -> None:
    """Draw one COCO segmentation: run lengths, or polygons that are joined.

    Args:
        mask: uint8 (H, W), changed.
        segmentation: ``{"size", "counts"}`` or a list of flat x, y lists.
        value: What to write.

    Raises:
        MaskError: It has no outline, or one of another size.
    """
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != list(mask.shape):
            raise MaskError(
                f"run lengths for {segmentation['size']}", f"{list(mask.shape)}", "export again"
            )
        mask[from_coco(segmentation["counts"], (mask.shape[0], mask.shape[1]))] = value
        return
    if not segmentation:
        raise MaskError("a box without outline", "polygons or run lengths", "export with masks")
    for ring in segmentation:
        fill_polygon(mask, np.asarray(ring, np.float64).reshape(-1, 2), value)
