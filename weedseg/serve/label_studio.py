"""A Label Studio ML backend: Label Studio asks for the labels of its tasks, a model answers.

Photos are read from two folders of this machine only, those that Label Studio serves under
``/data/local-files/?d=`` and ``/data/upload/``; no address is ever fetched. The score of a
prediction is the photo's mean confidence, so sorting by it shows uncertain photos first.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, Field

import weedseg
from weedseg.data.exporters.labelstudio import Control, brush_regions
from weedseg.data.importers.labelstudio import split_address
from weedseg.data.importers.naming import IGNORE_NAME, weedcoco_name
from weedseg.data.importers.photos import parse_xml, safe_path
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, FieldDataError, WeedsegError
from weedseg.imaging import decode_image
from weedseg.pipeline.suggest import model_version, uncertainty

MAX_BODY_BYTES = 32 << 20
MAX_TASKS = 1000
"""Tasks of one request; Label Studio sends a batch."""
_MAX_INTERFACE_LETTERS = 1 << 20
_BASIC = HTTPBasic(realm="weedseg")


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """What the backend may read and who may ask."""

    photos: Path
    """What Label Studio serves as local files (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT)."""
    uploads: Path | None = None
    """Label Studio's ``media/upload``; None refuses uploads."""
    user: str = ""
    password: str = ""
    """Of HTTP basic authentication, as entered in Label Studio; '' asks for none."""


class Task(BaseModel):
    """One photo to label, as Label Studio describes it."""

    id: int | str = 0
    data: dict[str, Any]


class PredictRequest(BaseModel):
    """What Label Studio posts to ``/predict``; other fields are ignored."""

    tasks: list[Task] = Field(max_length=MAX_TASKS)
    label_config: str | None = Field(None, max_length=_MAX_INTERFACE_LETTERS)


class SetupRequest(BaseModel):
    """What Label Studio posts to ``/setup``; other fields are ignored."""

    label_schema: str | None = Field(None, alias="schema", max_length=_MAX_INTERFACE_LETTERS)


def create_backend(segmenter: Segmenter, options: BackendOptions) -> FastAPI:
    """Build the app.

    Args:
        segmenter: The model; requests wait for each other.
        options: What it may read and who may ask.

    Raises:
        ConfigError: A folder is missing.
    """
    for folder in (options.photos, options.uploads):
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{folder} is no folder", "photos", "check --photos and --uploads")
    backend = _Backend(segmenter, options)
    app = FastAPI(
        title="weedseg for Label Studio",
        version=weedseg.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        max_body_size=MAX_BODY_BYTES,
    )
    app.add_exception_handler(WeedsegError, _tell)
    app.add_exception_handler(RequestValidationError, _tell_wrong_body)
    signed_in = [Depends(_signed_in(options))] if options.password else []

    # Plain functions: FastAPI runs them in threads, so that /health answers during a prediction.
    @app.get("/")
    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "weedseg", "model_version": backend.version}

    @app.post("/setup", dependencies=signed_in)
    def setup(request: SetupRequest) -> dict[str, str]:
        backend.control(request.label_schema)
        return {"model_version": backend.version}

    @app.post("/predict", dependencies=signed_in)
    def predict(request: PredictRequest) -> dict[str, Any]:
        control, names = backend.control(request.label_config)
        results = [backend.predict(task, control, names) for task in request.tasks]
        return {"results": results, "model_version": backend.version}

    @app.post("/webhook", dependencies=signed_in)
    def webhook() -> dict[str, str]:
        return {"status": "ok", "detail": "nothing is learned here: see weedseg train"}

    return app


class _Backend:
    """The model and what it may read."""

    def __init__(self, segmenter: Segmenter, options: BackendOptions) -> None:
        self._segmenter, self._options = segmenter, options
        self._lock = threading.Lock()
        self.version = model_version(segmenter)

    def control(self, interface: str | None) -> tuple[Control, list[str]]:
        """Find out how a project names the brush and the classes.

        Raises:
            FieldDataError: It has no brush, or no label for a class of the model.
        """
        classes = self._segmenter.classes
        if not interface or not interface.strip():
            return Control(), [*classes.names, IGNORE_NAME]
        root = parse_xml(interface, "the labelling interface")
        brush = next(iter(root.iter("BrushLabels")), None)
        if brush is None:
            raise FieldDataError("an interface without BrushLabels", "brush labels", "add them")
        known = {str(label.get("value", "")).casefold(): label for label in brush.iter("Label")}
        names = []
        for number, kind in enumerate(classes.classes):
            spellings = (kind.name.casefold(), weedcoco_name(kind).casefold())
            label = next((known[text] for text in spellings if text in known), None)
            if label is None and number:
                raise FieldDataError(
                    f"an interface without the label '{kind.name}'",
                    f"labels {', '.join(classes.names[1:])}",
                    "add it to the project's labelling interface",
                )
            names.append("" if label is None else str(label.get("value")))
        control = Control(
            brush=str(brush.get("name", "tag")), image=str(brush.get("toName", "image"))
        )
        return control, [*names, IGNORE_NAME]

    def predict(self, task: Task, control: Control, names: list[str]) -> dict[str, Any]:
        """Segment the photo of a task.

        Raises:
            FieldDataError: It has none that may be read.
        """
        name, path = self._find(task.data)
        image = decode_image(path.read_bytes(), f"photo {name[:120]!r}")
        with self._lock:
            result = self._segmenter.segment(image)
        regions = brush_regions(result.class_map, names, task.id, control)
        drawn = [region for region in regions if region["value"]["brushlabels"] != [""]]
        score = round(1 - uncertainty(result), 6)
        return {"model_version": self.version, "score": score, "result": drawn}

    def _find(self, data: Mapping[str, Any]) -> tuple[str, Path]:
        """Find the photo of a task in the folders that may be read; returns its name, too.

        Raises:
            FieldDataError: It is elsewhere or not there.
        """
        texts = [text for text in data.values() if isinstance(text, str)]
        address = str(data.get("image") or (texts or [""])[0])
        kind, name = split_address(address)
        folder = {"local": self._options.photos, "upload": self._options.uploads}.get(kind)
        if folder is None:
            raise FieldDataError(
                f"photo {address[:120]!r}",
                "/data/local-files/?d=..., or /data/upload/... with --uploads",
                "use Label Studio's local file storage",
            )
        root = folder.resolve()
        path = (root / safe_path(name)).resolve()
        if root not in path.parents or not path.is_file():
            raise FieldDataError(
                f"no photo {name[:120]!r} in {folder.name}", "a photo there", "check --photos"
            )
        return name, path


def _signed_in(options: BackendOptions) -> Any:
    def check(said: Annotated[HTTPBasicCredentials, Depends(_BASIC)]) -> None:
        pairs = ((said.username, options.user), (said.password, options.password))
        same = [hmac.compare_digest(a.encode(), b.encode()) for a, b in pairs]
        if not all(same):
            raise _BASIC.make_not_authenticated_error()

    return check


def _tell(request: Request, error: Exception) -> JSONResponse:
    """Answer with the one sentence of an error."""
    status = error.http_status if isinstance(error, WeedsegError) else 500
    return JSONResponse({"error": str(error)}, status)


def _tell_wrong_body(request: Request, error: Exception) -> JSONResponse:
    rows = error.errors() if isinstance(error, RequestValidationError) else []
    where = ".".join(str(part) for part in rows[0]["loc"]) if rows else "body"
    return JSONResponse({"error": f"{where}: not what Label Studio sends"}, 422)
