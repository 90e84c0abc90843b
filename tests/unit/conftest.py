"""A model of a few KB that knows plants by their colour, made by the real export code."""

from __future__ import annotations

import numpy as np
import pytest
from colour_model import make_colour_model


@pytest.fixture(scope="session", name="make_colour_model")
def make_colour_model_fixture():
    """Build a model file: green is crop, red is weed, all else background, pixel by pixel."""
    return make_colour_model


@pytest.fixture(scope="session")
def colour_model(make_colour_model) -> bytes:
    return make_colour_model()


@pytest.fixture(scope="session")
def expect_colours():
    """Work out in numpy what the colour model says: class map and confidence."""

    def expect(image, temperature=1.0):
        red, green, blue = (image[..., i] / np.float32(255) for i in range(3))
        logits = np.stack(
            [
                np.full_like(red, 2),
                20 * green - 10 * red - 10 * blue,
                20 * red - 10 * green - 10 * blue,
            ]
        )
        shifted = np.exp((logits - logits.max(0)) / temperature)
        return logits.argmax(0).astype(np.uint8), np.rint(100 / shifted.sum(0)).astype(int)

    return expect


@pytest.fixture
def field_photo():
    """Draw a photo with patches of soil, crop and weed."""

    def draw(height, width, seed=0):
        rng = np.random.default_rng(seed)
        colours = np.array([(110, 80, 50), (40, 190, 30), (210, 30, 40)])
        coarse = rng.integers(0, 3, (-(-height // 9), -(-width // 9)))
        ids = np.kron(coarse, np.ones((9, 9), int))[:height, :width]
        noise = rng.integers(-20, 21, (height, width, 3))
        return np.clip(colours[ids] + noise, 0, 255).astype(np.uint8)

    return draw
