"""Build a TensorRT engine of a model file on the machine that will run it.

Nothing but weedseg.edge and TensorRT is needed, so that a robot can do it. An engine that fits is
kept; its key is that of `EngineKey`. Precision is that of the model file: every supported version
of TensorRT reads fp32, typed fp16 and QDQ int8 files, while switches for it come and go.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weedseg.edge.golden import GOLDEN_NAME, read_golden
from weedseg.edge.model_file import ModelFile, read_model_file
from weedseg.edge.onnx_wire import inspect_onnx
from weedseg.edge.segmenter import Segmenter
from weedseg.edge.tensorrt_engine import (
    KEPT_METADATA,
    SUFFIX,
    EngineFile,
    EngineKey,
    read_engine,
    sidecar_of,
    write_facts,
)
from weedseg.edge.tensorrt_library import Gpu, Library, find_gpu, import_library
from weedseg.errors import ConfigError, ModelFileError, RuntimeUnavailableError
from weedseg.export.agreement import FP32, Tolerance, check_or_force, compare, judge
from weedseg.export.photo_sizes import BATCHES
from weedseg.export.tensorrt_network import Plan, Report, build_plan, ignore_progress
from weedseg.imaging import Image, write_bytes

_log = logging.getLogger(__name__)

MAX_BATCH = 8
"""Tiles that an engine takes at once; one is what it is tuned for."""
TIMING_CACHE = "tensorrt.timing"
"""File beside the engines: what was measured once need not be measured again."""
TOLERANCES = {
    "fp32": FP32,
    "fp16": Tolerance(equal_share=0.999, dconfidence=100),
    "int8-trt": Tolerance(equal_share=0.99, dconfidence=100),
}
"""Precision -> how far an engine may be from its model file on the CPU."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an engine is built."""

    compute_capability: str = ""
    """Build for such a GPU, e.g. '8.6', where there is none; only tensorrt_rtx can."""
    force: bool = False
    """Write an engine that fails its parity check, and record it."""
    report: Report = ignore_progress
    """Gets the progress."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine that lies on the disk."""

    path: Path
    engine: EngineFile
    reused: bool
    """Whether it was there already."""


def build_engine(
    model: Path,
    photos: Sequence[Image] = (),
    options: BuildOptions = BuildOptions(),
) -> Built:
    """Build ``model.engine`` beside ``model.onnx``, or keep it when it is the right one.

    Args:
        model: A model file of fp32, fp16 or int8-trt.
        photos: For the parity check; the golden photo beside the model by default.
        options: How.

    Returns:
        The engine; ``facts`` hold the figures of the parity check, or why it did not run.

    Raises:
        ModelFileError: The file is no model that weedseg may run.
        ConfigError: There is no GPU and no compute capability, or an unknown one.
        ExportError: TensorRT cannot read the model or build the engine.
        ParityError: The engine says something else than the model; nothing is written.
        RuntimeUnavailableError: There is no TensorRT.
        OutputError: The disk is full or not writable.
    """
    file = read_model_file(model)
    library = import_library()
    gpu, reason = _find_target(library, options.compute_capability)
    path = model.with_suffix(SUFFIX)
    key = EngineKey(
        onnx_sha256=file.sha256,
        tensorrt=library.title,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        precision=_precision(file),
        shape=(MAX_BATCH, 3, file.metadata.tile_px, file.metadata.tile_px),
    )
    kept = _fitting(path, key)
    if kept is not None:
        return Built(path=path, engine=kept, reused=True)
    timing = None if library.is_rtx else path.with_name(TIMING_CACHE)
    plan = Plan(name=file.name, data=file.data, key=key, timing=timing)
    data = build_plan(library, plan, options.report)
    found = inspect_onnx(file.data, file.name).metadata
    facts: dict[str, Any] = {"metadata": {name: found[name] for name in KEPT_METADATA}}
    facts |= _check(model, data, write_facts(key, data, facts), (photos, reason), options.force)
    write_bytes(path, data)
    write_bytes(sidecar_of(path), write_facts(key, data, facts))
    return Built(path=path, engine=read_engine(path), reused=False)


def _precision(file: ModelFile) -> str:
    """Return the precision of a model file.

    Raises:
        ModelFileError: TensorRT does not read files of it.
    """
    found = str(file.metadata.properties.get("quantisation", "none")).replace("none", "fp32")
    if found not in TOLERANCES:
        raise ModelFileError(
            f"{file.name}: {found}, quantised for CPUs",
            f"one of {', '.join(TOLERANCES)}",
            "take model.int8-trt.onnx (weedseg export RUN --format onnx-int8-trt)",
        )
    return found


def _find_target(library: Library, compute_capability: str) -> tuple[Gpu, str]:
    """Return the GPU to build for, and why the engine cannot run here; empty: it can.

    Raises:
        ConfigError: Nothing says for which GPU.
    """
    try:
        here = find_gpu()
    except RuntimeUnavailableError as error:
        if compute_capability and library.is_rtx:
            return Gpu(name="", compute_capability=compute_capability), error.found
        raise ConfigError(
            f"no GPU to build an engine for ({error.found})",
            "a GPU, or tensorrt_rtx and the compute capability of the target",
            "run this on the target, or install tensorrt-rtx and add --compute-capability 8.6",
        ) from error
    if compute_capability in ("", here.compute_capability):
        return here, ""
    if not library.is_rtx:
        raise ConfigError(
            f"--compute-capability {compute_capability} with {library.title}",
            here.compute_capability,
            "build the engine on its target",
        )
    reason = f"the GPU here has compute capability {here.compute_capability}"
    return Gpu(name="", compute_capability=compute_capability), reason


def _fitting(path: Path, key: EngineKey) -> EngineFile | None:
    """Return the engine that is there, if it has this key."""
    if not path.is_file():
        return None
    try:
        engine = read_engine(path)
    except ModelFileError as error:
        _log.info("%s is built again: %s", path, error)
        return None
    if engine.key != key:
        _log.info("%s is built again: it was for %s, now %s", path, engine.key, key)
        return None
    return engine


def _check(
    model: Path,
    data: bytes,
    facts: bytes,
    material: tuple[Sequence[Image], str],
    force: bool,
) -> dict[str, Any]:
    """Run engine and model over the same photos; returns what the sidecar says about it.

    Args:
        model: The model file.
        data: The engine.
        facts: Its sidecar so far.
        material: Photos, and why the engine cannot run here.
        force: Go on when it fails.

    Raises:
        ParityError: They differ.
    """
    photos, reason = material
    photos = photos or _golden_photos(model)
    if not reason and not photos:
        reason = f"no photo in {model.parent / GOLDEN_NAME}"
    if reason:
        return {"parity": None, "parity_not_run": reason}
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / model.with_suffix(SUFFIX).name
        draft.write_bytes(data)
        sidecar_of(draft).write_bytes(facts)
        precision = json.loads(facts)["precision"]

        def check(tolerance: Tolerance) -> dict[str, Any]:
            return compare_engine(draft, model, photos, tolerance)

        figures, forced = check_or_force(check, TOLERANCES[precision], force)
    return {"parity": figures, "forced": forced}


def compare_engine(
    engine: Path, model: Path, photos: Sequence[Image], tolerance: Tolerance
) -> dict[str, Any]:
    """Compare an engine on the GPU with its model file on the CPU.

    Args:
        engine: With its sidecar.
        model: The model file; any two that should say the same can be compared.
        photos: uint8 (H, W, 3) each.
        tolerance: How far they may differ.

    Returns:
        The figures of `weedseg.export.agreement.compare` and what both ran on.

    Raises:
        ParityError: There is no photo, or they differ too much.
        ModelFileError: One is refused.
        RuntimeUnavailableError: There is no GPU, TensorRT or ONNX Runtime.
    """
    expected = [Segmenter(model, require_provider="cpu", batch=batch) for batch in BATCHES]
    found = [Segmenter(engine, batch=batch) for batch in BATCHES]
    figures = {
        **compare(lambda image, turn: expected[turn].segment(image), found, photos),
        "onnxruntime": expected[0].runtime.onnxruntime,
        "engine_on": found[0].runtime.onnxruntime,
    }
    judge(figures, tolerance, "the engine is not its model")
    return figures


def _golden_photos(model: Path) -> list[Image]:
    try:
        file = read_model_file(model)
        return [read_golden(model.parent / GOLDEN_NAME, file.metadata).image]
    except ModelFileError as error:
        _log.info("no golden photo: %s", error)
        return []


def say(built: Built) -> str:
    """Word what was built, in a sentence."""
    key, facts = built.engine.key, built.engine.facts
    target = f"{key.gpu or 'any GPU'} of compute capability {key.compute_capability}"
    start = "kept, it fits" if built.reused else "built"
    text = f"{start}: {key.precision} for {target}, {key.tensorrt}, {len(built.engine.data)} bytes"
    figures = facts.get("parity")
    if not figures:
        return f"{text}; parity was not run: {facts.get('parity_not_run', 'unknown')}"
    return f"{text}; {100 * figures['equal_share']:.4f} % of {figures['pixels']} pixels as on a CPU"
