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
    """Version of ONNX Runtime."""


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
        _check_signature(self._session, model)
        _log.debug("%s runs on %s with %d threads", model.name, provider, num)

    def run(self, images: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Run a batch of tiles.

        Args:
            images: (N, 3, T, T), RGB, 0-1.

        Returns:
            Class ids and confidence in per cent, each uint8 (N, T, T).

        Raises:
            RuntimeUnavailableError: ONNX Runtime fails, for instance for lack of memory.
        """
        try:
            mask, confidence = self._session.run(["mask", "confidence"], {"images": images})
        except self._errors as error:
            raise RuntimeUnavailableError(
                f"{self._name}: ONNX Runtime failed: {_first_line(error)}",
                f"a batch of {len(images)} tiles to run",
                "use a smaller batch or another provider",
            ) from error
        return mask, confidence


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


def _check_signature(session: Any, model: ModelFile) -> None:
    """Compare inputs and outputs with what weedseg models have.

    Raises:
        ModelFileError: They are others.
    """
    side = model.metadata.tile_px
    inputs = {i.name: (i.type, list(i.shape[1:])) for i in session.get_inputs()}
    outputs = {o.name: (o.type, len(o.shape)) for o in session.get_outputs()}
    expected = {"images": ("tensor(float)", [3, side, side])}
    planes = {"mask": ("tensor(uint8)", 3), "confidence": ("tensor(uint8)", 3)}
    if inputs != expected or outputs != planes:
        raise ModelFileError(
            f"{model.name}: inputs {sorted(inputs)}, outputs {sorted(outputs)} of other types",
            f"images float32 [batch, 3, {side}, {side}] to mask and confidence uint8",
            "export it again with weedseg export",
        )


def _runtime_errors(ort: Any) -> tuple[type[Exception], ...]:
    """Return the exceptions that ONNX Runtime raises; they share no base class of its own."""
    state = ort.capi.onnxruntime_pybind11_state
    own = [e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
