"""A seeded synthetic farm: soil, crop rows, weeds of five habits, light, camera, exact masks.

For demonstrations, tests and first weights, not for claims. The same seed gives the same pixels
on every machine: random numbers come from PCG64, pictures are drawn with integers.

A farm has one crop and one camera; fields differ in soil and weeds, visits in growth and light.
Seeds 0, 1, 2 and so on grow beet, a legume, maize, and again.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weedseg.data.synthetic_camera import Camera, draw_camera, photograph
from weedseg.data.synthetic_paint import CROP_ID, WEED_ID, paint_plants, paint_residue
from weedseg.data.synthetic_plants import CROPS, WEEDS, Greens, Plant, Rng, draw_greens, draw_plant
from weedseg.data.synthetic_soil import Soil, draw_soil, draw_soil_style
from weedseg.errors import ConfigError
from weedseg.imaging import Image, Mask, write_bytes, write_png

__all__ = ["CROP_ID", "WEED_ID", "Style", "draw_photo", "draw_style", "write_farm"]

_DATES = ("2024-05-06", "2024-05-20")
_MM_PER_PX = 1.1
"""Ground resolution at zoom 1."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """What the photos of one field and date have in common."""

    crop: str
    """One of `CROPS`."""
    zoom: float
    """How near the camera is; 1 is 1.1 mm per px."""
    stage: float
    """Growth stage of the crop, 0-1."""
    row_angle: float
    """Radians from the photo's vertical."""
    weeds_per_megapixel: float
    """At zoom 1."""
    habit_weights: tuple[float, ...]
    """One per weed habit, sum 1."""
    residue: float
    """How much straw lies about, 0-1."""
    gloss: float
    """How strongly leaves shine, 0-1."""
    soil: Soil
    greens: Greens
    camera: Camera

    @property
    def crop_radius_px(self) -> float:
        """Radius of a typical crop plant, px."""
        return self.zoom * (22 + 24 * self.stage)

    @property
    def mm_per_px(self) -> float:
        """Ground resolution, mm per px."""
        return round(_MM_PER_PX / self.zoom, 3)


def draw_style(seed: int, field: int, visit: int) -> Style:
    """Draw the style of a field on a visit.

    Args:
        seed: Of the farm; decides crop and camera.
        field: Number of the field.
        visit: 0 the first, 1 a later one.

    Returns:
        The style.
    """
    farm = np.random.default_rng([seed, 5])
    zoom = math.exp(float(farm.uniform(0, 0.95))) if seed else 1.2
    camera = draw_camera(farm)
    rng = np.random.default_rng([seed, 2, field])
    weights = rng.uniform(0.1, 1.0, len(WEEDS))
    num_weeds, angle = float(rng.uniform(45, 110)), float(rng.uniform(-0.12, 0.12))
    angle += 0.5 * math.pi * int(rng.integers(0, 2))
    stage, residue = float(rng.uniform(0.05, 0.35)), float(rng.uniform(0, 1)) ** 2
    soil_seed = int(rng.integers(0, 1 << 30))
    day = np.random.default_rng([seed, 6, field, visit])
    sun = float(day.uniform(0, 2 * math.pi))
    soil = draw_soil_style(np.random.default_rng([soil_seed, 0]), sun)
    return Style(
        crop=list(CROPS)[seed % len(CROPS)],
        zoom=zoom,
        stage=min(1.0, stage + visit * float(day.uniform(0.25, 0.55))),
        row_angle=angle,
        weeds_per_megapixel=num_weeds,
        habit_weights=tuple((weights / weights.sum()).tolist()),
        residue=residue,
        gloss=float(day.uniform(0, 0.6)),
        soil=soil,
        greens=draw_greens(day),
        camera=camera,
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
    scene, mask = draw_scene(rng, style, size)
    return photograph(rng, scene, style.camera), mask


def draw_scene(rng: Rng, style: Style, size: tuple[int, int]) -> tuple[Image, Mask]:
    """Draw the ground as it is, before a camera sees it; as `draw_photo`."""
    zoom = _fitting_zoom(style, size)
    scene = draw_soil(rng, style.soil, size, zoom)
    paint_residue(rng, scene, style.residue, (style.soil, zoom))
    plants = [*_crop_rows(rng, style, size, zoom), *_weeds(rng, style, size, zoom)]
    order = rng.permutation(len(plants)).tolist()
    mask = np.zeros(size, np.uint8)
    paint_plants(rng, scene, mask, [plants[i] for i in order], (style.soil, style.gloss))
    return scene, mask


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
        seed: Decides every pixel, and the crop.
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
    styles = {visit: draw_style(seed, *visit) for visit in visits}
    labelled = _spread(seed, num_photos, num_labelled, len(visits))

    def write(number: int) -> str:
        field, date = visits[number % len(visits)]
        style = styles[field, date]
        image, mask = draw_photo(np.random.default_rng([seed, 3, number]), style, size)
        folder = Path(f"field-{field + 1}") / _DATES[date]
        name = folder / "images" / f"{number:04d}.png"
        write_png(out / name, image)
        if number in labelled:
            write_png(out / folder / "masks" / f"{number:04d}.png", mask)
        return f"{name.as_posix()},field-{field + 1},{_DATES[date]},{style.mm_per_px}"

    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(write, range(num_photos)))
    text = "\n".join(["photo,field,date,mm_per_px", *rows]) + "\n"
    write_bytes(out / "fields.csv", text.encode())


def _spread(seed: int, num_photos: int, num_labelled: int, num_visits: int) -> set[int]:
    """Choose photos to label, evenly over the visits."""
    chosen = np.random.default_rng([seed, 1]).permutation(-(-num_photos // num_visits))
    place = {int(number): i for i, number in enumerate(chosen)}
    ranked = sorted(range(num_photos), key=lambda i: (place[i // num_visits], i % num_visits))
    return set(ranked[:num_labelled])


def _fitting_zoom(style: Style, size: tuple[int, int]) -> float:
    """Keep small photos from showing less than one plant."""
    return 1 + (style.zoom - 1) * min(1.0, min(size) / 480)


def _crop_rows(rng: Rng, style: Style, size: tuple[int, int], zoom: float) -> list[Plant]:
    """Place crop plants along rows, with gaps."""
    radius_px = style.crop_radius_px * zoom / style.zoom
    row_px, plant_px = zoom * float(rng.uniform(150, 190)), max(60 * zoom, 1.75 * radius_px)
    angle = style.row_angle + float(rng.uniform(-0.05, 0.05))
    along = np.array([math.sin(angle), math.cos(angle)])
    across = np.array([along[1], -along[0]])
    middle = np.array([size[1] / 2, size[0] / 2])
    reach = math.hypot(*size) / 2 + radius_px
    offset = float(rng.uniform(0, row_px))
    plants = []
    for row in np.arange(-reach, reach, row_px) + offset:
        start = -reach + float(rng.uniform(0, plant_px))
        for step in np.arange(start, reach, plant_px):
            shift = rng.normal(0, 1, 2) * (5 * zoom, 9 * zoom)
            radius = radius_px * float(rng.uniform(0.7, 1.2))
            stage = min(1.0, max(0.0, style.stage + float(rng.uniform(-0.12, 0.12))))
            x, y = middle + across * (row + shift[0]) + along * (step + shift[1])
            missing = rng.random() < 0.12
            inside = -radius < x < size[1] + radius and -radius < y < size[0] + radius
            if inside and not missing:
                plant = (CROPS[style.crop], (float(x), float(y)), (radius, stage))
                plants.append(draw_plant(rng, *plant, (False, style.greens)))
    return plants


def _weeds(rng: Rng, style: Style, size: tuple[int, int], zoom: float) -> list[Plant]:
    """Place weeds: patches and strays; about one photo in ten has none."""
    if rng.random() < 0.1:
        return []
    mean = style.weeds_per_megapixel * float(rng.uniform(0.3, 1.6)) * size[0] * size[1] / 1e6
    patch = rng.uniform(0, 1, 2) * (size[1], size[0])
    habits = list(WEEDS.values())
    plants = []
    for _ in range(max(1, int(rng.poisson(mean / zoom)))):
        x, y = rng.uniform(0, 1, 2) * (size[1], size[0])
        if rng.random() < 0.5:
            x, y = patch + rng.normal(0, 1, 2) * (0.18 * size[1], 0.18 * size[0])
        habit = habits[int(rng.choice(len(habits), p=style.habit_weights))]
        stage = float(rng.random()) ** 1.5
        radius = zoom * (7 + 20 * stage) * float(rng.uniform(0.8, 1.2))
        plant = (habit, (float(x), float(y)), (radius, stage))
        plants.append(draw_plant(rng, *plant, (True, style.greens)))
    return plants
