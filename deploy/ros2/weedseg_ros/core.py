"""All of the node but ROS itself: messages in, fields of messages out; tested without ROS.

Topics are those of interfaces.md section 7: ``image`` in; ``~/mask``, ``~/confidence`` and
``~/mask_color`` out, with stamp and frame_id of the input, and ``/diagnostics``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from weedseg.classes import ClassTable
from weedseg.edge import Frame, Result, Status, Stream
from weedseg.errors import ImageError

CHANNELS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0)}
"""Encoding of sensor_msgs/Image -> which channels are red, green and blue."""
SIZES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}
LEVELS = {Status.OK: 0, Status.DEGRADED: 1, Status.INVALID: 2}
"""Status -> level of diagnostic_msgs/DiagnosticStatus: OK, WARN, ERROR."""


class Header(NamedTuple):
    """std_msgs/Header of a frame."""

    seconds: int
    nanoseconds: int
    frame_id: str


@dataclass(frozen=True, kw_only=True)
class ImageFields:
    """Fields of a sensor_msgs/Image."""

    header: Header
    height: int
    width: int
    encoding: str
    step: int
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Fields of a diagnostic_msgs/DiagnosticStatus."""

    level: int
    message: str
    values: dict[str, str]


def decode(message: ImageFields) -> npt.NDArray[np.uint8]:
    """Turn a sensor_msgs/Image into RGB, a copy of its own, uint8 (H, W, 3).

    Raises:
        ImageError: The encoding is another, or the data are too short.
    """
    channels = CHANNELS.get(message.encoding)
    if channels is None:
        raise ImageError(
            f"encoding '{message.encoding}'", ", ".join(CHANNELS), "let the driver convert it"
        )
    size = SIZES[message.encoding]
    row = message.width * size
    if message.step < row or len(message.data) < message.step * message.height or not row:
        raise ImageError(
            f"{len(message.data)} bytes for {message.width}x{message.height} px",
            f"{message.height} rows of at least {row} bytes",
            "check the camera driver",
        )
    flat = np.frombuffer(message.data, np.uint8, message.step * message.height)
    pixels = flat.reshape(message.height, message.step)[:, :row]
    return pixels.reshape(message.height, message.width, size)[:, :, list(channels)]


def encode(header: Header, pixels: npt.NDArray[np.uint8]) -> ImageFields:
    """Turn a plane (H, W) into mono8, or a picture (H, W, 3) into rgb8."""
    height, width = pixels.shape[:2]
    colour = pixels.ndim == 3
    return ImageFields(
        header=header,
        height=height,
        width=width,
        encoding="rgb8" if colour else "mono8",
        step=width * (3 if colour else 1),
        data=pixels.tobytes(),
    )


class NodeCore:
    """Connects messages with a stream."""

    def __init__(
        self,
        stream: Stream,
        classes: ClassTable,
        now: Callable[[], tuple[float, float]],
    ) -> None:
        """Keep what is needed.

        Args:
            stream: Runs already.
            classes: Of the model.
            now: Reads the ROS clock and `time.monotonic` at once, s each.
        """
        self._stream, self._now = stream, now
        self._colours = np.zeros((256, 3), np.uint8)
        self._colours[: len(classes)] = classes.colours
        self._names = classes.names
        self._headers: dict[str, Header] = {}
        self._count = 0
        self._published = ""
        self._fault = ""

    def on_image(self, message: ImageFields) -> None:
        """Take a frame; a bad one makes the node INVALID until a good one arrives."""
        try:
            image = decode(message)
        except ImageError as error:
            self._fault = str(error)
            return
        self._fault = ""
        self._count += 1
        name = str(self._count)
        self._headers[name] = message.header
        self._headers.pop(str(self._count - 100), None)
        ros_s, monotonic_s = self._now()
        stamp_s = message.header.seconds + 1e-9 * message.header.nanoseconds
        captured_s = monotonic_s - (ros_s - stamp_s)
        self._stream.offer(Frame(image=image, captured_s=captured_s, frame_id=name))

    def newest(self) -> tuple[dict[str, ImageFields], Diagnostics]:
        """Return the pictures to publish, none if there is no new result, and the diagnostics."""
        result = self._stream.latest()
        header = self._headers.get(result.frame_id)
        status = Status.INVALID if self._fault else result.status
        pictures: dict[str, ImageFields] = {}
        known = header is not None and result.frame_id != self._published
        if header is not None and known and status is not Status.INVALID:
            self._published = result.frame_id
            pictures = {
                "mask": encode(header, result.class_map),
                "confidence": encode(header, result.confidence),
                "mask_color": encode(header, self._colours[result.class_map]),
            }
        return pictures, self._diagnose(status, result)

    def label_info(self) -> list[tuple[int, str]]:
        """Return (class id, name) for vision_msgs/LabelInfo."""
        return list(enumerate(self._names))

    def _diagnose(self, status: Status, result: Result) -> Diagnostics:
        values: dict[str, Any] = {"status": status.value, "model_sha256": result.model_sha256}
        values["elapsed_ms"] = f"{result.elapsed_ms:.1f}"
        if math.isfinite(result.age_ms):
            values["age_ms"] = f"{result.age_ms:.1f}"
        if result.ood_score is not None:
            values["ood_score"] = f"{result.ood_score:.2f}"
        values |= {f"coverage {name}": f"{share:.5f}" for name, share in result.coverage.items()}
        message = self._fault or result.reason or "fresh and checked"
        return Diagnostics(level=LEVELS[status], message=message, values=values)
