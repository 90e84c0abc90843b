"""The variant for cameras: ``images_u8``, uint8 (1, T, T, 3), straight from the sensor.

Turning, scaling to 0-1 and all the rest happen in the graph, so that no other language has to
repeat it. One tile a run. Everything else is as in ``model.onnx``, its gate too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from weedseg.classes import ClassTable
from weedseg.edge.session import BYTES_INPUT, FLOAT_INPUT
from weedseg.export.agreement import FP32, check_or_force
from weedseg.export.details import ModelDetails, model_properties
from weedseg.export.model import write_model
from weedseg.export.onnx_graph import check, describe, logits_graph, ship
from weedseg.export.parity import check_parity
from weedseg.imaging import Image


def take_bytes(shipped: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the input ``images`` by ``images_u8``.

    Args:
        shipped: A graph from ``images`` float32 (N, 3, T, T) to ``mask`` and ``confidence``.

    Returns:
        A new model from ``images_u8`` uint8 (1, T, T, 3) to the same outputs, N = 1.

    Raises:
        ExportError: The result is no valid ONNX.
    """
    model = onnx.ModelProto()
    model.CopyFrom(shipped)
    graph = model.graph
    side = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    head = [
        helper.make_node("Transpose", [BYTES_INPUT], ["head_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["head_planes"], ["head_floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["head_floats", "head_255"], [FLOAT_INPUT]),
    ]
    for number, node in enumerate(head):
        node.name = f"head_{number}_{node.op_type}"
    nodes = [*head, *graph.node]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.array(255, np.float32), "head_255"))
    graph.input.append(
        helper.make_tensor_value_info(BYTES_INPUT, TensorProto.UINT8, [1, side, side, 3])
    )
    for output in graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    check(model)
    return model


def export_u8(
    net: nn.Module,
    classes: ClassTable,
    details: ModelDetails,
    photos: Sequence[Image],
    path: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the variant for cameras; its gate is that of ``model.onnx``.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        classes: Its classes.
        details: What else the file says.
        photos: uint8 (H, W, 3) each, for the parity check.
        path: Where the model goes.
        force: Write a file that fails, and record it there.

    Returns:
        The figures of the parity check.

    Raises:
        ParityError: The file would differ from the network; nothing is written.
        ExportError: The network cannot be exported.
        OutputError: The disk is full or not writable.
    """
    twin = logits_graph(net, details.tile_px)
    model = take_bytes(ship(twin, classes, details.temperature))
    describe(model, model_properties(classes, details))
    draft, logits = model.SerializeToString(), twin.SerializeToString()
    figures, forced = check_or_force(
        lambda tolerance: check_parity(net, draft, logits, photos, tolerance), FP32, force
    )
    write_model(model, classes, replace(details, forced=forced), figures, photos, path)
    return figures
