"""The models that the service knows, which of them is the default, and which was before.

The choice lies in ``models.json`` of the data folder, so that every process of the service follows
a promotion and a restart keeps it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weedseg.edge.metadata import ModelMetadata
from weedseg.edge.model_file import read_model_file
from weedseg.edge.released import DEFAULT_MODEL, default_model
from weedseg.errors import ConfigError
from weedseg.imaging import write_bytes
from weedseg.serve.problems import Problem, not_found
from weedseg.serve.settings import Settings

_log = logging.getLogger(__name__)

STATE_NAME = "models.json"
MODEL_FILE = "model.onnx"
_MAX_HISTORY = 20


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model that can be asked for by name."""

    name: str
    version: str
    """The first 12 digits of the checksum: another file is another version."""
    path: Path
    sha256: str
    metadata: ModelMetadata

    @property
    def precision(self) -> str:
        """fp32, or how the model is quantised."""
        kind = str(self.metadata.properties.get("quantisation", "none"))
        return "fp32" if kind == "none" else kind

    @property
    def evaluated(self) -> bool:
        """Whether its accuracy was measured on photos that it never saw."""
        metrics = self.metadata.properties.get("metrics")
        return isinstance(metrics, dict) and isinstance(metrics.get("miou"), float)

    @property
    def evaluation_note(self) -> str:
        """What a person should know about its accuracy, in a sentence."""
        if not self.evaluated:
            return "This model was never evaluated: its accuracy is unknown."
        metrics = self.metadata.properties["metrics"]
        crop = " and ".join(metrics.get("crops") or []) or "the crop that it learned"
        basis = str(self.metadata.properties.get("evaluation_note") or "on its own data")
        return (
            f"Evaluated on {metrics.get('num_photos', '?')} photos of {crop} "
            f"({basis}; mean IoU {metrics['miou']:.2f}), never on yours: check a few results "
            "before you rely on them."
        )

    def to_dict(self) -> dict[str, str]:
        """Return what results say about their model."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


class ModelShelf:
    """All models by name; safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Read and check every model file.

        Args:
            settings: ``model``, ``models`` and ``data``.

        Raises:
            ModelFileError: A file is missing or not one that weedseg may run.
            ConfigError: Two models have one name.
        """
        self._state = settings.data / STATE_NAME
        self._lock = threading.Lock()
        self._models: dict[str, ServedModel] = {}
        for path in _paths(settings):
            model = _read(path)
            if model.name in self._models:
                raise ConfigError(f"two models named '{model.name}'", "one", "rename a folder")
            self._models[model.name] = model
        self._first = next(iter(self._models))

    @property
    def all(self) -> list[ServedModel]:
        """Every model by name."""
        return [self._models[name] for name in sorted(self._models)]

    @property
    def default(self) -> ServedModel:
        """The model that answers when none is named."""
        for name in reversed(self._history()):
            if name in self._models:
                return self._models[name]
        return self._models[self._first]

    @property
    def previous(self) -> ServedModel | None:
        """The model that a rollback returns to."""
        history = [name for name in self._history() if name in self._models]
        if not history:
            return None
        return self._models[history[-2] if len(history) > 1 else self._first]

    def get(self, name: str = "") -> ServedModel:
        """Return a model by name, or the default one.

        Args:
            name: Empty for the default.

        Raises:
            Problem: There is none of that name (404).
        """
        if not name:
            return self.default
        if name not in self._models:
            raise not_found("model")
        return self._models[name]

    def promote(self, name: str) -> ServedModel:
        """Make a model the default.

        Args:
            name: Its name.

        Raises:
            Problem: There is none of that name (404).
            OutputError: The data folder cannot be written.
        """
        model = self.get(name)
        with self._lock:
            if self.default.name != model.name:
                self._write([*self._history(), model.name])
        _log.info("default model is now %s (%s)", model.name, model.version)
        return model

    def rollback(self) -> ServedModel:
        """Return to the model that was the default before the last promotion.

        Raises:
            Problem: Nothing was promoted (409).
            OutputError: The data folder cannot be written.
        """
        with self._lock:
            history = self._history()
            if not history:
                raise Problem(409, "Conflict", "nothing was promoted; there is no way back")
            self._write(history[:-1])
        model = self.default
        _log.info("default model is again %s (%s)", model.name, model.version)
        return model

    def _history(self) -> list[str]:
        """Read promoted names, the latest last; what another process wrote counts."""
        try:
            state = json.loads(self._state.read_bytes())
            names = state["promoted"]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError):
            _log.warning("%s cannot be read; the first model is the default", STATE_NAME)
            return []
        return [str(name) for name in names] if isinstance(names, list) else []

    def _write(self, names: list[str]) -> None:
        state: dict[str, Any] = {"promoted": names[-_MAX_HISTORY:]}
        write_bytes(self._state, json.dumps(state).encode("utf-8"))


def _paths(settings: Settings) -> list[Path]:
    """List the model files, the default one first.

    Raises:
        ModelFileError: This installation has no released model.
        ConfigError: The folder of models has none.
    """
    paths = []
    if settings.model is not None:
        paths.append(settings.model / MODEL_FILE if settings.model.is_dir() else settings.model)
    if settings.models is not None:
        found = sorted(settings.models.glob(f"*/{MODEL_FILE}"))
        if not found:
            raise ConfigError(
                f"no model in {settings.models}", f"<name>/{MODEL_FILE}", "name another --models"
            )
        released = [path for path in found if path.parent.name == DEFAULT_MODEL]
        paths += released + [path for path in found if path not in released]
    known = {path.resolve() for path in paths}
    return list(dict.fromkeys([*paths, *([] if known else [default_model()])]))


def _read(path: Path) -> ServedModel:
    file = read_model_file(path)
    name = path.resolve().parent.name if path.name == MODEL_FILE else path.stem
    return ServedModel(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80].strip(".-") or "model",
        version=file.sha256[:12],
        path=path.resolve(),
        sha256=file.sha256,
        metadata=file.metadata,
    )
