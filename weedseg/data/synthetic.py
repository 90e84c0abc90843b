"""A seeded synthetic farm: soil, crop rows, weeds of four habits, shadows, stones, exact masks.

For demonstrations and tests, not for claims. The same seed gives the same pixels on every
machine: random numbers come from PCG64, pictures are drawn with integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.data.synthetic_plants import WEED_HABITS, Leaf, Plant, Points, Rng, crop_plant
from weedseg.errors import ConfigError
from weedseg.imaging import Image, Mask, write_bytes, write_png

CROP_ID, WEED_ID = 1, 2
_SHIFT = 4
_DATES = ("2024-05-06", "2024-05-20")
_Layer = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Style:
    """What the photos of one field and date have in common."""

    soil: tuple[int, int, int]
    """RGB, 0-255."""
    crop_radius_px: float
    row_spacing_px: float
    plant_spacing_px: float
    row_angle: float
    """Radians from the photo's vertical."""
    weeds_per_megapixel: float
    habit_weights: tuple[float, ...]
    """One per weed habit, sum 1."""
    sun: tuple[float, float]
    """Shadow offset, share of the plant's radius, (x, y)."""


def draw_style(rng: Rng, date_number: int) -> Style:
    """Draw the style of a field on its first (0) or a later visit."""
    weights = rng.uniform(0.15, 1.0, len(WEED_HABITS))
    brown = int(rng.integers(92, 138))
    angle = float(rng.uniform(0, 2 * math.pi))
    return Style(
        soil=(
            brown,
            brown * int(rng.integers(76, 88)) // 100,
            brown * int(rng.integers(56, 74)) // 100,
        ),
        crop_radius_px=float(rng.uniform(22, 30)) * (1 + 0.45 * date_number),
        row_spacing_px=float(rng.uniform(150, 200)),
        plant_spacing_px=float(rng.uniform(64, 84)) * (1 + 0.15 * date_number),
        row_angle=float(rng.uniform(-0.12, 0.12)) + 0.5 * math.pi * int(rng.integers(0, 2)),
        weeds_per_megapixel=float(rng.uniform(30, 75)),
        habit_weights=tuple((weights / weights.sum()).tolist()),
        sun=(0.3 * math.cos(angle), 0.3 * math.sin(angle)),
    )


def draw_photo(rng: Rng, style: Style, size: tuple[int, int]) -> tuple[Image, Mask]:
    """Draw one photo with its mask.

    Args:
        rng: Decides everything.
        style: Of the field and date.
        size: (height, width), px.

    Returns:
        Image uint8 (H, W, 3), RGB, and mask uint8 (H, W): 0 soil, 1 crop, 2 weed.
    """
    image = _soil(rng, style, size)
    _stones(rng, image)
    plants = [*_crop_rows(rng, style, size), *_weeds(rng, style, size)]
    order = rng.permutation(len(plants))
    plants = [plants[i] for i in order]
    _shade(image, plants, style)
    mask = np.zeros(size, np.uint8)
    for plant in plants:
        for part in plant.leaves:
            _paint(image, mask, plant, part)
    return _camera(rng, image), mask


def write_farm(
    out: Path,
    seed: int,
    num_photos: int = 60,
    num_labelled: int = 24,
    size: tuple[int, int] = (480, 640),
    fields: int = 3,
) -> None:
    """Write a farm folder: ``field/date/{images,masks}`` and ``fields.csv``.

    Args:
        out: The folder; made if missing.
        seed: Decides every pixel.
        num_photos: Photos over all fields and both dates, >= 1.
        num_labelled: Photos with a mask, spread evenly.
        size: (height, width), px, at least 64 each.
        fields: Number of fields, >= 1; each is visited twice.

    Raises:
        ConfigError: A number is out of range.
        OutputError: The folder cannot be written.
    """
    fits = fields >= 1 and 0 <= num_labelled <= num_photos and num_photos >= 1
    if not fits or min(size) < 64:
        raise ConfigError(
            f"{num_photos} photos of {size[1]}x{size[0]} px, {num_labelled} labelled, "
            f"{fields} fields",
            "photos of at least 64x64 px, no more labels than photos, and a field",
            "change the numbers",
        )
    visits = [(f, d) for d in range(len(_DATES)) for f in range(fields)]
    chosen = np.random.default_rng([seed, 1]).permutation(-(-num_photos // len(visits)))
    place = {int(number): i for i, number in enumerate(chosen)}
    ranked = sorted(range(num_photos), key=lambda i: (place[i // len(visits)], i % len(visits)))
    labelled = set(ranked[:num_labelled])

    def write(number: int) -> str:
        field, date = visits[number % len(visits)]
        style = draw_style(np.random.default_rng([seed, 2, field]), date)
        image, mask = draw_photo(np.random.default_rng([seed, 3, number]), style, size)
        folder = Path(f"field-{field + 1}") / _DATES[date]
        name = folder / "images" / f"{number:04d}.png"
        write_png(out / name, image)
        if number in labelled:
            write_png(out / folder / "masks" / f"{number:04d}.png", mask)
        return f"{name.as_posix()},field-{field + 1},{_DATES[date]},{1 + field * 0.1:.1f}"

    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(write, range(num_photos)))
    text = "\n".join(["photo,field,date,mm_per_px", *rows]) + "\n"
    write_bytes(out / "fields.csv", text.encode())


def _noise(rng: Rng, size: tuple[int, int], step: int) -> _Layer:
    """Draw smooth noise from -128 to 127 with grains of `step` px."""
    grid = (size[0] // step + 2, size[1] // step + 2)
    coarse = rng.integers(0, 256, grid, dtype=np.uint8)
    if step == 1:
        return coarse[: size[0], : size[1]].astype(np.int32) - 128
    wide = (grid[1] * step, grid[0] * step)
    fine = cv2.resize(coarse, wide, interpolation=cv2.INTER_LINEAR_EXACT)
    return np.asarray(fine, np.uint8)[: size[0], : size[1]].astype(np.int32) - 128


def _soil(rng: Rng, style: Style, size: tuple[int, int]) -> Image:
    """Draw bare soil: patches of moisture, clods lit from one side, grains."""
    wet = _noise(rng, size, 97)
    clods = _noise(rng, size, 23) + _noise(rng, size, 9)
    lit = clods - np.roll(clods, (2, 2), (0, 1))
    value = 256 + wet * 34 // 128 + clods * 22 // 256 + lit * 52 // 128
    value += _noise(rng, size, 4) * 30 // 128 + _noise(rng, size, 1) * 26 // 128
    value = np.clip(value, 60, 420)
    layers = [(value * base) >> 8 for base in style.soil]
    layers[0] = layers[0] + wet * 5 // 128
    return np.asarray(np.clip(np.stack(layers, axis=2), 0, 255), np.uint8)


def _stones(rng: Rng, image: Image) -> None:
    """Draw stones and straw onto the soil."""
    height, width = image.shape[:2]
    area = height * width
    for _ in range(int(rng.integers(5, 26)) * area // 307_200):
        x, y = (int(rng.integers(0, end)) for end in (width, height))
        axes = (int(rng.integers(2, 9)), int(rng.integers(2, 7)))
        turn = int(rng.integers(0, 180))
        grey = int(rng.integers(95, 175))
        dark, light = (grey // 3, grey // 3, grey // 4), (grey, grey * 97 // 100, grey * 9 // 10)
        cv2.ellipse(image, (x + 2, y + 2), axes, turn, 0, 360, dark, -1, cv2.LINE_AA)
        cv2.ellipse(image, (x, y), axes, turn, 0, 360, light, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 16)) * area // 307_200):
        x, y = (int(rng.integers(0, end)) for end in (width, height))
        end = (x + int(rng.integers(-28, 29)), y + int(rng.integers(-28, 29)))
        tone = int(rng.integers(125, 185))
        straw = (tone, tone * 88 // 100, tone * 62 // 100)
        cv2.line(image, (x, y), end, straw, int(rng.integers(1, 3)), cv2.LINE_AA)


def _crop_rows(rng: Rng, style: Style, size: tuple[int, int]) -> list[Plant]:
    """Place crop plants along rows, with gaps."""
    angle = style.row_angle + float(rng.uniform(-0.05, 0.05))
    along = np.array([math.sin(angle), math.cos(angle)])
    across = np.array([along[1], -along[0]])
    middle = np.array([size[1] / 2, size[0] / 2])
    reach = math.hypot(*size) / 2 + style.crop_radius_px
    offset = float(rng.uniform(0, style.row_spacing_px))
    plants = []
    for row in np.arange(-reach, reach, style.row_spacing_px) + offset:
        start = -reach + float(rng.uniform(0, style.plant_spacing_px))
        for step in np.arange(start, reach, style.plant_spacing_px):
            shift = rng.normal(0, 1, 2) * (5, 9)
            radius = style.crop_radius_px * float(rng.uniform(0.7, 1.2))
            x, y = middle + across * (row + shift[0]) + along * (step + shift[1])
            missing = rng.random() < 0.1
            inside = -radius < x < size[1] + radius and -radius < y < size[0] + radius
            if inside and not missing:
                plants.append(crop_plant(rng, (float(x), float(y)), radius))
    return plants


def _weeds(rng: Rng, style: Style, size: tuple[int, int]) -> list[Plant]:
    """Place weeds: patches and strays; about one photo in ten has none."""
    if rng.random() < 0.1:
        return []
    mean = style.weeds_per_megapixel * float(rng.uniform(0.3, 1.6)) * size[0] * size[1] / 1e6
    patch = rng.uniform(0, 1, 2) * (size[1], size[0])
    plants = []
    for _ in range(max(1, int(rng.poisson(mean)))):
        x, y = rng.uniform(0, 1, 2) * (size[1], size[0])
        if rng.random() < 0.5:
            x, y = patch + rng.normal(0, 1, 2) * (0.18 * size[1], 0.18 * size[0])
        habit = int(rng.choice(len(WEED_HABITS), p=style.habit_weights))
        radius = float(rng.uniform(9, 26)) * (0.75 if habit == 2 else 1.0)
        plants.append(WEED_HABITS[habit](rng, (float(x), float(y)), radius))
    return plants


def _fixed(points: Points) -> npt.NDArray[np.int32]:
    """Turn px into the sixteenths in which OpenCV draws."""
    return np.rint(points * (1 << _SHIFT)).astype(np.int32)


def _shade(image: Image, plants: Sequence[Plant], style: Style) -> None:
    """Darken the soil where plants cast their shadow."""
    shade = np.zeros(image.shape[:2], np.uint8)
    offset = np.array(style.sun) * style.crop_radius_px
    for plant in plants:
        outlines = [_fixed(part.outline + offset) for part in plant.leaves]
        for outline in outlines:
            cv2.fillPoly(shade, [outline], 255, cv2.LINE_8, _SHIFT)
    shade = np.asarray(cv2.GaussianBlur(shade, (7, 7), 0), np.uint8)
    light = 256 - (shade.astype(np.uint16) * 120 >> 8)
    image[:] = (image * light[..., None] >> 8).astype(np.uint8)


def _paint(image: Image, mask: Mask, plant: Plant, part: Leaf) -> None:
    """Draw one leaf onto the photo and into the mask."""
    outline = _fixed(part.outline)
    colour = [min(255, int(value * part.brightness)) for value in plant.colour]
    cv2.fillPoly(image, [outline], colour, cv2.LINE_AA, _SHIFT)
    cv2.fillPoly(mask, [outline], WEED_ID if plant.is_weed else CROP_ID, cv2.LINE_8, _SHIFT)
    rib = _fixed(part.midrib)
    half = np.concatenate([outline[: len(rib)], rib[::-1]])
    cv2.fillPoly(image, [half], [value * 86 // 100 for value in colour], cv2.LINE_AA, _SHIFT)
    light = [min(255, value * 118 // 100) for value in colour]
    cv2.polylines(image, [rib], False, light, 1, cv2.LINE_AA, _SHIFT)


def _camera(rng: Rng, image: Image) -> Image:
    """Add uneven light, at times a cast shadow, exposure, blur and sensor noise."""
    height, width = image.shape[:2]
    light = 256 + _noise(rng, (height, width), max(height, width) // 2) * 44 // 128
    if rng.random() < 0.3:
        light = light * (256 - (_cast_shadow(rng, (height, width)) * 110 >> 8)) >> 8
    light = light * int(rng.integers(200, 312)) >> 8
    soft = np.asarray(cv2.GaussianBlur(image, (3, 3), 0), np.uint8)
    grain = _noise(rng, (height, width * 3), 1).reshape(height, width, 3) * 9 >> 7
    leafy = _noise(rng, (height, width), 3) * 14 >> 7
    value = (soft * (light + leafy)[..., None] >> 8) + grain
    return np.clip(value, 0, 255).astype(np.uint8)


def _cast_shadow(rng: Rng, size: tuple[int, int]) -> _Layer:
    """Draw the soft shadow of something outside the photo, 0-255."""
    shade = np.zeros(size, np.uint8)
    x = int(rng.integers(size[1] // 4, 3 * size[1] // 4))
    lean = int(rng.integers(-size[1] // 3, size[1] // 3 + 1))
    side = 0 if rng.random() < 0.5 else size[1]
    corners = np.array([[x, 0], [x + lean, size[0]], [side, size[0]], [side, 0]], np.int32)
    cv2.fillPoly(shade, [corners], 255)
    return np.asarray(cv2.GaussianBlur(shade, (21, 21), 0), np.int32)
