"""Nassar 2020 (University of Saskatchewan): wheat and weeds from a UAV, tiles of 256 px.

The labelled tiles are split by sub-area. Unlabelled tiles are called ``nassar_7`` or
``nassar_00007``; both forms are found whichever one the list uses. Where only the orthomosaic is
there (90599 x 29395 px), it is cut into the same tiles, row by row, without loading it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from weedseg.classes import ClassTable
from weedseg.data.importers.items import Collection, ImportOptions, Item, understood
from weedseg.data.importers.photos import safe_path
from weedseg.data.pairing import is_image, walk
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask, read_mask_pixels

PARTS = ("train", "val", "test")
MOSAIC_TILE_PX = 256
_PAPER_SHARE = 5
_CLASSES = ClassTable.from_list(
    [
        {"name": "background", "role": "background"},
        {"name": "wheat", "role": "crop"},
        {"name": "weed", "role": "weed"},
    ]
)


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read labelled and unlabelled tiles.

    Args:
        src: Folder with ``tiled_dataset``, perhaps ``ortho_tiles`` or the orthomosaic (a GeoTIFF).
        options: ``mapping="paper"`` keeps the first fifth of train and val, as the paper's code.

    Returns:
        Labelled tiles of the three lists, then unlabelled tiles.

    Raises:
        FieldDataError: A folder, list or tile is missing.
    """
    labelled = src / "tiled_dataset" / "train"
    items: list[Item] = []
    for part in PARTS:
        stems = _list(labelled / "data_list" / f"{part}.txt")
        if options.mapping == "paper" and part != "test":
            stems = stems[: len(stems) // _PAPER_SHARE]
        items.extend(_labelled(labelled, stem, part, options) for stem in stems)
    notes: list[str] = []
    folder = src / "ortho_tiles"
    mosaics = sorted(f for ending in ("*.tif", "*.tiff") for f in src.glob(ending))
    if folder.is_dir():
        items.extend(_unlabelled(folder, options))
    elif mosaics:
        items.extend(_cut(mosaics, options))
        notes.append(f"{mosaics[0].name} cut into tiles of {MOSAIC_TILE_PX} px, row by row, from 0")
    else:
        notes.append("no ortho_tiles and no orthomosaic: labelled tiles only")
    if options.mapping == "paper":
        notes.append("first fifth of train and val, as in the paper")
    return Collection(items=items, classes=_CLASSES, notes=tuple(notes))


def _labelled(folder: Path, stem: str, part: str, options: ImportOptions) -> Item:
    """Find one labelled tile.

    Raises:
        FieldDataError: Photo or mask is missing.
    """
    photo, labels = (folder / kind / f"{stem}.png" for kind in ("data", "mask"))
    for path in (photo, labels):
        if not path.is_file():
            raise FieldDataError(f"{path} is missing", "all listed tiles", "download it again")
    return Item(
        name=f"labelled/{stem}",
        photo=photo,
        mask=_reader(labels),
        field=options.field or f"nassar-{part}",
        date=options.date,
        mm_per_px=options.mm_per_px,
        part=part,
    )


def _reader(path: Path) -> Callable[[], Mask]:
    def read() -> Mask:
        pixels = read_mask_pixels(path)
        if pixels.ndim != 2:
            raise MaskError(f"{path} holds colours", "ids 0, 1, 2 and 255", "download it again")
        return pixels.astype("uint8")

    return read


def _unlabelled(folder: Path, options: ImportOptions) -> list[Item]:
    """Find the unlabelled tiles of the list, or all if there is no list.

    Raises:
        FieldDataError: A listed tile is missing, or two tiles have one number.
    """
    tiles: dict[str, Path] = {}
    for path in walk(folder):
        if is_image(path) and tiles.setdefault(_key(path.stem), path) != path:
            raise FieldDataError(
                f"{path} and {tiles[_key(path.stem)]} have one number", "one", "remove one"
            )
    listed = folder / "datalist.txt"
    keys = list(dict.fromkeys(map(_key, _list(listed)))) if listed.is_file() else list(tiles)
    missing = [key for key in keys if key not in tiles]
    if missing:
        raise FieldDataError(
            f"{len(missing)} tiles of {listed} are missing, the first {missing[0]}",
            "all tiles",
            "download it again",
        )
    return [
        Item(
            name=f"ortho/{tiles[key].stem}",
            photo=tiles[key],
            field=options.field or "nassar-ortho",
            date=options.date,
            mm_per_px=options.mm_per_px,
        )
        for key in keys
    ]


def _cut(mosaics: list[Path], options: ImportOptions) -> list[Item]:
    """Cut the orthomosaic as the published tiles were: 256 px, those at the edges smaller.

    Raises:
        FieldDataError: There are several mosaics, or it cannot be read.
    """
    from weedseg.data.importers.geotiff import window_items
    from weedseg.data.mosaics import Mosaic

    if len(mosaics) > 1:
        raise FieldDataError(f"{len(mosaics)} GeoTIFFs in {mosaics[0].parent}", "one", "remove one")
    mosaic = Mosaic(mosaics[0], MOSAIC_TILE_PX)
    chosen = replace(options, field=options.field or "nassar-ortho", empty=False)
    return [
        replace(item, name=f"ortho/nassar_{number:05d}")
        for number, item in enumerate(window_items(mosaic, None, {}, chosen))
    ]


def _key(stem: str) -> str:
    """Return the name of a tile without the zeros before its number."""
    return re.sub(r"_0*(\d+)$", r"_\1", stem.removesuffix(".png"))


def _list(path: Path) -> list[str]:
    """Read a list of stems, one a line.

    Raises:
        FieldDataError: It cannot be read, or a name leads elsewhere.
    """
    with understood(path, "a list of tiles"):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    return [safe_path(line).removesuffix(".png") for line in lines if line.strip()]
