"""Prove that a model file says what the trained network says, through the code that is deployed.

The network runs in torch and the file in `weedseg.edge.Segmenter`, over the same photos and the
same tile plan. A twin of the file that still gives logits is compared tile by tile.

Shapes: N batch, C classes, T tile px, H W photo px.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.segmenter import Result, Segmenter, segment_photo
from weedseg.edge.session import import_onnxruntime
from weedseg.export.agreement import FP32, Tolerance, compare, judge
from weedseg.export.photo_sizes import BATCHES
from weedseg.imaging import Image


def check_parity(
    net: nn.Module,
    shipped: Path | bytes,
    twin: bytes,
    photos: Sequence[Image],
    tolerance: Tolerance = FP32,
) -> dict[str, Any]:
    """Compare a model file with the network that it was exported from.

    Every photo is taken as it is, as an odd non-square cut, and as a cut smaller than a tile. All
    images of the first photo, among them a mosaic of more than 5 tiles, run in batches of 1, 2 and
    5 tiles; the others take turns. The first photo is also repeated to 12 megapixels.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        shipped: The model file.
        twin: The same network with output ``logits``, as bytes.
        photos: uint8 (H, W, 3) each; some should have at least 1 % predicted weed.
        tolerance: How far they may differ.

    Returns:
        Figures: photos, weed_photos (those with >= 1 % predicted weed), images, sizes (height,
        width), pixels, max_dlogit, equal_share, max_dconfidence, batches, versions.

    Raises:
        ParityError: There is no photo, or the file differs too much.
        ModelFileError: The edge runtime refuses the file.
        RuntimeUnavailableError: There is no ONNX Runtime.
    """
    segmenters = [
        Segmenter(shipped, batch=batch, require_provider="cpu", threads=_num_threads())
        for batch in BATCHES
    ]
    reference = _Reference(net, twin, segmenters[0].metadata)
    figures = {
        **compare(lambda image, turn: reference.segment(image, BATCHES[turn]), segmenters, photos),
        "max_dlogit": float(f"{reference.max_dlogit:.3g}"),
        "onnxruntime": segmenters[0].runtime.onnxruntime,
        "torch": str(torch.__version__),
    }
    judge(figures, tolerance, "exported model is not the trained network")
    return figures


def _num_threads() -> int:
    return torch.get_num_threads()


class _Reference:
    """The trained network behind the tile plan of the edge runtime."""

    def __init__(self, net: nn.Module, twin: bytes, metadata: ModelMetadata) -> None:
        self._net = copy.deepcopy(net).eval().cpu()
        self._metadata = metadata
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = _num_threads()
        self._twin = ort.InferenceSession(twin, options, providers=["CPUExecutionProvider"])
        self.max_dlogit = 0.0

    def segment(self, image: Image, batch: int) -> Result:
        """Segment a photo in torch and compare the logits of all its tiles with the twin's."""
        return segment_photo(image, self._metadata, self._run, batch)

    @torch.inference_mode()
    def _run(
        self, images: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        logits = self._net(torch.from_numpy(images))
        (others,) = self._twin.run(["logits"], {"images": images})
        difference = float(np.abs(logits.numpy() - others).max())
        # A NaN must not pass as "not greater".
        if not difference <= self.max_dlogit:
            self.max_dlogit = difference
        best = torch.softmax(logits / self._metadata.temperature, dim=1).amax(dim=1)
        mask = logits.argmax(dim=1).to(torch.uint8).numpy()
        return mask, torch.round(100 * best).to(torch.uint8).numpy()
