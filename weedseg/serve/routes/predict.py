"""``POST /v1/predict``: one photo in, its class map, overlay or areas out."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import UploadFile

from weedseg.serve import answers
from weedseg.serve.auth import RESPONSES, signed_in
from weedseg.serve.predicting import Prediction, Ticket
from weedseg.serve.problems import Problem, problem_responses
from weedseg.serve.schemas import PhotoAnswer
from weedseg.serve.services import Services, services_of

router = APIRouter(tags=["predict"], responses=RESPONSES)

JSON, PNG, JPEG = "application/json", "image/png", "image/jpeg"
_OFFERED = (JSON, PNG, JPEG)
_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"file": _BINARY}, "required": ["file"]}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "a JPEG, PNG, TIFF or WebP photo, as form field `file` or as it is",
        "content": {
            "multipart/form-data": {"schema": _FORM},
            **{kind: {"schema": _BINARY} for kind in (JPEG, PNG, "image/tiff", "image/webp")},
        },
    }
}
_PICTURES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON, or the picture that was asked for",
        "content": {PNG: {"schema": _BINARY}, JPEG: {"schema": _BINARY}},
    }
}


class Picture(str, Enum):
    """What a picture shows."""

    CLASSMAP = "classmap"
    """Class ids, 8 bits a pixel."""
    CONFIDENCE = "confidence"
    """0-100, 8 bits a pixel."""
    OVERLAY = "overlay"
    """The photo with the class colours over it."""


_PNG_OF: dict[Picture, Callable[[Prediction], bytes]] = {
    Picture.CLASSMAP: answers.classmap_png,
    Picture.CONFIDENCE: answers.confidence_png,
    Picture.OVERLAY: answers.overlay_png,
}


@router.post(
    "/v1/predict",
    response_model=PhotoAnswer,
    dependencies=[Depends(signed_in("predict"))],
    openapi_extra=_BODY,
    responses={
        **_PICTURES,
        **problem_responses(400, 404, 406, 408, 413, 415, 422, 503, 504),
    },
)
async def predict(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    model: Annotated[str, Query(description="name of the model; the default one if empty")] = "",
    picture: Annotated[
        Picture | None, Query(description="what a PNG shows, the class map if empty; JPEG: overlay")
    ] = None,
    mm_per_px: Annotated[
        float | None,
        Query(gt=0, le=1000, description="ground resolution of the photo: adds areas in m2"),
    ] = None,
) -> Response:
    """Segment one photo.

    `Accept: application/json` gives areas, cover, patches and COCO run lengths; `image/png` a
    picture of the photo's size; `image/jpeg` the overlay.
    """
    wanted = negotiate(request.headers.get("accept", ""), picture)
    services.models.get(model)
    data, name = await read_photo(request, services.settings.max_photo_bytes)
    predictor = services.predictor

    def work(ticket: Ticket) -> bytes:
        prediction = predictor.predict(data, name, model, ticket)
        ticket.left_s()
        with predictor.metrics.stage("encode"):
            return _encode(prediction, wanted, picture, mm_per_px)

    content = await predictor.accept(work, lambda: _gone(request))
    return Response(content, media_type=wanted, headers={"Vary": "Accept"})


def negotiate(accept: str, picture: Picture | None) -> str:
    """Choose what is sent: the offered type that the client likes best, JSON among equals.

    Args:
        accept: Header ``Accept``.
        picture: What a picture should show.

    Raises:
        Problem: The client likes none of them (406).
    """
    liked: dict[str, float] = {}
    for part in (accept or "*/*").split(","):
        kind, *parameters = (text.strip().lower() for text in part.split(";"))
        liked[kind] = _weight(next((p[2:] for p in parameters if p.startswith("q=")), "1"))
    best, best_weight = "", 0.0
    for kind in _OFFERED:
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        weight = next((liked[r] for r in ranges if r in liked), 0.0)
        if weight > best_weight:
            best, best_weight = kind, weight
    if not best:
        raise Problem(406, "Not acceptable", f"expected an Accept of {', '.join(_OFFERED)}")
    if best == JPEG and picture not in (None, Picture.OVERLAY):
        raise Problem(406, "Not acceptable", "a JPEG would change the values; ask for image/png")
    return best


async def read_photo(request: Request, max_bytes: int) -> tuple[bytes, str]:
    """Read the photo of a request: form field ``file``, or the whole body.

    Args:
        request: With a body that was not read yet.
        max_bytes: Largest photo.

    Returns:
        The bytes and the name of the file.

    Raises:
        Problem: The field is missing (422), or the photo is too large (413).
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        async with request.form(max_files=1, max_fields=10) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise Problem(
                    422, "Unprocessable content", "no form field 'file'; send the photo as that"
                )
            data, name = await file.read(max_bytes + 1), file.filename or "photo"
    else:
        data, name = await request.body(), "photo"
    if len(data) > max_bytes:
        raise Problem(
            413, "Content too large", f"a photo of more than {max_bytes} bytes; send a smaller one"
        )
    return data, name


async def _gone(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _encode(
    prediction: Prediction, wanted: str, picture: Picture | None, mm_per_px: float | None
) -> bytes:
    if wanted == JPEG:
        return answers.overlay_jpeg(prediction)
    if wanted == PNG:
        return _PNG_OF[picture or Picture.CLASSMAP](prediction)
    return json.dumps(answers.to_json(prediction, mm_per_px)).encode("ascii")


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
