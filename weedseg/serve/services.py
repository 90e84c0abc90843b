"""What the routes work with: built once when the service starts, closed when it stops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from weedseg.serve.settings import Settings

if TYPE_CHECKING:
    from weedseg.serve.database import Database
    from weedseg.serve.jobs import JobQueue
    from weedseg.serve.keys import KeyStore
    from weedseg.serve.limits import Limits
    from weedseg.serve.models import ModelShelf
    from weedseg.serve.predicting import Predictor
    from weedseg.serve.uploads import UploadStore


@dataclass
class Condition:
    """What changes while the service runs."""

    draining: bool = False
    """Stopping: no new work, what was accepted is finished."""
    inflight: int = 0
    """Requests that are being answered."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that a route may need."""

    settings: Settings
    models: ModelShelf
    predictor: Predictor
    """Decodes and segments photos, a bounded number at a time; jobs use it too."""
    database: Database
    keys: KeyStore
    limits: Limits
    jobs: JobQueue
    uploads: UploadStore
    condition: Condition = field(default_factory=Condition)


def services_of(request: Request) -> Services:
    """Return the services of the app that a request came to; a FastAPI dependency."""
    services: Services = request.app.state.services
    return services
