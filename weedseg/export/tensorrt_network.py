"""Model bytes to engine bytes, the same for tensorrt 8.6, 10 and 11 and for tensorrt_rtx.

What differs between them is asked of the module, never of its version: 8.6 is told the precision by
flags of the builder, later versions read it from the typed network, 11 has no such flags.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from weedseg.edge.tensorrt_engine import EngineKey
from weedseg.edge.tensorrt_library import Library, make_logger
from weedseg.errors import ConfigError, ExportError
from weedseg.imaging import write_bytes

FLAGS = {"fp16": ("FP16",), "int8-trt": ("INT8",)}
"""Precision -> flags of the builder, where a version has them and does not type its networks."""

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with a phase, the number of its steps that are done, and how many it has."""


def ignore_progress(phase: str, step: int, num_steps: int) -> None:
    """A `Report` that says nothing."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be built."""

    name: str
    """What messages call the model."""
    data: bytes
    """ONNX."""
    key: EngineKey
    timing: Path | None
    """Timing cache; None where the library has none that is of use."""


def build_plan(library: Library, plan: Plan, report: Report) -> bytes:
    """Build an engine.

    Args:
        library: TensorRT.
        plan: What to build.
        report: Gets the progress, where the library tells it.

    Returns:
        The serialised engine.

    Raises:
        ConfigError: The library cannot build for this compute capability.
        ExportError: It cannot read the model or build the engine.
    """
    module, log = library.module, make_logger(library)
    with warnings.catch_warnings():
        # What one version calls deprecated is all that another one has.
        warnings.simplefilter("ignore", DeprecationWarning)
        builder = module.Builder(log)
        strong, flags = _network_flags(module)
        network = builder.create_network(flags)
        parser = module.OnnxParser(network, log)
        if not parser.parse(plan.data):
            raise _unreadable(library, plan, parser)
        config = builder.create_builder_config()
        _set_precision(module, config, plan.key.precision, strong)
        if library.is_rtx:
            _set_compute_capability(module, config, plan.key)
        _set_shapes(builder, network, config, plan)
        timing = _load_timing(config, plan.timing)
        monitor = _watch(module, config, report)
        engine = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.stopped:
            raise KeyboardInterrupt
        if engine is None:
            raise ExportError(
                f"{library.title} cannot build {plan.name}: {_last(log.errors)}",
                "an engine",
                "free memory of the GPU, or take another precision or version of TensorRT",
            )
        if timing is not None and plan.timing is not None:
            write_bytes(plan.timing, bytes(timing.serialize()))
    return bytes(engine)


def _network_flags(module: Any) -> tuple[bool, int]:
    """Return whether networks can be typed, and the flags for such a one.

    From TensorRT 11 on all are, without a flag; 8.6 has none and must be told of the batch.
    """
    known = module.NetworkDefinitionCreationFlag
    typed = getattr(known, "STRONGLY_TYPED", None)
    if typed is not None:
        return True, 1 << int(typed)
    if hasattr(module.BuilderFlag, "FP16"):
        return False, 1 << int(known.EXPLICIT_BATCH)
    return True, 0


def _set_precision(module: Any, config: Any, precision: str, strong: bool) -> None:
    """Allow what the model file is typed as, and nothing less exact."""
    flags = module.BuilderFlag
    if hasattr(flags, "TF32"):  # rounds fp32 to 10 bits, which fails the parity of fp32
        config.clear_flag(flags.TF32)
    for name in () if strong else FLAGS.get(precision, ()):
        config.set_flag(getattr(flags, name))


def _set_compute_capability(module: Any, config: Any, key: EngineKey) -> None:
    """Build for the GPU that is here, or for one that is not.

    Raises:
        ConfigError: The library does not know its compute capability.
    """
    kinds = module.ComputeCapability
    known = {f"{n[2:-1]}.{n[-1]}": getattr(kinds, n) for n in dir(kinds) if n.startswith("SM")}
    chosen = kinds.CURRENT if key.gpu else known.get(key.compute_capability)
    if chosen is None:
        raise ConfigError(
            f"compute capability '{key.compute_capability}'",
            ", ".join(sorted(known, key=float)),
            "look it up at developer.nvidia.com/cuda-gpus",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(chosen, 0)


def _set_shapes(builder: Any, network: Any, config: Any, plan: Plan) -> None:
    """Allow batches from one tile to the largest.

    Raises:
        ExportError: The model has another input, or a batch of its own.
    """
    images = network.get_input(0)
    most, *tile = plan.key.shape
    if network.num_inputs != 1 or list(images.shape) != [-1, *tile]:
        raise ExportError(
            f"{plan.name}: input '{images.name}' {tuple(images.shape)}",
            f"one input ({', '.join(['batch', *map(str, tile)])})",
            "give a model.onnx, model.fp16.onnx or model.int8-trt.onnx",
        )
    profile = builder.create_optimization_profile()
    profile.set_shape(images.name, (1, *tile), (1, *tile), (most, *tile))
    config.add_optimization_profile(profile)


def _load_timing(config: Any, path: Path | None) -> Any:
    """Give the builder what was measured before; one of another machine is not taken."""
    if path is None:
        return None
    for data in (path.read_bytes() if path.is_file() else b"", b""):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _watch(module: Any, config: Any, report: Report) -> Any:
    """Attach a monitor that reports progress; returns it, None where there is no such thing."""
    base: Any = getattr(module, "IProgressMonitor", None)
    if base is None or not hasattr(config, "progress_monitor"):
        return None

    class Monitor(base):  # type: ignore[misc]
        """TensorRT calls it from several threads; an exception must not reach TensorRT."""

        def __init__(self) -> None:
            base.__init__(self)
            self.stopped = False
            self.num_steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            """A phase begins."""
            self.num_steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            """A step is done; False stops the build."""
            self._report(phase_name, step + 1)
            return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            """A phase ends, perhaps before all its steps."""
            num_steps = self.num_steps.pop(phase_name, 1)
            self._report(phase_name, num_steps, num_steps)

        def _report(self, phase: str, step: int, num_steps: int | None = None) -> None:
            try:
                report(phase, step, num_steps or self.num_steps.get(phase, 1))
            except KeyboardInterrupt:
                self.stopped = True

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def _unreadable(library: Library, plan: Plan, parser: Any) -> ExportError:
    """Word why TensorRT does not read a model."""
    reasons = [_describe(parser.get_error(number)) for number in range(parser.num_errors)]
    return ExportError(
        f"{library.title} cannot read {plan.name}: {'; '.join(reasons[:3]) or 'no reason'}",
        "operators and types that it knows",
        "export the model again with this version of weedseg, or update TensorRT",
    )


def _describe(error: Any) -> str:
    """Word an error of the parser; 8.6 does not name the operator."""
    node = getattr(error, "node_name", error.node)()
    operator = getattr(error, "node_operator", lambda: "operator")()
    return f"{operator} '{node}': {_last([error.desc()])}"


def _last(errors: list[str]) -> str:
    """Return the first line of the last error."""
    return (errors[-1].strip().splitlines() or [""])[0][:300] if errors else "no reason"
