"""Write an imported data set as a farm folder: photos, masks, fields, classes, manifest, split."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import weedseg
from weedseg.classes import IGNORE_ID, ClassTable
from weedseg.data.fields_csv import COLUMNS
from weedseg.data.folders import new_folder
from weedseg.data.importers.items import Collection, Item, understood
from weedseg.data.importers.naming import IGNORE_NAME
from weedseg.data.index import Farm, index_farm
from weedseg.data.pairing import IMAGE_FOLDER, MASK_FOLDER
from weedseg.data.splits import WITHIN_FIELD, Split, make_split
from weedseg.errors import FieldDataError, ImageError, MaskError
from weedseg.imaging import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Mask,
    image_size,
    orient,
    orientation,
    write_bytes,
    write_png,
)

MANIFEST_FILE, SPLIT_FILE, TEST_FILE = "manifest.json", "split.json", "test.txt"
NIR_FOLDER = "nir"
SCHEMA = 1

_DROPPED = frozenset({IMAGE_FOLDER, MASK_FOLDER, NIR_FOLDER})


@dataclass
class _Written:
    """What is in the folder so far."""

    root: Path
    classes: ClassTable
    pixels: np.ndarray[Any, np.dtype[np.int64]]
    rows: list[list[str]] = field(default_factory=list)
    stems: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    labelled: int = 0
    empty: int = 0
    """Cut-outs without a valid pixel, left out."""


def write_collection(
    collection: Collection,
    out: Path,
    kind: str,
    watch: Callable[[Iterable[Item]], Iterable[Item]] = iter,
) -> dict[str, Any]:
    """Write a farm folder, whole or not at all.

    Photos are copied as they are; masks become PNGs of class ids at the size of the photo as a
    person sees it. One photo is in memory at a time.

    Args:
        collection: What an importer found.
        out: New or empty folder.
        kind: The format, for the manifest.
        watch: Wraps the photos, to show progress.

    Returns:
        The manifest, as written to ``manifest.json``.

    Raises:
        OutputError: The folder is not empty or cannot be written.
        FieldDataError: A photo, mask or name is faulty.
    """
    with new_folder(out) as made:
        done = _Written(made, collection.classes, np.zeros(256, np.int64))
        for item in watch(collection.items):
            _write_item(item, done)
        return _finish(collection, done, kind)


def classes_toml(classes: ClassTable) -> str:
    """Write classes as ``classes.toml`` holds them."""
    lines = []
    for row in classes.to_list():
        name = json.dumps(row["name"], ensure_ascii=False).replace("\x7f", "\\u007f")
        lines.append(f'[[classes]]\nname = {name}\nrole = "{row["role"]}"')
        lines.append(f"colour = {row['colour']}\n")
    return "\n".join(lines)


def safe_stem(name: str) -> str:
    """Make a name that the farm folder and every file system can bear.

    Args:
        name: Path without ending, forward slashes.

    Returns:
        The same without ``images`` and ``masks`` folders and odd letters; never upwards.
    """
    parts = [p for p in name.split("/") if p.strip(". ") and p.lower() not in _DROPPED]
    safe = [re.sub(r"[^\w .()+@=-]", "_", p).strip(" ").lstrip(".") or "_" for p in parts]
    stem = "/".join(safe) or "photo"
    return f"{stem}_" if stem.lower().endswith("_mask") else stem


def _write_item(item: Item, done: _Written) -> None:
    """Write one photo and its mask.

    Raises:
        FieldDataError: Two photos get one name.
    """
    stem = safe_stem(item.name)
    other = done.stems.setdefault(stem.casefold(), item.name)
    if other != item.name or stem in done.parts:
        raise FieldDataError(
            f"photos '{other}' and '{item.name}' have one name", "different names", "rename one"
        )
    name = f"{IMAGE_FOLDER}/{stem}{_suffix(item)}"
    if isinstance(item.photo, Path):
        size, turn = _copy(item.photo, done.root / name)
    else:
        image = item.photo() if callable(item.photo) else item.photo
        if image is None:
            done.empty += 1
            return
        size, turn = (image.shape[0], image.shape[1]), 1
        write_png(done.root / name, image)
    if item.nir is not None:
        _copy(item.nir, done.root / NIR_FOLDER / f"{stem}{item.nir.suffix.lower()}")
    if item.mask is not None:
        mask = _mask(item, size, turn, len(done.classes))
        write_png(done.root / MASK_FOLDER / f"{stem}.png", mask)
        done.pixels += np.bincount(mask.ravel(), minlength=256)
        done.labelled += 1
    done.parts[stem] = item.part if item.mask is not None else ""
    resolution = f"{item.mm_per_px:g}" if item.mm_per_px else ""
    done.rows.append([name, item.field, item.date, resolution])


def _suffix(item: Item) -> str:
    """Return the ending of the copy.

    Raises:
        ImageError: The photo is of a format that weedseg does not read.
    """
    if not isinstance(item.photo, Path):
        return ".png"
    suffix = item.photo.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ImageError(f"{item.photo}", f"one of {', '.join(sorted(IMAGE_SUFFIXES))}", "convert")
    return suffix


def _copy(photo: Path, target: Path) -> tuple[tuple[int, int], int]:
    """Copy a photo; return its size as a person sees it, and its orientation.

    Raises:
        ImageError: It is no photo, or too large.
    """
    size, turn = image_size(photo), orientation(photo)
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(
            f"{photo} is {size[1]}x{size[0]} px", f"at most {MAX_PIXELS} px", "cut it into parts"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo, target)
    return size, turn


def _mask(item: Item, size: tuple[int, int], turn: int, num_classes: int) -> Mask:
    """Draw the mask of an item and check it.

    Raises:
        MaskError: Drawing fails, or size or ids are wrong.
    """
    where = str(item.photo) if isinstance(item.photo, Path) else item.name
    try:
        with understood(Path(where), "labels of the named format"):
            mask = item.mask() if item.mask else np.zeros(size, np.uint8)
    except MaskError as error:
        found = error.found if item.name.rpartition("/")[2] in error.found else None
        raise MaskError(
            found or f"labels of {where}: {error.found}", error.expected, error.remedy
        ) from error
    if mask.shape != size and turn > 4 and mask.shape == size[::-1]:
        mask = orient(mask, turn)
    if mask.shape != size:
        raise MaskError(
            f"labels of {where} are {mask.shape[1]}x{mask.shape[0]} px",
            f"{size[1]}x{size[0]} px",
            "export them at the size of the photo",
        )
    wrong = mask[(mask >= num_classes) & (mask != IGNORE_ID)]
    if wrong.size:
        raise MaskError(
            f"labels of {where} have class value {int(wrong.min())}",
            f"0 to {num_classes - 1}, or {IGNORE_ID}",
            "add the class to classes.toml",
        )
    return mask


def _finish(collection: Collection, done: _Written, kind: str) -> dict[str, Any]:
    """Write everything but photos and masks; return the manifest.

    Raises:
        FieldDataError: Nothing was written.
    """
    if not done.rows:
        raise FieldDataError("no window with a valid pixel", "a picture", "check the mosaic")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(done.rows)
    write_bytes(done.root / "fields.csv", table.getvalue().encode())
    write_bytes(done.root / "classes.toml", classes_toml(collection.classes).encode())
    farm = index_farm(done.root)
    split = _split(farm, done, collection.group_split)
    if split is not None:
        write_json(done.root / SPLIT_FILE, split.to_dict())
        text = "".join(f"{photo.name}\n" for photo in split.test)
        write_bytes(done.root / TEST_FILE, text.encode())
    manifest = _manifest(collection, done, kind, split)
    manifest["fingerprint"] = farm.fingerprint()
    write_json(done.root / MANIFEST_FILE, manifest)
    return manifest


def write_json(path: Path, values: Any) -> None:
    """Write plain data as JSON that a person can read."""
    write_bytes(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def _manifest(
    collection: Collection, done: _Written, kind: str, split: Split | None
) -> dict[str, Any]:
    names = collection.classes.names
    counts = {name: int(n) for name, n in zip(names, done.pixels.tolist())}
    total = sum(counts.values()) or 1
    fields = Counter(row[1] for row in done.rows)
    facts = {"title": "", "source": "unknown", "licence": "unknown", "citation": "unknown"}
    return {
        "schema": SCHEMA,
        "format": kind,
        **facts,
        **collection.facts,
        "classes": collection.classes.to_list(),
        "photos": len(done.rows),
        "labelled": done.labelled,
        "fields": dict(sorted(fields.items())),
        "visits": len({(row[1], row[2]) for row in done.rows}),
        "pixels": {**counts, IGNORE_NAME: int(done.pixels[IGNORE_ID])},
        "shares": {name: round(n / total, 6) for name, n in counts.items()},
        "split": _split_facts(split),
        "notes": [*collection.notes, *_left_out(done)],
        "weedseg_version": weedseg.__version__,
    }


def _left_out(done: _Written) -> list[str]:
    return [f"{done.empty} windows without a valid pixel left out"] if done.empty else []


def _split_facts(split: Split | None) -> dict[str, Any]:
    if split is None:
        return {"basis": "none published"}
    counts = {part: len(getattr(split, part)) for part in ("train", "val", "test")}
    return {"basis": split.basis, **counts, "note": split.note}


def _split(farm: Farm, done: _Written, grouped: bool) -> Split | None:
    """Return the published split, or one by group where that is the rule, or None."""
    if grouped and farm.labelled:
        return make_split(farm, 0)
    if not any(done.parts.values()):
        return None
    chosen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "": []}
    for photo in farm.photos:
        stem = photo.name.removeprefix(f"{IMAGE_FOLDER}/").rpartition(".")[0]
        chosen[done.parts[stem]].append(photo)
    test = chosen["test"]
    rest = [*chosen["train"], *chosen["val"]]
    apart = not {p.field for p in test} & {p.field for p in rest}
    held_out = set(test)
    return Split(
        kind="holdout",
        basis="field" if apart else WITHIN_FIELD,
        train=tuple(chosen["train"]),
        val=tuple(chosen["val"]),
        test=tuple(test),
        unlabelled=tuple(p for p in farm.photos if p not in held_out),
        note="published split",
    )
