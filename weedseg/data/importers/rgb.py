"""Photos and colour masks; the palette says what the colours mean."""

from __future__ import annotations

from pathlib import Path

from weedseg.config import DataConfig
from weedseg.data.importers.items import Collection, ImportOptions, from_farm
from weedseg.data.importers.png import paired_farm, sentence


def collect(src: Path, options: ImportOptions) -> Collection:
    """Read a folder of photos and colour masks.

    Args:
        src: Folder with both, or with the masks only if `options.photos` is given.
        options: Palette; without one black, green and red are background, crop and weed.

    Returns:
        One item a photo.

    Raises:
        ConfigError: The palette is wrong.
    """
    farm = paired_farm(src, options, DataConfig(palette=dict(options.palette)))
    return Collection(
        items=from_farm(farm, options, {}),
        classes=farm.classes,
        notes=(sentence(farm, bool(options.palette)),),
    )
