"""PhenoBench (Weyler et al.): sugar beets and weeds from a UAV; the test labels are hidden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from weedseg.classes import IGNORE_ID, ClassTable
from weedseg.data.importers.items import Collection, ImportOptions, Item
from weedseg.data.pairing import is_image, walk
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import Mask, read_mask_pixels

PARTIAL = {"": (1, 2), "ignore-partial": (IGNORE_ID, IGNORE_ID)}
"""Mapping -> what partly visible crops (3) and weeds (4) become."""

_CLASSES = ClassTable.from_list(
    [
        {"name": "soil", "role": "background"},
        {"name": "sugar beet", "role": "crop"},
        {"name": "weed", "role": "weed"},
    ]
)


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read PhenoBench.

    Args:
        src: Folder with ``train``, ``val`` and perhaps ``test``.
        options: ``mapping="ignore-partial"`` leaves partly visible plants out.

    Returns:
        One item a photo; those of ``test`` without mask.

    Raises:
        FieldDataError: ``train/images`` is missing, or a photo for training has no labels.
    """
    if not (src / "train" / "images").is_dir():
        raise FieldDataError(f"no train/images in {src}", "PhenoBench", "check the path")
    items, hidden = [], 0
    for part in ("train", "val", "test"):
        folder = src / part / "images"
        for photo in walk(folder) if folder.is_dir() else ():
            if not is_image(photo):
                continue
            labels = src / part / "semantics" / photo.name
            known = labels.is_file()
            if not known and part != "test":
                raise FieldDataError(f"{labels} is missing", "all labels", "download it again")
            hidden += not known
            items.append(
                Item(
                    name=f"{part}/{photo.stem}",
                    photo=photo,
                    mask=_reader(labels, options.mapping) if known else None,
                    field=options.field or "phenobench",
                    date=options.date,
                    mm_per_px=options.mm_per_px,
                    part=part if known else "",
                )
            )
    notes = [f"{hidden} test photos have hidden labels: unlabelled here"] if hidden else []
    return Collection(items=items, classes=_CLASSES, notes=tuple(notes))


def _reader(path: Path, mapping: str) -> Callable[[], Mask]:
    def read() -> Mask:
        pixels = read_mask_pixels(path)
        if pixels.ndim != 2 or pixels.max(initial=0) > 4:
            raise MaskError(f"{path} has other values", "ids 0 to 4", "download it again")
        return np.array([0, 1, 2, *PARTIAL[mapping]], np.uint8)[pixels]

    return read
