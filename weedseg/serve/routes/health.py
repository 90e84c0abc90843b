"""Live, ready and busy are three things: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from weedseg.serve.auth import RESPONSES, may_watch
from weedseg.serve.metrics import CONTENT_TYPE
from weedseg.serve.problems import Problem, problem_responses
from weedseg.serve.schemas import State
from weedseg.serve.services import Services, services_of

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> State:
    """Tell that the process answers; busy or stopping is no reason to restart it."""
    return State(status="ok")


@router.get("/readyz", responses=problem_responses(503))
async def readyz(services: Annotated[Services, Depends(services_of)]) -> State:
    """Tell whether photos are welcome: the model passed its self-test, the service goes on.

    Raises:
        Problem: 503 if they are not.
    """
    reason = why_not_ready(services)
    if reason:
        raise Problem(503, "Not ready", reason, {"Retry-After": "2"})
    return State(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    dependencies=[Depends(may_watch)],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **RESPONSES},
)
def metrics(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Show the figures that Prometheus collects: on this machine, or with the scope admin."""
    return Response(services.predictor.metrics.text(), media_type=CONTENT_TYPE)


def why_not_ready(services: Services) -> str:
    """Return why photos are not welcome now; empty when they are.

    Args:
        services: Of the app.
    """
    if services.condition.draining:
        return "the service is stopping"
    return services.predictor.not_ready
