"""Soil of the synthetic farm: clods, grains, stones and crusts, lit by the sun or a grey sky.

A relief is built from stamped clods, then lit: slopes towards the sun are bright, hollows dark,
and clods cast shadows. All arithmetic on pictures is done with integers.

Shapes: H W photo px.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.data.synthetic_plants import Rng
from weedseg.imaging import Image

Layer: TypeAlias = npt.NDArray[np.int16]
"""(H, W)."""

_MARGIN_PX = 16
_STONE = 40
"""Stones get tones from here on, clods below: which of the two a pixel shows."""
_FINE_PX = (5, 7, 10, 14)
_COARSE_PX = (20, 28, 40, 56, 80, 112)
_FINE_PER_MEGAPIXEL = (6000, 5000, 3600, 1900)
_COARSE_PER_MEGAPIXEL = (800, 300, 90, 22, 4, 0.8)
"""Clods of each size on crumbly soil."""
_TILE_PX = 512
"""Fine clods repeat after so many px, each size elsewhere."""
_NUM_KINDS = 16
_COLOURS = (
    *((124, 102, 76), (150, 136, 112), (104, 92, 74), (144, 110, 80), (126, 116, 92)),
    *((160, 152, 142), (92, 84, 74)),
)


@dataclass(frozen=True, kw_only=True)
class Soil:
    """What the soil of a field looks like on a date."""

    colour: tuple[int, int, int]
    """RGB, 0-255."""
    crumbs: float
    """Number of clods as a share of crumbly soil, 0 (crust) to 1.2."""
    stones: float
    """Number of stones as a share of the clods, 0-0.3."""
    moss: int
    """How green damp hollows are, 0-36."""
    hardness: float
    """How hard the light is, 0 (grey sky) to 1 (sun)."""
    sun: tuple[float, float]
    """Direction in which shadows fall, (x, y), length 1."""


def draw_soil_style(rng: Rng, sun_angle: float) -> Soil:
    """Draw the style of a soil; shadows fall towards `sun_angle`, radians."""
    base = _COLOURS[int(rng.integers(0, len(_COLOURS)))]
    light = int(rng.integers(84, 120))
    mossy = rng.random() < 0.4
    return Soil(
        colour=(
            base[0] * light // 100,
            base[1] * light // 100 + int(rng.integers(-3, 4)),
            base[2] * light // 100 + int(rng.integers(-8, 9)),
        ),
        crumbs=float(rng.uniform(0.1, 1.2)),
        stones=float(rng.uniform(0, 1)) ** 2 * 0.3,
        moss=int(rng.integers(6, 36)) if mossy else 0,
        hardness=float(rng.uniform(0.15, 1)),
        sun=(math.cos(sun_angle), math.sin(sun_angle)),
    )


def draw_soil(rng: Rng, soil: Soil, size: tuple[int, int], zoom: float) -> Image:
    """Draw bare soil.

    Args:
        rng: Decides everything.
        soil: Its style.
        size: (height, width), px.
        zoom: How large clods are; 1 is about 1 mm per px.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    wide = (size[0] + 2 * _MARGIN_PX, size[1] + 2 * _MARGIN_PX)
    relief, tones = _relief(rng, soil, wide, zoom)
    value = _light(relief, soil)
    wet = noise(rng, size, 120)
    value = value * (256 + (wet >> 2)) >> 8
    damp = wet + noise(rng, size, 11) + _shifted(relief, 0, 0)
    return _colour(soil, value, np.ascontiguousarray(_shifted(tones, 0, 0)), damp)


def noise(rng: Rng, size: tuple[int, int], step: int) -> npt.NDArray[np.int32]:
    """Draw smooth noise, int32 (H, W) from -128 to 127, with grains of `step` px."""
    grid = (size[0] // step + 2, size[1] // step + 2)
    coarse = rng.integers(0, 256, grid, dtype=np.uint8)
    if step == 1:
        return coarse[: size[0], : size[1]].astype(np.int32) - 128
    wide = (grid[1] * step, grid[0] * step)
    fine = cv2.resize(coarse, wide, interpolation=cv2.INTER_LINEAR_EXACT)
    return np.asarray(fine, np.uint8)[: size[0], : size[1]].astype(np.int32) - 128


def _relief(
    rng: Rng, soil: Soil, size: tuple[int, int], zoom: float
) -> tuple[Layer, npt.NDArray[np.uint8]]:
    """Build heights, 1/4 px, and tones: which clod or stone lies on top, (H, W) each."""
    relief = np.zeros(size, np.int16)
    tones = np.zeros(size, np.uint8)
    for side, often in zip(_FINE_PX, _FINE_PER_MEGAPIXEL):
        number = round(often * soil.crumbs / zoom**1.1 / 400)
        tile = _fine_clods(max(3, round(side * zoom**0.7)), number, int(rng.integers(0, 4)))
        _cover(relief, tile, rng.integers(0, _TILE_PX, 2).tolist())
    relief += (noise(rng, size, 64) // 5 + noise(rng, size, 17) // 14).astype(np.int16)
    area = size[0] * size[1] / 1e6
    for side, rarely in zip(_COARSE_PX, _COARSE_PER_MEGAPIXEL):
        num = int(rng.poisson(rarely * area * soil.crumbs / zoom**1.1))
        _stamp(relief, tones, rng.random((num, 4)), round(side * zoom**0.7), soil.stones)
    grains = noise(rng, size, 3) // 16 + noise(rng, size, 1) // 26
    relief += np.where(tones < _STONE, grains, grains >> 2).astype(np.int16)
    return relief, tones


def _cover(relief: Layer, tile: Layer, start: list[int]) -> None:
    """Raise the relief to a tile that repeats; it starts at the tile's (row, column) `start`."""
    height, width = relief.shape
    for top in range(-start[0], height, _TILE_PX):
        for left in range(-start[1], width, _TILE_PX):
            here = relief[max(top, 0) : top + _TILE_PX, max(left, 0) : left + _TILE_PX]
            above, before = max(-top, 0), max(-left, 0)
            part = tile[above : above + here.shape[0], before : before + here.shape[1]]
            np.maximum(here, part, out=here)


def _shifted(layer: npt.NDArray[Any], down: int, right: int) -> npt.NDArray[Any]:
    """Return what lies so many px up and left of every pixel within the margin."""
    height, width = layer.shape
    top, left = _MARGIN_PX - down, _MARGIN_PX - right
    return layer[top : height - 2 * _MARGIN_PX + top, left : width - 2 * _MARGIN_PX + left]


def _stamp(
    relief: Layer,
    tones: npt.NDArray[np.uint8],
    draws: npt.NDArray[np.float64],
    side: int,
    stones: float,
) -> None:
    """Put clods of one size onto the relief; `draws`, (num, 4), says where and which."""
    height, width = relief.shape
    far = side - 1
    places = (draws[:, :2] * (height + far, width + far)).astype(np.int64) - far
    kinds = (draws[:, 2] * 4 * _NUM_KINDS).astype(np.int64)
    marks = (draws[:, 3] * 256).astype(np.int64)
    is_stone = marks < stones * 256
    for (y, x), kind, mark, stone in zip(
        places.tolist(), kinds.tolist(), marks.tolist(), is_stone.tolist()
    ):
        top, left = max(y, 0), max(x, 0)
        part = _clod(side, kind, stone)[top - y : height - y, left - x : width - x]
        here = relief[top : y + side, left : x + side]
        raised = part + (int(here[here.shape[0] // 2, here.shape[1] // 2]) >> 1)
        wins = (raised > here) & (part > 0)
        np.copyto(here, raised, where=wins)
        tone = _STONE + mark % 40 if stone else 1 + mark % (_STONE - 1)
        np.copyto(tones[top : y + side, left : x + side], np.uint8(tone), where=wins)


@functools.lru_cache(maxsize=32)
def _fine_clods(side: int, number: int, kind: int) -> Layer:
    """Strew 400 times `number` clods a megapixel over a tile that fits itself at its borders."""
    rng = np.random.default_rng([72, side, kind])
    num = round(400 * number * _TILE_PX * _TILE_PX / 1e6)
    wide = np.zeros((_TILE_PX + side, _TILE_PX + side), np.int16)
    places = rng.integers(0, _TILE_PX, (num, 2)).tolist()
    kinds = rng.integers(0, 4 * _NUM_KINDS, num).tolist()
    for (y, x), shape in zip(places, kinds):
        here = wide[y : y + side, x : x + side]
        np.maximum(here, _clod(side, shape, False), out=here)
    tile = wide[:_TILE_PX, :_TILE_PX]
    np.maximum(tile[:side], wide[_TILE_PX:, :_TILE_PX], out=tile[:side])
    np.maximum(tile[:, :side], wide[:_TILE_PX, _TILE_PX:], out=tile[:, :side])
    return tile


@functools.lru_cache(maxsize=4096)
def _clod(side: int, kind: int, smooth: bool) -> Layer:
    """Draw the heights of a clod, int16 (side, side), 1/4 px; the same on every machine."""
    full = _full_clod(kind // 4, smooth)
    full = full[::-1] if kind % 2 else full
    full = full.T if kind // 2 % 2 else full
    size = (side, side)
    small = cv2.resize(np.ascontiguousarray(full), size, interpolation=cv2.INTER_LINEAR_EXACT)
    tall = (np.asarray(small, np.int32) * (side * (7 if smooth else 13))) // (8 * 255)
    return tall.astype(np.int16)


@functools.lru_cache(maxsize=64)
def _full_clod(kind: int, smooth: bool) -> npt.NDArray[np.uint8]:
    """Draw the heights of a clod or stone, uint8 (96, 96)."""
    rng = np.random.default_rng([71, kind])
    rows, columns = np.mgrid[0:96, 0:96].astype(np.float64) * (2 / 95) - 1
    rough = noise(rng, (96, 96), 30) * (0.25 if smooth else 0.35)
    rough = rough + noise(rng, (96, 96), 9) * (0.04 if smooth else 0.25)
    if smooth:
        stretch = float(rng.uniform(0.7, 1.3))
        bump = 1 - 1.25 * (rows * rows * stretch + columns * columns / stretch)
    else:
        bump = _facets(rng, rows, columns)
    flat = np.sqrt(np.clip(bump + rough / 220, 0, 1))
    return np.asarray(np.rint(flat * 255), np.uint8)


def _facets(
    rng: Rng, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Cut a clod by planes, as soil breaks."""
    bump = np.full(rows.shape, float(rng.uniform(0.6, 1)))
    for turn in np.arange(7) * (2 * math.pi / 7) + rng.uniform(-0.35, 0.35, 7):
        steep, edge = rng.uniform((0.7, 0.62), (2.2, 0.9))
        away = rows * math.sin(turn) + columns * math.cos(turn)
        bump = np.minimum(bump, steep * (edge - away))
    return bump


def _light(relief: Layer, soil: Soil) -> npt.NDArray[np.int32]:
    """Light the relief within its margin, int32; 256 is level ground."""
    hard = round(256 * soil.hardness)
    right, down = soil.sun
    level = _shifted(relief, 0, 0)
    slope = 2 * level - _shifted(relief, round(2 * down), round(2 * right))
    slope -= _shifted(relief, round(down), round(right))
    small = np.clip(level + 96, 0, 255).astype(np.uint8)
    around = np.asarray(cv2.GaussianBlur(small, (21, 21), 0), np.int16)
    hollow = np.clip(small - around, -40, 40)
    value = slope.astype(np.int32) * (3 * hard + 256) >> 7
    value += 236 + hollow * np.int16(4 + (256 - hard) // 64)
    shade = np.zeros(level.shape, bool)
    for far in (2, 4, 7, 11, 15):
        shade |= _shifted(relief, round(far * down), round(far * right)) > level + (3 * far + 3)
    soft = np.asarray(cv2.GaussianBlur(shade.view(np.uint8) * 255, (5, 5), 0), np.int32)
    lit: npt.NDArray[np.int32] = np.clip(value, 50, 520) * (65536 - soft * hard * 150 // 256) >> 16
    return lit


def _colour(
    soil: Soil,
    value: npt.NDArray[np.int32],
    tones: npt.NDArray[np.uint8],
    height: npt.NDArray[np.int32],
) -> Image:
    """Colour the lit relief: clods differ in tone, stones are grey, damp hollows green or dark."""
    spread = (np.arange(256) * 37 % 41) - 20
    damp = np.clip(-height, 0, 110) * soil.moss
    image = np.empty((*value.shape, 3), np.uint8)
    for layer, base in enumerate(soil.colour):
        table = base * (256 + spread * 2) >> 8
        table[_STONE:80] = (101 + spread[_STONE:80] * 3 - 5 * layer + base) * 5 // 8
        seen = cv2.LUT(tones, np.clip(table, 0, 255).astype(np.uint8))
        shown = np.asarray(seen, np.int32) * value >> 8
        if soil.moss:
            shown -= damp * (2, -1, 3)[layer] >> 9
        image[..., layer] = np.clip(shown, 0, 255)
    return image
