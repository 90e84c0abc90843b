"""A farm folder becomes a list of photos with their masks, fields, dates and ground resolution.

Layout: ``DIR[/field[/date]]/{images,masks}`` with the same stem; or ``<stem>_mask.png`` beside the
photo; or a second folder of labels with the same relative path or the same stem. Photos anywhere
else below DIR count as unlabelled. ``fields.csv`` and ``classes.toml`` may lie in DIR. Nothing is
decoded here; of masks the header is read, of photos nothing at all.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from weedseg.classes import DEFAULT_CLASSES, ClassTable
from weedseg.config import DataConfig
from weedseg.data.fields_csv import FieldRow, read_fields_csv
from weedseg.data.pairing import (
    IMAGE_FOLDER,
    MASK_FOLDER,
    is_image,
    is_mask,
    pair_masks,
    two_masks,
    walk,
)
from weedseg.data.palette import Palette, palette_sentence, read_classes
from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import mask_mode

_DEFAULTS = DataConfig()
_UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw"})


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photograph of a field."""

    name: str
    """Path below the farm folder, with forward slashes."""
    path: Path
    mask: Path | None = None
    field: str = ""
    """Plot of land; '' when none is given."""
    date: str = ""
    """Visit; '' when none is given."""
    mm_per_px: float | None = None
    """Ground resolution, mm per px; None is unknown."""


@dataclass(frozen=True, kw_only=True)
class Farm:
    """All photos of a farm folder, in the order of their names."""

    root: Path
    photos: tuple[Photo, ...]
    classes: ClassTable = DEFAULT_CLASSES
    palette: Palette
    """Mask colour (red, green, blue) -> class id, or 255."""
    notes: tuple[str, ...] = ()
    """Sentences to announce before work starts."""
    unmatched: tuple[Path, ...] = ()
    """Masks whose photo is missing; `weedseg.data.check` reports them."""

    @property
    def labelled(self) -> tuple[Photo, ...]:
        """Photos with a mask."""
        return tuple(p for p in self.photos if p.mask is not None)

    @property
    def unlabelled(self) -> tuple[Photo, ...]:
        """Photos without a mask."""
        return tuple(p for p in self.photos if p.mask is None)

    def fingerprint(self) -> str:
        """Return one SHA-256 over classes, names and contents of all photos and masks.

        It does not depend on where the folder lies.

        Raises:
            FieldDataError: A file cannot be read.
        """
        digest = hashlib.sha256(repr(self.classes.to_list()).encode())
        files = [f for p in self.photos for f in (p.path, p.mask) if f is not None]
        hashes = iter(content_hashes(files))
        for photo in self.photos:
            row = [photo.name, next(hashes), next(hashes) if photo.mask else ""]
            digest.update("\0".join(row).encode("utf-8", "surrogateescape") + b"\n")
        return digest.hexdigest()


def index_farm(root: Path, labels: Path | None = None, config: DataConfig = _DEFAULTS) -> Farm:
    """List the photos of a farm folder.

    Args:
        root: The farm folder.
        labels: Folder with masks: same relative path as the photo, or same stem.
        config: Classes, palette and ground resolution.

    Returns:
        The farm; its photos sorted by name.

    Raises:
        FieldDataError: A folder is missing or holds no photo, or ``fields.csv`` is wrong.
        MaskError: One mask fits two photos, or two masks fit one photo.
        ConfigError: ``classes.toml`` or the palette is wrong.
    """
    for folder in (root, labels):
        if folder is not None and not folder.is_dir():
            raise FieldDataError(f"{folder} is no folder", "a folder", "check the path")
    inside = _labels_inside(root, labels)
    files = [f for f in walk(root) if inside is None or inside not in f.parents]
    photos = [f for f in files if is_image(f) and not is_mask(f, root)]
    if not photos:
        raise FieldDataError(
            f"no photo below {root}", "JPEG, PNG, TIFF or WebP photos", "check --farm-images"
        )
    photos.sort(key=lambda f: f.relative_to(root).as_posix())
    masks, unmatched = _pair(root, labels, photos, [f for f in files if is_mask(f, root)])
    classes, palette, notes = read_classes(root, config)
    names = [f.relative_to(root).as_posix() for f in photos]
    rows, more = _read_rows(root, names)
    announced = [palette_sentence(classes, palette, bool(config.palette))]
    return Farm(
        root=root,
        photos=tuple(
            _photo(path, name, masks.get(path), rows.get(name), config)
            for path, name in zip(photos, names)
        ),
        classes=classes,
        palette=palette,
        notes=(
            *notes,
            *more,
            *_unread_notes(files),
            *(announced if _any_colours(masks.values()) else []),
        ),
        unmatched=tuple(unmatched),
    )


def _labels_inside(root: Path, labels: Path | None) -> Path | None:
    """Return the folder of labels as a path that begins with `root`, if it lies in there."""
    if labels is None or root.resolve() not in labels.resolve().parents:
        return None
    return root / labels.resolve().relative_to(root.resolve())


def _pair(
    root: Path, labels: Path | None, photos: Sequence[Path], masks: Sequence[Path]
) -> tuple[dict[Path, Path], list[Path]]:
    """Pair masks in the farm folder and in the folder of labels.

    Raises:
        MaskError: One mask fits two photos, or two masks fit one photo.
    """
    paired, unmatched = pair_masks(photos, masks, root)
    if labels is not None and labels.resolve() != root.resolve():
        outside = [f for f in walk(labels) if is_image(f)]
        more, lost = pair_masks(photos, outside, root, labels)
        for photo, mask in more.items():
            if photo in paired:
                raise MaskError(*two_masks(photo, paired[photo], mask))
        paired.update(more)
        unmatched.extend(lost)
    return paired, unmatched


def _photo(
    path: Path, name: str, mask: Path | None, row: FieldRow | None, config: DataConfig
) -> Photo:
    folders = name.split("/")[:-1]
    plain = [f.lower() in (IMAGE_FOLDER, MASK_FOLDER) for f in folders]
    place = folders[: plain.index(True)] if any(plain) else folders
    field, date = (*place, "", "")[:2]
    resolution = row.mm_per_px if row else None
    return Photo(
        name=name,
        path=path,
        mask=mask,
        field=(row.field if row else "") or field,
        date=(row.date if row else "") or date,
        mm_per_px=resolution or config.mm_per_px or None,
    )


def _read_rows(root: Path, names: Sequence[str]) -> tuple[dict[str, FieldRow], list[str]]:
    """Read ``fields.csv`` if there is one; also return what to announce.

    Raises:
        FieldDataError: The table is wrong.
    """
    path = root / "fields.csv"
    if not path.is_file():
        return {}, []
    rows, lost = read_fields_csv(path, names)
    if lost:
        return rows, [f"{path} names {len(lost)} photos that are not there, e.g. '{lost[0]}'"]
    return rows, []


def _unread_notes(files: Iterable[Path]) -> list[str]:
    unread = [f for f in files if f.suffix.lower() in _UNREAD_SUFFIXES]
    if not unread:
        return []
    return [f"{len(unread)} files such as {unread[0].name} are left out; convert them to JPEG"]


def _any_colours(masks: Iterable[Path]) -> bool:
    """Tell whether any mask holds colours; an unreadable one is the business of `check`."""
    for mask in masks:
        try:
            if mask_mode(mask) == "colours":
                return True
        except MaskError:
            continue
    return False


@functools.lru_cache(maxsize=1 << 16)
def _hash_of(path: str, size: int, changed_ns: int) -> str:
    """Hash one file; size and time of change are part of the cache key only."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def content_hashes(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of every file, remembered while the files stay as they are.

    Raises:
        FieldDataError: A file cannot be read.
    """

    def one(path: Path) -> str:
        state = path.stat()
        return _hash_of(str(path), state.st_size, state.st_mtime_ns)

    try:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, paths))
    except OSError as error:
        raise FieldDataError(
            f"{error.filename} cannot be read: {error.strerror}", "a readable file", "replace it"
        ) from error
