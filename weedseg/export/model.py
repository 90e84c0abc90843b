"""Export a trained network: graph, parity check, golden sample, metadata; all of it or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from torch import nn

from weedseg.classes import ClassTable, Role
from weedseg.edge.golden import GOLDEN_NAME
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ExportError, OutputError
from weedseg.export.agreement import FP32, check_or_force
from weedseg.export.details import ModelDetails, model_properties, to_literal
from weedseg.export.onnx_graph import describe, logits_graph, ship
from weedseg.export.parity import check_parity
from weedseg.export.photo_sizes import cut_at_weed, side_in_photo
from weedseg.imaging import Image, read_image, write_bytes


def export_model(
    net: nn.Module,
    classes: ClassTable,
    details: ModelDetails,
    photos: Sequence[Image],
    path: Path,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write a model file that is proven to equal the network, and its golden sample beside it.

    The file says in ``weedseg.parity`` how close it is. ``golden/in.png`` is one tile of a photo,
    ``golden/out.png`` its class map; their checksums are in ``weedseg.golden_sha256``.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        classes: Its classes.
        details: What else the file says.
        photos: uint8 (H, W, 3) each, for the parity check; the first ones with weeds are best.
        path: Where the model goes; an older one is replaced only at the very end.
        force: Write a file that fails, and record it there.

    Returns:
        The figures of the parity check.

    Raises:
        ExportError: The network cannot be exported.
        ParityError: The file would differ from the network; nothing is written.
        ModelFileError: The edge runtime refuses the file.
        RuntimeUnavailableError: There is no ONNX Runtime.
        OutputError: The disk is full or not writable.
    """
    twin = logits_graph(net, details.tile_px)
    model = ship(twin, classes, details.temperature)
    describe(model, model_properties(classes, details))
    draft, logits = model.SerializeToString(), twin.SerializeToString()
    figures, forced = check_or_force(
        lambda tolerance: check_parity(net, draft, logits, photos, tolerance), FP32, force
    )
    write_model(model, classes, replace(details, forced=forced), figures, photos, path)
    return figures


def write_model(
    model: onnx.ModelProto,
    classes: ClassTable,
    details: ModelDetails,
    figures: Mapping[str, Any],
    photos: Sequence[Image],
    path: Path,
) -> None:
    """Write a model that passed its gate, with metadata and golden sample.

    The sample of ``model.int8.onnx`` is ``golden/in.int8.png`` and ``golden/out.int8.png``; its
    photo is that of ``model.onnx`` where that lies beside it.

    Args:
        model: A shipped graph.
        classes: Its classes.
        details: What else the file says.
        figures: Of the gate.
        photos: uint8 (H, W, 3) each; one tile of them becomes the golden photo.
        path: Where the model goes.

    Raises:
        ExportError: There is no photo, or the metadata do not come back.
        ModelFileError: The edge runtime refuses the file.
        OutputError: The disk is full or not writable.
    """
    describe(model, model_properties(classes, details))
    draft = Segmenter(model.SerializeToString(), require_provider="cpu")
    middle = path.stem.partition(".")[2]
    first = path.parent / GOLDEN_NAME / "in.png"
    shared = read_image(first) if middle and first.is_file() else None
    golden = _golden_sample(draft, photos if shared is None else [shared])
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in golden.items()}
    describe(model, model_properties(classes, details, figures, sums))
    final = model.SerializeToString()
    expected = json.loads(to_literal(figures))
    if Segmenter(final, require_provider="cpu").metadata.properties["parity"] != expected:
        raise ExportError("metadata that do not come back", "the parity figures", "report this")
    for name, data in golden.items():
        file = ".".join(filter(None, (name, middle, "png")))
        write_bytes(path.parent / GOLDEN_NAME / file, data)
    write_bytes(path, final)


def _golden_sample(segmenter: Segmenter, photos: Sequence[Image]) -> dict[str, bytes]:
    """Choose the tile with the most predicted weed; returns PNG files 'in' and 'out'.

    Raises:
        ExportError: There is no photo.
    """
    metadata = segmenter.metadata
    side = side_in_photo(metadata.tile_px, metadata.scale)
    weeds = [metadata.classes.names[i] for i in metadata.classes.ids_of(Role.WEED)]
    best: tuple[float, Image] | None = None
    for photo in photos:
        class_map = segmenter.segment(photo).class_map
        tile = cut_at_weed(photo, class_map, metadata.classes, (side, side))
        coverage = segmenter.segment(tile).coverage
        share = sum(coverage[name] for name in weeds)
        if best is None or share > best[0]:
            best = (share, tile)
    if best is None:
        raise ExportError("no photo", "at least one", "give some photos")
    tile = best[1]
    return {"in": _png(tile[:, :, ::-1]), "out": _png(segmenter.segment(tile).class_map)}


def _png(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Encode (H, W) or BGR (H, W, 3).

    Raises:
        OutputError: OpenCV cannot.
    """
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    if not done:
        raise OutputError("a golden sample that PNG cannot hold", "a picture", "report this")
    return bytes(data)
