"""Everything wrong with a farm folder, before training, each fault with its path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weedseg.classes import IGNORE_ID, Role
from weedseg.data.index import Farm, Photo
from weedseg.data.masks import read_mask
from weedseg.data.survey import on_all_cores, survey
from weedseg.errors import FieldDataError, ImageError, MaskError

MIN_SIDE_PX = 32
"""Photos with a shorter side are faults: the network's coarsest cell is as large."""
ERROR, WARNING = "error", "warning"
Pixels: TypeAlias = npt.NDArray[np.int64]
"""Number of pixels of each id, (256,)."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong."""

    severity: str
    """error (training must not start) or warning (the photo is left out, or odd)."""
    path: Path
    error: FieldDataError
    """What would be raised."""

    @property
    def sentence(self) -> str:
        """What was found, what was expected, what to do."""
        return str(self.error)


def check_farm(farm: Farm, bad_photo_share: float = 0.05) -> list[Fault]:
    """Look at every photo and mask of a farm.

    An unreadable unlabelled photo is a warning, since training skips it, until there are more
    than training allows; an unreadable labelled photo is an error.

    Args:
        farm: The farm.
        bad_photo_share: Share of photos that training may skip, 0-1; above 0, one always may.

    Returns:
        The faults: those of photos and masks in the order of their names, then those of the farm.
    """
    return inspect_farm(farm, bad_photo_share)[0]


def inspect_farm(farm: Farm, bad_photo_share: float = 0.05) -> tuple[list[Fault], Pixels]:
    """Look at every photo and mask, as `check_farm`, and count the pixels of sound masks.

    Args:
        farm: The farm.
        bad_photo_share: Share of photos that training may skip, 0-1; above 0, one always may.

    Returns:
        The faults, and the number of pixels of each id, int64 (256,).
    """

    def look(photo: Photo) -> tuple[list[Fault], Pixels]:
        if photo.mask is None:
            return list(_photo_faults(photo)), np.zeros(256, np.int64)
        return _labelled_faults(farm, photo)

    faults: list[Fault] = []
    pixels = np.zeros(256, np.int64)
    for found, counts in on_all_cores(look, farm.photos):
        faults.extend(found)
        pixels += counts
    seen = set(np.flatnonzero(pixels[:IGNORE_ID]).tolist())
    skipped = [f for f in faults if f.severity == WARNING and isinstance(f.error, ImageError)]
    allowed = max(1, int(bad_photo_share * len(farm.photos))) if bad_photo_share else 0
    if len(skipped) > min(allowed, len(farm.photos) - 1):
        faults = [_as_error(f) if f in skipped else f for f in faults]
    return [*faults, *_farm_faults(farm, seen)], pixels


def raise_on_errors(faults: Sequence[Fault]) -> None:
    """Stop if any fault is an error.

    Args:
        faults: What `check_farm` found.

    Raises:
        FieldDataError: At least one is; an ImageError or MaskError if all of them are.
    """
    errors = [fault for fault in faults if fault.severity == ERROR]
    if not errors:
        return
    first = errors[0].error
    if len(errors) == 1:
        raise first
    kinds = {type(fault.error) for fault in errors}
    kind = kinds.pop() if len(kinds) == 1 else FieldDataError
    named = ", ".join(str(fault.path) for fault in errors[:3])
    more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
    raise kind(
        f"{len(errors)} faults in {named}{more}, the first: {first.found}",
        first.expected,
        first.remedy,
    )


def _photo_faults(photo: Photo, severity: str = WARNING) -> Iterator[Fault]:
    """Yield what is wrong with a photo."""
    seen = survey(photo)
    if seen.error is not None:
        yield Fault(severity=severity, path=photo.path, error=seen.error)
        return
    height, width = seen.size
    if min(height, width) < MIN_SIDE_PX:
        small = ImageError(
            f"{photo.path} is {width}x{height} px",
            f"at least {MIN_SIDE_PX} px a side",
            "remove it",
        )
        yield Fault(severity=ERROR, path=photo.path, error=small)


def _labelled_faults(farm: Farm, photo: Photo) -> tuple[list[Fault], Pixels]:
    """Return what is wrong with a labelled photo, and the pixels of each id in its mask."""
    none: Pixels = np.zeros(256, np.int64)
    faults = list(_photo_faults(photo, ERROR))
    if photo.mask is None or any(isinstance(f.error, ImageError) for f in faults):
        return faults, none
    try:
        mask = read_mask(farm, photo)
    except MaskError as error:
        return [Fault(severity=ERROR, path=photo.mask, error=error)], none
    pixels: Pixels = np.bincount(mask.ravel(), minlength=256).astype(np.int64)
    if not pixels[:IGNORE_ID].any():
        empty = MaskError(
            f"mask {photo.mask} ignores every pixel", "annotated pixels", "finish or remove it"
        )
        faults.append(Fault(severity=ERROR, path=photo.mask, error=empty))
    return faults, pixels


def _farm_faults(farm: Farm, seen: set[int]) -> Iterator[Fault]:
    """Yield what is wrong with the farm as a whole, given the classes in its masks."""
    for mask in farm.unmatched:
        lost = MaskError(
            f"mask {mask} has no photo",
            "a photo with the same stem",
            "add the photo or remove the mask",
        )
        yield Fault(severity=ERROR, path=mask, error=lost)
    if seen and not seen & set(farm.classes.ids_of(Role.WEED)):
        bare = FieldDataError(
            f"no weed pixel in any of {len(farm.labelled)} masks of {farm.root}",
            "some annotated weeds",
            "label photos that show weeds, or check classes and palette",
        )
        yield Fault(severity=ERROR, path=farm.root, error=bare)


def _as_error(fault: Fault) -> Fault:
    return Fault(severity=ERROR, path=fault.path, error=fault.error)
