"""PNG masks of class ids, each at the path of its photo."""

from __future__ import annotations

from pathlib import Path

from weedseg.data.index import Farm
from weedseg.data.masks import read_mask
from weedseg.imaging import write_png


def export(farm: Farm, out: Path) -> None:
    """Write one PNG a labelled photo.

    Args:
        farm: The farm.
        out: The folder.
    """
    for photo in farm.labelled:
        write_png(out / f"{photo.name.rpartition('.')[0]}.png", read_mask(farm, photo))
