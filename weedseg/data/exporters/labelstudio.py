"""Label Studio: tasks with brush strokes, and the labelling interface that goes with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from weedseg.classes import ClassTable
from weedseg.data.exporters.bitmaps import bitmaps, label_names, mask_of
from weedseg.data.index import Farm
from weedseg.data.palette import colour_text
from weedseg.data.rle import to_brush
from weedseg.imaging import Mask, write_bytes

FILE, INTERFACE = "tasks.json", "label_config.xml"
_GREY = (128, 128, 128)


@dataclass(frozen=True, kw_only=True)
class Control:
    """The part of a labelling interface that brushes are drawn with."""

    brush: str = "tag"
    """Name of the BrushLabels."""
    image: str = "image"
    """Name of the image that they are drawn on."""


@dataclass(frozen=True, kw_only=True)
class Suggested:
    """Who says what the masks show, when it is a model and not a person."""

    version: str
    scores: Sequence[float]
    """One a photo of the farm, 0-1; Label Studio shows the lowest first."""


def export(farm: Farm, out: Path, suggested: Suggested | None = None) -> None:
    """Write ``tasks.json`` and ``label_config.xml``; photos are served from the farm folder.

    Args:
        farm: The farm; Label Studio's local file storage points at it.
        out: The folder.
        suggested: Write the masks as predictions, to be reviewed, and not as annotations.
    """
    names = label_names(farm)
    tasks: list[dict[str, Any]] = []
    for number, photo in enumerate(farm.photos, 1):
        task = {"id": number, "data": {"image": f"/data/local-files/?d={quote(photo.name)}"}}
        _, mask = mask_of(farm, photo)
        found = None if mask is None else brush_regions(mask, names, number)
        tasks.append(task | _labels(found, number, suggested))
    write_bytes(out / FILE, json.dumps(tasks).encode())
    write_bytes(out / INTERFACE, interface(farm.classes, names))


def brush_regions(
    mask: Mask, names: Sequence[str], task: int | str, control: Control | None = None
) -> list[dict[str, Any]]:
    """Return the regions that draw a mask or class map, as `Label Studio` stores them.

    Args:
        mask: uint8 (H, W).
        names: Labels in the order of the class ids, the last for 255.
        task: Goes into the ids of the regions.
        control: What draws them.

    Returns:
        One region a class; background only where there is nothing else.
    """
    control = control or Control()
    height, width = mask.shape
    return [
        {
            "id": f"{task}-{label}",
            "type": "brushlabels",
            "from_name": control.brush,
            "to_name": control.image,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": to_brush(bitmap), "brushlabels": [names[label]]},
        }
        for label, bitmap in bitmaps(mask, len(names) - 1)
    ]


def interface(classes: ClassTable, names: Sequence[str]) -> bytes:
    """Write the labelling interface that goes with `brush_regions`, XML."""
    control = Control()
    view = ET.Element("View")
    ET.SubElement(view, "Image", {"name": control.image, "value": "$image"})
    brush = ET.SubElement(view, "BrushLabels", {"name": control.brush, "toName": control.image})
    for name, colour in zip(names, [*classes.colours, _GREY]):
        ET.SubElement(brush, "Label", {"value": name, "background": colour_text(colour)})
    ET.indent(view)
    return bytes(ET.tostring(view, "utf-8"))


def _labels(
    regions: list[dict[str, Any]] | None, number: int, suggested: Suggested | None
) -> dict[str, Any]:
    if suggested is None:
        drawn = [] if regions is None else [{"result": regions, "was_cancelled": False}]
        return {"annotations": drawn}
    score = suggested.scores[number - 1]
    said = {"model_version": suggested.version, "score": score, "result": regions or []}
    return {"annotations": [], "predictions": [said]}
