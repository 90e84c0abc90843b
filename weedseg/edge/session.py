"""Open ONNX Runtime on checked bytes, and say what was really chosen.

Providers are tried from the fastest to the CPU. `get_available_providers` names what was compiled
in, not what works, so a provider counts only once a session runs on it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.edge.model_file import ModelFile
from weedseg.errors import ModelFileError, RuntimeUnavailableError

_log = logging.getLogger(__name__)

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Short name -> ONNX Runtime's name, fastest first."""
FLOAT_INPUT, BYTES_INPUT = "images", "images_u8"
OUTPUTS = ("mask", "confidence")
INSTALL_HINT = (
    "run: pip install 'weedseg[cpu]' (with an NVIDIA GPU 'weedseg[gpu]', "
    "on a Jetson NVIDIA's own onnxruntime-gpu wheel)"
)


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """What a session really runs on."""

    provider: str
    """tensorrt, cuda or cpu."""
    threads: int
    """Threads within one operator on the CPU."""
    onnxruntime: str
    """Version of ONNX Runtime; of an engine, name and version of TensorRT."""


class Session:
    """A model that is loaded and ready to run."""

    def __init__(
        self, model: ModelFile, threads: int = 0, require_provider: str | None = None
    ) -> None:
        """Load a model.

        Args:
            model: A file that passed its checks.
            threads: CPU threads within one operator; 0 takes one per physical core at hand.
            require_provider: tensorrt, cuda or cpu: fail instead of falling back.

        Raises:
            ModelFileError: ONNX Runtime refuses the model, or its inputs and outputs are others.
            RuntimeUnavailableError: ONNX Runtime or the required provider is not there.
        """
        ort = import_onnxruntime()
        wanted = _wanted(ort, require_provider)
        self._errors = _runtime_errors(ort)
        self._name = model.name
        num = threads if threads > 0 else physical_cores()
        self._session, provider = _create(ort, model, num, wanted)
        self.info = RuntimeInfo(provider=provider, threads=num, onnxruntime=ort.__version__)
        self._input = _check_signature(self._session, model)
        device = "cpu" if provider == "cpu" else "cuda"
        self._bound = None if device == "cpu" else BoundRuns(ort, self._session, device)
        _log.debug("%s runs on %s with %d threads", model.name, provider, num)

    @property
    def takes_bytes(self) -> bool:
        """Whether the network wants uint8 (N, T, T, 3) instead of floats."""
        return self._input == BYTES_INPUT

    def __call__(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Run a batch of tiles.

        Args:
            images: Float32 (N, 3, T, T), RGB, 0-1; uint8 (N, T, T, 3) where `takes_bytes`.

        Returns:
            Class ids and confidence in per cent, each uint8 (N, T, T).

        Raises:
            RuntimeUnavailableError: ONNX Runtime fails, for instance for lack of memory.
        """
        try:
            if self.takes_bytes:  # its batch is always one
                return _joined([self._run(images[i : i + 1]) for i in range(len(images))])
            return self._run(images)
        except self._errors as error:
            raise RuntimeUnavailableError(
                f"{self._name}: ONNX Runtime failed: {_first_line(error)}",
                f"a batch of {len(images)} tiles to run",
                "use a smaller batch or another provider",
            ) from error

    def _run(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if self._bound is not None:
            return self._bound.run(self._input, images)
        mask, confidence = self._session.run(list(OUTPUTS), {self._input: images})
        return mask, confidence


class BoundRuns:
    """Runs with input and outputs in memory of the device that is reserved once per batch size.

    On a CPU this gains nothing (measured: 87 against 85 ms a tile), so only GPUs use it.
    """

    def __init__(self, ort: Any, session: Any, device: str) -> None:
        """Keep what is needed; memory is reserved by the first run.

        Args:
            ort: The module onnxruntime.
            session: Its session.
            device: cuda, or cpu.
        """
        self._ort, self._session, self._device = ort, session, device
        self._shape: tuple[int, ...] = ()

    def run(self, name: str, images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Run a batch of tiles; the arrays that come back belong to the caller.

        Args:
            name: Of the input.
            images: What the network wants.
        """
        images = np.ascontiguousarray(images)
        if images.shape != self._shape:
            self._reserve(name, images)
        self._input.update_inplace(images)
        self._session.run_with_iobinding(self._binding)
        mask, confidence = (np.array(output.numpy()) for output in self._outputs)
        return mask, confidence

    def _reserve(self, name: str, images: npt.NDArray[Any]) -> None:
        value = self._ort.OrtValue
        side = images.shape[2]  # of (N, 3, T, T) and of (N, T, T, 3)
        self._input = value.ortvalue_from_numpy(images, self._device, 0)
        self._outputs = [
            value.ortvalue_from_shape_and_type([len(images), side, side], np.uint8, self._device, 0)
            for _ in OUTPUTS
        ]
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(name, self._input)
        for output, place in zip(OUTPUTS, self._outputs):
            self._binding.bind_ortvalue_output(output, place)
        self._shape = images.shape


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises:
        RuntimeUnavailableError: It is not installed or cannot be loaded.
    """
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        raise RuntimeUnavailableError(
            f"ONNX Runtime cannot be imported ({error})",
            "the package onnxruntime or onnxruntime-gpu",
            INSTALL_HINT,
        ) from error
    return onnxruntime


@lru_cache(maxsize=1)
def physical_cores() -> int:
    """Count the physical cores that this process may use; >= 1.

    Hyper-threads of one core count once, and a container's CPU quota is kept.
    """
    usable: Iterable[int] = range(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
    cores = set()
    for cpu in usable:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(topology.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            cores.add(str(cpu))
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """Return how many CPUs a container's quota amounts to."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, round(int(limit) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return os.cpu_count() or 1


def _wanted(ort: Any, require_provider: str | None) -> list[str]:
    """Return the short names of the providers to try.

    Raises:
        RuntimeUnavailableError: The required one is unknown or not compiled in.
    """
    available = set(ort.get_available_providers())
    usable = [short for short, name in PROVIDERS.items() if name in available]
    if require_provider is None:
        return usable
    short = require_provider.lower().removesuffix("executionprovider")
    if short not in usable:
        raise RuntimeUnavailableError(
            f"provider '{require_provider}' is not in this ONNX Runtime",
            f"one of {', '.join(usable)}",
            "install the GPU build (weedseg[gpu]) or require another provider",
        )
    return [short]


def _create(ort: Any, model: ModelFile, threads: int, wanted: list[str]) -> tuple[Any, str]:
    """Open a session on the first provider that works.

    Raises:
        ModelFileError: No provider takes the model.
        RuntimeUnavailableError: The required provider does not start.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    failure = "it fell back to the CPU"
    for short in wanted:
        names = list(dict.fromkeys([PROVIDERS[short], PROVIDERS["cpu"]]))
        try:
            session = ort.InferenceSession(model.data, options, providers=names)
        except _runtime_errors(ort) as error:
            failure = _first_line(error)
            if short == "cpu":
                raise ModelFileError(
                    f"{model.name}: ONNX Runtime {ort.__version__} refuses it: {failure}",
                    "a model that it can run",
                    "export it again or update onnxruntime",
                ) from error
            continue
        if session.get_providers()[:1] == [PROVIDERS[short]]:
            session.disable_fallback()  # a GPU that fails later is an error, not a slow CPU
            return session, short
    raise RuntimeUnavailableError(
        f"provider {' or '.join(wanted) or 'none'} does not start: {failure}",
        "its driver and libraries",
        "see weedseg doctor, or do not require it",
    )


def _joined(
    runs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    masks, confidences = zip(*runs)
    return np.concatenate(masks), np.concatenate(confidences)


def _check_signature(session: Any, model: ModelFile) -> str:
    """Compare inputs and outputs with what weedseg models have.

    Returns:
        Name of the input.

    Raises:
        ModelFileError: They are others.
    """
    side = model.metadata.tile_px
    inputs = {i.name: (i.type, list(i.shape[1:])) for i in session.get_inputs()}
    outputs = {o.name: (o.type, len(o.shape)) for o in session.get_outputs()}
    forms: tuple[dict[str, Any], ...] = (
        {FLOAT_INPUT: ("tensor(float)", [3, side, side])},
        {BYTES_INPUT: ("tensor(uint8)", [side, side, 3])},
    )
    if inputs not in forms or outputs != dict.fromkeys(OUTPUTS, ("tensor(uint8)", 3)):
        raise ModelFileError(
            f"{model.name}: inputs {sorted(inputs)}, outputs {sorted(outputs)} of other types",
            f"images float32 [batch, 3, {side}, {side}] to mask and confidence uint8",
            "export it again with weedseg export",
        )
    return FLOAT_INPUT if FLOAT_INPUT in inputs else BYTES_INPUT


def _runtime_errors(ort: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions that ONNX Runtime raises; they share no base class of its own."""
    state = ort.capi.onnxruntime_pybind11_state
    own = [e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
