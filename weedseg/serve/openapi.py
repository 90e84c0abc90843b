"""The OpenAPI document: what FastAPI cannot know by itself is added here."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from weedseg.serve.middleware import WATCHED
from weedseg.serve.problems import MEDIA_TYPE, ErrorBody, ProblemBody
from weedseg.serve.schemas import InferenceRequest

_REFERENCES = "#/components/schemas/{model}"
_NAMED_BY_HAND: tuple[type[BaseModel], ...] = (ErrorBody, InferenceRequest, ProblemBody)
"""Models that routes refer to by name only."""
_FOR_PROGRAMMERS = re.compile(r"^(Args|Returns|Raises):$.*", re.MULTILINE | re.DOTALL)
"""Sections of a route's docstring that are for readers of the code."""


def describe(app: FastAPI) -> None:
    """Let an app describe itself with the schemas that its routes name by hand.

    Args:
        app: With all its routers.
    """

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in _NAMED_BY_HAND:
        schema = model.model_json_schema(ref_template=_REFERENCES)
        for name, part in schema.pop("$defs", {}).items():
            schemas.setdefault(name, part)
        schemas[model.__name__] = schema
    for path, item in document["paths"].items():
        for operation in item.values():
            _keep_prose(operation)
            _add_common_problems(path, operation)
    return document


def _keep_prose(operation: dict[str, Any]) -> None:
    """Leave of a description what is for users of the service."""
    prose = _FOR_PROGRAMMERS.sub("", operation.pop("description", "")).strip()
    if prose:
        operation["description"] = prose


def _add_common_problems(path: str, operation: dict[str, Any]) -> None:
    """Add what may happen to any request, and to any body, before its route sees it."""
    codes = {} if path in WATCHED else {503: "the service is stopping or has too much to do"}
    if "requestBody" in operation:
        codes |= {400: "no JSON, or an odd form", 408: "too slow", 413: "too large"}
    body = ErrorBody if path.startswith("/v2") else ProblemBody
    kind = "application/json" if body is ErrorBody else MEDIA_TYPE
    schema = {"$ref": _REFERENCES.format(model=body.__name__)}
    for code, description in codes.items():
        operation["responses"].setdefault(
            str(code), {"description": description, "content": {kind: {"schema": schema}}}
        )
    invalid = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in invalid:  # FastAPI's own body, which is not what is sent
        invalid.clear()
        invalid[kind] = {"schema": schema}
