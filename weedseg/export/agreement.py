"""Compare what a model file says with what it should say, and judge the differences.

Imports no torch: an engine is compared with its model file on the machine that runs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from weedseg.edge.result import Result
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ParityError
from weedseg.export.photo_sizes import (
    BATCHES,
    MIN_WEED_SHARE,
    NUM_CUTS,
    images_of,
    side_in_photo,
    weed_share,
)
from weedseg.imaging import Image

Expected: TypeAlias = Callable[[Image, int], Result]
"""What should come out, by image and number of the batch size in `BATCHES`."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a model file may be from the network; the defaults are those of fp32."""

    dlogit: float = 1e-3
    """Largest difference of a logit."""
    equal_share: float = 0.9999
    """Smallest share of pixels with the same class, 0-1."""
    dconfidence: int = 1
    """Largest difference of the confidence, per cent."""


FP32 = Tolerance()
NO_LIMIT = Tolerance(dlogit=math.inf, equal_share=0.0, dconfidence=100)


def check_or_force(
    check: Callable[[Tolerance], dict[str, Any]], tolerance: Tolerance, force: bool
) -> tuple[dict[str, Any], str]:
    """Run a check, and where that is wanted go on when it fails.

    Args:
        check: `check_parity` but for the tolerance.
        tolerance: What it has to keep.
        force: Go on.

    Returns:
        The figures, and in words what failed; empty: nothing.

    Raises:
        ParityError: It failed and must not.
    """
    try:
        return check(tolerance), ""
    except ParityError as error:
        if not force:
            raise
        return check(NO_LIMIT), str(error)


def compare(
    expected: Expected, segmenters: Sequence[Segmenter], photos: Sequence[Image]
) -> dict[str, Any]:
    """Run photos in all their sizes through a model file and through what it should equal.

    All images of the first photo run in every batch size, but the largest; the others take turns.

    Args:
        expected: What should come out.
        segmenters: The model file, once per batch size.
        photos: uint8 (H, W, 3) each.

    Returns:
        Figures: photos, weed_photos (those with >= 1 % predicted weed), images, sizes (height,
        width), pixels, equal_share, max_dconfidence, batches.

    Raises:
        ParityError: There is no photo.
    """
    if not photos:
        raise ParityError("no photo to compare on", "at least one", "give some photos")
    tally = _Tally()
    num_weed_photos = 0
    metadata = segmenters[0].metadata
    side = side_in_photo(metadata.tile_px, metadata.scale)
    for number, photo in enumerate(photos):
        class_map = expected(photo, len(BATCHES) - 1).class_map
        num_weed_photos += int(weed_share(class_map, metadata.classes) >= MIN_WEED_SHARE)
        images = images_of(photo, class_map, metadata.classes, side)
        for place, image in enumerate(images[:NUM_CUTS] if number else images):
            turn = tally.num_images % len(BATCHES)
            every = not number and place < len(images) - 1
            chosen = segmenters if every else segmenters[turn : turn + 1]
            tally.add([segmenter.segment(image) for segmenter in chosen], expected(image, turn))
    return {"photos": len(photos), "weed_photos": num_weed_photos, **tally.figures()}


def judge(figures: Mapping[str, Any], tolerance: Tolerance, what: str) -> None:
    """Compare figures with the tolerance.

    Args:
        figures: With equal_share, max_dconfidence and perhaps max_dlogit.
        tolerance: How far they may differ.
        what: Which is not what, for the message.

    Raises:
        ParityError: One is beyond it.
    """
    faults = []
    if not figures.get("max_dlogit", 0.0) <= tolerance.dlogit:
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
            f"{what}: " + ", ".join(f for f, _ in faults),
            ", ".join(e for _, e in faults),
            "nothing was written; report this with the versions of all runtimes",
        )


@dataclass
class _Tally:
    """Differences over all images."""

    num_images: int = 0
    num_pixels: int = 0
    num_equal: int = 0
    max_dconfidence: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)

    def add(self, results: Sequence[Result], expected: Result) -> None:
        """Count one image with what the file said in every batch size that was run."""
        self.num_images += 1
        height, width = expected.class_map.shape
        self.sizes.add((height, width))
        for found in results:
            self.num_pixels += expected.class_map.size
            self.num_equal += int(np.count_nonzero(found.class_map == expected.class_map))
            difference = found.confidence.astype(np.int16) - expected.confidence
            self.max_dconfidence = max(self.max_dconfidence, int(np.abs(difference).max()))

    def figures(self) -> dict[str, Any]:
        """Return images, sizes, pixels, equal_share, max_dconfidence and batches."""
        return {
            "images": self.num_images,
            "sizes": [list(size) for size in sorted(self.sizes)],
            "pixels": self.num_pixels,
            "equal_share": self.num_equal / self.num_pixels,
            "max_dconfidence": self.max_dconfidence,
            "batches": list(BATCHES),
        }
