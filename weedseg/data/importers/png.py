"""Photos and PNG masks of class ids, in any layout that `weedseg.data.index` knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from weedseg.config import DataConfig
from weedseg.data.importers.items import Collection, ImportOptions, from_farm
from weedseg.data.index import Farm, index_farm
from weedseg.data.pairing import is_image, pair_masks, walk
from weedseg.data.palette import palette_sentence
from weedseg.errors import MaskError
from weedseg.imaging import mask_mode
from weedseg.toml_files import read_toml


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read a folder of photos and id masks.

    Args:
        src: Folder with both, or with the masks only if `options.photos` is given.
        options: Where the photos are; field, date, ground resolution.

    Returns:
        One item a photo.

    Raises:
        MaskError: A mask holds colours, or no photo fits it.
    """
    farm = paired_farm(src, options, DataConfig())
    for photo in farm.labelled:
        if photo.mask is not None and mask_mode(photo.mask) == "colours":
            raise MaskError(f"{photo.mask} holds colours", "class ids", "import it as rgb")
    return Collection(items=from_farm(farm, options, {}), classes=farm.classes)


def paired_farm(src: Path, options: ImportOptions, config: DataConfig) -> Farm:
    """Index photos and masks.

    Args:
        src: Folder with both, or with the masks only if `options.photos` is given.
        options: Where the photos are; a ``classes.toml`` beside the masks then decides.
        config: Palette of colour masks.

    Returns:
        The farm.

    Raises:
        MaskError: A mask has no photo.
    """
    if options.photos is None:
        farm = index_farm(src, config=config)
    else:
        farm = _with_masks_of(src, options.photos, config)
    if farm.unmatched:
        raise MaskError(
            f"{len(farm.unmatched)} masks without a photo, the first {farm.unmatched[0]}",
            "a photo with the same stem",
            "add the photos or remove the masks",
        )
    return farm


def sentence(farm: Farm, chosen: bool) -> str:
    """Say how colours are read."""
    return palette_sentence(farm.classes, farm.palette, chosen)


def _with_masks_of(src: Path, photos: Path, config: DataConfig) -> Farm:
    """Index the photos of one folder with the masks of another, whatever lies beside the photos."""
    table = src / "classes.toml"
    rows = read_toml(table).get("classes") if table.is_file() else None
    farm = index_farm(photos, config=replace(config, classes=rows) if rows else config)
    masks = [f for f in walk(src) if is_image(f)]
    paired, lost = pair_masks([p.path for p in farm.photos], masks, photos, src)
    found = tuple(replace(p, mask=paired.get(p.path)) for p in farm.photos)
    return replace(farm, photos=found, unmatched=tuple(lost))
