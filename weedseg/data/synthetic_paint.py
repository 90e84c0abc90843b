"""Paint plants, their shadows, straw and dead leaves onto the soil of the synthetic farm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.data.synthetic_plants import Leaf, Plant, Points, Rng, Shape, leaf
from weedseg.data.synthetic_soil import Soil
from weedseg.imaging import Image, Mask

CROP_ID, WEED_ID = 1, 2

_SHIFT = 4
_FINE_PX = 11.0
"""Shorter leaves are painted in one colour and without a shadow of their own."""
_VEINED_PX = 26.0
_GLARE = (236, 244, 228)
_RESIDUE_PER_MEGAPIXEL = 26


def paint_plants(
    rng: Rng, image: Image, mask: Mask, plants: Sequence[Plant], light: tuple[Soil, float]
) -> None:
    """Paint plants one over the other, each with its shadow, into photo and mask.

    Args:
        rng: Decides which leaves shine.
        image: uint8 (H, W, 3), RGB; changed.
        mask: uint8 (H, W); changed.
        plants: In the order in which they are painted.
        light: The soil, which knows the sun, and how strongly leaves shine, 0-1.
    """
    soil, gloss = light
    for plant in plants:
        fall = np.array(soil.sun) * 0.2 * plant.radius
        _shade(image, [part.outline + fall for part in plant.leaves], soil.hardness)
        for part in plant.leaves:
            if part.length > _VEINED_PX:
                _shade(image, [part.outline + 0.3 * fall], 0.7 * soil.hardness)
            shine = gloss * float(rng.random()) ** 3
            _paint(image, mask, (plant, part), (shine, soil.sun))


def paint_residue(rng: Rng, image: Image, amount: float, light: tuple[Soil, float]) -> None:
    """Lay straw, twigs and dead leaves on the soil.

    Args:
        rng: Decides everything.
        image: uint8 (H, W, 3), RGB; changed.
        amount: 0 (none) to 1.
        light: The soil, which knows the sun, and the zoom.
    """
    soil, zoom = light
    height, width = image.shape[:2]
    area = height * width / 1e6
    for _ in range(int(rng.poisson(_RESIDUE_PER_MEGAPIXEL * amount * area * 4 / zoom))):
        base = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        is_leaf = rng.random() < 0.15
        length = zoom * float(rng.uniform(24, 50) if is_leaf else rng.uniform(8, 46))
        thin = float(rng.uniform(0.28, 0.5)) if is_leaf else float(rng.uniform(0.04, 0.1))
        shape = Shape(width=max(thin, 1.6 / length), teeth=0.2, bend=float(rng.uniform(-1.1, 1.1)))
        part = leaf(rng, base, float(rng.uniform(0, 2 * math.pi)), length, shape)
        tone = int(rng.integers(96, 214))
        colour = (
            tone,
            tone * int(rng.integers(80, 97)) // 100,
            tone * int(rng.integers(54, 88)) // 100,
        )
        fall = np.array(soil.sun) * zoom * float(rng.uniform(0.8, 2.4))
        _shade(image, [part.outline + fall], soil.hardness)
        toned = _times(colour, part.brightness)
        cv2.fillPoly(image, [fixed(part.outline)], toned, cv2.LINE_AA, _SHIFT)
        if is_leaf:
            _halves(image, part, colour, soil.sun)


def fixed(points: Points) -> npt.NDArray[np.int32]:
    """Turn px into the sixteenths in which OpenCV draws."""
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _shade(image: Image, outlines: Sequence[Points], hardness: float) -> None:
    """Darken what lies in the shadow of some outlines."""
    height, width = image.shape[:2]
    low = np.min([points.min(axis=0) for points in outlines], axis=0) - 4
    high = np.max([points.max(axis=0) for points in outlines], axis=0) + 5
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(width, int(high[0])), min(height, int(high[1]))
    if right <= left or bottom <= top:
        return
    shade = np.zeros((bottom - top, right - left), np.uint8)
    for points in outlines:
        cv2.fillPoly(shade, [fixed(points - (left, top))], 255, cv2.LINE_8, _SHIFT)
    side = 5 if hardness > 0.5 else 9
    soft = np.asarray(cv2.GaussianBlur(shade, (side, side), 0), np.uint8)
    deep = 60 + round(100 * hardness)
    kept = 255 - (soft.astype(np.uint16) * deep >> 8)
    part = image[top:bottom, left:right]
    part[:] = (part * kept[..., None].astype(np.uint16) >> 8).astype(np.uint8)


def _paint(
    image: Image, mask: Mask, what: tuple[Plant, Leaf], light: tuple[float, tuple[float, float]]
) -> None:
    """Paint one leaf onto the photo and into the mask."""
    plant, part = what
    shine, sun = light
    mixed = [v + (white - v) * shine for v, white in zip(plant.colour, _GLARE)]
    colour = _times(mixed, part.brightness)
    outline, rib = fixed(part.outline), fixed(part.midrib)
    cv2.fillPoly(image, [outline], colour, cv2.LINE_AA, _SHIFT)
    cv2.fillPoly(mask, [outline], WEED_ID if plant.is_weed else CROP_ID, cv2.LINE_8, _SHIFT)
    if part.length < _FINE_PX:
        return
    _halves(image, part, colour, sun)
    if part.length > _VEINED_PX:
        _veins(image, (outline, rib), colour)
    thick = 1 + (part.length > 70)
    cv2.polylines(image, [rib[:-1]], False, _times(colour, 1.16), thick, cv2.LINE_AA, _SHIFT)


def _halves(image: Image, part: Leaf, colour: Sequence[float], sun: tuple[float, float]) -> None:
    """Darken the half of a leaf that is turned away from the sun, lighten the middle of both.

    Shadows fall along `sun`, so light comes from the other side.
    """
    outline, rib = fixed(part.outline), fixed(part.midrib)
    num = len(rib)
    along = part.midrib[-1] - part.midrib[0]
    across = float(along[0] * sun[1] - along[1] * sun[0]) / max(1.0, part.length)
    for side, tilt in ((outline[:num], -across), (outline[: num - 1 : -1], across)):
        half = np.concatenate([side, rib[::-1]])
        cv2.fillPoly(image, [half], _times(colour, 1 + 0.11 * tilt), cv2.LINE_AA, _SHIFT)
        if part.length > 2 * _FINE_PX:
            out = side - rib
            band = np.concatenate([rib + (out * 9 >> 4), (rib + (out >> 3))[::-1]])
            cv2.fillPoly(image, [band], _times(colour, 1.05 + 0.11 * tilt), cv2.LINE_AA, _SHIFT)


def _veins(
    image: Image,
    lines: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]],
    colour: Sequence[float],
) -> None:
    """Draw side veins from the midrib towards the margin; `lines` are outline and midrib."""
    outline, rib = lines
    num = len(rib)
    veins: list[npt.NDArray[np.int32]] = []
    for side in (outline[:num], outline[: num - 1 : -1]):
        starts = rib[2 : num - 3 : 2]
        ends = starts + ((side[4 : num - 1 : 2] - starts) * 13 >> 4)
        veins.extend(np.stack([starts, ends], axis=1))
    cv2.polylines(image, veins, False, _times(colour, 1.1), 1, cv2.LINE_AA, _SHIFT)


def _times(colour: Sequence[float], factor: float) -> tuple[int, int, int]:
    red, green, blue = colour
    return min(255, int(red * factor)), min(255, int(green * factor)), min(255, int(blue * factor))
