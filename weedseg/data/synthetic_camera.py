"""The camera of the synthetic farm: uneven light, cast shadows, glare, blur, tone, noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from weedseg.data.synthetic_plants import Rng
from weedseg.data.synthetic_soil import noise
from weedseg.imaging import Image

_LEVELS = np.arange(256)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How the photos of one visit are taken."""

    exposure: float
    """Factor on the light, about 1."""
    contrast: float
    """0 (flat) to 1 (as a phone does)."""
    warmth: int
    """Added to red and taken from blue, per cent."""
    noise: int
    """Strength of the sensor's noise, 0-24."""
    blur: float
    """Share of the photos that are shaken or out of focus, 0-1."""


def draw_camera(rng: Rng) -> Camera:
    """Draw a camera and how it is held."""
    return Camera(
        exposure=float(rng.uniform(0.85, 1.25)),
        contrast=float(rng.uniform(0, 1)),
        warmth=int(rng.integers(-6, 9)),
        noise=int(rng.integers(2, 22)),
        blur=float(rng.uniform(0, 0.3)),
    )


def photograph(rng: Rng, scene: Image, camera: Camera) -> Image:
    """Take a photo of a scene.

    Args:
        rng: Decides light, shadows, glare, shake and noise.
        scene: uint8 (H, W, 3), RGB.
        camera: How it is taken.

    Returns:
        The photo, uint8 (H, W, 3).
    """
    size = (scene.shape[0], scene.shape[1])
    seen, light = _focus(rng, scene, camera), _light(rng, size, camera)
    veil = _glare(rng, size) if rng.random() < 0.35 else np.int32(0)
    grain = rng.integers(-128, 128, size, dtype=np.int8).astype(np.int16) * camera.noise >> 7
    photo = np.empty_like(seen)
    for layer, table in enumerate(_tones(camera)):
        lit = np.minimum((seen[..., layer] * light >> 8) + veil, 255).astype(np.uint8)
        toned = np.asarray(cv2.LUT(lit, table), np.int16)
        toned += np.roll(grain, 211 * layer + 1)
        photo[..., layer] = np.clip(toned, 0, 255)
    return photo


def _focus(rng: Rng, scene: Image, camera: Camera) -> Image:
    """Soften a little, as lenses do; a shaken photo more, along one direction."""
    if rng.random() >= camera.blur:
        return np.asarray(cv2.GaussianBlur(scene, (3, 3), 0), np.uint8)
    side = 3 + 2 * int(rng.integers(0, 3))
    shape = ((side, 1), (1, side), (side, side))[int(rng.integers(0, 3))]
    return np.asarray(cv2.GaussianBlur(scene, shape, 0), np.uint8)


def _light(rng: Rng, size: tuple[int, int], camera: Camera) -> npt.NDArray[np.int32]:
    """Draw the light that falls on the scene, int32 (H, W); 256 is normal."""
    light = 256 + noise(rng, size, max(64, max(size) // 2)) * 36 // 128
    light = light * round(256 * camera.exposure * float(rng.uniform(0.88, 1.12))) >> 8
    if rng.random() < 0.22:
        light = light * (256 - (_cast_shadow(rng, size) * int(rng.integers(90, 150)) >> 8)) >> 8
    return np.clip(light, 20, 1023)


def _cast_shadow(rng: Rng, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Draw the soft shadow of a person or machine beside the photo, 0-255."""
    shade = np.zeros(size, np.uint8)
    num = 7
    x = size[1] * float(rng.uniform(0.2, 0.8))
    lean = size[1] * float(rng.uniform(-0.4, 0.4))
    xs = x + lean * np.arange(num) / (num - 1) + rng.uniform(-0.07, 0.07, num) * size[1]
    ys = np.arange(num) * size[0] // (num - 1)
    side = 0 if rng.random() < 0.5 else size[1]
    edge = np.stack([np.rint(xs).astype(np.int64), ys], axis=1)
    corners = np.concatenate([edge, [[side, size[0]], [side, 0]]]).astype(np.int32)
    if rng.random() < 0.5:
        corners = np.ascontiguousarray(corners[:, ::-1] * (size[1], size[0]) // (size[0], size[1]))
    cv2.fillPoly(shade, [corners.astype(np.int32)], 255)
    width = 2 * int(rng.integers(2, 14)) + 1
    return np.asarray(cv2.GaussianBlur(shade, (width, width), 0), np.int32)


def _glare(rng: Rng, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Draw a veil of stray light, int32 (H, W)."""
    veil = noise(rng, size, max(48, max(size) // 3))
    return np.clip(veil, 0, 127) * int(rng.integers(10, 70)) >> 7


def _tones(camera: Camera) -> list[npt.NDArray[np.uint8]]:
    """Draw the tone curve of each layer, uint8 (256,)."""
    level = _LEVELS / 255
    curve = level * level * (3 - 2 * level)
    lifted = level + camera.contrast * (curve - level) + 0.06 * camera.contrast * level
    tables = []
    for factor in (100 + camera.warmth, 100, 100 - camera.warmth):
        tables.append(np.clip(np.rint(lifted * 255 * factor / 100), 0, 255).astype(np.uint8))
    return tables
