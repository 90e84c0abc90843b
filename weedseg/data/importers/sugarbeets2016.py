"""Sugarbeets 2016 (Chebrolu et al. 2017, University of Bonn): sugar beets and weeds, RGB and NIR.

The paper's released code reads 10001 and 10002 as weed and 2 as background; both are faults, kept
under the mapping ``paper`` only. Frames of one recording overlap, so recordings are never split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from weedseg.classes import ClassTable
from weedseg.data.importers.items import Collection, ImportOptions, Item
from weedseg.data.pairing import walk
from weedseg.errors import ConfigError, FieldDataError, MaskError
from weedseg.imaging import Mask, read_mask_pixels

RECORDING = re.compile(r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d_\d+")
"""Name of a recording, a part of the names of its frames."""

_CLASSES = ClassTable.from_list(
    [
        {"name": "soil", "role": "background"},
        {"name": "sugar beet", "role": "crop"},
        {"name": "weed", "role": "weed"},
    ]
)
_SOIL = (0, 1, 97)
_BEETS = (10000, 10001, 10002)
_WEEDS = (2, *range(20000, 20012), *range(20100, 20106))
_UNKNOWN = 254
_PAPER_SHARES = (0.7, 0.8)


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read the unpacked annotations archive.

    Args:
        src: ``ijrr_sugarbeets_2016_annotations``, or one ``CKA_...`` folder of it.
        options: ``mapping="paper"`` for the paper's ids and frame-level split; `nir`.

    Returns:
        One item a complete frame; its date is the recording.

    Raises:
        FieldDataError: There is no ``images/rgb``.
    """
    folders = [f for f in (src, *sorted(src.glob("CKA_*"))) if (f / "images" / "rgb").is_dir()]
    if not folders:
        raise FieldDataError(f"no images/rgb in {src}", "Sugarbeets 2016", "unpack the archive")
    items: list[Item] = []
    incomplete = 0
    for folder in folders:
        names = _names(folder)
        found = [item for name in names for item in _frame(folder, name, options)]
        incomplete += len(names) - len(found)
        items.extend(found)
    notes = [f"{incomplete} incomplete frames left out"] if incomplete else []
    if options.mapping == "paper":
        items = _paper_parts(items)
        notes.append("ids and the frame-level split of the paper: it leaks, for comparison only")
    return Collection(
        items=items, classes=_CLASSES, notes=tuple(notes), group_split=not options.mapping
    )


def _names(folder: Path) -> list[str]:
    """Return all frames that RGB, NIR or labels speak of."""
    places = [folder / "images" / "rgb", folder / "images" / "nir", *_label_folders(folder)]
    return sorted({f.name for p in places if p.is_dir() for f in walk(p) if f.suffix == ".png"})


def _label_folders(folder: Path) -> list[Path]:
    return [folder / "annotations" / "dlp" / kind for kind in ("iMapCleaned", "colorCleaned")]


def _frame(folder: Path, name: str, options: ImportOptions) -> Iterator[Item]:
    """Yield the item of a frame, if it is complete."""
    photo, nir = (folder / "images" / kind / name for kind in ("rgb", "nir"))
    ids, colours = (place / name for place in _label_folders(folder))
    labelled = ids.is_file() or colours.is_file()
    if not photo.is_file() or not labelled or (options.nir and not nir.is_file()):
        return
    recording = RECORDING.search(name)
    yield Item(
        name=f"{folder.name}/{photo.stem}",
        photo=photo,
        mask=_reader(ids if ids.is_file() else colours, options.mapping == "paper"),
        field=options.field or "sugarbeets2016",
        date=recording[0] if recording else options.date,
        mm_per_px=options.mm_per_px,
        nir=nir if options.nir else None,
    )


def _reader(path: Path, paper: bool) -> Callable[[], Mask]:
    return lambda: read_labels(path, paper)


def read_labels(path: Path, paper: bool = False) -> Mask:
    """Read an iMap or a colour mask.

    Args:
        path: 16-bit ids, or RGB with green beets and red weeds.
        paper: Read ids as the paper's code does.

    Returns:
        uint8 (H, W): 0 soil, 1 sugar beet, 2 weed.

    Raises:
        MaskError: An id is unknown.
        ConfigError: The paper's mapping is asked of a colour mask.
    """
    pixels = read_mask_pixels(path)
    if pixels.ndim == 3:
        if paper:
            raise ConfigError(f"--mapping paper, and {path} has colours", "iMap ids", "drop it")
        beet = (pixels == (0, 255, 0)).all(axis=2)
        weed = (pixels == (255, 0, 0)).all(axis=2)
        both: Mask = (beet + 2 * weed).astype(np.uint8)
        return both
    table = np.full(1 << 16, _UNKNOWN, np.uint8)
    for ids, value in ((_SOIL, 0), (_BEETS, 1), (_WEEDS, 2)):
        table[list(ids)] = value
    if paper:
        table[[10001, 10002]], table[2] = 2, 0
    mask: Mask = table[pixels]
    if (mask == _UNKNOWN).any():
        raise MaskError(
            f"{path} has id {int(pixels[mask == _UNKNOWN].min())}",
            "the published ids",
            "report this, with the file",
        )
    return mask


def _paper_parts(items: list[Item]) -> list[Item]:
    """Split frames at random, 70/10/20."""
    place = np.random.default_rng(0).permutation(len(items)) / max(1, len(items))
    parts = ("train", "val", "test")
    numbers = np.digitize(place, _PAPER_SHARES)
    return [replace(item, part=parts[n]) for item, n in zip(items, numbers.tolist())]
