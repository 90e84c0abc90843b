"""What happens to every request before and after its route: id, figures, log line, body limits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weedseg.serve.metrics import Metrics
from weedseg.serve.problems import Problem, busy, problem_of, respond
from weedseg.serve.request_log import new_request_id, request_id
from weedseg.serve.services import Condition

_log = logging.getLogger(__name__)

WATCHED = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
"""Answered while the service stops, and not logged."""
MIN_BYTES_PER_S = 1024
"""A body that comes more slowly is given up."""
DISCARD_BYTES = 16 << 20
"""So much of a body that is too large is taken, so that its client reads why."""
_STOPPING = busy("the service is stopping", retry_s=5)


class RequestMiddleware:
    """Gives every request an id, a log line and its place in the figures; the outermost edge."""

    def __init__(self, app: ASGIApp, metrics: Metrics, condition: Condition) -> None:
        """Wrap an app.

        Args:
            app: What answers.
            metrics: Where requests are counted.
            condition: Whether the service stops; counts what is being answered.
        """
        self._app = app
        self._metrics = metrics
        self._condition = condition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = request_id.set(new_request_id(Headers(scope=scope).get("x-request-id")))
        answer = _Answer(send, self._condition)
        start = time.perf_counter()
        self._condition.inflight += 1
        self._metrics.inflight.inc()
        try:
            await self._answer(scope, receive, answer)
        finally:
            self._condition.inflight -= 1
            self._metrics.inflight.dec()
            self._note(scope, answer.status, time.perf_counter() - start)
            request_id.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        path = scope["path"]
        try:
            if self._condition.draining and path not in WATCHED:
                await respond(path, _STOPPING)(scope, receive, answer.send)
            else:
                await self._app(scope, receive, answer.send)
        except Exception as error:  # noqa: BLE001 - the outer edge: no stack trace for the client
            if answer.status:
                _log.error("failed while answering", exc_info=error)
            else:
                await respond(path, problem_of(error))(scope, receive, answer.send)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint = getattr(scope.get("route"), "path", "other")
        code = str(status or 499)
        self._metrics.requests.labels(endpoint, code).inc()
        self._metrics.duration.labels(endpoint).observe(seconds)
        if scope["path"] not in WATCHED:
            fields = {
                "method": scope["method"],
                "endpoint": endpoint,
                "status": int(code),
                "elapsed_ms": round(seconds * 1e3, 1),
            }
            _log.info("request", extra={"fields": fields})


class _Answer:
    """Remembers the status and adds the headers that every answer has."""

    def __init__(self, send: Send, condition: Condition) -> None:
        self._send = send
        self._condition = condition
        self.status = 0

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = request_id.get()
            headers["X-Content-Type-Options"] = "nosniff"
            if self._condition.draining:
                headers["Connection"] = "close"
        await self._send(message)


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """How much of a body is taken, and how slowly it may come."""

    usual_bytes: int
    by_prefix: Mapping[str, int]
    """Beginning of the path -> bytes, where another limit holds; the longest one counts."""
    memory_bytes: int
    """Bodies that are being held in memory, all of them together."""
    streamed_prefix: str
    """Below it bodies go to the disk and do not count."""
    pause_s: float
    """Longest pause between two pieces."""

    def limit(self, path: str) -> int:
        """Return the largest body for a path, bytes."""
        fitting = [prefix for prefix in self.by_prefix if path.startswith(prefix)]
        return self.by_prefix[max(fitting, key=len)] if fitting else self.usual_bytes


class BodyMiddleware:
    """Refuses bodies that are too large or come too slowly, whatever their headers say."""

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        """Wrap an app.

        Args:
            app: What answers.
            limits: How much and how slowly.
        """
        self._app = app
        self._limits = limits
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        body = _Body(receive, self._limits.limit(path), self._limits.pause_s)
        if body.is_announced_too_large(Headers(scope=scope)):
            await body.discard()
            await respond(path, _too_large(body.limit_bytes))(scope, receive, send)
            return
        streamed = path.startswith(self._limits.streamed_prefix)

        async def take() -> Message:
            before = body.num_bytes
            message = await body.receive()
            if not streamed:
                self._held_bytes += body.num_bytes - before
                if self._held_bytes > self._limits.memory_bytes:
                    problem = busy("too many bodies are being received")
                    raise HTTPException(503, problem.detail, problem.headers)
            return message

        try:
            await self._app(scope, take, send)
        finally:
            if not streamed:
                self._held_bytes -= body.num_bytes


class _Body:
    """Counts the bytes of one body and watches the clock.

    Its errors are `HTTPException`: FastAPI passes these on from below its own reading of bodies.
    """

    def __init__(self, receive: Receive, limit_bytes: int, pause_s: float) -> None:
        self._receive = receive
        self._pause_s = pause_s
        self._start = time.monotonic()
        self._complete = False
        self._may_be_discarded = True
        self.limit_bytes = limit_bytes
        self.num_bytes = 0

    def is_announced_too_large(self, headers: Headers) -> bool:
        """Tell whether ``Content-Length`` is over the limit already."""
        length = headers.get("content-length", "")
        announced = int(length[:20]) if length.isdecimal() else 0
        polite = headers.get("expect", "").lower() == "100-continue"  # waits for our word
        self._may_be_discarded = not polite and announced <= self.limit_bytes + DISCARD_BYTES
        return announced > self.limit_bytes

    async def discard(self) -> None:
        """Take some of what still comes: many clients send all before they read the answer."""
        end = time.monotonic() + self._pause_s
        left = DISCARD_BYTES if self._may_be_discarded else 0
        while left > 0 and not self._complete:
            try:
                message = await asyncio.wait_for(self._receive(), max(0.01, end - time.monotonic()))
            except asyncio.TimeoutError:
                return
            left -= len(message.get("body", b""))
            self._complete = not message.get("more_body", False)

    async def receive(self) -> Message:
        """Take the next piece.

        Raises:
            HTTPException: The body is too large (413) or comes too slowly (408).
        """
        if self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._pause_s)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, "the body comes too slowly; send it again") from error
        if message["type"] != "http.request":
            return message
        self.num_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self.num_bytes > self.limit_bytes:
            await self.discard()
            raise HTTPException(413, _too_large(self.limit_bytes).detail)
        elapsed_s = time.monotonic() - self._start
        slow = self.num_bytes < MIN_BYTES_PER_S * (elapsed_s - self._pause_s)
        if slow and not self._complete:
            raise HTTPException(408, "the body comes too slowly; send it again")
        return message


def _too_large(limit_bytes: int) -> Problem:
    return Problem(
        413, "Content too large", f"the body has more than {limit_bytes} bytes; send less at once"
    )
