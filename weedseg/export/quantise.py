"""Quantise a network to whole numbers of 8 bits, in the form that one kind of runtime reads.

Weights get one scale per channel. Scales are stated by QuantizeLinear and DequantizeLinear (QDQ).
One file does not serve CPUs and TensorRT: see interfaces.md section 3.

Shapes: N batch, T tile px.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from weedseg.edge.session import import_onnxruntime
from weedseg.export.onnx_graph import check

NUM_PARTS = 8
"""The network is divided into so many parts, in order, to find those that stay in fp32."""
NUM_PROBE_TILES = 2

Tiles = npt.NDArray[np.float32]
"""(N, 3, T, T), 0-1."""


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """How a kind of runtime wants a quantised file."""

    name: str
    """'int8' or 'int8-trt'; what the file says under ``quantisation``."""
    operators: tuple[str, ...]
    """Operators that may be quantised; the others, among them resizing, stay in fp32."""
    symmetric: bool
    """Activations from -128 to 127 around 0 instead of 0 to 255, biases in fp32."""
    inputs_only: bool
    """Quantise before the operators only; the runtime fuses what follows each of them."""
    timed: bool
    """Its target is the machine that exports, so that its speed can be measured here."""


CPU = Flavour(
    name="int8",
    operators=("Conv", "Add", "Mul", "MaxPool", "GlobalAveragePool", "Concat", "Clip", "Relu"),
    symmetric=False,
    inputs_only=False,
    timed=True,
)
TENSORRT = Flavour(
    name="int8-trt",
    operators=("Conv", "Add", "MaxPool", "GlobalAveragePool"),
    symmetric=True,
    inputs_only=True,
    timed=False,
)


class Quantiser:
    """Quantises one network several times, with different parts left in fp32."""

    def __init__(self, twin: onnx.ModelProto, tiles: Tiles, flavour: Flavour) -> None:
        """Divide the network into parts.

        Args:
            twin: What `logits_graph` gave; its nodes get names.
            tiles: What to calibrate on.
            flavour: For which kind of runtime.
        """
        self._twin, self.tiles, self._flavour = twin, tiles, flavour
        for number, node in enumerate(twin.graph.node):
            node.name = node.name or f"node_{number}"
        nodes = [node.name for node in twin.graph.node if node.op_type in flavour.operators]
        self._parts = [list(part) for part in np.array_split(nodes, min(NUM_PARTS, len(nodes)))]

    def choices(self) -> Iterator[list[str]]:
        """Yield the operators to keep in fp32: none, then the worst part, the worst two, ..."""
        yield []
        order = self._worst_first()
        for num in range(1, len(order)):
            yield [name for part in order[:num] for name in part]

    def _worst_first(self) -> list[list[str]]:
        """Order the parts by what quantising each alone does to the logits."""
        probe = self.tiles[:NUM_PROBE_TILES]
        expected = _logits(self._twin, probe)
        everything = {name for part in self._parts for name in part}

        def harm(part: list[str]) -> float:
            found = _logits(self.quantise(sorted(everything - set(part)), probe), probe)
            return float(((found - expected) ** 2).mean())

        harms = [harm(part) for part in self._parts]
        return [self._parts[i] for i in sorted(range(len(harms)), key=lambda i: -harms[i])]

    def quantise(self, kept: Sequence[str], tiles: Tiles | None = None) -> onnx.ModelProto:
        """Quantise all but some operators.

        Args:
            kept: Names of those that stay in fp32.
            tiles: What to calibrate on; all calibration tiles by default.

        Raises:
            ExportError: The result is no valid ONNX.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        source = onnx.ModelProto()
        source.CopyFrom(self._twin)
        flavour = self._flavour
        with tempfile.TemporaryDirectory() as folder, _quiet():
            file = Path(folder) / "int8.onnx"
            quantize_static(
                source,
                file,
                _reader(self.tiles if tiles is None else tiles),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8 if flavour.symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(flavour.operators),
                nodes_to_exclude=list(kept),
                extra_options=_options(flavour),
            )
            model = onnx.load(file)
        model.ir_version = self._twin.ir_version
        foreign = [opset for opset in model.opset_import if opset.domain not in ("", "ai.onnx")]
        for opset in foreign:
            model.opset_import.remove(opset)
        del model.graph.value_info[:]
        check(model)
        return model


def _options(flavour: Flavour) -> dict[str, Any]:
    """Return what ONNX Runtime's quantiser calls these choices."""
    return {
        "ActivationSymmetric": flavour.symmetric,
        "QuantizeBias": not flavour.symmetric,
        "OpTypesToExcludeOutputQuantization": flavour.operators if flavour.inputs_only else (),
    }


class _quiet:
    """Keep what the quantiser logs on the root logger from the person's screen."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self._before)


def _reader(tiles: Tiles) -> Any:
    """Hand calibration tiles to the quantiser one by one."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives each tile once."""

        def __init__(self) -> None:
            self._rest = iter(tiles)

        def get_next(self) -> dict[str, Tiles] | None:
            tile = next(self._rest, None)
            return None if tile is None else {"images": tile[None]}

    return Reader()


def cpu_session(model: bytes, threads: int = 0) -> Any:
    """Open ONNX Runtime on the CPU.

    Args:
        model: ONNX bytes.
        threads: Threads; 0 takes as many as torch.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _logits(model: onnx.ModelProto, tiles: Tiles) -> Tiles:
    (found,) = cpu_session(model.SerializeToString()).run(["logits"], {"images": tiles})
    return np.asarray(found, np.float32)
