"""Prove that a model file says what the trained network says, through the code that is deployed.

The network runs in torch and the file in `weedseg.edge.Segmenter`, over the same photos and the
same tile plan. A twin of the file that still gives logits is compared tile by tile.

Shapes: N batch, C classes, T tile px, H W photo px.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weedseg.classes import ClassTable, Role
from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.segmenter import Result, Segmenter, segment_photo
from weedseg.edge.session import import_onnxruntime
from weedseg.errors import ParityError
from weedseg.imaging import ClassMap, Image

BATCHES = (1, 2, 5)
MIN_WEED_SHARE = 0.01
"""A photo counts as one with weeds from this share of predicted weed on, 0-1."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a model file may be from the network; the defaults are those of fp32."""

    dlogit: float = 1e-3
    """Largest difference of a logit."""
    equal_share: float = 0.9999
    """Smallest share of pixels with the same class, 0-1."""
    dconfidence: int = 1
    """Largest difference of the confidence, per cent."""


def check_parity(
    net: nn.Module,
    shipped: Path | bytes,
    twin: bytes,
    photos: Sequence[Image],
    tolerance: Tolerance = Tolerance(),
) -> dict[str, Any]:
    """Compare a model file with the network that it was exported from.

    Every photo is taken as it is, as an odd non-square cut, and as a cut smaller than a tile. All
    images of the first photo, among them a mosaic of more than 5 tiles, run in batches of 1, 2 and
    5 tiles; the others take turns.

    Args:
        net: (N, 3, T, T) in 0-1 to logits (N, C, T, T).
        shipped: The model file.
        twin: The same network with output ``logits``, as bytes.
        photos: uint8 (H, W, 3) each; some should have at least 1 % predicted weed.
        tolerance: How far they may differ.

    Returns:
        Figures: photos, weed_photos (those with >= 1 % predicted weed), images, pixels,
        max_dlogit, equal_share, max_dconfidence, batches, versions.

    Raises:
        ParityError: There is no photo, or the file differs too much.
        ModelFileError: The edge runtime refuses the file.
        RuntimeUnavailableError: There is no ONNX Runtime.
    """
    if not photos:
        raise ParityError("no photo to compare on", "at least one", "give some photos")
    segmenters = [
        Segmenter(shipped, batch=batch, require_provider="cpu", threads=_num_threads())
        for batch in BATCHES
    ]
    reference = _Reference(net, twin, segmenters[0].metadata)
    tally, num_weed_photos = _compare(reference, segmenters, photos)
    figures = {
        "photos": len(photos),
        "weed_photos": num_weed_photos,
        "images": tally.num_images,
        "pixels": tally.num_pixels,
        "max_dlogit": float(f"{reference.max_dlogit:.3g}"),
        "equal_share": tally.num_equal / tally.num_pixels,
        "max_dconfidence": tally.max_dconfidence,
        "batches": list(BATCHES),
        "onnxruntime": segmenters[0].runtime.onnxruntime,
        "torch": str(torch.__version__),
    }
    _judge(figures, tolerance)
    return figures


def _compare(
    reference: _Reference, segmenters: Sequence[Segmenter], photos: Sequence[Image]
) -> tuple[_Tally, int]:
    """Run all images; returns the differences and the number of photos with weeds."""
    tally = _Tally()
    num_weed_photos = 0
    metadata = segmenters[0].metadata
    for number, photo in enumerate(photos):
        class_map = reference.segment(photo, BATCHES[-1]).class_map
        num_weed_photos += int(_weed(class_map, metadata.classes).mean() >= MIN_WEED_SHARE)
        images = _variants(photo, class_map, metadata)
        if not number:
            images.append(_mosaic(photo, metadata))
        for image in images:
            turn = tally.num_images % len(BATCHES)
            expected = reference.segment(image, BATCHES[turn])
            chosen = segmenters[turn : turn + 1] if number else segmenters
            tally.add([segmenter.segment(image) for segmenter in chosen], expected)
    return tally, num_weed_photos


def _judge(figures: Mapping[str, Any], tolerance: Tolerance) -> None:
    """Compare figures with the tolerance.

    Raises:
        ParityError: One is beyond it.
    """
    faults = []
    if not figures["max_dlogit"] <= tolerance.dlogit:
        faults.append((f"logits differ by {figures['max_dlogit']:g}", f"<= {tolerance.dlogit:g}"))
    if not figures["equal_share"] >= tolerance.equal_share:
        faults.append(
            (
                f"{100 * figures['equal_share']:.3f} % of pixels equal",
                f">= {100 * tolerance.equal_share:g} %",
            )
        )
    if not figures["max_dconfidence"] <= tolerance.dconfidence:
        faults.append(
            (
                f"confidence differs by {figures['max_dconfidence']}",
                f"<= {tolerance.dconfidence}",
            )
        )
    if faults:
        raise ParityError(
            "exported model is not the trained network: " + ", ".join(f for f, _ in faults),
            ", ".join(e for _, e in faults),
            "nothing was written; report this with the versions of torch and onnxruntime",
        )


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


@dataclass
class _Tally:
    """Differences over all images."""

    num_images: int = 0
    num_pixels: int = 0
    num_equal: int = 0
    max_dconfidence: int = 0

    def add(self, results: Sequence[Result], expected: Result) -> None:
        """Count one image with what the file said in every batch size that was run."""
        self.num_images += 1
        for found in results:
            self.num_pixels += expected.class_map.size
            self.num_equal += int(np.count_nonzero(found.class_map == expected.class_map))
            difference = found.confidence.astype(np.int16) - expected.confidence
            self.max_dconfidence = max(self.max_dconfidence, int(np.abs(difference).max()))


def _weed(class_map: ClassMap, classes: ClassTable) -> npt.NDArray[np.bool_]:
    """Tell where a class map says weed, (H, W)."""
    return np.isin(class_map, classes.ids_of(Role.WEED))


def cut_at_weed(
    photo: Image, class_map: ClassMap, classes: ClassTable, size: tuple[int, int]
) -> Image:
    """Cut a part out of a photo, as near to the middle of its predicted weed as fits.

    Args:
        photo: uint8 (H, W, 3).
        class_map: uint8 (H, W).
        classes: The classes.
        size: (height, width) of the cut, px; smaller where the photo is.

    Returns:
        uint8 (<= height, <= width, 3), contiguous.
    """
    rows, columns = np.nonzero(_weed(class_map, classes))
    starts = []
    for axis, places in enumerate((rows, columns)):
        middle = int(np.median(places)) if places.size else photo.shape[axis] // 2
        starts.append(max(0, min(middle - size[axis] // 2, photo.shape[axis] - size[axis])))
    top, left = starts
    return np.ascontiguousarray(photo[top : top + size[0], left : left + size[1]])


def _variants(photo: Image, class_map: ClassMap, metadata: ModelMetadata) -> list[Image]:
    """Return the photo, an odd non-square cut of it, and one smaller than a tile."""
    side = metadata.tile_px / metadata.scale
    odd = (max(1, photo.shape[0] * 2 // 3) | 1, max(1, photo.shape[1] * 4 // 5) | 1)
    small = (max(1, int(side * 0.55)) | 1, max(1, int(side * 0.7)) | 1)
    cuts = [cut_at_weed(photo, class_map, metadata.classes, size) for size in (odd, small)]
    return [photo, *cuts]


def _mosaic(photo: Image, metadata: ModelMetadata) -> Image:
    """Repeat a photo to an image of at least 2.2 x 2.2 tiles, so that a batch of 5 fills."""
    side = int(2.2 * metadata.tile_px / metadata.scale)
    times = [-(-side // length) for length in photo.shape[:2]]
    return np.tile(photo, (*times, 1))[: max(side, 1), : max(side, 1)].copy()
