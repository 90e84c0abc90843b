"""Errors as the client sees them: RFC 9457 problem bodies without anything internal.

Every answer carries ``X-Request-Id``; problem bodies and log lines repeat it. Under ``/v2`` the
body is ``{"error": ...}``, as the Open Inference Protocol wants it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from weedseg.errors import FieldDataError, TileError, WeedsegError
from weedseg.serve.request_log import request_id

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_OPEN_INFERENCE = "/v2"


class ProblemBody(BaseModel):
    """What went wrong, RFC 9457."""

    type: str = "about:blank"
    title: str = Field(examples=["Too large"])
    status: int = Field(examples=[413])
    detail: str = Field(examples=["the body has more than 52428800 bytes"])
    request_id: str = Field(examples=["3q2-7wAAQACAAAAAAAAAAQ"])


class ErrorBody(BaseModel):
    """What went wrong, Open Inference Protocol."""

    error: str


class Problem(Exception):
    """An answer that is not a result; raised anywhere below a route."""

    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Keep what the client is told.

        Args:
            status: HTTP status, 400-599.
            title: The same for every problem of this kind.
            detail: One sentence about this one: found, expected, remedy.
            headers: Further headers, for instance ``Retry-After``.
        """
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})


def not_found(what: str) -> Problem:
    """Make the answer for something that is not there, or belongs to another owner."""
    return Problem(404, "Not found", f"there is no such {what}")


def busy(detail: str, retry_s: int = 2) -> Problem:
    """Make the answer for a service that has too much to do.

    Args:
        detail: What is busy.
        retry_s: When to come again.
    """
    sentence = f"{detail}; try again in {retry_s} s"
    return Problem(503, "Service unavailable", sentence, {"Retry-After": str(retry_s)})


def too_late() -> Problem:
    """Make the answer for work that was not done in time."""
    return Problem(
        504, "Gateway timeout", "the photo was not done in time; try again, or send it as a job"
    )


def problem_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Describe problems for the OpenAPI of a route: ``responses=problem_responses(404, 413)``."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {code: {"description": _title(code), "content": content} for code in codes}


def respond(path: str, problem: Problem) -> JSONResponse:
    """Make the response for a problem.

    Args:
        path: Path of the request; decides the form of the body.
        problem: What went wrong.
    """
    if path == _OPEN_INFERENCE or path.startswith(f"{_OPEN_INFERENCE}/"):
        return JSONResponse({"error": problem.detail}, problem.status, problem.headers)
    body = ProblemBody(
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        request_id=request_id.get(),
    )
    return JSONResponse(body.model_dump(), problem.status, problem.headers, media_type=MEDIA_TYPE)


def from_error(error: WeedsegError) -> Problem:
    """Turn an error of the package into a problem; paths and internals stay in the log.

    Args:
        error: What was raised.
    """
    status = error.http_status
    if isinstance(error, (FieldDataError, TileError)):
        return Problem(status, _title(status), str(error))
    _log.error("answered %d: %s", status, error)
    return Problem(status, _title(status), "the service cannot do this at the moment")


def install_problem_handlers(app: FastAPI) -> None:
    """Answer exceptions with a problem body; `RequestMiddleware` does it for unforeseen ones."""

    async def on_problem(request: Request, error: Exception) -> JSONResponse:
        problem = problem_of(error)
        if problem.status == 405:
            problem.headers["Allow"] = ", ".join(_allowed(request))
        return respond(request.url.path, problem)

    for kind in (Problem, WeedsegError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, on_problem)


def _allowed(request: Request) -> list[str]:
    """List the methods of a path; the router itself names those of one route only."""
    routes = iter_route_contexts(request.app.routes)
    fitting = [r for r in routes if r.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in fitting for method in route.methods or ()})


def problem_of(error: Exception) -> Problem:
    """Turn any exception into a problem; an unforeseen one is logged and says nothing.

    Args:
        error: What was raised.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, WeedsegError):
        return from_error(error)
    if isinstance(error, HTTPException):
        detail = str(error.detail).lower()
        return Problem(error.status_code, _title(error.status_code), detail, error.headers)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        return Problem(422, _title(422), f"{place}: {first['msg']}".lower())
    _log.error("internal error", exc_info=error)
    return Problem(500, _title(500), "an internal error; please report it with the request id")


def _title(status: int) -> str:
    return HTTPStatus(status).phrase.capitalize()
