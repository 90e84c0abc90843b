"""Leaf outlines of the synthetic farm: one crop and four weed habits.

Points are (x, y) in px, float64. All plants share one range of greens, so only shape, size and
place tell crop from weed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Rng = np.random.Generator

_STEPS = 9


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One leaf or stalk, drawn as a filled outline with a lighter midrib and a darker half."""

    outline: Points
    """(n, 2), closed."""
    midrib: Points
    """(m, 2), from the base to the tip; the first half of the outline lies on one side."""
    brightness: float
    """Factor on the colour of the plant."""


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A plant seen from above, in the order in which its leaves are painted."""

    leaves: tuple[Leaf, ...]
    colour: tuple[int, int, int]
    """RGB, 0-255."""
    is_weed: bool


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Outline of a leaf blade, in shares of its length."""

    width: float
    """Largest width."""
    widest: float = 0.5
    """Where it is widest, 0 (base) to 1 (tip)."""
    teeth: float = 0.0
    """Depth of the teeth at the margin, share of the width."""
    bend: float = 0.0
    """How far the midrib turns from base to tip, radians."""


def leaf(rng: Rng, base: tuple[float, float], angle: float, length: float, shape: Shape) -> Leaf:
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
    along = np.linspace(0, 1, _STEPS)
    turns = angle + shape.bend * along
    steps = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / (_STEPS - 1))
    midrib = np.array(base) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps[:-1], axis=0)])
    power = math.log(0.5) / math.log(shape.widest)
    half = 0.5 * shape.width * length * np.sin(math.pi * along**power) ** 0.8
    half *= 1 + rng.uniform(-0.06, 0.06, _STEPS)
    half[1:-1:2] *= 1 - shape.teeth
    half = np.maximum(half, 0.35)
    normals = np.stack([-np.sin(turns), np.cos(turns)], axis=1) * half[:, None]
    outline = np.concatenate([midrib + normals, (midrib - normals)[::-1]])
    return Leaf(outline=outline, midrib=midrib, brightness=float(rng.uniform(0.86, 1.14)))


def crop_plant(rng: Rng, centre: tuple[float, float], radius: float) -> Plant:
    """Draw the crop: four to eight stalked, egg-shaped leaves in opposite pairs."""
    leaves = []
    first = float(rng.uniform(0, math.pi))
    pairs = 2 + int(rng.integers(0, 3))
    for pair in range(pairs):
        for side in (0.0, math.pi):
            angle = first + pair * 1.9 + side + float(rng.uniform(-0.2, 0.2))
            reach = radius * float(rng.uniform(0.8, 1.05)) * (1 - 0.14 * pair)
            stalk = 0.3 * reach
            end = (centre[0] + stalk * math.cos(angle), centre[1] + stalk * math.sin(angle))
            leaves.append(leaf(rng, centre, angle, 1.1 * stalk, Shape(width=0.22)))
            blade = Shape(width=0.58, widest=0.42, bend=float(rng.uniform(-0.25, 0.25)))
            leaves.append(leaf(rng, end, angle, reach - stalk, blade))
    return Plant(leaves=tuple(leaves), colour=_green(rng), is_weed=False)


def rosette(rng: Rng, centre: tuple[float, float], radius: float) -> Plant:
    """Draw a broad-leaf weed: seven to eleven toothed leaves without stalks."""
    num = 7 + int(rng.integers(0, 5))
    first = float(rng.uniform(0, 2 * math.pi))
    leaves = []
    for i in range(num):
        angle = first + 2 * math.pi * i / num + float(rng.uniform(-0.2, 0.2))
        shape = Shape(width=0.34, widest=0.68, teeth=0.42, bend=float(rng.uniform(-0.3, 0.3)))
        leaves.append(leaf(rng, centre, angle, radius * float(rng.uniform(0.65, 1.0)), shape))
    return Plant(leaves=tuple(leaves), colour=_green(rng), is_weed=True)


def grass(rng: Rng, centre: tuple[float, float], radius: float) -> Plant:
    """Draw a grass weed: three to seven narrow, bent blades."""
    leaves = []
    for _ in range(3 + int(rng.integers(0, 5))):
        angle = float(rng.uniform(0, 2 * math.pi))
        length = radius * float(rng.uniform(0.7, 1.5))
        width = max(2.6 / length, float(rng.uniform(0.06, 0.1)))
        shape = Shape(width=width, widest=0.35, bend=float(rng.uniform(-0.9, 0.9)))
        leaves.append(leaf(rng, centre, angle, length, shape))
    return Plant(leaves=tuple(leaves), colour=_green(rng), is_weed=True)


def seedling(rng: Rng, centre: tuple[float, float], radius: float) -> Plant:
    """Draw a weed with two round seed leaves and, across them, two small true leaves."""
    first = float(rng.uniform(0, 2 * math.pi))
    size = 0.55 * radius
    leaves = [
        leaf(rng, centre, first + turn, size, Shape(width=0.85, widest=0.55))
        for turn in (0.0, math.pi)
    ]
    for turn in (0.5 * math.pi, 1.5 * math.pi):
        shape = Shape(width=0.5, widest=0.5)
        leaves.append(leaf(rng, centre, first + turn, 0.7 * size, shape))
    return Plant(leaves=tuple(leaves), colour=_green(rng), is_weed=True)


def creeper(rng: Rng, centre: tuple[float, float], radius: float) -> Plant:
    """Draw a creeping weed: stalks that each end in three round leaflets."""
    leaves = []
    for _ in range(3 + int(rng.integers(0, 4))):
        angle = float(rng.uniform(0, 2 * math.pi))
        reach = radius * float(rng.uniform(0.35, 0.8))
        end = (centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle))
        leaves.append(leaf(rng, centre, angle, reach, Shape(width=max(0.06, 2.0 / reach))))
        for turn in (-1.6, 0.0, 1.6):
            shape = Shape(width=0.9, widest=0.6)
            leaves.append(leaf(rng, end, angle + turn, 0.36 * radius, shape))
    return Plant(leaves=tuple(leaves), colour=_green(rng), is_weed=True)


WEED_HABITS: tuple[Callable[[Rng, tuple[float, float], float], Plant], ...] = (
    rosette,
    grass,
    seedling,
    creeper,
)
"""The weeds; each is drawn by one function of (rng, centre, radius)."""


def _green(rng: Rng) -> tuple[int, int, int]:
    """Draw a green from the one range that all plants share."""
    green = int(rng.integers(98, 166))
    red = green * int(rng.integers(52, 86)) // 100
    blue = green * int(rng.integers(28, 56)) // 100
    return red, green, blue
