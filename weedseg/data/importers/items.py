"""What an importer yields: photos with masks, and where they come from."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from weedseg.classes import ClassTable
from weedseg.data.index import Farm, Photo
from weedseg.data.masks import read_mask
from weedseg.errors import FieldDataError
from weedseg.imaging import Image, Mask

_BROKEN = (
    *(KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError),
    *(RecursionError, zlib.error, struct.error, OSError),
)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a person may say about a data set."""

    photos: Path | None = None
    """Where the photos lie, if not beside the labels."""
    mapping: str = ""
    """Another reading of the labels that the format knows, such as ``paper``."""
    nir: bool = False
    """Also take the near-infrared twin of every photo."""
    empty: bool = False
    """Photos that no annotation names show bare soil; otherwise they are unlabelled."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Label name -> background, crop, weed or ignore."""
    palette: Mapping[str, str] = field(default_factory=dict)
    """Mask colour '#rrggbb' -> class name or 'ignore'."""
    column: str = ""
    """Attribute of polygons that names their class."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Attribute value -> label name."""
    window_px: int = 0
    """Side of the windows that a mosaic is cut into, px; 0 is the format's own."""
    field: str = ""
    date: str = ""
    mm_per_px: float | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One photo to import."""

    name: str
    """Path without ending, forward slashes; made safe by the writer."""
    photo: Path | Image | Callable[[], Image | None]
    """A file, an image, or what cuts one out; None is a cut-out without a valid pixel."""
    mask: Callable[[], Mask] | None = None
    """Draws the mask, uint8 (H, W); None is unlabelled."""
    field: str = ""
    date: str = ""
    mm_per_px: float | None = None
    part: str = ""
    """train, val or test of the published split; '' if there is none."""
    nir: Path | None = None
    """Near-infrared twin, one channel."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A data set to import."""

    items: Sequence[Item]
    classes: ClassTable
    facts: Mapping[str, object] = field(default_factory=dict)
    """title, source, licence, citation, release_weights."""
    notes: tuple[str, ...] = ()
    """Sentences for people: what was left out, how labels were read."""
    group_split: bool = False
    """Whether to split by field and visit, as nothing else is published or honest."""


def from_farm(farm: Farm, options: ImportOptions, parts: Mapping[str, str]) -> list[Item]:
    """Turn the photos of an indexed folder into items.

    Args:
        farm: The folder.
        options: Field, date and ground resolution for photos that say nothing.
        parts: Photo name -> part of a published split.

    Returns:
        One item a photo, in the same order.
    """
    return [
        Item(
            name=photo.name.rpartition(".")[0],
            photo=photo.path,
            mask=_reader(farm, photo) if photo.mask is not None else None,
            field=photo.field or options.field,
            date=photo.date or options.date,
            mm_per_px=photo.mm_per_px or options.mm_per_px,
            part=parts.get(photo.name, ""),
        )
        for photo in farm.photos
    ]


def _reader(farm: Farm, photo: Photo) -> Callable[[], Mask]:
    return lambda: read_mask(farm, photo)


@contextmanager
def understood(path: Path, what: str) -> Iterator[None]:
    """Make any trip over foreign data one sentence that names the file.

    Args:
        path: The file.
        what: What it should be, such as "COCO annotations".

    Yields:
        Nothing.

    Raises:
        FieldDataError: Something in the file is missing or of the wrong kind.
    """
    try:
        yield
    except _BROKEN as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise FieldDataError(
            f"{path} cannot be understood ({reason})", what, "export or download it again"
        ) from error
