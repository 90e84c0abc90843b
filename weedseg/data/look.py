"""What looks odd about a photo or a farm: warnings that a person should see before training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from weedseg.classes import Role
from weedseg.data.check import ERROR, WARNING, Fault, Pixels, inspect_farm
from weedseg.data.duplicates import duplicate_groups
from weedseg.data.importers.items import understood
from weedseg.data.index import Farm, Photo, content_hashes
from weedseg.data.survey import Survey, survey
from weedseg.errors import FieldDataError, ImageError, MaskError, SplitError
from weedseg.imaging import read_mask_pixels

SPLIT_FILE = "split.json"
PUBLISHED = "published split"
"""Note of a split that came with the data; its leaks are warnings."""
DARK, BRIGHT = 12, 243
"""Mean grey value, 0-255, beyond which a photo is black or over-exposed."""
SHARP = 4.0
"""Smallest variance of the Laplacian of a photo that is not blurred, at 512 px."""
RESOLUTION_STEP = 2.0
"""Ground resolutions that differ by more than this factor are mixed."""
PLANTS = 0.9
"""Above this share of plants the masks look inverted."""


def full_check(farm: Farm, bad_photo_share: float = 0.05) -> tuple[list[Fault], Pixels]:
    """Find everything that is wrong with a farm or odd about it.

    Args:
        farm: The farm.
        bad_photo_share: Share of photos that training may skip, 0-1.

    Returns:
        Errors first, then warnings; and the number of pixels of each id, int64 (256,).
    """
    faults, pixels = inspect_farm(farm, bad_photo_share)
    faults = [*faults, *look_closer(farm), *share_faults(farm, pixels)]
    return sorted(faults, key=lambda fault: fault.severity != ERROR), pixels


def look_closer(farm: Farm) -> list[Fault]:
    """Find what `check_farm` does not: what looks odd, and leaks between the parts of a split.

    Args:
        farm: The farm; photos that cannot be read are left to `check_farm`.

    Returns:
        Faults of photos, then of the farm; all are warnings but leaks in ``split.json``.
    """
    faults = [fault for photo in farm.photos for fault in _photo_faults(photo)]
    readable = [photo for photo in farm.photos if photo.path.is_file()]
    groups = duplicate_groups(readable).tolist()
    faults.extend(_duplicates(readable, groups))
    faults.extend(_resolutions(farm))
    faults.extend(_split_faults(farm, {p.name: g for p, g in zip(readable, groups)}))
    return faults


def share_faults(farm: Farm, pixels: Pixels) -> list[Fault]:
    """Judge the class shares; more weed than crop is no fault.

    Args:
        farm: Classes.
        pixels: Number of pixels of each id, int64 (256,).

    Returns:
        At most two warnings.
    """
    counted = pixels[: len(farm.classes)]
    total = int(counted.sum())
    if not total:
        return []
    faults = []
    plants = 1 - counted[list(farm.classes.ids_of(Role.BACKGROUND))].sum() / total
    if plants > PLANTS:
        odd = FieldDataError(
            f"{100 * plants:.0f} % of the labelled pixels of {farm.root} are plants",
            "mostly soil",
            "check classes and palette: are masks inverted?",
        )
        faults.append(Fault(severity=WARNING, path=farm.root, error=odd))
    weeds = farm.classes.ids_of(Role.WEED)
    any_weed = bool(counted[list(weeds)].any())  # without any, `check_farm` says so
    missing = [
        farm.classes.names[i]
        for i, n in enumerate(counted)
        if not n and (any_weed or i not in weeds)
    ]
    if missing:
        rare = FieldDataError(
            f"no pixel of class {', '.join(missing)} in {farm.root}",
            "every class in some mask",
            "label some or remove the class from classes.toml",
        )
        faults.append(Fault(severity=WARNING, path=farm.root, error=rare))
    return faults


def _photo_faults(photo: Photo) -> Iterator[Fault]:
    """Yield what looks odd about one photo."""
    seen = survey(photo)
    if seen.error is not None:
        return
    found = ""
    if seen.grey < DARK:
        found = f"{photo.path} is all but black"
    elif seen.grey > BRIGHT:
        found = f"{photo.path} is over-exposed"
    elif seen.sharpness < SHARP:
        found = f"{photo.path} is blurred or flat"
    if found:
        odd = ImageError(found, "a sharp, well-lit photo", "look at it; remove it if it is useless")
        yield Fault(severity=WARNING, path=photo.path, error=odd)
    if photo.mask is not None and seen.turn > 1:
        yield from _turned(photo, photo.mask, seen)


def _turned(photo: Photo, mask: Path, seen: Survey) -> Iterator[Fault]:
    """Yield a warning if EXIF data turn a photo and its mask lies as the photo is stored."""
    try:
        drawn = read_mask_pixels(mask).shape[:2]
    except MaskError:
        return
    if seen.turn < 5 or drawn != seen.size:
        odd = MaskError(
            f"EXIF data turn {photo.path} (orientation {seen.turn}) but perhaps not {mask}",
            "a mask that lies as a person sees the photo",
            "look at an overlay of both",
        )
        yield Fault(severity=WARNING, path=mask, error=odd)


def _duplicates(photos: Sequence[Photo], groups: Sequence[int]) -> Iterator[Fault]:
    """Yield one warning a group of photos that show the same thing."""
    members: dict[int, list[Photo]] = {}
    for photo, group in zip(photos, groups):
        members.setdefault(group, []).append(photo)
    for same in members.values():
        if len(same) < 2:
            continue
        equal = len(set(content_hashes([p.path for p in same]))) == 1
        names = ", ".join(str(p.path) for p in same[:4])
        odd = ImageError(
            f"{len(same)} photos {'are identical' if equal else 'look the same'}: {names}",
            "different photos",
            "nothing to do: they stay in one part of a split",
        )
        yield Fault(severity=WARNING, path=same[0].path, error=odd)


def _resolutions(farm: Farm) -> Iterator[Fault]:
    """Yield a warning if ground resolutions differ much, or only some are known."""
    known = [p for p in farm.photos if p.mm_per_px]
    values = sorted(p.mm_per_px or 0 for p in known)
    if not values:
        return
    found = ""
    if values[-1] > RESOLUTION_STEP * values[0]:
        found = f"ground resolutions from {values[0]:g} to {values[-1]:g} mm per px"
    elif len(known) < len(farm.photos):
        found = f"{len(farm.photos) - len(known)} photos without ground resolution, others with one"
    if found:
        odd = FieldDataError(f"{farm.root}: {found}", "one", "correct fields.csv or train apart")
        yield Fault(severity=WARNING, path=farm.root, error=odd)


def _split_faults(farm: Farm, groups: dict[str, int]) -> Iterator[Fault]:
    """Yield an error for each group of photos that ``split.json`` puts in two parts.

    Duplicates of test photos must be nowhere else; whole fields or visits only where the split
    says that it keeps them apart.
    """
    path = farm.root / SPLIT_FILE
    if not path.is_file():
        return
    try:
        with understood(path, "a split of weedseg"):
            values = json.loads(path.read_text(encoding="utf-8"))
            parts = {n: part for part in ("train", "val", "test") for n in values[part]}
            keys = str(values["basis"]).split("/") if not values["within_field"] else []
            known = values.get("note") == PUBLISHED or values.get("leaks", False)
            severity = WARNING if known else ERROR
    except FieldDataError as error:
        yield Fault(severity=ERROR, path=path, error=error)
        return
    if values.get("leaks", False):
        forced = SplitError(
            f"{path} cuts known groups, as was asked for",
            "a split that keeps them together",
            "distrust its figures, or make a new split with weedseg data split --replace",
        )
        yield Fault(severity=WARNING, path=path, error=forced)
    first: dict[tuple[str, str], str] = {}
    told: set[tuple[str, str]] = set()
    for photo in farm.photos:
        part = parts.get(photo.name)
        if part is None:
            continue
        place = [photo.field if key == "field" else f"{photo.field} {photo.date}" for key in keys]
        kinds = [("photos that look like", str(groups.get(photo.name, photo.name)), part)]
        kinds += [("photos of the place of", " ".join(place), str(part == "test"))] if place else []
        for words, key, side in kinds:
            other = first.setdefault((words, key), side)
            if other != side and (words, key) not in told:
                told.add((words, key))
                leak = SplitError(
                    f"{path} has {photo.path} in {part} and others alike elsewhere",
                    f"{words} it in one part",
                    "make a new split with weedseg data split --replace",
                )
                yield Fault(severity=severity, path=farm.root / photo.name, error=leak)
