"""The run folder: everything a run read, decided, measured and made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weedseg.errors import ConfigError
from weedseg.training import distributed
from weedseg.training.checkpoint import write_durably


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def pretrain(self) -> Path:
        """Folder of the pretraining."""
        return self.path / "pretrain"

    @property
    def finetune(self) -> Path:
        """Folder of the fine-tuning."""
        return self.path / "finetune"

    @property
    def evaluation(self) -> Path:
        """Folder of the evaluation's pictures."""
        return self.path / "evaluation"

    @property
    def model(self) -> Path:
        """The exported model."""
        return self.path / "model.onnx"

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file durably; the first process does, and the others do not wait for it.

        Raises:
            OutputError: The disk is full.
        """
        if distributed.rank() == 0:
            text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False)
            write_durably(self.path / name, text.encode("utf-8", "surrogateescape"))

    def read(self, name: str) -> dict[str, Any]:
        """Read a JSON file; {} when it is not there.

        Raises:
            ConfigError: The file holds something else.
        """
        path = self.path / name
        if not path.exists():
            return {}
        try:
            values = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} is damaged ({error})", "what weedseg wrote", "start a new run"
            ) from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} is damaged", "what weedseg wrote", "start a new run")
        return values

    def update(self, name: str, values: Mapping[str, Any]) -> None:
        """Change some keys of a JSON file; a dict inside is merged."""
        old = self.read(name)
        for key, value in values.items():
            both = isinstance(value, Mapping) and isinstance(old.get(key), Mapping)
            old[key] = {**old[key], **value} if both else value
        self.write(name, old)
