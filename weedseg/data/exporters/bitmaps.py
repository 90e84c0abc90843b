"""The masks of a farm as one bitmap a class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from weedseg.classes import IGNORE_ID
from weedseg.data.importers.naming import IGNORE_NAME
from weedseg.data.index import Farm, Photo
from weedseg.data.masks import read_mask
from weedseg.data.rle import Bitmap
from weedseg.imaging import Mask, image_size


def label_names(farm: Farm) -> list[str]:
    """Return the names of all labels: the classes, then ignore."""
    return [*farm.classes.names, IGNORE_NAME]


def mask_of(farm: Farm, photo: Photo) -> tuple[tuple[int, int], Mask | None]:
    """Return a photo's (H, W) and its mask, None without one."""
    if photo.mask is None:
        return image_size(photo.path), None
    mask = read_mask(farm, photo)
    return (mask.shape[0], mask.shape[1]), mask


def bitmaps(mask: Mask, num_classes: int) -> Iterator[tuple[int, Bitmap]]:
    """Yield where each class is.

    Background is yielded only when there is nothing else: that tells a photo of bare soil from
    an unlabelled one, and a label tool shows the soil as it is.

    Args:
        mask: uint8 (H, W).
        num_classes: How many classes there are.

    Yields:
        Position in `label_names` and bool (H, W).
    """
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()
    for value in present:
        if value or len(present) == 1:
            yield num_classes if value == IGNORE_ID else value, mask == value


def frame_of(bitmap: Bitmap) -> tuple[int, int, int, int]:
    """Return left, top, width and height, px, of what is True; something must be."""
    columns, rows = np.flatnonzero(bitmap.any(axis=0)), np.flatnonzero(bitmap.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
