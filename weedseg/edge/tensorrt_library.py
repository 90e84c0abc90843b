"""Find TensorRT and the GPU; both are imported when an engine is built or loaded, not before.

`tensorrt` is what Jetsons and servers have, `tensorrt_rtx` (PyPI: tensorrt-rtx) what PCs can
install. Their Python interfaces are alike. Memory of the GPU goes through NVIDIA's cuda-bindings.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from typing import Any

from weedseg.errors import RuntimeUnavailableError

_log = logging.getLogger(__name__)

LIBRARIES = ("tensorrt", "tensorrt_rtx")
"""Modules in the order in which they are tried."""
INSTALL_HINT = (
    "run: pip install 'weedseg[tensorrt]' (a Jetson has TensorRT in its JetPack: create the "
    "virtual environment with --system-site-packages)"
)
_OLDEST = (8, 6)


@dataclass(frozen=True, kw_only=True)
class Library:
    """TensorRT, whichever is there."""

    name: str
    """tensorrt or tensorrt_rtx."""
    version: str
    module: Any

    @property
    def title(self) -> str:
        """Name and version, as in 'tensorrt 10.3.0'."""
        return f"{self.name} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it builds without a GPU and compiles kernels where the engine runs."""
        return self.name == "tensorrt_rtx"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU of this machine."""

    name: str
    compute_capability: str
    """As in '8.7'."""


def import_library(name: str | None = None) -> Library:
    """Import TensorRT.

    Args:
        name: tensorrt or tensorrt_rtx; the first that is there by default.

    Raises:
        RuntimeUnavailableError: It is not installed, cannot be loaded or is too old.
    """
    reasons = []
    for candidate in (name,) if name else LIBRARIES:
        try:
            module = importlib.import_module(candidate)
        except (ImportError, OSError) as error:
            reasons.append(f"{candidate}: {error}")
            continue
        library = Library(name=candidate, version=str(module.__version__), module=module)
        if not library.is_rtx and _numbers(library.version) < _OLDEST:
            raise RuntimeUnavailableError(library.title, "TensorRT 8.6 or newer", "update JetPack")
        return library
    raise RuntimeUnavailableError(
        f"TensorRT cannot be imported ({'; '.join(reasons)})",
        " or ".join((name,) if name else LIBRARIES),
        INSTALL_HINT,
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


class Cuda:
    """The CUDA runtime; every failure is one sentence."""

    def __init__(self) -> None:
        """Import it.

        Raises:
            RuntimeUnavailableError: cuda-bindings is not installed or cannot be loaded.
        """
        try:
            self._runtime = importlib.import_module("cuda.bindings.runtime")
        except (ImportError, OSError) as error:
            raise RuntimeUnavailableError(
                f"CUDA cannot be reached ({error})", "the package cuda-bindings", INSTALL_HINT
            ) from error
        kinds = self._runtime.cudaMemcpyKind
        self.to_device = kinds.cudaMemcpyHostToDevice
        self.to_host = kinds.cudaMemcpyDeviceToHost

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime, e.g. ``cudaMalloc``; returns its only result.

        Raises:
            RuntimeUnavailableError: CUDA reports an error.
        """
        try:
            code, *results = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # no driver library at all
            raise _no_gpu(name, str(error)) from error
        if int(code):
            _, text = self._runtime.cudaGetErrorString(code)
            raise _no_gpu(name, text.decode(errors="replace"))
        return results[0] if results else None


def _no_gpu(function: str, reason: str) -> RuntimeUnavailableError:
    return RuntimeUnavailableError(
        f"{function} failed: {reason.splitlines()[0][:200]}",
        "a working NVIDIA GPU and driver",
        "check nvidia-smi, or run the .onnx model on the CPU",
    )


def find_gpu() -> Gpu:
    """Return the GPU that engines are built for and run on.

    Raises:
        RuntimeUnavailableError: There is none that works.
    """
    cuda = Cuda()
    if not cuda.call("cudaGetDeviceCount"):
        raise _no_gpu("cudaGetDeviceCount", "no GPU")
    found = cuda.call("cudaGetDeviceProperties", 0)
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    return Gpu(name=name.rstrip("\0"), compute_capability=f"{found.major}.{found.minor}")


def make_logger(library: Library) -> Any:
    """Return a TensorRT logger that keeps its errors in ``errors`` and passes all on to logging."""
    base = library.module.ILogger

    class Log(base):  # type: ignore[misc,valid-type]
        """Keeps the errors of one build or load."""

        def __init__(self) -> None:
            base.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT."""
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                self.errors.append(message.strip())
            _log.debug("%s: %s", severity, message)

    return Log()
