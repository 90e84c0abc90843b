"""A model of a few KB that knows plants by their colour, made by the real export code."""

from __future__ import annotations

import numpy as np

from weedseg.classes import DEFAULT_CLASSES


def make_colour_model(classes=DEFAULT_CLASSES, **details) -> bytes:
    """Build a model file: green is crop, red is weed, all else background, pixel by pixel."""
    from onnx import TensorProto, helper, numpy_helper

    from weedseg.export.details import ModelDetails, model_properties
    from weedseg.export.onnx_graph import describe, ship

    wanted = ModelDetails(**{"tile_px": 64, "overlap_px": 16, "date": "2026-01-01"} | details)
    side = wanted.tile_px
    weights = np.zeros((len(classes), 3, 1, 1), np.float32)
    weights[1, :, 0, 0] = (-10, 20, -10)
    weights[2, :, 0, 0] = (20, -10, -10)
    bias = np.zeros(len(classes), np.float32)
    bias[0] = 2
    shapes = {"images": 3, "logits": len(classes)}
    images, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", depth, side, side])
        for name, depth in shapes.items()
    )
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "weights", "bias"], ["logits"])],
        "colour",
        [images],
        [logits],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    twin = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model = ship(twin, classes, wanted.temperature)
    describe(model, model_properties(classes, wanted))
    return model.SerializeToString()
