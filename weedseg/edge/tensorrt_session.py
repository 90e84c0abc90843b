"""Run an engine through TensorRT itself, without ONNX Runtime and without torch.

Shapes: N batch, T tile px.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from weedseg.edge.session import OUTPUTS, RuntimeInfo
from weedseg.edge.tensorrt_engine import EngineFile, check_fits
from weedseg.edge.tensorrt_library import Cuda, make_logger
from weedseg.errors import ModelFileError, RuntimeUnavailableError

Planes = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class EngineSession:
    """An engine that is loaded and ready to run; a `weedseg.edge.segmenter.RunTiles`."""

    def __init__(self, engine: EngineFile, require_provider: str | None = None) -> None:
        """Load an engine and reserve memory of the GPU for its largest batch.

        Args:
            engine: With its sidecar.
            require_provider: tensorrt; anything else fails, since an engine runs nowhere else.

        Raises:
            ModelFileError: It was built elsewhere, or TensorRT refuses it.
            RuntimeUnavailableError: There is no TensorRT or no GPU, or not enough memory.
        """
        if require_provider not in (None, "tensorrt"):
            raise RuntimeUnavailableError(
                f"{engine.name} on provider '{require_provider}'", "tensorrt", "give the .onnx file"
            )
        library, _ = check_fits(engine)
        self.info = RuntimeInfo(provider="tensorrt", threads=0, onnxruntime=library.title)
        self._name, self._cuda = engine.name, Cuda()
        self._log = make_logger(library)
        self._runtime = library.module.Runtime(self._log)  # must outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(engine.data)
        self._context = self._engine and self._engine.create_execution_context()
        if not self._context:
            raise ModelFileError(
                f"{engine.name}: TensorRT refuses it: {(self._log.errors or ['no reason'])[-1]}",
                "an engine that was built on this machine",
                "build it again with weedseg export MODEL.onnx --format tensorrt",
            )
        self._lock = threading.Lock()
        self._most, *self._tile = engine.key.shape
        self._input = self._input_name(library.module)
        self._reserve()

    def __call__(self, images: npt.NDArray[Any]) -> Planes:
        """Run a batch of tiles; more than the engine takes at once run one after the other.

        Args:
            images: Float32 (N, 3, T, T), RGB, 0-1.

        Returns:
            Class ids and confidence in per cent, each uint8 (N, T, T).

        Raises:
            RuntimeUnavailableError: The GPU fails.
        """
        planes = tuple(np.empty((len(images), *self._tile[1:]), np.uint8) for _ in OUTPUTS)
        with self._lock:
            for first in range(0, len(images), self._most):
                part = slice(first, first + self._most)
                self._run(np.ascontiguousarray(images[part]), [plane[part] for plane in planes])
        return planes[0], planes[1]

    def _run(self, images: npt.NDArray[Any], planes: list[npt.NDArray[Any]]) -> None:
        """Copy in, run, copy out; returns when all is done.

        Raises:
            RuntimeUnavailableError: The GPU fails.
        """
        copy, cuda = "cudaMemcpyAsync", self._cuda
        stream = self._stream
        cuda.call(copy, self._memory[0], images.ctypes.data, images.nbytes, cuda.to_device, stream)
        self._context.set_input_shape(self._input, images.shape)
        if not self._context.execute_async_v3(int(stream)):
            raise RuntimeUnavailableError(
                f"{self._name}: TensorRT failed: {(self._log.errors or ['no reason'])[-1]}",
                f"a batch of {len(images)} tiles to run",
                "use a smaller batch, or build the engine again",
            )
        for memory, plane in zip(self._memory[1:], planes):
            cuda.call(copy, plane.ctypes.data, memory, plane.nbytes, cuda.to_host, stream)
        cuda.call("cudaStreamSynchronize", stream)

    def _input_name(self, module: Any) -> str:
        """Return the name of the only input.

        Raises:
            ModelFileError: The engine has other inputs or outputs than weedseg models.
        """
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == module.TensorIOMode.INPUT]
        if len(inputs) != 1 or set(names) - set(inputs) != set(OUTPUTS):
            raise ModelFileError(
                f"{self._name}: inputs and outputs {sorted(names)}",
                "one input, mask and confidence",
                "build the engine from a model that weedseg exported",
            )
        return str(inputs[0])

    def _reserve(self) -> None:
        """Reserve memory for input and outputs, freed with this object."""
        call = self._cuda.call
        self._stream = call("cudaStreamCreate")
        num_pixels = self._most * self._tile[1] * self._tile[2]
        sizes = (12 * num_pixels, *(num_pixels for _ in OUTPUTS))
        self._memory: list[Any] = []
        weakref.finalize(self, _free, self._cuda, self._memory)
        for name, num_bytes in zip((self._input, *OUTPUTS), sizes):
            self._memory.append(call("cudaMalloc", num_bytes))
            self._context.set_tensor_address(name, int(self._memory[-1]))


def _free(cuda: Cuda, memory: list[Any]) -> None:
    for pointer in memory:
        cuda.call("cudaFree", pointer)
