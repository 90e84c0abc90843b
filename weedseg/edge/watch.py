"""Judge frames of a camera: does it see, is the picture live, is its time believable?

Two watches without clock or thread of their own, so that a campaign of faults can drive them. All
times are s of the machine's monotonic clock; a jump of the wall clock does not matter.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from weedseg.edge.result import Status
from weedseg.errors import ConfigError
from weedseg.imaging import Image


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a frame is good enough to act on."""

    deadline_ms: float = 150.0
    """From capture to action; older results are INVALID."""
    self_test_s: float = 600.0
    """The golden sample is run again after this time."""
    max_dropped_share: float = 0.2
    """More lost frames than this among the last `window`: DEGRADED until `Stream.reset`, 0-1."""
    window: int = 50
    """Frames over which lost ones are counted, >= 10."""
    settle_frames: int = 5
    """First frames, to learn the delay of the camera; DEGRADED."""
    max_jump_ms: float = 20.0
    """A frame that arrives this much earlier after its capture than any before has a wrong time."""
    memory_frames: int = 8
    """A picture equal to one of so many before it is frozen, >= 1; sensor noise never repeats."""
    min_detail: float = 4.0
    """Mean second difference of grey values of a cell that sees, of 255. Real photos of fields:
    >= 10; mud, cap, glare, strong blur: <= 3.5."""
    grey_range: tuple[float, float] = (8.0, 248.0)
    """A cell that is darker or brighter on the mean sees nothing, of 255."""
    blind_shares: tuple[float, float] = (0.1, 0.5)
    """Share of cells that see nothing: DEGRADED from the first on, INVALID from the second, 0-1."""
    max_ood_score: float = 1.0
    """A frame that looks less like the photos of training is DEGRADED; 99 % of those score below
    1. Models that know nothing of their photos give no score, and then it does not count."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A limit is out of range.
        """
        for name, value, low, high in (
            ("deadline_ms", self.deadline_ms, 1, 60_000),
            ("self_test_s", self.self_test_s, 1, 86_400),
            ("max_dropped_share", self.max_dropped_share, 0, 1),
            ("window", self.window, 10, 10_000),
            ("settle_frames", self.settle_frames, 1, 1000),
            ("max_jump_ms", self.max_jump_ms, 1, 10_000),
            ("memory_frames", self.memory_frames, 1, 1000),
            ("min_detail", self.min_detail, 0, 255),
            ("max_ood_score", self.max_ood_score, 0, math.inf),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} {value}", f"{low} to {high}", "correct it")


class Judgement(NamedTuple):
    """What a watch thinks of a frame."""

    status: Status
    reason: str = ""


FINE = Judgement(Status.OK)
DEFAULT_LIMITS = Limits()


def judge_likeness(ood_score: float | None, limits: Limits) -> Judgement:
    """Judge how much a frame looks like the photos of training; no score is fine."""
    if ood_score is None or ood_score <= limits.max_ood_score:
        return FINE
    return Judgement(
        Status.DEGRADED,
        f"unlike the photos of training: score {ood_score:.2f}, at most {limits.max_ood_score:g}",
    )


def worst(*judgements: Judgement) -> Judgement:
    """Return the most severe judgement, the first of equals."""
    order = (Status.INVALID, Status.DEGRADED, Status.OK)
    return min(judgements, key=lambda judgement: order.index(judgement.status))


class TimeWatch:
    """Judges when frames were taken and how many are lost; call it for every frame that arrives."""

    def __init__(self, limits: Limits) -> None:
        """Start without any knowledge of the camera."""
        self._limits = limits
        self._lost: deque[bool] = deque(maxlen=limits.window)
        self._captured_s = -math.inf
        self._arrived_s = -math.inf
        self._number: int | None = None
        self._delay_s = math.inf
        self._num_settled = 0
        self.dropping = False
        """Too many frames were lost; stays until a new watch begins."""

    def judge(self, captured_s: float, arrived_s: float, number: int | None) -> Judgement:
        """Judge the time of one frame.

        Args:
            captured_s: When it was taken.
            arrived_s: When it arrived here.
            number: The camera's own count, None if it has none.
        """
        if not math.isfinite(captured_s):
            return Judgement(Status.INVALID, "frame without a capture time")
        if captured_s > arrived_s:
            return Judgement(Status.INVALID, "capture time lies in the future")
        if captured_s <= self._captured_s or arrived_s < self._arrived_s:
            return Judgement(Status.INVALID, "capture time does not go forward")
        if number is not None and self._number is not None and number <= self._number:
            return Judgement(Status.INVALID, "frame number does not go forward")
        believed = self._believe(arrived_s - captured_s, arrived_s)
        if believed.status is Status.INVALID:
            return believed
        if number is not None and self._number is not None:
            for _ in range(min(number - self._number - 1, self._limits.window)):
                self.count(lost=True)
        self._captured_s, self._arrived_s, self._number = captured_s, arrived_s, number
        return believed

    def _believe(self, delay_s: float, arrived_s: float) -> Judgement:
        """Compare the delay of a frame with the shortest so far, which may drift by 0.1 %."""
        if self._num_settled < self._limits.settle_frames:
            self._num_settled += 1
            self._delay_s = min(self._delay_s, delay_s)
            return Judgement(Status.DEGRADED, "learning the delay of the camera")
        earlier_s = self._delay_s - delay_s
        if earlier_s > self._limits.max_jump_ms / 1e3:
            return Judgement(Status.INVALID, "clock of the camera jumped")
        if earlier_s >= -self._limits.max_jump_ms / 1e3:  # a late frame teaches nothing
            drift_s = 1e-3 * (arrived_s - self._arrived_s)
            self._delay_s -= min(max(earlier_s, -drift_s), drift_s)
        return FINE

    def count(self, *, lost: bool) -> None:
        """Count one frame as lost or as looked at."""
        self._lost.append(lost)
        if sum(self._lost) > self._limits.max_dropped_share * self._limits.window:
            self.dropping = True


class PictureWatch:
    """Judges what frames show; call it for every frame that is segmented."""

    def __init__(self, limits: Limits) -> None:
        """Start without any frame."""
        self._limits = limits
        self._size: tuple[int, ...] | None = None
        self._seen: deque[int] = deque(maxlen=limits.memory_frames)

    def judge(self, image: Image) -> Judgement:
        """Judge one picture.

        Args:
            image: uint8 (H, W, 3), RGB, not empty.
        """
        if self._size is None:
            self._size = image.shape
        if image.shape != self._size:
            return Judgement(Status.INVALID, "frame of another size")
        checksum = zlib.crc32(np.ascontiguousarray(image).data)
        frozen = checksum in self._seen
        self._seen.append(checksum)
        if frozen:
            return Judgement(Status.INVALID, "frozen picture: equal to one before")
        blind = blind_share(image, self._limits)
        degraded, invalid = self._limits.blind_shares
        if blind >= invalid:
            return Judgement(Status.INVALID, f"camera covered: {100 * blind:.0f} % sees nothing")
        if blind >= degraded:
            return Judgement(Status.DEGRADED, f"{100 * blind:.0f} % of the picture sees nothing")
        return FINE


_ROWS, _COLUMNS = 6, 8


def blind_share(image: Image, limits: Limits = DEFAULT_LIMITS) -> float:
    """Return the share of cells of a frame that see nothing, 0-1.

    The frame is shrunk about ten times, which averages sensor noise away, and divided into 6 x 8
    cells. A cell sees when its grey values are neither black nor white and vary from px to px.

    Args:
        image: uint8 (H, W, 3), RGB.
        limits: What is dark, bright and flat.
    """
    width = min(max(image.shape[1] // 10, 32), 128)
    height = min(max(round(width * image.shape[0] / image.shape[1]), 24), 128)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    mean = _cell_means(grey)
    dark, bright = limits.grey_range
    blind = (mean < dark) | (mean > bright) | (_cell_means(detail) < limits.min_detail)
    return float(blind.mean())


def _cell_means(plane: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the means of the cells of a plane, (6, 8)."""
    rows = np.linspace(0, plane.shape[0], _ROWS + 1).astype(int)
    columns = np.linspace(0, plane.shape[1], _COLUMNS + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(plane, rows[:-1], axis=0), columns[:-1], axis=1)
    return np.asarray(sums / np.outer(np.diff(rows), np.diff(columns)))
