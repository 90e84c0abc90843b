"""Half precision: a typed fp16 model file, as TensorRT 11 and current runtimes want it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from weedseg.classes import ClassTable
from weedseg.export.agreement import Tolerance, check_or_force
from weedseg.export.details import ModelDetails, model_properties
from weedseg.export.model import write_model
from weedseg.export.onnx_graph import check, describe, logits_graph, ship
from weedseg.export.parity import check_parity
from weedseg.imaging import Image

TOLERANCE = Tolerance(dlogit=math.inf, equal_share=0.999, dconfidence=100)
"""Half precision rounds the logits; what counts is the class."""


def to_half(twin: onnx.ModelProto) -> onnx.ModelProto:
    """Turn weights and activations into fp16; ``images`` and ``logits`` stay fp32.

    The head and resizing stay fp32 as well: the last rounding decides between close classes.

    Args:
        twin: What `logits_graph` gave.

    Raises:
        ExportError: The result is no valid ONNX.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(twin)
    convolutions = [n for n, node in enumerate(copy.graph.node) if node.op_type == "Conv"]
    for number, node in enumerate(copy.graph.node):
        node.name = node.name or f"node_{number}"
    head = [node.name for node in copy.graph.node[(convolutions or [0])[-1] :]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiny weights become the smallest half
        model: onnx.ModelProto = convert_float_to_float16(
            copy, keep_io_types=True, op_block_list=["Resize"], node_block_list=head
        )
    del model.graph.value_info[:]
    _sort_nodes(model.graph)
    check(model)
    return model


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that it needs; the converter appends casts at the end."""
    known = {"", *(i.name for i in graph.input), *(i.name for i in graph.initializer)}
    rest, done = list(graph.node), list[onnx.NodeProto]()
    while rest:
        ready = [node for node in rest if known.issuperset(node.input)]
        if not ready:
            break  # a cycle; the check that follows says so
        for node in ready:
            known.update(node.output)
        done += ready
        rest = [node for node in rest if not known.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(done + rest)


def export_half(
    net: nn.Module,
    classes: ClassTable,
    details: ModelDetails,
    photos: Sequence[Image],
    path: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write a typed fp16 model; 99.9 % of all pixels must have the class of the network.

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
        ParityError: Too many pixels differ; nothing is written.
        ExportError: The network cannot be exported.
        OutputError: The disk is full or not writable.
    """
    twin = to_half(logits_graph(net, details.tile_px))
    details = replace(details, quantisation="fp16")
    model = ship(twin, classes, details.temperature)
    describe(model, model_properties(classes, details))
    draft, logits = model.SerializeToString(), twin.SerializeToString()
    figures, forced = check_or_force(
        lambda tolerance: check_parity(net, draft, logits, photos, tolerance), TOLERANCE, force
    )
    write_model(model, classes, replace(details, forced=forced), figures, photos, path)
    return figures
