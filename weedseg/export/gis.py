"""The GIS variant: class probabilities instead of a class map, as the QGIS plugin Deepness loads.

It is one square tile in, ``probs`` (N, C, T, T) out; the plugin cuts and joins tiles by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from weedseg.classes import ClassTable
from weedseg.edge.segmenter import fill_tile
from weedseg.edge.session import import_onnxruntime
from weedseg.errors import ParityError
from weedseg.export.details import ModelDetails, model_properties
from weedseg.export.onnx_graph import check, describe, logits_graph
from weedseg.export.photo_sizes import (
    BATCHES,
    MIN_WEED_SHARE,
    images_of,
    side_in_photo,
    weed_share,
)
from weedseg.imaging import Image, resize_image, write_bytes
from weedseg.tiles import cut, plan_tiles

MAX_DIFFERENCE = 1e-3
"""Largest difference of a probability from the network's."""
MAX_TILES = 24


def with_probs(twin: onnx.ModelProto, temperature: float) -> onnx.ModelProto:
    """Replace the output ``logits`` by ``probs``, the softmax over classes, (N, C, T, T).

    Args:
        twin: What `logits_graph` gave.
        temperature: Divides the logits.

    Raises:
        ExportError: The result is no valid ONNX.
    """
    model = onnx.ModelProto()
    model.CopyFrom(twin)
    graph = model.graph
    graph.initializer.append(
        numpy_helper.from_array(np.array(temperature, np.float32), "tail_temperature")
    )
    graph.node.append(
        helper.make_node("Div", ["logits", "tail_temperature"], ["tail_soft"], name="tail_0_Div")
    )
    graph.node.append(
        helper.make_node("Softmax", ["tail_soft"], ["probs"], axis=1, name="tail_1_Softmax")
    )
    shape = [d.dim_param or d.dim_value for d in graph.output[0].type.tensor_type.shape.dim]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("probs", TensorProto.FLOAT, shape))
    check(model)
    return model


def export_gis(
    net: nn.Module,
    classes: ClassTable,
    details: ModelDetails,
    photos: Sequence[Image],
    path: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write the GIS variant; its probabilities must be those of the network.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        classes: Its classes.
        details: What else the file says.
        photos: uint8 (H, W, 3) each, for the check.
        path: Where the model goes.
        force: Write a file that fails, and record it there.

    Returns:
        Figures: tiles, weed_tiles (with >= 1 % predicted weed), sizes of the images that they come
        from, pixels, max_dprob, equal_share, batches.

    Raises:
        ParityError: There is no photo, or the probabilities differ; nothing is written.
        ExportError: The network cannot be exported.
        OutputError: The disk is full or not writable.
    """
    model = with_probs(logits_graph(net, details.tile_px), details.temperature)
    figures = _compare(net, classes, model.SerializeToString(), details, photos)
    fine = figures["max_dprob"] <= MAX_DIFFERENCE and figures["equal_share"] >= 0.9999
    if not fine:
        error = ParityError(
            f"probabilities differ by {figures['max_dprob']:g}, "
            f"{100 * figures['equal_share']:.3f} % of pixels equal",
            f"<= {MAX_DIFFERENCE:g} and >= 99.99 %",
            "nothing was written; report this with the versions of torch and onnxruntime",
        )
        if not force:
            raise error
        details = replace(details, forced=str(error))
    describe(model, model_properties(classes, details, figures))
    write_bytes(path, model.SerializeToString())
    return figures


@torch.inference_mode()
def _compare(
    net: nn.Module,
    classes: ClassTable,
    data: bytes,
    details: ModelDetails,
    photos: Sequence[Image],
) -> dict[str, Any]:
    """Run tiles of all photos, the first in all sizes, through both in batches of 1, 2 and 5."""
    still = copy.deepcopy(net).eval().cpu()
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    images = _all_sizes(photos, classes, details)
    tiles = working_tiles(images, details, MAX_TILES)
    worst, num_equal, num_pixels = 0.0, 0, 0
    weed_tiles = set[int]()
    for batch in BATCHES:
        for start in range(0, len(tiles), batch):
            chosen = tiles[start : start + batch]
            logits = still(torch.from_numpy(chosen))
            expected = torch.softmax(logits / details.temperature, 1).numpy()
            (probs,) = session.run(["probs"], {"images": chosen})
            difference = float(np.abs(probs - expected).max())
            worst = difference if not difference <= worst else worst  # a NaN must not pass
            class_maps = expected.argmax(1).astype(np.uint8)
            num_equal += int((probs.argmax(1) == class_maps).sum())
            num_pixels += class_maps.size
            weeds = [weed_share(class_map, classes) >= MIN_WEED_SHARE for class_map in class_maps]
            weed_tiles.update(start + int(place) for place in np.flatnonzero(weeds))
    return {
        "tiles": len(tiles),
        "weed_tiles": len(weed_tiles),
        "sizes": [list(size) for size in sorted({image.shape[:2] for image in images})],
        "pixels": num_pixels,
        "max_dprob": float(f"{worst:.3g}"),
        "equal_share": num_equal / num_pixels,
        "batches": list(BATCHES),
    }


def _all_sizes(photos: Sequence[Image], classes: ClassTable, details: ModelDetails) -> list[Image]:
    """Add the other sizes of the first photo."""
    if not photos:
        return []
    nothing = np.zeros(photos[0].shape[:2], np.uint8)
    side = side_in_photo(details.tile_px, details.scale)
    return [*images_of(photos[0], nothing, classes, side), *photos[1:]]


def working_tiles(
    photos: Sequence[Image], details: ModelDetails, most: int
) -> npt.NDArray[np.float32]:
    """Cut photos into tiles as the runtime does, evenly chosen when there are many.

    Args:
        photos: uint8 (H, W, 3) each.
        details: Scale, tile size and overlap.
        most: At most so many tiles.

    Returns:
        (N, 3, T, T), 0-1.

    Raises:
        ParityError: There is no photo.
    """
    side = details.tile_px
    places = []
    for photo in photos:
        scaled = resize_image(photo, details.scale)
        plan = plan_tiles((scaled.shape[0], scaled.shape[1]), side, details.overlap_px)
        places += [(plan, scaled, number) for number in range(len(plan.placements))]
    if not places:
        raise ParityError("no photo to compare on", "at least one", "give some photos")
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, min(most, len(places)), dtype=int)]
    tiles = np.empty((len(chosen), 3, side, side), np.float32)
    for target, (plan, scaled, number) in zip(tiles, chosen):
        fill_tile(target, cut(plan, scaled, number))
    return tiles
