"""Label Studio: tasks with brush strokes, and the labelling interface that goes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from weedseg.data.exporters.bitmaps import bitmaps, label_names, mask_of
from weedseg.data.index import Farm, Photo
from weedseg.data.palette import colour_text
from weedseg.data.rle import to_brush
from weedseg.imaging import write_bytes

FILE, INTERFACE = "tasks.json", "label_config.xml"
_GREY = (128, 128, 128)


def export(farm: Farm, out: Path) -> None:
    """Write ``tasks.json`` and ``label_config.xml``; photos are served from the farm folder.

    Args:
        farm: The farm; Label Studio's local file storage points at it.
        out: The folder.
    """
    names = label_names(farm)
    tasks = [_task(farm, photo, number, names) for number, photo in enumerate(farm.photos, 1)]
    write_bytes(out / FILE, json.dumps(tasks).encode())
    view = ET.Element("View")
    ET.SubElement(view, "Image", {"name": "image", "value": "$image"})
    brush = ET.SubElement(view, "BrushLabels", {"name": "tag", "toName": "image"})
    for name, colour in zip(names, [*farm.classes.colours, _GREY]):
        ET.SubElement(brush, "Label", {"value": name, "background": colour_text(colour)})
    ET.indent(view)
    write_bytes(out / INTERFACE, ET.tostring(view, "utf-8"))


def _task(farm: Farm, photo: Photo, number: int, names: list[str]) -> dict[str, Any]:
    (height, width), mask = mask_of(farm, photo)
    task: dict[str, Any] = {
        "id": number,
        "data": {"image": f"/data/local-files/?d={quote(photo.name)}"},
        "annotations": [],
    }
    if mask is None:
        return task
    regions = [
        {
            "id": f"{number}-{label}",
            "type": "brushlabels",
            "from_name": "tag",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": to_brush(bitmap), "brushlabels": [names[label]]},
        }
        for label, bitmap in bitmaps(farm, mask)
    ]
    task["annotations"] = [{"result": regions, "was_cancelled": False}]
    return task
