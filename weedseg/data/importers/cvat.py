"""CVAT: "CVAT for images" XML with masks and polygons, or the "Segmentation mask" export."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np

from weedseg.data.importers.items import Collection, ImportOptions, Item, understood
from weedseg.data.importers.naming import resolve
from weedseg.data.importers.photos import PhotoFinder, blank, label_file, read_xml
from weedseg.data.masks import colours_to_ids
from weedseg.data.pairing import is_image, walk
from weedseg.data.rle import from_runs
from weedseg.data.shapes import fill_polygon, paste
from weedseg.errors import MaskError
from weedseg.imaging import Mask, read_mask_pixels

LABELMAP = "labelmap.txt"
_DRAWN = ("mask", "polygon")
_UNDRAWN = ("box", "polyline", "points", "ellipse", "cuboid", "skeleton")


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read CVAT labels; where shapes overlap, higher ``z_order`` and later ones win.

    Args:
        src: The XML file, its folder, or the folder of a mask export (with ``labelmap.txt``).
        options: Where the photos are; roles of label names; `empty`.

    Returns:
        One item a photo.

    Raises:
        FieldDataError: It is not CVAT's, or a photo is missing.
    """
    if src.is_dir() and (src / LABELMAP).is_file():
        return _collect_masks(src, options)
    path = label_file(src, (".xml",))
    root = read_xml(path)
    finder = PhotoFinder(path.parent, options)
    with understood(path, "CVAT annotations"):
        images = root.findall("image")
        names = [label.findtext("name") or "" for label in root.iter("label")]
        names += [s.attrib["label"] for image in images for s in image if "label" in s.attrib]
        classes, ids = resolve(names, path, options)
        items = [_item(finder, image, ids, options.empty) for image in images]
    bare = sum(item.mask is None for item in items)
    notes = [f"{bare} photos without shapes count as unlabelled; --empty if they are bare"]
    return Collection(items=items, classes=classes, notes=tuple(notes if bare else ()))


def _item(finder: PhotoFinder, image: ET.Element, ids: dict[str, int], empty: bool) -> Item:
    """Make the item of one ``image`` element.

    Raises:
        MaskError: It has boxes or lines, which say nothing about pixels.
    """
    name = image.attrib["name"]
    key = finder.find(name)
    loose = [shape.tag for shape in image if shape.tag in _UNDRAWN]
    if loose:
        raise MaskError(f"{name} has a {loose[0]}", "masks or polygons", "redraw it as a mask")
    shapes = [shape for shape in image if shape.tag in _DRAWN]
    shapes.sort(key=lambda shape: int(shape.get("z_order", "0")))
    if not shapes and not empty:
        return finder.item(key, None)
    size = (int(image.attrib["height"]), int(image.attrib["width"]))
    return finder.item(key, _drawer(finder.path(key), size, shapes, ids))


def _drawer(
    photo: Path, size: tuple[int, int], shapes: list[ET.Element], ids: dict[str, int]
) -> Callable[[], Mask]:
    def draw() -> Mask:
        mask = blank(photo, size)
        for shape in shapes:
            _draw(mask, shape, ids[shape.attrib["label"]])
        return mask

    return draw


def _draw(mask: Mask, shape: ET.Element, value: int) -> None:
    """Draw a polygon or a mask, whose runs go along the rows of its frame.

    Raises:
        MaskError: A mask reaches beyond the photo.
    """
    said = shape.attrib
    if shape.tag == "polygon":
        points = [point.split(",") for point in said["points"].split(";")]
        fill_polygon(mask, np.array(points, np.float64), value)
        return
    left, top, width, height = (int(float(said[k])) for k in ("left", "top", "width", "height"))
    if not (0 < width <= mask.shape[1] and 0 < height <= mask.shape[0]):
        raise MaskError(f"a mask of {width}x{height} px", "one inside the photo", "export again")
    runs = [int(n) for n in said["rle"].split(",")]
    paste(mask, from_runs(runs, (height, width)), (top, left), value)


def _collect_masks(src: Path, options: ImportOptions) -> Collection:
    """Read a mask export: ``labelmap.txt`` and ``SegmentationClass/*.png``.

    Raises:
        FieldDataError: The label map cannot be understood, or a photo is missing.
    """
    colours: dict[str, tuple[int, int, int]] = {}
    with understood(src / LABELMAP, "lines of 'label:red,green,blue::'"):
        for line in (src / LABELMAP).read_text(encoding="utf-8-sig").splitlines():
            if line.strip() and not line.startswith("#"):
                name, colour = line.rsplit(":", 3)[:2]
                red, green, blue = (int(v) for v in colour.split(","))
                colours[name] = (red, green, blue)
    classes, ids = resolve(colours, src, options)
    palette = {colour: ids[name] for name, colour in colours.items()}
    folder = src / "SegmentationClass"
    with understood(folder, "a folder of masks"):
        labels = [f for f in walk(folder) if is_image(f)]
    finder = PhotoFinder(src if options.photos else src / "JPEGImages", options)
    items = []
    for path in labels:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        items.append(finder.item(finder.find_stem(stem), _colour_reader(path, palette)))
    return Collection(items=items, classes=classes)


def _colour_reader(path: Path, palette: dict[tuple[int, int, int], int]) -> Callable[[], Mask]:
    def read() -> Mask:
        pixels = read_mask_pixels(path, frozenset(palette))
        if pixels.ndim != 3:
            raise MaskError(f"{path} has other colours", "those of labelmap.txt", "export again")
        return colours_to_ids(np.asarray(pixels, np.uint8), palette, f"mask {path}")

    return read
