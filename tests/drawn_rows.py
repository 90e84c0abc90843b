"""Class maps of fields whose rows are known exactly: discs on lines, weeds anywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from weedseg.classes import DEFAULT_CLASSES
from weedseg.data.mosaics import Window
from weedseg.maps.ground import Ground, MapPart
from weedseg.maps.rows import RowFinder

UTM = "EPSG:32632"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    direction_deg: float = 30.0
    spacing_m: float = 0.5
    side_m: float = 8.0
    pixel_m: float = 0.02
    plant_m: float = 0.2
    """From plant to plant."""
    missing: float = 0.1
    radius_m: float = 0.04
    off_line_m: float = 0.015
    bend_per_m: float = 0.0
    """Metres off the line at 1 m from the middle, growing with the square."""
    stray_crops: int = 0
    weeds: int = 0


def field(seed, drawn):
    """Return the class map of a square field, north up: 0 soil, 1 crop, 2 weed."""
    rng = np.random.default_rng(seed)
    turn = math.radians(drawn.direction_deg)
    along = np.array([math.sin(turn), math.cos(turn)])
    across = np.array([along[1], -along[0]])
    reach = 0.8 * drawn.side_m
    plants = [rng.uniform(-reach, reach, (drawn.stray_crops, 2))]
    for line in np.arange(-reach, reach, drawn.spacing_m) + rng.uniform(0, drawn.spacing_m):
        steps = np.arange(-reach, reach, drawn.plant_m) + rng.uniform(0, drawn.plant_m)
        steps = steps[rng.random(len(steps)) >= drawn.missing]
        steps = steps + rng.normal(0, 0.1 * drawn.plant_m, len(steps))
        offsets = line + rng.normal(0, drawn.off_line_m, len(steps)) + drawn.bend_per_m * steps**2
        plants.append(np.outer(steps, along) + np.outer(offsets, across))
    size = round(drawn.side_m / drawn.pixel_m)
    class_map = np.zeros((size, size), np.uint8)
    places = [(2, rng.uniform(-reach, reach, (drawn.weeds, 2))), (1, np.concatenate(plants))]
    for value, points in places:
        for x, y in points / drawn.pixel_m + size / 2:
            radius = drawn.radius_m * rng.uniform(0.7, 1.3) / drawn.pixel_m
            centre = (round(16 * (x - 0.5)), round(16 * (size - y - 0.5)))
            cv2.circle(class_map, centre, round(16 * radius), value, -1, cv2.LINE_8, 4)
    return class_map


def ground_of(class_map, pixel_m=0.02, crs=UTM, metric_crs=UTM):
    place = (pixel_m, 0.0, 600_000.0, 0.0, -pixel_m, 5_600_000.0)
    return Ground(size=class_map.shape, crs=crs, metric_crs=metric_crs, transform=place)


def parts_of(class_map, height=256, width=256):
    for top in range(0, class_map.shape[0], height):
        for left in range(0, class_map.shape[1], width):
            part = np.ascontiguousarray(class_map[top : top + height, left : left + width])
            yield MapPart(Window(top, left, *part.shape), part, np.full_like(part, 90))


def find_rows(class_map, ground, options=None, boundary=None, part_px=(256, 256)):
    finder = RowFinder(ground, DEFAULT_CLASSES, options, boundary)
    for part in parts_of(class_map, *part_px):
        finder.add(part)
    return finder.finish()
