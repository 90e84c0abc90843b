"""The golden sample beside a model: a photo whose class map is known, to test the machine itself.

``golden/in.png`` is the photo; the class map is the file ``golden/out*.png`` whose checksum the
model states. A wrong driver, a broken memory or an exchanged file shows as another class map.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.result import Result
from weedseg.errors import ModelFileError, WeedsegError
from weedseg.imaging import ClassMap, Image, decode_image

GOLDEN_NAME = "golden"
"""Folder beside the model."""
MIN_EQUAL_SHARE = 0.999
"""Another processor rounds otherwise: so many pixels must have the class of the sample, 0-1."""
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class GoldenSample:
    """A photo and what the model says about it."""

    image: Image
    """uint8 (H, W, 3), RGB."""
    class_map: ClassMap
    """uint8 (H, W)."""


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """Outcome of a self-test."""

    passed: bool
    reason: str = ""
    """Why it did not pass."""
    equal_share: float = 0.0
    """Share of pixels with the class of the sample, 0-1."""
    elapsed_ms: float = 0.0


def read_golden(folder: Path, metadata: ModelMetadata) -> GoldenSample:
    """Read the golden sample of a model and compare it with the checksums that the model states.

    Args:
        folder: Folder with ``in.png`` and ``out*.png``.
        metadata: What the model says.

    Raises:
        ModelFileError: The model states no checksums, or a file is missing or differs.
        ImageError: A file of the right checksum is no picture.
    """
    sums = metadata.properties.get("golden_sha256")
    if not isinstance(sums, dict) or not {"in", "out"} <= set(sums):
        raise ModelFileError(
            "a model that states no golden sample", "golden_sha256", "export the model again"
        )
    image = decode_image(_read(folder, "in*.png", sums["in"]), "golden photo")
    pixels = decode_image(_read(folder, "out*.png", sums["out"]), "golden class map")
    if pixels.shape != image.shape:
        raise ModelFileError(
            f"golden class map of {pixels.shape[:2]} px", f"{image.shape[:2]} px", "copy it again"
        )
    return GoldenSample(image=image, class_map=np.ascontiguousarray(pixels[:, :, 0]))


def _read(folder: Path, pattern: str, sha256: object) -> bytes:
    """Read the file with a checksum.

    Raises:
        ModelFileError: There is none.
    """
    found = 0
    try:
        for path in sorted(folder.glob(pattern)):
            found += 1
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES)
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
    except OSError as error:
        raise ModelFileError(
            f"golden sample cannot be read: {error.strerror}", f"{pattern}", "check the folder"
        ) from error
    raise ModelFileError(
        f"{folder / pattern}: {'another checksum' if found else 'missing'}",
        "the golden sample that was exported with the model",
        "copy the model folder again, with golden/",
    )


def run_self_test(segment: Callable[[Image], Result], sample: GoldenSample) -> SelfTest:
    """Compare what a model says now with what it said when it was exported.

    Args:
        segment: The model.
        sample: The golden sample.
    """
    start = time.perf_counter()
    try:
        class_map = segment(sample.image).class_map
    except WeedsegError as error:
        return SelfTest(passed=False, reason=f"the self-test cannot run: {error}")
    elapsed_ms = (time.perf_counter() - start) * 1e3
    same = class_map.shape == sample.class_map.shape
    share = float((class_map == sample.class_map).mean()) if same else 0.0
    passed = share >= MIN_EQUAL_SHARE
    reason = "" if passed else f"golden class map: only {100 * share:.2f} % of pixels as exported"
    return SelfTest(passed=passed, reason=reason, equal_share=share, elapsed_ms=elapsed_ms)
