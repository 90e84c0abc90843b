"""Whole numbers of 8 bits for CPUs: quantised, measured, and written only if it is worth it.

Weights get one scale per channel, activations are unsigned; both are stated by QuantizeLinear and
DequantizeLinear (QDQ). Parts that lose too much accuracy stay in fp32, found by trying each alone.
TensorRT does not read this file; its form is slow on CPUs (see interfaces.md section 3).
"""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from weedseg.classes import ClassTable, Role
from weedseg.edge.segmenter import Segmenter
from weedseg.edge.session import import_onnxruntime
from weedseg.errors import ParityError
from weedseg.evaluation.confusion import ConfusionMatrix
from weedseg.export.details import ModelDetails, model_properties
from weedseg.export.gis import working_tiles
from weedseg.export.model import write_model
from weedseg.export.onnx_graph import check, describe, logits_graph, ship
from weedseg.imaging import Image, Mask

_log = logging.getLogger(__name__)

MIN_MIOU_SHARE = 0.99
"""mIoU must be at least this share of that in fp32."""
MAX_WEED_LOSS = 0.01
"""Weed IoU may be lower than in fp32 by so much."""
NUM_CALIBRATION_TILES = 16
NUM_PARTS = 8
"""The network is divided into so many parts, in order, to find those that stay in fp32."""
NUM_PROBE_TILES = 2
NUM_ROUNDS = 40
QUANTISED = ("Conv", "Add", "Mul", "MaxPool", "GlobalAveragePool", "Concat", "Clip", "Relu")
"""Operators that may be quantised; the others, among them resizing, stay in fp32."""

LabelledPhotos = Sequence[tuple[Image, Mask]]


@dataclass(frozen=True, kw_only=True)
class Int8Material:
    """What an int8 export needs beside the network."""

    calibration: Sequence[Image]
    """Photos of the training part only, uint8 (H, W, 3) each."""
    labelled: LabelledPhotos
    """Photos with masks that judge the accuracy, if possible held out."""


def export_int8(
    net: nn.Module,
    classes: ClassTable,
    details: ModelDetails,
    material: Int8Material,
    path: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write an int8 model that keeps the accuracy of fp32 and is faster than it.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        classes: Its classes.
        details: What else the file says.
        material: Photos to calibrate on and photos to judge by.
        path: Where the model goes.
        force: Write a file that fails, and record it there.

    Returns:
        Figures: miou, weed_iou (null where no mask shows weed), time_share and ms, each for int8
        and fp32; bytes; fp32_nodes, how many operators stayed in fp32.

    Raises:
        ParityError: Too inaccurate or not faster, or no photos; nothing is written.
        ExportError: The network cannot be exported.
        OutputError: The disk is full or not writable.
    """
    if not material.labelled or not material.calibration:
        raise ParityError(
            "no labelled photo to judge int8 by, or none to calibrate on",
            "at least one of each",
            "export onnx or onnx-fp16",
        )
    twin = logits_graph(net, details.tile_px)
    fp32 = _shipped(twin, classes, details)
    details = replace(details, quantisation="int8")
    judge = _Judge(fp32.SerializeToString(), classes, material.labelled)
    maker = _Quantiser(twin, working_tiles(material.calibration, details, NUM_CALIBRATION_TILES))
    model, figures = fp32, dict[str, Any]()
    for kept in maker.choices():
        model = _shipped(maker.quantise(kept), classes, details)
        figures = judge.accuracy(model.SerializeToString()) | {"fp32_nodes": len(kept)}
        _log.info("int8 with %d operators in fp32: %s", len(kept), figures)
        if not _faults(figures):
            break
    figures |= compare_speed(fp32.SerializeToString(), model.SerializeToString(), maker.tiles[:1])
    faults = _faults(figures)
    if faults:
        error = ParityError(
            "int8 " + ", ".join(faults),
            f">= {100 * MIN_MIOU_SHARE:g} % of the mIoU of fp32, weed IoU within "
            f"{MAX_WEED_LOSS:g}, faster",
            "nothing was written; use fp32 or fp16",
        )
        if not force:
            raise error
        details = replace(details, forced=str(error))
    write_model(model, classes, details, figures, [image for image, _ in material.labelled], path)
    return figures


def _shipped(twin: onnx.ModelProto, classes: ClassTable, details: ModelDetails) -> onnx.ModelProto:
    model = ship(twin, classes, details.temperature)
    describe(model, model_properties(classes, details))
    return model


def _faults(figures: dict[str, Any]) -> list[str]:
    """Word what is not good enough."""
    faults = []
    if figures["miou"] < MIN_MIOU_SHARE * figures["miou_fp32"]:
        faults.append(f"has mIoU {figures['miou']:.4f}, fp32 {figures['miou_fp32']:.4f}")
    weed, before = figures["weed_iou"], figures["weed_iou_fp32"]
    if before is not None and (weed is None or weed < before - MAX_WEED_LOSS):
        faults.append(f"has weed IoU {weed or 0:.4f}, fp32 {before:.4f}")
    if figures.get("time_share", 0.0) >= 1.0:
        faults.append(f"takes {figures['time_share']:.2f} of the time of fp32")
    return faults


class _Judge:
    """Scores models on labelled photos, through the edge runtime."""

    def __init__(self, fp32: bytes, classes: ClassTable, labelled: LabelledPhotos) -> None:
        self._classes, self._labelled = classes, labelled
        self._fp32 = self._score(fp32)

    def accuracy(self, model: bytes) -> dict[str, Any]:
        """Return mIoU and weed IoU of a model and of fp32."""
        miou, weed = self._score(model)
        return {
            "photos": len(self._labelled),
            "miou": miou,
            "miou_fp32": self._fp32[0],
            "weed_iou": weed,
            "weed_iou_fp32": self._fp32[1],
        }

    def _score(self, model: bytes) -> tuple[float, float | None]:
        """Return mIoU and the mean IoU of the weed classes.

        Raises:
            ParityError: No mask has a class.
        """
        segmenter = Segmenter(model, require_provider="cpu", threads=torch.get_num_threads())
        matrix = ConfusionMatrix(len(self._classes))
        for image, mask in self._labelled:
            matrix.add(mask, segmenter.segment(image).class_map)
        miou, found = matrix.miou(), matrix.iou()
        if miou is None:
            raise ParityError("masks without any class", "labelled pixels", "label some photos")
        weeds = [found[i] for i in self._classes.ids_of(Role.WEED)]
        known = [value for value in weeds if value is not None]
        return miou, statistics.mean(known) if known else None


class _Quantiser:
    """Quantises one network several times, with different parts left in fp32."""

    def __init__(self, twin: onnx.ModelProto, tiles: npt.NDArray[np.float32]) -> None:
        self._twin, self.tiles = twin, tiles
        for number, node in enumerate(twin.graph.node):
            node.name = node.name or f"node_{number}"
        nodes = [node.name for node in twin.graph.node if node.op_type in QUANTISED]
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

    def quantise(
        self, kept: Sequence[str], tiles: npt.NDArray[np.float32] | None = None
    ) -> onnx.ModelProto:
        """Quantise all but some operators.

        Args:
            kept: Names of those that stay in fp32.
            tiles: What to calibrate on, (N, 3, T, T); all calibration tiles by default.

        Raises:
            ExportError: The result is no valid ONNX.
        """
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        source = onnx.ModelProto()
        source.CopyFrom(self._twin)
        with tempfile.TemporaryDirectory() as folder, _quiet():
            file = Path(folder) / "int8.onnx"
            quantize_static(
                source,
                file,
                _reader(self.tiles if tiles is None else tiles),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(QUANTISED),
                nodes_to_exclude=list(kept),
            )
            model = onnx.load(file)
        model.ir_version = self._twin.ir_version
        foreign = [opset for opset in model.opset_import if opset.domain not in ("", "ai.onnx")]
        for opset in foreign:
            model.opset_import.remove(opset)
        del model.graph.value_info[:]
        check(model)
        return model


class _quiet:
    """Keep what the quantiser logs on the root logger from the person's screen."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *error: object) -> None:
        logging.disable(self._before)


def _reader(tiles: npt.NDArray[np.float32]) -> Any:
    """Hand calibration tiles to the quantiser one by one."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives each tile once."""

        def __init__(self) -> None:
            self._rest = iter(tiles)

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            tile = next(self._rest, None)
            return None if tile is None else {"images": tile[None]}

    return Reader()


def _session(model: bytes, threads: int = 0) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _logits(model: onnx.ModelProto, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    (found,) = _session(model.SerializeToString()).run(["logits"], {"images": tiles})
    return np.asarray(found, np.float32)


def compare_speed(
    fp32: bytes, int8: bytes, tile: npt.NDArray[np.float32], rounds: int = NUM_ROUNDS
) -> dict[str, Any]:
    """Time both on one tile, in turns and each first as often as the other.

    Processor time of one thread, and the best of all rounds: other work on the machine adds to
    the wall clock and to the worse rounds only.

    Args:
        fp32: Model file.
        int8: Model file.
        tile: (1, 3, T, T).
        rounds: How often each runs.

    Returns:
        time_share (int8 / fp32), ms and ms_fp32 (best round), threads (1), bytes.
    """
    runs = [partial(_session(data, 1).run, None, {"images": tile}) for data in (fp32, int8)]
    best = [math.inf, math.inf]
    for number in range(rounds + 2):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.thread_time()
            runs[which]()
            best[which] = min(best[which], time.thread_time() - start)
    return {
        "time_share": round(best[1] / best[0], 4),
        "ms": round(1e3 * best[1], 2),
        "ms_fp32": round(1e3 * best[0], 2),
        "threads": 1,
        "bytes": len(int8),
    }
