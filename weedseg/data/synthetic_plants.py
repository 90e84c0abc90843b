"""Leaf outlines of the synthetic farm: three crops and five weeds, at any growth stage.

Points are (x, y) in px, float64. All plants of a photo share one range of greens, so only shape,
size and place tell crop from weed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Points: TypeAlias = npt.NDArray[np.float64]
Rng: TypeAlias = np.random.Generator
Centre: TypeAlias = tuple[float, float]

_STEPS = 15
_ALONG = np.arange(_STEPS) / (_STEPS - 1)
_NARROW_PX = 0.6
"""Half width of the narrowest leaf that is still seen."""


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One leaf or stalk, drawn as a filled outline with ribs."""

    outline: Points
    """(2 m, 2), closed; the first half lies on one side of the midrib."""
    midrib: Points
    """(m, 2), from the base to the tip."""
    brightness: float
    """Factor on the colour of the plant."""
    length: float
    """px."""


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A plant seen from above, in the order in which its leaves are painted."""

    leaves: tuple[Leaf, ...]
    colour: tuple[int, int, int]
    """RGB, 0-255."""
    is_weed: bool
    radius: float
    """px; its leaves lie about a fifth of it above the soil."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Outline of a leaf blade, in shares of its length."""

    width: float
    """Largest width."""
    widest: float = 0.5
    """Where it is widest, 0 (base) to 1 (tip)."""
    teeth: float = 0.0
    """Depth of the teeth or lobes at the margin, share of the width."""
    bend: float = 0.0
    """How far the midrib turns from base to tip, radians."""


@dataclass(frozen=True, kw_only=True)
class Greens:
    """The greens of one photo."""

    green: tuple[int, int]
    """Lowest and highest green value, 0-255."""
    red: int
    """Red as per cent of green."""
    blue: int
    """Blue as per cent of green."""


Draw: TypeAlias = Callable[[Rng, Centre, float, float], "list[Leaf]"]
"""Draws the leaves of a plant from (rng, centre, radius in px, growth stage 0-1)."""


def draw_greens(rng: Rng) -> Greens:
    """Draw the greens of a field and date: from yellowish to bluish, from dull to bright."""
    low = int(rng.integers(96, 168))
    return Greens(
        green=(low, low + int(rng.integers(28, 56))),
        red=int(rng.integers(48, 84)),
        blue=int(rng.integers(26, 74)),
    )


def draw_plant(
    rng: Rng, draw: Draw, centre: Centre, size: tuple[float, float], kind: tuple[bool, Greens]
) -> Plant:
    """Draw a plant.

    Args:
        rng: Decides everything.
        draw: Its habit.
        centre: Where it stands, (x, y) px.
        size: Radius in px and growth stage 0-1.
        kind: Whether it is a weed, and the greens of the photo.

    Returns:
        The plant.
    """
    greens = kind[1]
    green = int(rng.integers(*greens.green))
    red = green * (greens.red + int(rng.integers(-9, 10))) // 100
    blue = green * (greens.blue + int(rng.integers(-9, 10))) // 100
    leaves = tuple(draw(rng, centre, *size))
    return Plant(leaves=leaves, colour=(red, green, blue), is_weed=kind[0], radius=size[0])


def leaf(rng: Rng, base: Centre, angle: float, length: float, shape: Shape) -> Leaf:
    """Draw one blade.

    Args:
        rng: Decides brightness and irregularity.
        base: Where it begins, (x, y) px.
        angle: Direction in which it leaves the base, radians.
        length: px.
        shape: Outline.

    Returns:
        The leaf.
    """
    facing = np.exp(1j * (angle + shape.bend * _ALONG))
    midrib = np.cumsum(facing) - facing
    midrib = complex(*base) + midrib * (length / (_STEPS - 1))
    power = math.log(0.5) / math.log(shape.widest)
    half = 0.5 * shape.width * length * np.sin(math.pi * _ALONG**power) ** 0.75
    sides = half * (1 + rng.uniform(-0.07, 0.07, (2, _STEPS)))
    sides[:, 1:-1:2] *= 1 - shape.teeth
    out = np.maximum(sides, min(_NARROW_PX, 0.25 * length)) * (1j * facing)
    outline = np.concatenate([midrib + out[0], (midrib - out[1])[::-1]])
    brightness = float(rng.uniform(0.84, 1.16))
    return Leaf(
        outline=outline.view(np.float64).reshape(-1, 2),
        midrib=midrib.view(np.float64).reshape(-1, 2),
        brightness=brightness,
        length=length,
    )


def beet(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a broad-leaf crop: stalked, egg-shaped leaves in opposite pairs, seed leaves below."""
    first = _angle(rng)
    leaves = _seed_leaves(rng, centre, first + 1.3, 0.42 * radius, 0.42)
    for pair in range(1 + round(stage * 4)):
        for side in (0.0, math.pi):
            angle = first + pair * 1.9 + side + float(rng.uniform(-0.25, 0.25))
            reach = radius * float(rng.uniform(0.8, 1.05)) * (1 - 0.13 * pair)
            stalk = 0.32 * reach
            blade = Shape(width=0.56, widest=0.44, bend=float(rng.uniform(-0.3, 0.3)))
            leaves.append(_stalk(rng, centre, angle, 1.15 * stalk))
            leaves.append(leaf(rng, _at(centre, angle, stalk), angle, reach - stalk, blade))
    return leaves


def legume(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a legume crop: stalks that each end in two pairs of oval leaflets."""
    leaves = []
    first = _angle(rng)
    for number in range(3 + round(stage * 5)):
        angle = first + number * 2.4 + float(rng.uniform(-0.3, 0.3))
        reach = radius * float(rng.uniform(0.45, 0.72)) * (1 - 0.05 * number)
        length = radius * float(rng.uniform(0.36, 0.48))
        leaves.append(_stalk(rng, centre, angle, reach))
        blade = Shape(width=float(rng.uniform(0.5, 0.68)), widest=0.56)
        for back, turn in ((0.18, 1.15), (0.18, -1.15), (0.0, 0.42), (0.0, -0.42)):
            start = _at(centre, angle, reach - back * length)
            turned = angle + turn + float(rng.uniform(-0.15, 0.15))
            leaves.append(leaf(rng, start, turned, length * float(rng.uniform(0.85, 1.05)), blade))
    return leaves


def maize(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a cereal crop: long straps to two sides, arched."""
    leaves = []
    plane = _angle(rng)
    for number in range(2 + round(stage * 4)):
        angle = plane + math.pi * (number % 2) + float(rng.uniform(-0.35, 0.35))
        length = radius * float(rng.uniform(0.85, 1.3)) * (1 - 0.08 * number)
        bend = float(rng.uniform(-0.6, 0.6))
        shape = Shape(width=float(rng.uniform(0.13, 0.19)), widest=0.4, bend=bend)
        leaves.append(leaf(rng, centre, angle, length, shape))
    return leaves


def rosette(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a broad-leaf weed: toothed leaves without stalks, all around."""
    num = 5 + round(stage * 7)
    first = _angle(rng)
    leaves = []
    for i in range(num):
        angle = first + 2 * math.pi * i / num + float(rng.uniform(-0.2, 0.2))
        shape = Shape(width=0.34, widest=0.68, teeth=0.36, bend=float(rng.uniform(-0.3, 0.3)))
        leaves.append(leaf(rng, centre, angle, radius * float(rng.uniform(0.65, 1.0)), shape))
    return leaves


def grass(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a grass weed: narrow, bent blades."""
    leaves = []
    for _ in range(2 + round(stage * 6)):
        length = radius * float(rng.uniform(0.7, 1.6))
        width = max(2.2 / length, float(rng.uniform(0.05, 0.09)))
        shape = Shape(width=width, widest=0.35, bend=float(rng.uniform(-0.9, 0.9)))
        leaves.append(leaf(rng, centre, _angle(rng), length, shape))
    return leaves


def seedling(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a weed with two round seed leaves and, later, pairs of true leaves across them."""
    first = _angle(rng)
    leaves = _seed_leaves(rng, centre, first, 0.5 * radius, float(rng.uniform(0.5, 0.85)))
    for pair in range(1, 1 + round(stage * 3)):
        for side in (0.0, math.pi):
            shape = Shape(width=0.46, widest=0.5)
            angle = first + 0.5 * math.pi * pair + side + float(rng.uniform(-0.15, 0.15))
            leaves.append(leaf(rng, centre, angle, radius * (0.34 + 0.16 * pair), shape))
    return leaves


def creeper(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a creeping weed: stalks that each end in three round leaflets."""
    leaves = []
    for _ in range(3 + round(stage * 4)):
        angle = _angle(rng)
        reach = radius * float(rng.uniform(0.35, 0.8))
        leaves.append(_stalk(rng, centre, angle, reach))
        for turn in (-1.6, 0.0, 1.6):
            shape = Shape(width=0.9, widest=0.6)
            end = _at(centre, angle, reach)
            leaves.append(leaf(rng, end, angle + turn, 0.34 * radius, shape))
    return leaves


def feathery(rng: Rng, centre: Centre, radius: float, stage: float) -> list[Leaf]:
    """Draw a weed with deeply cut, feather-like leaves."""
    leaves = []
    first = _angle(rng)
    num = 4 + round(stage * 5)
    for i in range(num):
        angle = first + 2 * math.pi * i / num + float(rng.uniform(-0.4, 0.4))
        shape = Shape(width=0.52, widest=0.6, teeth=0.84, bend=float(rng.uniform(-0.5, 0.5)))
        leaves.append(leaf(rng, centre, angle, radius * float(rng.uniform(0.6, 1.05)), shape))
    return leaves


CROPS: dict[str, Draw] = {"beet": beet, "legume": legume, "maize": maize}
"""The crops; a farm grows one of them."""
WEEDS: dict[str, Draw] = {
    "rosette": rosette,
    "grass": grass,
    "seedling": seedling,
    "creeper": creeper,
    "feathery": feathery,
}
"""The weeds."""


def _seed_leaves(rng: Rng, centre: Centre, angle: float, length: float, width: float) -> list[Leaf]:
    shape = Shape(width=width, widest=0.58)
    return [leaf(rng, centre, angle + turn, length, shape) for turn in (0.0, math.pi)]


def _stalk(rng: Rng, base: Centre, angle: float, length: float) -> Leaf:
    return leaf(rng, base, angle, length, Shape(width=max(0.07, 1.6 / length)))


def _at(centre: Centre, angle: float, reach: float) -> Centre:
    return centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)


def _angle(rng: Rng) -> float:
    return float(rng.uniform(0, 2 * math.pi))
