"""Supervisely projects: ``img/`` and ``ann/`` (also below data-set folders), bitmaps and polygons.

A photo whose name ends in ``__nir`` beside one in ``__rgb`` is its near-infrared twin, not a photo.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from weedseg.data.importers.items import Collection, ImportOptions, Item, understood
from weedseg.data.importers.naming import resolve
from weedseg.data.importers.photos import blank, read_json
from weedseg.data.importers.sugarbeets2016 import RECORDING
from weedseg.data.pairing import is_image, walk
from weedseg.data.shapes import fill_polygon, paste
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask, decode_image

_MAX_BYTES = 64 << 20


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read a Supervisely project; later objects cover earlier ones.

    Args:
        src: Folder with ``meta.json`` and ``img`` and ``ann``, or data-set folders with these.
        options: Roles of class titles; `nir` also takes near-infrared twins.

    Returns:
        One item a photo; a photo without JSON file is unlabelled.

    Raises:
        FieldDataError: A file is missing or cannot be understood.
    """
    meta = src / "meta.json"
    content = read_json(meta)
    with understood(meta, "the meta.json of a Supervisely project"):
        titles = [str(c["title"]) for c in content["classes"]]
    classes, ids = resolve(titles, src, options)
    photos = [f for f in walk(src) if is_image(f) and f.parent.name == "img"]
    by_place = {(f.parent, f.stem): f for f in photos}
    nir = {f for f in photos if _twin(f, "nir", "rgb") in by_place}
    items = []
    for photo in photos:
        if photo in nir:
            continue
        twin = by_place.get(_twin(photo, "rgb", "nir"))
        items.append(_item(src, photo, ids, options, twin))
    note = f"{len(nir)} near-infrared twins are no photos; --nir takes them along"
    notes = () if options.nir or not nir else (note,)
    return Collection(items=items, classes=classes, notes=notes)


def _twin(photo: Path, have: str, want: str) -> tuple[Path, str]:
    """Return folder and stem of a photo's twin; one that no photo has if it has no such name."""
    stem = re.sub(rf"__{have}$", f"__{want}", photo.stem)
    return photo.parent, stem if stem != photo.stem else ""


def _item(
    src: Path, photo: Path, ids: dict[str, int], options: ImportOptions, twin: Path | None
) -> Item:
    sheet = photo.parent.parent / "ann" / f"{photo.name}.json"
    name = (photo.parent.parent / photo.stem).relative_to(src).as_posix()
    recording = RECORDING.search(photo.name)
    return Item(
        name=name,
        photo=photo,
        mask=_drawer(photo, sheet, ids) if sheet.is_file() else None,
        field=options.field,
        date=options.date or (recording[0] if recording else ""),
        mm_per_px=options.mm_per_px,
        nir=twin if options.nir else None,
    )


def _drawer(photo: Path, sheet: Path, ids: dict[str, int]) -> Callable[[], Mask]:
    def draw() -> Mask:
        content = read_json(sheet)
        with understood(sheet, "Supervisely annotations"):
            mask = blank(photo, (content["size"]["height"], content["size"]["width"]))
            for thing in content["objects"]:
                _draw(mask, thing, ids[thing["classTitle"]])
        return mask

    return draw


def _draw(mask: Mask, thing: dict[str, Any], value: int) -> None:
    """Draw one object; the inner rings of a polygon are holes.

    Raises:
        MaskError: It is a box or a line, which says nothing about pixels.
    """
    kind = thing.get("geometryType") or thing.get("shape")
    if kind == "bitmap":
        column, row = (int(v) for v in thing["bitmap"]["origin"])
        paste(mask, _bitmap(thing["bitmap"]["data"], mask.size), (row, column), value)
    elif kind == "polygon":
        here = np.zeros_like(mask)
        fill_polygon(here, thing["points"]["exterior"], 1)
        for ring in thing["points"]["interior"]:
            fill_polygon(here, ring, 0)
        mask[here == 1] = value
    else:
        raise MaskError(f"an object of type {kind}", "bitmap or polygon", "redraw it")


def _bitmap(text: str, max_pixels: int) -> Any:
    """Unpack base64(zlib(PNG)); it never grows beyond bounds.

    Raises:
        FieldDataError: It is far too large.
    """
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(text, validate=True), _MAX_BYTES)
    if unpacker.unconsumed_tail:
        raise FieldDataError("a bitmap that unpacks without end", "a small PNG", "export it again")
    pixels = decode_image(data, "a bitmap of Supervisely", max_pixels)
    return pixels.max(axis=2) > 0
