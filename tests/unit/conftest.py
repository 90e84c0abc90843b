"""A model of a few KB that knows plants by their colour, made by the real export code."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_colour_model():
    """Build a model file: green is crop, red is weed, all else background, pixel by pixel."""
    from onnx import TensorProto, helper, numpy_helper

    from weedseg.classes import DEFAULT_CLASSES
    from weedseg.export.details import ModelDetails, model_properties
    from weedseg.export.onnx_graph import describe, ship

    def make(classes=DEFAULT_CLASSES, **details) -> bytes:
        wanted = ModelDetails(**{"tile_px": 64, "overlap_px": 16, "date": "2026-01-01"} | details)
        side = wanted.tile_px
        weights = np.zeros((len(classes), 3, 1, 1), np.float32)
        weights[1, :, 0, 0] = (-10, 20, -10)
        weights[2, :, 0, 0] = (20, -10, -10)
        bias = np.zeros(len(classes), np.float32)
        bias[0] = 2
        graph = helper.make_graph(
            [helper.make_node("Conv", ["images", "weights", "bias"], ["logits"])],
            "colour",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, side, side])],
            [
                helper.make_tensor_value_info(
                    "logits", TensorProto.FLOAT, ["batch", len(classes), side, side]
                )
            ],
            [
                numpy_helper.from_array(weights, "weights"),
                numpy_helper.from_array(bias, "bias"),
            ],
        )
        twin = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        model = ship(twin, classes, wanted.temperature)
        describe(model, model_properties(classes, wanted))
        return model.SerializeToString()

    return make


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
