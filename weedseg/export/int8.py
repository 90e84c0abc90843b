"""Whole numbers of 8 bits: quantised, measured, and written only if it is worth it.

Parts that lose too much accuracy stay in fp32, found by trying each alone. CPUs and TensorRT get a
file each; the speed of TensorRT's can only be measured where TensorRT runs.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Sequence
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
from weedseg.errors import ParityError
from weedseg.evaluation.confusion import ConfusionMatrix
from weedseg.export.details import ModelDetails, model_properties
from weedseg.export.gis import working_tiles
from weedseg.export.model import write_model
from weedseg.export.onnx_graph import describe, logits_graph, ship
from weedseg.export.photo_sizes import (
    BATCHES,
    MIN_WEED_SHARE,
    images_of,
    side_in_photo,
    weed_share,
)
from weedseg.export.quantise import CPU, Flavour, Quantiser, cpu_session
from weedseg.imaging import ClassMap, Image, Mask

_log = logging.getLogger(__name__)

MIN_MIOU_SHARE = 0.99
"""mIoU must be at least this share of that in fp32."""
MAX_WEED_LOSS = 0.01
"""Weed IoU may be lower than in fp32 by so much."""
MIN_EQUAL_SHARE = 0.9
"""An image of another size must have the class of fp32 on this share of pixels; finds blunders."""
NUM_CALIBRATION_TILES = 16
NUM_ROUNDS = 40
NOT_TIMED = "not measured: only TensorRT on the target can tell"

LabelledPhotos = Sequence[tuple[Image, Mask]]


@dataclass(frozen=True, kw_only=True)
class Int8Material:
    """What an int8 export needs beside the network."""

    calibration: Sequence[Image]
    """Photos of the training part only, uint8 (H, W, 3) each."""
    labelled: LabelledPhotos
    """Photos with masks that judge the accuracy, if possible held out."""
    flavour: Flavour = CPU
    """For which kind of runtime."""


def export_int8(
    net: nn.Module,
    classes: ClassTable,
    details: ModelDetails,
    material: Int8Material,
    path: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write an int8 model that keeps the accuracy of fp32 and is faster than it on its target.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        classes: Its classes.
        details: What else the file says.
        material: Photos to calibrate on and photos to judge by, and for what.
        path: Where the model goes.
        force: Write a file that fails, and record it there.

    Returns:
        Figures: photos, weed_photos (with >= 1 % predicted weed), sizes, batches; miou and
        weed_iou (None where no mask shows weed) for int8 and fp32; min_equal_share, of the pixels
        of an image of any size as in fp32; fp32_nodes, how many operators stayed in fp32; bytes;
        time_share and ms for a CPU, or why there is no speed.

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
    details = replace(details, quantisation=material.flavour.name)
    model, figures = _quantise(logits_graph(net, details.tile_px), classes, details, material)
    faults = _faults(figures)
    if faults:
        error = ParityError(
            "int8 " + ", ".join(faults),
            f">= {100 * MIN_MIOU_SHARE:g} % of the mIoU of fp32, weed IoU within "
            f"{MAX_WEED_LOSS:g}, {100 * MIN_EQUAL_SHARE:g} % of any image alike"
            + (", faster" if material.flavour.timed else ""),
            "nothing was written; use fp32 or fp16",
        )
        if not force:
            raise error
        details = replace(details, forced=str(error))
    write_model(model, classes, details, figures, [image for image, _ in material.labelled], path)
    return figures


def _quantise(
    twin: onnx.ModelProto, classes: ClassTable, details: ModelDetails, material: Int8Material
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Quantise as much as accuracy allows, else as little as there is; with the figures of that."""
    model = _shipped(twin, classes, replace(details, quantisation="none"))
    fp32 = model.SerializeToString()
    judge = _Judge(fp32, classes, material.labelled)
    tiles = working_tiles(material.calibration, details, NUM_CALIBRATION_TILES)
    maker = Quantiser(twin, tiles, material.flavour)
    figures = dict[str, Any]()
    for kept in maker.choices():
        model = _shipped(maker.quantise(kept), classes, details)
        figures = judge.accuracy(model.SerializeToString()) | {"fp32_nodes": len(kept)}
        _log.info("int8 with %d operators in fp32: %s", len(kept), figures)
        if not _faults(figures):
            break
    data = model.SerializeToString()
    figures["bytes"] = len(data)
    if material.flavour.timed:
        return model, figures | compare_speed(fp32, data, tiles[:1])
    return model, figures | {"speed": NOT_TIMED}


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
    if figures["min_equal_share"] < MIN_EQUAL_SHARE:
        faults.append(
            f"has the class of fp32 on only {100 * figures['min_equal_share']:.1f} % of an image"
        )
    if figures.get("time_share", 0.0) >= 1.0:
        faults.append(f"takes {figures['time_share']:.2f} of the time of fp32")
    return faults


class _Judge:
    """Scores models on labelled photos, and compares other sizes with fp32, as a robot runs them.

    Images take turns in batch sizes. Other sizes are no photos, so no accuracy is judged by them.
    """

    def __init__(self, fp32: bytes, classes: ClassTable, labelled: LabelledPhotos) -> None:
        self._classes, self._labelled = classes, labelled
        segmenters = _segmenters(fp32)
        side = side_in_photo(segmenters[0].metadata.tile_px, segmenters[0].metadata.scale)
        class_maps = _class_maps(segmenters, [image for image, _ in labelled])
        shares = [weed_share(class_map, classes) for class_map in class_maps]
        self._num_weed_photos = sum(share >= MIN_WEED_SHARE for share in shares)
        weediest = max(range(len(shares)), key=shares.__getitem__)
        image, class_map = labelled[weediest][0], class_maps[weediest]
        self._others = images_of(image, class_map, classes, side)
        self._expected = _class_maps(segmenters, self._others)
        self._fp32 = self._score(class_maps)

    def accuracy(self, model: bytes) -> dict[str, Any]:
        """Return mIoU and weed IoU of a model and of fp32, how alike they are, and on what."""
        segmenters = _segmenters(model)
        miou, weed = self._score(_class_maps(segmenters, [image for image, _ in self._labelled]))
        class_maps = _class_maps(segmenters, self._others)
        images = [*self._others, *(image for image, _ in self._labelled)]
        return {
            "photos": len(self._labelled),
            "weed_photos": self._num_weed_photos,
            "sizes": [list(size) for size in sorted({image.shape[:2] for image in images})],
            "batches": list(BATCHES),
            "miou": miou,
            "miou_fp32": self._fp32[0],
            "weed_iou": weed,
            "weed_iou_fp32": self._fp32[1],
            "min_equal_share": min(
                float((found == expected).mean())
                for found, expected in zip(class_maps, self._expected)
            ),
        }

    def _score(self, class_maps: Sequence[ClassMap]) -> tuple[float, float | None]:
        """Return mIoU and the mean IoU of the weed classes, of what is said about the photos.

        Raises:
            ParityError: No mask has a class.
        """
        matrix = ConfusionMatrix(len(self._classes))
        for class_map, (_, mask) in zip(class_maps, self._labelled):
            matrix.add(mask, class_map)
        miou, found = matrix.miou(), matrix.iou()
        if miou is None:
            raise ParityError("masks without any class", "labelled pixels", "label some photos")
        weeds = [found[i] for i in self._classes.ids_of(Role.WEED)]
        known = [value for value in weeds if value is not None]
        return miou, statistics.mean(known) if known else None


def _segmenters(model: bytes) -> list[Segmenter]:
    """Open a model once per batch size."""
    threads = torch.get_num_threads()
    return [
        Segmenter(model, require_provider="cpu", threads=threads, batch=batch) for batch in BATCHES
    ]


def _class_maps(segmenters: Sequence[Segmenter], images: Sequence[Image]) -> list[ClassMap]:
    """Segment images; the batch sizes take turns."""
    return [
        segmenters[number % len(segmenters)].segment(image).class_map
        for number, image in enumerate(images)
    ]


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
        time_share (int8 / fp32), ms and ms_fp32 (best round), threads (1).
    """
    runs = [partial(cpu_session(data, 1).run, None, {"images": tile}) for data in (fp32, int8)]
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
    }
