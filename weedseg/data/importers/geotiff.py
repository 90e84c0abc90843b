"""GeoTIFF orthomosaics, cut by windows; GeoPackage or GeoJSON polygons are their labels.

The polygons lie beside their mosaic under the same stem, or in one file for a whole folder. Where
a window has a polygon, the rest of it is background; ``--empty`` says so of all windows. Pixels
without data become 255. 16 bits a band become 8, the high byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weedseg.classes import IGNORE_ID, ClassTable
from weedseg.data.importers.items import Collection, ImportOptions, Item
from weedseg.data.importers.naming import resolve
from weedseg.data.mosaics import MOSAIC_SUFFIXES, Mosaic, Window
from weedseg.data.pairing import walk
from weedseg.errors import FieldDataError
from weedseg.imaging import Image, Mask

if TYPE_CHECKING:
    from weedseg.data.outlines import Drawing

WINDOW_PX = 1024
"""Side of the windows if nobody says another, px."""
_OUTLINES = (".gpkg", ".geojson", ".json")
_BARE = ClassTable.from_list(
    [{"name": role, "role": role} for role in ("background", "crop", "weed")]
)


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read mosaics; nothing of their pixels is loaded yet.

    Args:
        src: A GeoTIFF, its polygons, or a folder with mosaics.
        options: Where the mosaics are if `src` is polygons; `column`, `values`, roles, `window_px`,
            `empty`.

    Returns:
        One item a window.

    Raises:
        FieldDataError: A file is missing, damaged or has no CRS, or the polygons lie elsewhere.
    """
    pairs = _sources(src, options)
    mosaics = [Mosaic(path, options.window_px or WINDOW_PX) for path, _ in pairs]
    drawings, (classes, ids) = _labels(src, pairs, mosaics, options)
    items: list[Item] = []
    notes = []
    for mosaic, drawing in zip(mosaics, drawings):
        found = list(window_items(mosaic, drawing, ids, options))
        items.extend(found)
        notes.append(_note(mosaic, found))
    files = {labels for _, labels in pairs if labels is not None}
    for path in sorted(files):
        if not any(d and d.used for d, (_, labels) in zip(drawings, pairs) if labels == path):
            raise FieldDataError(
                f"no polygon of {path} lies on its mosaic",
                "polygons of this field",
                "check the CRS",
            )
    return Collection(items=items, classes=classes, notes=tuple(notes))


def window_items(
    mosaic: Mosaic, drawing: Drawing | None, ids: Mapping[str, int], options: ImportOptions
) -> Iterator[Item]:
    """Yield one item a window.

    Args:
        mosaic: The mosaic.
        drawing: Its polygons, if it has any.
        ids: Name of a polygon -> class id or 255.
        options: Field, date, ground resolution; `empty`.

    Yields:
        Items that cut photo and mask when they are asked for.
    """
    resolution = options.mm_per_px or mosaic.mm_per_px()
    for window in mosaic.windows():
        labelled = options.empty or (drawing is not None and bool(drawing.inside(window)))
        yield Item(
            name=f"{mosaic.path.stem}/{window.top:06d}_{window.left:06d}",
            photo=_cutter(mosaic, window),
            mask=_drawer(mosaic, window, drawing, ids) if labelled else None,
            field=options.field or mosaic.path.stem,
            date=options.date,
            mm_per_px=resolution,
        )


def _cutter(mosaic: Mosaic, window: Window) -> Callable[[], Image | None]:
    return lambda: mosaic.cut(window)


def _drawer(
    mosaic: Mosaic, window: Window, drawing: Drawing | None, ids: Mapping[str, int]
) -> Callable[[], Mask]:
    def draw() -> Mask:
        mask: Mask = np.zeros((window.height, window.width), np.uint8)
        if drawing is not None:
            mask = drawing.draw(window, ids)
        mask[~mosaic.valid(window)] = IGNORE_ID
        return mask

    return draw


def _labels(
    src: Path,
    pairs: list[tuple[Path, Path | None]],
    mosaics: list[Mosaic],
    options: ImportOptions,
) -> tuple[list[Drawing | None], tuple[ClassTable, dict[str, int]]]:
    """Read the polygons of all mosaics, each file once, and find their classes."""
    files = list(dict.fromkeys(labels for _, labels in pairs if labels is not None))
    if not files:
        return [None] * len(pairs), (_BARE, {})
    from weedseg.data.outlines import Drawing, read_outlines

    outlines = {path: read_outlines(path, options.column) for path in files}
    found = dict.fromkeys(name for lines in outlines.values() for name in lines.names)
    named = {name: options.values.get(name, name) for name in found}
    near = files[0] if src.is_file() else src
    classes, ids = resolve(named.values(), near, options)
    drawings = [
        None if labels is None else Drawing(outlines[labels], mosaic)
        for mosaic, (_, labels) in zip(mosaics, pairs)
    ]
    return drawings, (classes, {name: ids[label] for name, label in named.items()})


def _sources(src: Path, options: ImportOptions) -> list[tuple[Path, Path | None]]:
    """Return mosaics, each with its polygons if there are any.

    Raises:
        FieldDataError: There is no mosaic.
    """
    given = src if src.suffix.lower() in _OUTLINES and src.is_file() else None
    place = options.photos or (src.parent if given else src)
    files = [place] if place.is_file() else list(walk(place)) if place.is_dir() else []
    mosaics = [f for f in files if f.suffix.lower() in MOSAIC_SUFFIXES]
    if not mosaics:
        raise FieldDataError(f"no GeoTIFF in {place}", "a .tif file", "check the path")
    beside = [f for f in files if f.suffix.lower() in _OUTLINES and f.suffix.lower() != ".json"]
    pairs = []
    for path in mosaics:
        own = [path.with_suffix(ending) for ending in _OUTLINES]
        twin = next((f for f in own if f.is_file()), None)
        only = beside[0] if len(beside) == 1 else None
        pairs.append((path, given or twin or only))
    return pairs


def _note(mosaic: Mosaic, items: list[Item]) -> str:
    """Say what becomes of a mosaic."""
    height, width = mosaic.size
    known = items[0].mm_per_px
    resolution = f"{known:g} mm per px" if known else "ground resolution unknown: give --mm-per-px"
    labelled = sum(item.mask is not None for item in items)
    return (
        f"{mosaic.path.name}: {width}x{height} px, {len(items)} windows, {labelled} labelled, "
        f"{resolution}; neighbouring windows show one field"
    )
