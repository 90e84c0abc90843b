"""Frames of a camera in, results that a machine may trust out: newest frame wins, old ones never.

    with Stream(Segmenter("model.onnx")) as stream:
        stream.offer(Frame(image=image, captured_s=time.monotonic()))  # camera thread, at once
        result = stream.latest()                                       # control thread, at once
        if result.may_actuate(time.monotonic()): ...

One frame waits at most; a newer one replaces it. A worker thread segments. `latest` judges the age
anew at every call, so that a hung worker, a dead camera or a stopped process cannot leave an OK
behind. The actuator side should still time out on its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from weedseg.edge.golden import SelfTest
from weedseg.edge.result import Result, Status, empty_result
from weedseg.edge.segmenter import check_image
from weedseg.edge.watch import (
    DEFAULT_LIMITS,
    FINE,
    Judgement,
    Limits,
    PictureWatch,
    TimeWatch,
    judge_likeness,
    worst,
)
from weedseg.errors import WeedsegError
from weedseg.imaging import Image

_log = logging.getLogger(__name__)

_IDLE_S = 0.5


class Model(Protocol):
    """What a stream needs of a model; `weedseg.edge.Segmenter` has it."""

    sha256: str

    def segment(self, image: Image) -> Result:
        """Segment one frame."""

    def self_test(self) -> SelfTest:
        """Run the golden sample."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a camera."""

    image: Image
    """uint8 (H, W, 3), RGB; the stream keeps it, so give every frame its own array."""
    captured_s: float
    """When it was taken, s of this machine's monotonic clock (`time.monotonic`)."""
    frame_id: str = ""
    """Name that comes back in the result."""
    number: int | None = None
    """The camera's own count of frames, to notice lost ones."""


class Stream:
    """Segments the newest frame of a camera and says what its results may be used for."""

    def __init__(
        self,
        model: Model,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; frames are segmented by the worker of ``with`` or by `step`.

        Args:
            model: The model.
            limits: When a frame is good enough to act on.
            clock: Monotonic clock, s.
        """
        self._model, self._limits, self._clock = model, limits, clock
        self._wake = threading.Condition()
        self._worker: threading.Thread | None = None
        self._stopping = False
        self.reset()

    def reset(self) -> None:
        """Forget the past: a camera that lost too many frames or jumped gets a new chance.

        The golden sample must pass again before any result is OK.
        """
        with self._wake:
            self._time, self._picture = TimeWatch(self._limits), PictureWatch(self._limits)
            self._waiting: tuple[Frame, Judgement] | None = None
            self._tested_s: float | None = None
            self._tested = Judgement(Status.INVALID, "self-test not run yet")
            self._result = empty_result(Status.INVALID, "no frame yet")

    def __enter__(self) -> Stream:
        """Start the worker."""
        self._stopping = False
        self._worker = threading.Thread(target=self._work, name="weedseg-stream", daemon=True)
        self._worker.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the worker; `latest` is INVALID from now on."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._worker is not None:
            self._worker.join()
            self._worker = None
        self._publish(empty_result(Status.INVALID, "the stream is closed"))

    def offer(self, frame: Frame) -> None:
        """Hand over a frame; returns at once.

        Args:
            frame: The newest frame; one that still waits is dropped for it.
        """
        with self._wake:
            judgement = self._time.judge(frame.captured_s, self._clock(), frame.number)
            if judgement.status is Status.INVALID:
                self._time.count(lost=True)
                self._publish(replace(empty_result(*judgement), frame_id=frame.frame_id))
                return
            if self._waiting is not None:
                self._time.count(lost=True)
            self._waiting = (frame, judgement)
            self._wake.notify()

    def latest(self) -> Result:
        """Return the newest result with its status as of now; never waits for a frame."""
        with self._wake:
            result, tested, dropping = self._result, self._tested, self._time.dropping
            now_s = self._clock()
        judgement = Judgement(result.status, result.reason)
        if result.status is not Status.INVALID:
            judgement = worst(self._judge_age(result, now_s), tested, judgement)
            if dropping:
                judgement = worst(judgement, _DROPPING)
        age_ms = (now_s - result.captured_s) * 1e3
        return replace(result, status=judgement.status, reason=judgement.reason, age_ms=age_ms)

    def step(self) -> bool:
        """Segment the waiting frame in this thread; the self-test runs first when it is due.

        Returns:
            Whether there was a frame.
        """
        if self._tested_s is None or self._clock() - self._tested_s >= self._limits.self_test_s:
            self._test()
        with self._wake:
            taken, self._waiting = self._waiting, None
            if taken is None:
                return False
            self._time.count(lost=False)
            picture, tested = self._picture, self._tested
        frame, judgement = taken
        result = self._segment(frame, picture, worst(tested, judgement))
        with self._wake:
            if picture is self._picture:  # no reset meanwhile
                self._publish(result)
        return True

    def _segment(self, frame: Frame, picture: PictureWatch, before: Judgement) -> Result:
        """Judge a frame and segment it unless it is INVALID."""
        size = (0, 0)
        try:
            check_image(frame.image)
            size = (frame.image.shape[0], frame.image.shape[1])
            judgement = worst(before, picture.judge(frame.image))
            if judgement.status is Status.INVALID:
                result = empty_result(*judgement, size)
            else:
                result = self._model.segment(frame.image)
                judgement = worst(judgement, judge_likeness(result.ood_score, self._limits))
        except WeedsegError as error:
            judgement = Judgement(Status.INVALID, str(error))
            result = empty_result(*judgement, size)
        return replace(
            result,
            status=judgement.status,
            reason=judgement.reason,
            captured_s=frame.captured_s,
            valid_until_s=frame.captured_s + self._limits.deadline_ms / 1e3,
            frame_id=frame.frame_id,
            model_sha256=self._model.sha256,
        )

    def _test(self) -> None:
        """Run the golden sample."""
        test = self._model.self_test()
        if not test.passed:
            _log.error("self-test failed: %s", test.reason)
        with self._wake:
            self._tested_s = self._clock()
            self._tested = FINE if test.passed else Judgement(Status.INVALID, test.reason)

    def _judge_age(self, result: Result, now_s: float) -> Judgement:
        if result.captured_s <= now_s <= result.valid_until_s:
            return FINE
        return Judgement(
            Status.INVALID, f"no frame younger than {self._limits.deadline_ms:g} ms is ready"
        )

    def _publish(self, result: Result) -> None:
        if result.status is not self._result.status:
            _log.info("stream is %s: %s", result.status.value, result.reason or "all is well")
        self._result = result

    def _work(self) -> None:
        """Segment frames until the stream is closed."""
        while True:
            with self._wake:
                if self._waiting is None and not self._stopping:
                    self._wake.wait(_IDLE_S)
                if self._stopping:
                    return
            self.step()


_DROPPING = Judgement(Status.DEGRADED, "too many frames were lost; stays until reset")
