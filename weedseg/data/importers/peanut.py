"""The peanut data set (Tran and Phan, IEEE Access 11, 2023, 82640): peanut and weeds, Vietnam.

CC BY-SA 4.0. It has no official split, and some photos are there more than once, with masks that
differ; `weedseg.data.splits` keeps them together. https://github.com/ptdkhoa/Peanut-dataset
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from weedseg.data.importers.items import Collection, ImportOptions, from_farm
from weedseg.data.index import Farm, index_farm
from weedseg.errors import FieldDataError


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read the peanut data set; nothing is published about its split.

    Args:
        src: The folder.
        options: Ground resolution, if known.

    Returns:
        One item a photo.
    """
    farm = peanut_farm(src)
    return Collection(items=from_farm(farm, options, {}), classes=farm.classes, notes=farm.notes)


def peanut_farm(src: Path) -> Farm:
    """List the peanut data set where it lies.

    Args:
        src: Folder with ``images`` and ``masks`` (``labels`` in the original download).

    Returns:
        The farm, one field.

    Raises:
        FieldDataError: A folder is missing, or photos and masks do not pair.
    """
    original = src / "labels"
    farm = index_farm(src, original if original.is_dir() else None)
    if farm.unlabelled or farm.unmatched:
        raise FieldDataError(
            f"{src}: {len(farm.unlabelled)} photos without mask, {len(farm.unmatched)} masks "
            "without photo",
            "a mask for each photo",
            "download it again",
        )
    photos = tuple(dataclasses.replace(p, field="peanut") for p in farm.photos)
    return dataclasses.replace(farm, photos=photos)
