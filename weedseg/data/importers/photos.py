"""Find the photo that a label file names, and never one outside the folder of photos."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from weedseg.data.fields_csv import FieldRow, read_fields_csv
from weedseg.data.importers.items import ImportOptions, Item, understood
from weedseg.data.pairing import IMAGE_FOLDER, is_image, is_mask, walk
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import MAX_PIXELS, Mask, image_size

MAX_LABEL_BYTES = 2 << 30
"""Larger label files are refused before they are read."""


class PhotoFinder:
    """The photos below one folder, by the names that label tools give them."""

    def __init__(self, root: Path, options: ImportOptions) -> None:
        """List the photos.

        Raises:
            FieldDataError: The folder is missing.
        """
        self.root = options.photos or (root if root.is_dir() else root.parent)
        if not self.root.is_dir():
            raise FieldDataError(f"{self.root} is no folder", "photos", "check --photos")
        self._options = options
        files = {
            f.relative_to(self.root).as_posix(): f
            for f in walk(self.root)
            if is_image(f) and not is_mask(f, self.root)
        }
        self._files = files
        self._by_base: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in files:
            base = name.rpartition("/")[2]
            self._by_base.setdefault(base, []).append(name)
            for stem in {base.rpartition(".")[0], name.rpartition(".")[0]}:
                self._by_stem.setdefault(stem, []).append(name)
        table = self.root / "fields.csv"
        self._rows: dict[str, FieldRow] = {}
        if table.is_file():
            self._rows = read_fields_csv(table, list(files))[0]

    def find(self, name: str) -> str:
        """Return the path below the folder of the photo called `name`.

        Args:
            name: Relative path, or a file name that only one photo has.

        Returns:
            A key for `item`.

        Raises:
            FieldDataError: The name leads out of the folder, or no photo or several have it.
        """
        plain = safe_path(name)
        if plain in self._files:
            return plain
        fitting = self._by_base.get(plain.rpartition("/")[2], [])
        if len(fitting) != 1:
            many = f"{len(fitting)} photos called" if fitting else "no photo"
            raise FieldDataError(
                f"{many} '{name}' below {self.root}", "the photo that is labelled", "check --photos"
            )
        return fitting[0]

    def find_stem(self, stem: str) -> str:
        """Return the path below the folder of the photo called `stem` and any ending.

        Raises:
            FieldDataError: No photo or several have it.
        """
        last = stem.rpartition("/")[2]
        fitting = self._by_stem.get(stem) or self._by_stem.get(last, [])
        if len(fitting) != 1:
            raise FieldDataError(
                f"{len(fitting)} photos for '{stem}' in {self.root}", "one", "check --photos"
            )
        return fitting[0]

    @property
    def keys(self) -> list[str]:
        """All photos, in the order of their names."""
        return sorted(self._files)

    def path(self, key: str) -> Path:
        """Return where a photo lies."""
        return self._files[key]

    def item(self, key: str, mask: Callable[[], Mask] | None, part: str = "") -> Item:
        """Make the item of a photo, with what ``fields.csv`` or its folders say of it."""
        row = self._rows.get(key) or FieldRow(field="", date="", mm_per_px=None)
        folders = key.split("/")[:-1]
        place = folders[: folders.index(IMAGE_FOLDER)] if IMAGE_FOLDER in folders else []
        field, date = (*place, "", "")[:2]
        return Item(
            name=key.rpartition(".")[0],
            photo=self._files[key],
            mask=mask,
            field=row.field or field or self._options.field,
            date=row.date or date or self._options.date,
            mm_per_px=row.mm_per_px or self._options.mm_per_px,
            part=part,
        )


def safe_path(name: Any) -> str:
    """Check a name from a foreign file.

    Args:
        name: Relative path, slashes of any kind.

    Returns:
        The same with forward slashes, without ``./``.

    Raises:
        FieldDataError: It is empty, absolute, leads upwards or has control characters.
    """
    plain = str(name).replace("\\", "/").strip()
    parts = PurePosixPath(plain).parts
    drive = len(plain) > 1 and plain[1] == ":"
    bad = not parts or ".." in parts or plain.startswith("/") or drive
    if bad or not isinstance(name, str) or any(ord(c) < 32 for c in plain):
        raise FieldDataError(
            f"photo name {str(name)[:120]!r}", "a path inside the folder", "correct the label file"
        )
    return "/".join(parts)


def blank(photo: Path, size: tuple[Any, Any] | None = None) -> Mask:
    """Make an empty mask for a photo.

    Args:
        photo: The photo; only its header is read.
        size: (H, W) that the label file gives; None takes the photo's.

    Returns:
        Zeros, uint8 (H, W).

    Raises:
        MaskError: The sizes differ, or the photo is too large.
        ImageError: The photo cannot be read.
    """
    actual = image_size(photo)
    wanted = actual if size is None else (int(size[0]), int(size[1]))
    if wanted not in (actual, actual[::-1]) or actual[0] * actual[1] > MAX_PIXELS:
        raise MaskError(
            f"labels of {photo.name} are for {wanted[1]}x{wanted[0]} px",
            f"{actual[1]}x{actual[0]} px as the photo",
            "export them for this photo",
        )
    return np.zeros(wanted, np.uint8)


def label_file(src: Path, endings: Sequence[str]) -> Path:
    """Return the one label file that `src` is or holds.

    Raises:
        FieldDataError: There is none, or more than one.
    """
    if src.is_file():
        return src
    found = sorted(f for e in endings for f in src.glob(f"*{e}")) if src.is_dir() else []
    if len(found) != 1:
        raise FieldDataError(
            f"{len(found)} {endings[0]} files in {src}", "one label file", "name the file itself"
        )
    return found[0]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FieldDataError: It is too large or no JSON.
    """
    with understood(path, "a JSON file"):
        return json.loads(_text(path))


def read_xml(path: Path) -> ET.Element:
    """Read an XML file; entities, which can grow without end, are refused.

    Raises:
        FieldDataError: It is too large, no XML, or declares a document type.
    """
    with understood(path, "an XML file"):
        text = _text(path)
    return parse_xml(text, str(path))


def parse_xml(text: str, name: str) -> ET.Element:
    """Parse XML text; entities, which can grow without end, are refused.

    Raises:
        FieldDataError: It is no XML, or declares a document type.
    """
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise FieldDataError(f"{name} declares a document type", "plain XML", "export it again")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise FieldDataError(
            f"{name} is no XML: {error}", "plain XML", "export it again"
        ) from error


def _text(path: Path) -> str:
    """Read a text file of bearable size.

    Raises:
        FieldDataError: It is too large.
    """
    size = path.stat().st_size
    if size > MAX_LABEL_BYTES:
        raise FieldDataError(f"{path} has {size} bytes", f"<= {MAX_LABEL_BYTES}", "split it")
    return path.read_text(encoding="utf-8-sig")
