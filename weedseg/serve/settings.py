"""What an operator may set: environment variables ``WEEDSEG_...`` or flags of ``weedseg serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from weedseg.errors import ConfigError

ENV_PREFIX = "WEEDSEG_"
_MIB = 1 << 20


class Settings(BaseSettings):
    """All settings of the service; the environment fills what is not given."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    model: Path | None = Field(None, description="model.onnx or its folder; else the released one")
    models: Path | None = Field(None, description="folder of model folders, served beside it")
    host: str = Field("127.0.0.1", description="address to listen on; others need a key")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    data: Path = Field(Path("weedseg-data"), description="folder for database, uploads, results")
    database_url: str = Field("", description="SQLAlchemy address; empty: SQLite file in data")
    max_photo_bytes: int = Field(
        50 * _MIB, ge=1024, le=1 << 30, description="largest photo of one request, bytes"
    )
    max_pixels: int = Field(
        52_000_000,
        ge=1,
        le=1_000_000_000,
        description="largest height x width of a photo, px; more needs more decode_memory_bytes",
    )
    max_upload_bytes: int = Field(
        4 << 30, ge=1024, description="largest upload in chunks, zip or photo, bytes"
    )
    decode_workers: int = Field(2, ge=1, le=64, description="processes that decode photos")
    decode_memory_bytes: int = Field(
        768 * _MIB,
        ge=32 * _MIB,
        description="memory that each of them may take, bytes: 14 for every pixel and the file; "
        "768 MiB fit phone photos of 50 MP, and a hostile file can cost as much; 256 MiB fit 16 MP",
    )
    decode_s: float = Field(10.0, gt=0, le=600, description="time that decoding may take, s")
    infer_workers: int = Field(1, ge=1, le=64, description="copies of the model that run at once")
    infer_threads: int = Field(
        0, ge=0, le=256, description="CPU threads of each; 0 divides the cores among them"
    )
    queue_length: int = Field(16, ge=0, le=10_000, description="photos that may wait; more get 503")
    deadline_s: float = Field(30.0, gt=0, le=3600, description="time for one photo, then 504, s")
    header_timeout_s: float = Field(
        10.0, ge=1, le=60, description="time for request headers, and for a pause in a body, s"
    )
    stop_s: float = Field(30.0, ge=0, le=600, description="time to finish accepted work at stop, s")
    retention_days: float = Field(30.0, gt=0, description="jobs and uploads are kept so long, days")
    quota_bytes: int = Field(20 << 30, ge=0, description="space for one owner, bytes; 0: no limit")
    requests_per_minute: int = Field(
        600, ge=0, description="requests of one owner per minute; 0: no limit"
    )
    session_hours: float = Field(12.0, gt=0, le=24 * 30, description="life of a sign-in, hours")
    require_provider: str | None = Field(
        None, pattern="^(tensorrt|cuda|cpu)$", description="tensorrt, cuda or cpu: no fall-back"
    )
    job_worker: bool = Field(True, description="run jobs in this process as well")

    def to_environment(self) -> dict[str, str]:
        """Return the environment variables that make the same settings in another process."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["data"] = str(self.data.absolute())
        return {f"{ENV_PREFIX}{name.upper()}": _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_settings(**given: Any) -> Settings:
    """Read the environment; what is given comes first, and None is not given.

    Args:
        **given: Fields of `Settings`.

    Raises:
        ConfigError: A value has the wrong type or range.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        source = name if name in given else f"{ENV_PREFIX}{name.upper()}"
        raise ConfigError(
            f"{source} = {first['input']!r}", first["msg"].lower(), "see weedseg serve --settings"
        ) from error


def settings_table() -> str:
    """Draw the settings as a Markdown table, for the README and ``weedseg serve --settings``."""
    rows = ["| variable | default | means |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else _text(field.default)
        variable = f"`{ENV_PREFIX}{name.upper()}`"
        rows.append(f"| {variable} | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join(rows) + "\n"


def export_settings(settings: Settings) -> None:
    """Put settings into the environment, where processes started from here read them."""
    for name in Settings.model_fields:
        os.environ.pop(f"{ENV_PREFIX}{name.upper()}", None)
    os.environ.update(settings.to_environment())
