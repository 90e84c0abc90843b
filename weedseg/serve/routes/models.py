"""Which models there are, which one answers by default, and how that is changed and undone."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from weedseg.serve.auth import RESPONSES, signed_in
from weedseg.serve.models import ModelShelf, ServedModel
from weedseg.serve.problems import problem_responses
from weedseg.serve.schemas import ModelAnswer, ModelList, ServedClass
from weedseg.serve.services import Services, services_of

router = APIRouter(prefix="/v1/models", tags=["models"], responses=RESPONSES)
Services_ = Annotated[Services, Depends(services_of)]


@router.get("", dependencies=[Depends(signed_in())])
def list_models(services: Services_) -> ModelList:
    """List all models."""
    shelf = services.models
    previous = shelf.previous
    return ModelList(
        default=shelf.default.name,
        previous=previous.name if previous else None,
        models=[_describe(model, shelf) for model in shelf.all],
    )


@router.post(
    "/default/rollback",
    dependencies=[Depends(signed_in("models"))],
    responses=problem_responses(409),
)
def rollback(services: Services_) -> ModelAnswer:
    """Return to the model that was the default before the last promotion."""
    return _describe(services.predictor.rollback(), services.models)


@router.get("/{name}", dependencies=[Depends(signed_in())], responses=problem_responses(404))
def show_model(name: str, services: Services_) -> ModelAnswer:
    """Describe one model."""
    return _describe(services.models.get(name), services.models)


@router.post(
    "/{name}/promote",
    dependencies=[Depends(signed_in("models"))],
    responses=problem_responses(404, 409),
)
def promote(name: str, services: Services_) -> ModelAnswer:
    """Make a model the default, if it passes its self-test now."""
    return _describe(services.predictor.promote(name), services.models)


def _describe(model: ServedModel, shelf: ModelShelf) -> ModelAnswer:
    return ModelAnswer(
        **model.to_dict(),
        is_default=model.name == shelf.default.name,
        precision=model.precision,
        tile_px=model.metadata.tile_px,
        evaluated=model.evaluated,
        evaluation_note=model.evaluation_note,
        classes=[ServedClass(**row) for row in model.metadata.classes.to_list()],
    )
