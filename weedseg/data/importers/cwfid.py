"""CWFID, the Crop/Weed Field Image Dataset (Haug and Ostermann 2014): carrots and weeds.

Non-commercial research only: figures may be published, models trained on it may not.
https://github.com/cwfid/dataset
"""

from __future__ import annotations

import re
from pathlib import Path

from weedseg.classes import DEFAULT_CLASSES
from weedseg.config import DataConfig
from weedseg.data.importers.items import Collection, ImportOptions, from_farm
from weedseg.data.index import Farm, Photo
from weedseg.data.palette import palette_sentence, read_classes
from weedseg.errors import FieldDataError

SPLIT_FILE = "train_test_split.yaml"


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read CWFID with its published split.

    Args:
        src: The folder.
        options: Ground resolution, if known.

    Returns:
        60 photos.
    """
    farm, test, _ = cwfid_farm(src)
    parts = {p.name: "test" if p.name in test else "train" for p in farm.photos}
    return Collection(items=from_farm(farm, options, parts), classes=farm.classes, notes=farm.notes)


def cwfid_farm(src: Path) -> tuple[Farm, tuple[str, ...], tuple[str, ...]]:
    """List CWFID where it lies.

    Args:
        src: Folder with ``images``, ``annotations`` and ``train_test_split.yaml``.

    Returns:
        The farm; the names of the published test photos; and the names of photos that the
        published split has in training and test and that are therefore test photos only.

    Raises:
        FieldDataError: A file is missing, or the split cannot be understood.
    """
    train, test = _read_split(src / SPLIT_FILE)
    photos = tuple(_photo(src, number) for number in sorted({*train, *test}))
    both = sorted({*train} & {*test})
    _, palette, _ = read_classes(src, DataConfig())
    notes = [palette_sentence(DEFAULT_CLASSES, palette, False)]
    notes += [f"photo {n} is in both lists of the published split: test only" for n in both]
    farm = Farm(root=src, photos=photos, palette=palette, notes=tuple(notes))
    return farm, tuple(_name(n) for n in sorted(test)), tuple(_name(n) for n in both)


def _name(number: int) -> str:
    return f"images/{number:03d}_image.png"


def _photo(src: Path, number: int) -> Photo:
    """Find one photo and its mask.

    Raises:
        FieldDataError: One of them is missing.
    """
    path = src / _name(number)
    mask = src / "annotations" / f"{number:03d}_annotation.png"
    for file in (path, mask):
        if not file.is_file():
            raise FieldDataError(f"{file} is missing", "all files of CWFID", "download it again")
    return Photo(name=_name(number), path=path, mask=mask, field="cwfid")


def _read_split(path: Path) -> tuple[list[int], list[int]]:
    """Read the two lists of numbers.

    Raises:
        FieldDataError: They are not there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FieldDataError(
            f"{path} cannot be read: {error}", "the published split", "download it again"
        ) from error
    lists = dict(re.findall(r"(train|test):\s*\[([\d,\s]+)\]", text))
    if set(lists) != {"train", "test"}:
        raise FieldDataError(
            f"{path} without the lists 'train' and 'test'", "both", "download it again"
        )
    train, test = ([int(n) for n in re.findall(r"\d+", lists[key])] for key in ("train", "test"))
    return train, test
