"""What the runtime says about one photo or frame, and whether a machine may act on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from weedseg.imaging import ClassMap


class Status(str, Enum):
    """What a result may be used for; only OK may move a nozzle or a blade."""

    OK = "OK"
    """A fresh frame of a camera that sees, from a model that passed its self-test."""
    DEGRADED = "DEGRADED"
    """Fit to be shown or mapped: nobody watches the camera, or the watch has doubts."""
    INVALID = "INVALID"
    """Not to be used: no frame, an old frame, a covered camera, a model that fails its test."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a segmenter says about one photo.

    A photo that did not come through a `Stream` is never better than DEGRADED.
    """

    class_map: ClassMap
    """Class ids, uint8 (H, W)."""
    confidence: npt.NDArray[np.uint8]
    """Largest class probability in per cent, uint8 (H, W), 0-100."""
    coverage: dict[str, float]
    """Class name -> share of the photo's pixels, 0-1."""
    elapsed_ms: float = 0.0
    """Time from photo to result."""
    status: Status = Status.DEGRADED
    reason: str = "not from a watched stream"
    """Why the status is not OK; empty when it is."""
    captured_s: float = math.nan
    """When the frame was taken, s of this machine's monotonic clock; NaN is unknown."""
    valid_until_s: float = -math.inf
    """When it becomes too old to act on, s of the same clock."""
    age_ms: float = math.nan
    """Time since the capture when the result was handed out."""
    frame_id: str = ""
    """Name of the frame, as the camera gave it."""
    model_sha256: str = ""
    """Checksum of the model file."""
    ood_score: float | None = None
    """How unlike the photos of training this one looks, >= 0; 99 % of those are below 1. None: the
    model knows nothing of them."""

    def may_actuate(self, now_s: float) -> bool:
        """Tell whether a machine may act on this result right now.

        Ask directly before acting: the process may have been stopped since the result was made.

        Args:
            now_s: The machine's monotonic clock, `time.monotonic()`.
        """
        fresh = self.captured_s <= now_s <= self.valid_until_s  # false for NaN
        return self.status is Status.OK and fresh


def empty_result(status: Status, reason: str, size: tuple[int, int] = (0, 0)) -> Result:
    """Make a result that says nothing: all background, no confidence.

    Args:
        status: DEGRADED or INVALID.
        reason: Why.
        size: (height, width), px.
    """
    return Result(
        class_map=np.zeros(size, np.uint8),
        confidence=np.zeros(size, np.uint8),
        coverage={},
        status=status,
        reason=reason,
    )


def percent(share: float) -> str:
    """Write a coverage, 0-1, for people: in per cent, with more digits where it is small."""
    value = 100 * share
    if value == 0 or value >= 99.95:
        return f"{value:.0f}\u00a0%"
    if value < 0.01:
        return "<\u00a00.01\u00a0%"
    return f"{value:.2f}\u00a0%" if value < 1 else f"{value:.1f}\u00a0%"
