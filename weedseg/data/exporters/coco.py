"""COCO JSON with compressed run lengths; categories are named as in WeedCOCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from weedseg.data.exporters.bitmaps import bitmaps, frame_of, mask_of
from weedseg.data.importers.naming import IGNORE_NAME, NO_PLANT, weedcoco_name
from weedseg.data.index import Farm
from weedseg.data.rle import Bitmap, to_coco
from weedseg.imaging import write_bytes

FILE = "annotations.json"


def export(farm: Farm, out: Path) -> None:
    """Write ``annotations.json``.

    Args:
        farm: The farm.
        out: The folder.
    """
    names = [NO_PLANT, *(weedcoco_name(c) for c in farm.classes.classes[1:]), IGNORE_NAME]
    roles = [c.role.value for c in farm.classes.classes] + [IGNORE_NAME]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(farm.photos, start=1):
        size, mask = mask_of(farm, photo)
        images.append({"id": number, "file_name": photo.name, "height": size[0], "width": size[1]})
        for label, bitmap in bitmaps(mask, len(farm.classes)) if mask is not None else ():
            shape = _annotation(bitmap)
            shape |= {"id": len(annotations) + 1, "image_id": number, "category_id": label}
            annotations.append(shape)
    content = {
        "info": {"description": "weedseg"},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name, "supercategory": role}
            for i, (name, role) in enumerate(zip(names, roles))
        ],
    }
    write_bytes(out / FILE, json.dumps(content).encode())


def _annotation(bitmap: Bitmap) -> dict[str, Any]:
    return {
        "segmentation": to_coco(bitmap),
        "area": int(bitmap.sum()),
        "bbox": list(frame_of(bitmap)),
        "iscrowd": 1,
    }
