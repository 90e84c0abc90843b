"""CVAT for images 1.1: one mask a class and photo."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from weedseg.data.exporters.bitmaps import bitmaps, frame_of, label_names, mask_of
from weedseg.data.index import Farm
from weedseg.data.palette import colour_text
from weedseg.data.rle import Bitmap, runs_of
from weedseg.imaging import write_bytes

FILE = "annotations.xml"
_GREY = (128, 128, 128)


def export(farm: Farm, out: Path) -> None:
    """Write ``annotations.xml``.

    Args:
        farm: The farm.
        out: The folder.
    """
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    labels = ET.SubElement(ET.SubElement(ET.SubElement(root, "meta"), "job"), "labels")
    names = label_names(farm)
    for name, colour in zip(names, [*farm.classes.colours, _GREY]):
        label = ET.SubElement(labels, "label")
        ET.SubElement(label, "name").text = name
        ET.SubElement(label, "color").text = colour_text(colour)
        ET.SubElement(label, "type").text = "mask"
    for number, photo in enumerate(farm.photos):
        (height, width), mask = mask_of(farm, photo)
        said = {"id": str(number), "name": photo.name, "width": str(width), "height": str(height)}
        image = ET.SubElement(root, "image", said)
        for value, bitmap in bitmaps(mask, len(farm.classes)) if mask is not None else ():
            frame = {"label": names[value], "source": "file", "occluded": "0", "z_order": "0"}
            ET.SubElement(image, "mask", frame | _frame(bitmap))
    ET.indent(root)
    write_bytes(out / FILE, ET.tostring(root, "utf-8", xml_declaration=True))


def _frame(bitmap: Bitmap) -> dict[str, str]:
    """Return the runs inside the bitmap's frame, along its rows, and where the frame is."""
    left, top, width, height = frame_of(bitmap)
    runs = runs_of(bitmap[top : top + height, left : left + width].ravel())
    where = {"left": left, "top": top, "width": width, "height": height}
    return {"rle": ", ".join(map(str, runs))} | {k: str(v) for k, v in where.items()}
