"""An engine file and the JSON beside it that says for what it was built.

``model.fp16.engine`` is what TensorRT serialised, with nothing put before it. What it was made of
and for stands in ``model.fp16.engine.json``; that is the cache key. An engine is good on the kind
of machine that built it only, so it is never shipped and never run where the key says otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from weedseg.edge.metadata import ModelMetadata, parse_metadata
from weedseg.edge.tensorrt_library import Gpu, Library, find_gpu, import_library
from weedseg.errors import ModelFileError

SUFFIX = ".engine"
MAX_ENGINE_BYTES = 1 << 30
_MAX_SIDECAR_BYTES = 4 << 20
KEPT_METADATA = ("weedseg", "imgsz")
"""Metadata of the model file that the runtime needs."""


@dataclass(frozen=True, kw_only=True)
class EngineKey:
    """For what an engine was built; another key needs another engine."""

    onnx_sha256: str
    tensorrt: str
    """Name and version of the library, as in 'tensorrt 10.3.0'."""
    gpu: str
    """Name of the GPU; empty when it was built where there is none."""
    compute_capability: str
    """As in '8.7'."""
    precision: str
    """fp32, fp16 or int8-trt."""
    shape: tuple[int, ...]
    """Of the largest input, (N, 3, T, T)."""


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """An engine that is what its sidecar says."""

    name: str
    data: bytes
    sha256: str
    key: EngineKey
    metadata: ModelMetadata
    facts: Mapping[str, Any]
    """The whole sidecar."""


def is_engine(model: Path | str | bytes) -> bool:
    """Tell whether a model is an engine, by its name."""
    return not isinstance(model, bytes) and Path(model).suffix == SUFFIX


def sidecar_of(engine: Path) -> Path:
    """Return where the JSON of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def write_facts(key: EngineKey, engine: bytes, others: Mapping[str, Any]) -> bytes:
    """Word the sidecar of an engine."""
    facts = {**asdict(key), "engine_sha256": hashlib.sha256(engine).hexdigest(), **others}
    return (json.dumps(facts, indent=1) + "\n").encode()


def read_engine(path: Path | str) -> EngineFile:
    """Read an engine and its sidecar; needs neither TensorRT nor a GPU.

    Args:
        path: Of the engine.

    Raises:
        ModelFileError: One is missing, too large or damaged, or they do not belong together.
    """
    path = Path(path)
    facts = _read_facts(sidecar_of(path))
    data = _read(path, MAX_ENGINE_BYTES)
    sha256 = hashlib.sha256(data).hexdigest()
    if facts.get("engine_sha256") != sha256:
        raise ModelFileError(
            f"{path}: sha256 {sha256[:12]}... differs from {sidecar_of(path).name}",
            f"{str(facts.get('engine_sha256'))[:12]}...",
            _again(path),
        )
    try:
        values = {field.name: facts[field.name] for field in fields(EngineKey)}
        key = EngineKey(**{**values, "shape": tuple(values["shape"])})
        entries = {name: str(facts["metadata"][name]) for name in KEPT_METADATA}
    except (KeyError, TypeError) as error:
        raise _odd(sidecar_of(path), f"no {error}") from error
    metadata = parse_metadata(entries, str(path))
    return EngineFile(
        name=str(path), data=data, sha256=sha256, key=key, metadata=metadata, facts=facts
    )


def check_fits(engine: EngineFile) -> tuple[Library, Gpu]:
    """Compare an engine with this machine.

    Returns:
        The library and the GPU that it was built for.

    Raises:
        ModelFileError: It was built for another machine or another TensorRT.
        RuntimeUnavailableError: There is no TensorRT or no GPU.
    """
    key = engine.key
    library = import_library(key.tensorrt.partition(" ")[0])
    if library.title != key.tensorrt:
        raise _elsewhere(engine, key.tensorrt, library.title)
    gpu = find_gpu()
    if key.gpu not in ("", gpu.name) or key.compute_capability != gpu.compute_capability:
        built = f"{key.gpu or 'any GPU'} of compute capability {key.compute_capability}"
        raise _elsewhere(engine, built, f"{gpu.name} of {gpu.compute_capability}")
    return library, gpu


def _elsewhere(engine: EngineFile, built: str, here: str) -> ModelFileError:
    return ModelFileError(
        f"{engine.name}: built for {built}",
        f"an engine for {here}, which is here",
        _again(Path(engine.name)),
    )


def _again(path: Path) -> str:
    return f"build it on this machine: weedseg export {path.stem}.onnx --format tensorrt"


def _read_facts(path: Path) -> dict[str, Any]:
    """Read a sidecar.

    Raises:
        ModelFileError: It is missing or no JSON object.
    """
    try:
        facts = json.loads(_read(path, _MAX_SIDECAR_BYTES))
    except (ValueError, RecursionError) as error:
        raise _odd(path, "no JSON") from error
    if not isinstance(facts, dict):
        raise _odd(path, "no JSON object")
    return facts


def _odd(path: Path, found: str) -> ModelFileError:
    return ModelFileError(f"{path}: {found}", "what weedseg wrote", _again(path.with_suffix("")))


def _read(path: Path, max_bytes: int) -> bytes:
    """Read a regular file up to a limit.

    Raises:
        ModelFileError: It is missing, no regular file or too large.
    """
    try:
        if not path.is_file() or path.stat().st_size > max_bytes:
            raise ModelFileError(
                f"{path}: no file of up to {max_bytes >> 20} MiB",
                "an engine with its .json beside it",
                "build it on this machine: weedseg export MODEL.onnx --format tensorrt",
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror}", "an engine", "check the path"
        ) from error
