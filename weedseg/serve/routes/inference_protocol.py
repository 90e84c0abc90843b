"""Open Inference Protocol v2: the network alone, tensors in and tensors out."""

from __future__ import annotations

import json
from typing import Annotated, Any, NoReturn

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

import weedseg
from weedseg.serve.auth import signed_in
from weedseg.serve.models import ServedModel
from weedseg.serve.predicting import Ticket
from weedseg.serve.problems import ErrorBody, Problem
from weedseg.serve.routes.health import why_not_ready
from weedseg.serve.schemas import (
    InferenceAnswer,
    InferenceModel,
    InferenceRequest,
    InferenceState,
    ServerMetadata,
    TensorMetadata,
)
from weedseg.serve.services import Services, services_of

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

MAX_BODY_BYTES = 32 << 20
"""Largest request: two tiles of 512 px as text."""
MAX_TILES = 16
_OUTPUTS = ("mask", "confidence")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}
        },
    }
}
Services_ = Annotated[Services, Depends(services_of)]


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": ErrorBody} for code in codes}


@router.get("")
async def server_metadata() -> ServerMetadata:
    """Describe the server."""
    return ServerMetadata(name="weedseg", version=weedseg.__version__, extensions=[])


@router.get("/health/live", response_model_exclude_none=True)
async def live() -> InferenceState:
    """Tell that the process answers."""
    return InferenceState(live=True)


@router.get("/health/ready", response_model_exclude_none=True, responses=_errors(503))
async def ready(services: Services_) -> InferenceState:
    """Tell whether inference is possible.

    Raises:
        Problem: 503 while the service starts, stops or failed its self-test.
    """
    reason = why_not_ready(services)
    if reason:
        raise Problem(503, "Not ready", reason, {"Retry-After": "2"})
    return InferenceState(ready=True)


@router.get(
    "/models/{name}",
    dependencies=[Depends(signed_in("predict"))],
    responses=_errors(401, 403, 404, 429),
)
def model_metadata(name: str, services: Services_) -> InferenceModel:
    """Describe inputs and outputs of a model."""
    model = services.models.get(name)
    side = model.metadata.tile_px
    return InferenceModel(
        name=model.name,
        versions=[model.version],
        platform="onnxruntime_onnx",
        inputs=[TensorMetadata(name="images", datatype="FP32", shape=[-1, 3, side, side])],
        outputs=[
            TensorMetadata(name=output, datatype="UINT8", shape=[-1, side, side])
            for output in _OUTPUTS
        ],
    )


@router.get(
    "/models/{name}/ready",
    response_model_exclude_none=True,
    dependencies=[Depends(signed_in("predict"))],
    responses=_errors(401, 403, 404, 429, 503),
)
def model_ready(name: str, services: Services_) -> InferenceState:
    """Tell whether a model can be asked.

    Raises:
        Problem: 404 for an unknown model, 503 while the service is not ready.
    """
    model = services.models.get(name)
    reason = why_not_ready(services)
    if reason:
        raise Problem(503, "Not ready", reason, {"Retry-After": "2"})
    return InferenceState(name=model.name, ready=True)


@router.post(
    "/models/{name}/infer",
    response_model=InferenceAnswer,
    dependencies=[Depends(signed_in("predict"))],
    openapi_extra=_BODY,
    responses=_errors(400, 401, 403, 404, 408, 413, 429, 503, 504),
)
async def infer(name: str, request: Request, services: Services_) -> Response:
    """Run the network on tiles: `images`, FP32 [N, 3, T, T], RGB, 0-1."""
    model = services.models.get(name)
    body = await request.body()
    predictor = services.predictor

    def work(ticket: Ticket) -> bytes:
        wanted, images = parse(body, model)
        found = predictor.run_tiles(images, model.name, ticket)
        with predictor.metrics.stage("encode"):
            return _encode(wanted, model, dict(zip(_OUTPUTS, found)))

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue

    content = await predictor.accept(work, gone)
    return Response(content, media_type="application/json")


def parse(body: bytes, model: ServedModel) -> tuple[InferenceRequest, npt.NDArray[np.float32]]:
    """Read a request.

    Args:
        body: JSON.
        model: Says how large tiles are.

    Returns:
        The request, and its tensor, float32 (N, 3, T, T).

    Raises:
        Problem: It is not what the model takes (400).
    """
    try:
        values = json.loads(body, parse_constant=_no_constant)
        wanted = InferenceRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise _bad(f"{place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _bad("the body is no JSON") from error
    tensor = wanted.inputs[0]
    side = model.metadata.tile_px
    num = tensor.shape[0]
    if tensor.shape[1:] != [3, side, side] or num > MAX_TILES:
        raise _bad(f"shape {tensor.shape}; expected [1-{MAX_TILES}, 3, {side}, {side}]")
    return wanted, _tensor(tensor.data, (num, 3, side, side))


def _tensor(data: list[Any], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Turn numbers into an array.

    Raises:
        Problem: They are none, or too many or too few (400).
    """
    try:
        array = np.asarray(data, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise _bad("data that are not all numbers; expected one for every value") from error
    if array.size != np.prod(shape) or not np.isfinite(array).all():
        raise _bad(f"{array.size} values; expected {np.prod(shape)} finite ones")
    return array.reshape(shape)


def _encode(
    wanted: InferenceRequest, model: ServedModel, found: dict[str, npt.NDArray[Any]]
) -> bytes:
    names = [str(output.name) for output in wanted.outputs or []] or list(_OUTPUTS)
    outputs = [
        {
            "name": name,
            "datatype": "UINT8",
            "shape": list(found[name].shape),
            "data": found[name].ravel().tolist(),
        }
        for name in names
    ]
    answer = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if wanted.id is not None:
        answer["id"] = wanted.id
    return json.dumps(answer, separators=(",", ":")).encode("ascii")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _bad(detail: str) -> Problem:
    return Problem(400, "Bad request", detail)
