"""From the bytes of a photo to its result: a bounded number at a time, each with a deadline.

Every accepted photo has a thread that waits for room, for a decoder and for a copy of the model.
Work whose client has gone or whose time is over is dropped before it reaches the model. Jobs use
`Predictor.predict`, which waits as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from weedseg.edge import Result, Segmenter, SelfTest
from weedseg.edge.golden import GOLDEN_NAME
from weedseg.edge.session import physical_cores
from weedseg.errors import ModelFileError
from weedseg.imaging import Image
from weedseg.serve.decoding import Decoder, clean_name
from weedseg.serve.metrics import Metrics
from weedseg.serve.models import ModelShelf, ServedModel
from weedseg.serve.problems import Problem, busy, too_late
from weedseg.serve.settings import Settings

T = TypeVar("T")

GRACE_S = 0.25
"""The answer 504 comes so long after the deadline at most."""
_MODELS_PER_COPY = 2


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A photo, what the model says about it, and which model that was."""

    name: str
    image: Image
    """uint8 (H, W, 3), RGB, as a person sees it."""
    result: Result
    model: ServedModel


class Ticket:
    """The right of one accepted request to be worked on, until its deadline."""

    def __init__(self, seconds: float | None) -> None:
        """Start the clock.

        Args:
            seconds: Time for the work; None is unlimited.
        """
        self._until = None if seconds is None else time.monotonic() + seconds
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Tell the work that nobody waits for it any more."""
        self._abandoned.set()

    def left_s(self) -> float | None:
        """Return the time left, s; None is unlimited.

        Raises:
            Problem: The time is over (504), or the client has gone (499).
        """
        if self._abandoned.is_set():
            raise Problem(499, "Client closed request", "the client has gone")
        if self._until is None:
            return None
        left = self._until - time.monotonic()
        if left <= 0:
            raise too_late()
        return left


class Predictor:
    """Decoders, copies of the models, and the bounded queue in front of them."""

    def __init__(
        self, settings: Settings, models: ModelShelf, metrics: Metrics | None = None
    ) -> None:
        """Start decoders; models are loaded when they are first used.

        Args:
            settings: Sizes and limits.
            models: The models.
            metrics: Where times are counted.
        """
        self.metrics = metrics or Metrics()
        self.models = models
        self.decoder = Decoder(settings)
        self.not_ready = "the model is not loaded yet"
        """Why the service is not ready; empty when it is."""
        self._settings = settings
        self._capacity = settings.queue_length + settings.infer_workers
        self._accepted = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(self._capacity, thread_name_prefix="weedseg-photo")
        # Decoded photos are large: only so many exist at a time.
        self._room = threading.BoundedSemaphore(settings.decode_workers + settings.infer_workers)
        self._copies: queue.Queue[_Copy] = queue.Queue()
        self._all_copies = [_Copy(settings) for _ in range(settings.infer_workers)]
        for copy in self._all_copies:
            self._copies.put(copy)

    def warm_up(self) -> None:
        """Load the default model and compare what it says with its golden sample."""
        test = self.self_test(self.models.default)
        self.not_ready = "" if test.passed else test.reason
        self._tell_default()

    def _tell_default(self) -> None:
        model = self.models.default
        provider = self._all_copies[0].provider
        self.metrics.model_info.clear()
        self.metrics.model_info.labels(model.name, model.version, provider, model.precision).set(1)

    def promote(self, name: str) -> ServedModel:
        """Make a model the default, if it passes its self-test.

        Args:
            name: Its name.

        Raises:
            Problem: There is none (404), or it fails its test (409).
            OutputError: The data folder cannot be written.
        """
        test = self.self_test(self.models.get(name))
        if not test.passed:
            raise Problem(409, "Conflict", f"the model stays as it was: {test.reason}")
        model = self.models.promote(name)
        self._tell_default()
        return model

    def rollback(self) -> ServedModel:
        """Return to the default model of before.

        Raises:
            Problem: Nothing was promoted (409).
            OutputError: The data folder cannot be written.
        """
        model = self.models.rollback()
        self._tell_default()
        return model

    def self_test(self, model: ServedModel) -> SelfTest:
        """Test a model on its golden sample; one without a sample must at least run.

        Args:
            model: The model.
        """
        with self._copy(Ticket(None)) as copy:
            segmenter = copy.segmenter(model)
            if (model.path.parent / GOLDEN_NAME).is_dir():
                return segmenter.self_test()
            side = model.metadata.tile_px
            segmenter.segment(np.full((side, side, 3), 128, np.uint8))
            return SelfTest(passed=True, reason="the model came without a golden sample")

    def predict(
        self, data: bytes, name: str, model: str = "", ticket: Ticket | None = None
    ) -> Prediction:
        """Decode and segment one photo; waits for its turn.

        Args:
            data: The bytes of the file.
            name: Its name.
            model: Name of the model; empty for the default.
            ticket: Deadline; by default there is none.

        Raises:
            Problem: The photo is refused (413, 415, 422), the model is not known (404), or the
                ticket has run out (504).
            RuntimeUnavailableError: ONNX Runtime fails.
        """
        ticket = ticket or Ticket(None)
        served = self.models.get(model)
        if not self._room.acquire(timeout=_or_forever(ticket.left_s())):
            raise too_late()
        try:
            with self.metrics.stage("decode"):
                image = self.decoder.decode(data, name, ticket.left_s())
            with self._copy(ticket) as copy, self.metrics.stage("infer"):
                result = copy.segmenter(served).segment(image)
        finally:
            self._room.release()
        return Prediction(name=clean_name(name), image=image, result=result, model=served)

    def run_tiles(
        self, images: npt.NDArray[np.float32], model: str, ticket: Ticket
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Run the network alone on a batch of tiles.

        Args:
            images: (N, 3, T, T), RGB, 0-1.
            model: Name of the model.
            ticket: Deadline.

        Returns:
            Class ids and confidence in per cent, each uint8 (N, T, T).

        Raises:
            Problem: The model is not known (404), or the ticket has run out (504).
            RuntimeUnavailableError: ONNX Runtime fails.
        """
        served = self.models.get(model)
        with self._copy(ticket) as copy, self.metrics.stage("infer"):
            return copy.segmenter(served).run_tiles(images)

    async def accept(self, work: Callable[[Ticket], T], gone: Callable[[], Awaitable[object]]) -> T:
        """Do work in a thread, if there is room for it, until the deadline.

        Args:
            work: Gets the ticket, which it hands to `predict` or `run_tiles`.
            gone: Ends when the client has gone.

        Raises:
            Problem: The queue is full (503), or the time is over (504).
        """
        ticket = self._admit()
        context = contextvars.copy_context()
        future = self._threads.submit(context.run, work, ticket)
        future.add_done_callback(lambda _: self._leave())
        watch = asyncio.ensure_future(_abandon_when(gone, ticket))
        limit_s = self._settings.deadline_s + GRACE_S
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), limit_s)
        except asyncio.TimeoutError as error:
            raise too_late() from error
        finally:
            ticket.abandon()
            watch.cancel()

    def close(self) -> None:
        """End the decoders and the threads."""
        self.decoder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _admit(self) -> Ticket:
        with self._lock:
            if self._accepted >= self._capacity:
                raise busy("too many photos are waiting")
            self._accepted += 1
            self._show_queue()
        return Ticket(self._settings.deadline_s)

    def _leave(self) -> None:
        with self._lock:
            self._accepted -= 1
            self._show_queue()

    def _show_queue(self) -> None:
        waiting = max(0, self._accepted - self._settings.infer_workers)
        self.metrics.queue_depth.set(waiting)

    @contextmanager
    def _copy(self, ticket: Ticket) -> Iterator[_Copy]:
        """Borrow a copy of the models.

        Raises:
            Problem: None became free in time (504).
        """
        try:
            copy = self._copies.get(timeout=ticket.left_s())
        except queue.Empty as error:
            raise too_late() from error
        try:
            ticket.left_s()
            yield copy
        finally:
            self._copies.put(copy)


class _Copy:
    """The models that one thread at a time may run; the two used last stay loaded."""

    def __init__(self, settings: Settings) -> None:
        cores = physical_cores()
        self._threads = settings.infer_threads or max(1, cores // settings.infer_workers)
        self._provider = settings.require_provider
        self._loaded: OrderedDict[Path, Segmenter] = OrderedDict()

    @property
    def provider(self) -> str:
        """What the model that was loaded last runs on."""
        loaded = list(self._loaded.values())
        return loaded[-1].runtime.provider if loaded else ""

    def segmenter(self, model: ServedModel) -> Segmenter:
        """Return a model, loaded.

        Raises:
            ModelFileError: The file has changed since the service started.
        """
        if model.path not in self._loaded:
            segmenter = Segmenter(
                model.path, threads=self._threads, require_provider=self._provider
            )
            if segmenter.sha256 != model.sha256:
                raise ModelFileError(
                    f"{model.path} has changed", "the file of before", "restart the service"
                )
            while len(self._loaded) >= _MODELS_PER_COPY:
                self._loaded.popitem(last=False)
            self._loaded[model.path] = segmenter
        self._loaded.move_to_end(model.path)
        return self._loaded[model.path]


async def _abandon_when(gone: Callable[[], Awaitable[object]], ticket: Ticket) -> None:
    await gone()
    ticket.abandon()


def _or_forever(seconds: float | None) -> float:
    return threading.TIMEOUT_MAX if seconds is None else seconds
