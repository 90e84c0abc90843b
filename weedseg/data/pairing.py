"""Which file is a photo, which is a mask, and which mask belongs to which photo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from weedseg.errors import FieldDataError, MaskError
from weedseg.imaging import IMAGE_SUFFIXES

MASK_ENDING = "_mask"
IMAGE_FOLDER = "images"
MASK_FOLDER = "masks"

_SKIPPED = frozenset({"thumbs.db", "desktop.ini", "__macosx", "nir"})
"""Names that hold no photo; ``nir`` has near-infrared twins."""


def walk(root: Path) -> Iterator[Path]:
    """Yield every plain file below a folder, in the order of names.

    Hidden files and folders are left out. Links are followed, but each real folder is entered
    once, real ones before linked ones, so loops of links end.

    Args:
        root: The folder.

    Yields:
        Paths that begin with `root`.

    Raises:
        FieldDataError: A folder cannot be read.
    """
    entered: set[tuple[int, int]] = set()
    later = [root]
    while later:
        folders = [later.pop(0)]
        while folders:
            folder = folders.pop()
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in entered:
                continue
            entered.add((state.st_dev, state.st_ino))
            files, real, linked = _listing(folder)
            folders.extend(reversed(real))
            later.extend(linked)
            yield from files


def _listing(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return files, real folders and linked folders of a folder, sorted.

    Raises:
        FieldDataError: The folder cannot be read.
    """
    files: list[Path] = []
    real: list[Path] = []
    linked: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name.startswith(".") or entry.name.lower() in _SKIPPED:
                    continue
                if _is_folder(entry):
                    (linked if entry.is_symlink() else real).append(folder / entry.name)
                elif _is_file(entry):
                    files.append(folder / entry.name)
    except OSError as error:
        raise FieldDataError(
            f"{folder} cannot be read: {error.strerror}", "a readable folder", "check its rights"
        ) from error
    return files, real, linked


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Tell plain files from devices and sockets; a broken link counts, so that it is reported."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return entry.is_symlink()


def is_image(path: Path) -> bool:
    """Tell by its name whether a file is a picture that weedseg reads."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_mask(path: Path, root: Path) -> bool:
    """Tell by name or folder whether a picture below `root` is a mask and so never a photo."""
    folders = _lower(path.relative_to(root).parts[:-1])
    return is_image(path) and (_ends_as_mask(path) or _in_masks(folders))


def pair_masks(
    photos: Sequence[Path], masks: Sequence[Path], root: Path, labels: Path | None = None
) -> tuple[dict[Path, Path], list[Path]]:
    """Find the photo of each mask.

    Args:
        photos: Photos below `root`.
        masks: Masks below `root`, or below `labels`.
        root: The farm folder.
        labels: Where the masks lie when not beside the photos.

    Returns:
        Photo -> mask, and the masks without a photo.

    Raises:
        MaskError: One mask fits two photos, or two masks fit one photo.
    """
    by_key: dict[tuple[str, str], list[Path]] = {}
    for photo in photos:
        for key in _photo_keys(photo.relative_to(root), labels is not None):
            by_key.setdefault(key, []).append(photo)
    paired: dict[Path, Path] = {}
    unmatched = []
    for mask in sorted(masks):
        keys = _mask_keys(mask.relative_to(labels or root), labels is not None)
        fitting = next((by_key[k] for k in keys if k in by_key), [])
        if len(fitting) > 1:
            raise MaskError(
                f"{mask} fits {fitting[0]} and {fitting[1]}",
                "one photo for each mask",
                "rename or remove one of the two photos",
            )
        if not fitting:
            unmatched.append(mask)
        elif fitting[0] in paired:
            raise MaskError(*two_masks(fitting[0], paired[fitting[0]], mask))
        else:
            paired[fitting[0]] = mask
    return paired, unmatched


def _photo_keys(name: Path, with_stem: bool) -> list[tuple[str, str]]:
    """Return (folder without ``images``, stem), and for label folders the bare stem too."""
    keys = [(_plain_folder(name, IMAGE_FOLDER), name.stem)]
    return [*keys, ("*", name.stem)] if with_stem else keys


def _mask_keys(name: Path, with_stem: bool) -> list[tuple[str, str]]:
    folders = [_plain_folder(name, MASK_FOLDER)]
    if not _in_masks(_lower(name.parts[:-1])):
        folders = [_plain_folder(name, IMAGE_FOLDER)]
    folders += ["*"] if with_stem else []
    bare = name.stem[: -len(MASK_ENDING)] if _ends_as_mask(name) else name.stem
    return [(folder, stem) for folder in folders for stem in dict.fromkeys((name.stem, bare))]


def _plain_folder(name: Path, drop: str) -> str:
    """Return the folder of a file without its last part called `drop`."""
    parts = list(name.parts[:-1])
    lower = _lower(parts)
    if drop in lower:
        del parts[len(lower) - 1 - lower[::-1].index(drop)]
    return "/".join(parts)


def _lower(parts: Sequence[str]) -> list[str]:
    return [part.lower() for part in parts]


def _ends_as_mask(path: Path) -> bool:
    return path.stem.lower().endswith(MASK_ENDING) and path.stem.lower() != MASK_ENDING


def _in_masks(folders: Sequence[str]) -> bool:
    """Tell whether the nearest of the folders ``images`` and ``masks`` is ``masks``."""
    named = [f for f in folders if f in (IMAGE_FOLDER, MASK_FOLDER)]
    return bool(named) and named[-1] == MASK_FOLDER


def two_masks(photo: Path, first: Path, second: Path) -> tuple[str, str, str]:
    """Return the facts of the error for a photo with two masks."""
    found = f"{photo} has two masks, {first} and {second}"
    return found, "one mask for each photo", "remove one of them"
