"""Read a mask: ids or colours become class ids that fit the photo, or a sentence says why not."""

from __future__ import annotations

import cv2
import numpy as np

from weedseg.classes import IGNORE_ID
from weedseg.data.index import Farm, Photo
from weedseg.data.palette import Palette, colour_text
from weedseg.errors import ImageError, MaskError
from weedseg.imaging import (
    Image,
    Mask,
    MaskPixels,
    image_size,
    orient,
    orientation,
    read_mask_pixels,
)


def read_mask(farm: Farm, photo: Photo) -> Mask:
    """Read the mask of a photo.

    The mask lies as a person sees the photo; one that only fits the photo's stored size is turned
    as the photo is. Grey and 16-bit masks hold class ids; so do palette PNGs, unless all their
    colours are known ones; RGB masks are read by the farm's palette.

    Args:
        farm: Classes and palette.
        photo: A labelled photo of it.

    Returns:
        Class ids, uint8 (H, W) of the oriented photo, 255 = ignore.

    Raises:
        MaskError: The mask is missing, unreadable, of another size, or holds an unknown value.
    """
    if photo.mask is None:
        raise MaskError(f"{photo.path} has no mask", "a labelled photo", "add a mask")
    pixels = _fit(read_mask_pixels(photo.mask, frozenset(farm.palette)), photo)
    name = f"mask {photo.mask}"
    if pixels.ndim == 3:
        return colours_to_ids(np.asarray(pixels, np.uint8), farm.palette, name)
    return _check_ids(pixels, len(farm.classes), name)


def colours_to_ids(pixels: Image, palette: Palette, name: str) -> Mask:
    """Turn colours into class ids.

    Args:
        pixels: uint8 (H, W, 3), RGB.
        palette: Colour -> class id.
        name: What messages call the mask.

    Returns:
        Class ids, uint8 (H, W).

    Raises:
        MaskError: A colour is not in the palette.
    """
    codes = cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA).view("<u4")[..., 0]
    ids = np.full(codes.shape, IGNORE_ID, np.uint8)
    known = np.zeros(codes.shape, bool)
    for (red, green, blue), class_id in palette.items():
        here = codes == np.uint32(0xFF000000 | blue << 16 | green << 8 | red)
        known |= here
        ids[here] = class_id
    if not known.all():
        values, counts = np.unique(codes[~known], return_counts=True)
        worst = int(values[counts.argmax()])
        colour = colour_text((worst & 255, worst >> 8 & 255, worst >> 16 & 255))
        raise MaskError(
            f"{name} has colour {colour} and {len(values) - 1} other unknown ones "
            f"in {int(counts.sum())} px",
            f"only {', '.join(colour_text(c) for c in palette)}",
            f'name it, e.g. --set \'data.palette={{"{colour}" = "weed"}}\' with all colours',
        )
    return ids


def _check_ids(pixels: MaskPixels, num_classes: int, name: str) -> Mask:
    """Check class ids.

    Raises:
        MaskError: A value is no class id.
    """
    wrong = (pixels >= num_classes) & (pixels != IGNORE_ID)
    if wrong.any():
        value = int(pixels[wrong].min())
        raise MaskError(
            f"{name} has class value {value} in {int((pixels == value).sum())} px",
            f"0 to {num_classes - 1}, or {IGNORE_ID} for ignore",
            "correct the mask or add the class to classes.toml",
        )
    return pixels.astype(np.uint8)


def _fit(pixels: MaskPixels, photo: Photo) -> MaskPixels:
    """Check the size and turn the mask as the photo if only that fits.

    Raises:
        MaskError: The sizes differ.
    """
    try:
        height, width = image_size(photo.path)
        turn = orientation(photo.path)
    except ImageError as error:
        raise MaskError(
            f"mask {photo.mask}: {error.found}", error.expected, error.remedy
        ) from error
    if pixels.shape[:2] == (height, width):
        return pixels
    if turn > 4 and pixels.shape[:2] == (width, height):
        return orient(pixels, turn)
    raise MaskError(
        f"mask {photo.mask} is {pixels.shape[1]}x{pixels.shape[0]} px",
        f"{width}x{height} px as {photo.path}",
        "export the mask at the photo's size",
    )
