"""A GPU of host memory: TensorRT's runtime and CUDA as far as weedseg calls them.

ONNX Runtime does the arithmetic. What is tested with it is the traffic: pointers, sizes, batches.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import onnxruntime

from weedseg.edge.tensorrt_library import Gpu

GPU = Gpu(name="Fake", compute_capability="8.6")
MODE = SimpleNamespace(INPUT="input", OUTPUT="output")
NAMES = ("images", "mask", "confidence")


class Cuda:
    """Memory is that of the host; every block is exactly as large as was asked for."""

    to_device, to_host = "to device", "to host"
    live = 0

    def __init__(self):
        self.blocks = {}

    def call(self, name, *arguments):
        return getattr(self, name)(*arguments)

    def cudaStreamCreate(self):
        return 7

    def cudaStreamSynchronize(self, stream):
        assert stream == 7

    def cudaMalloc(self, num_bytes):
        block = ctypes.create_string_buffer(num_bytes)
        self.blocks[ctypes.addressof(block)] = block
        type(self).live += 1
        return ctypes.addressof(block)

    def cudaFree(self, address):
        del self.blocks[address]
        type(self).live -= 1

    def cudaMemcpyAsync(self, target, source, num_bytes, kind, stream):
        block = self.blocks[target if kind == self.to_device else source]
        assert num_bytes <= len(block)
        assert stream == 7
        ctypes.memmove(target, source, num_bytes)


class Context:
    """Runs a model on the memory that it is given."""

    def __init__(self, model):
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._address = {}

    def set_tensor_address(self, name, address):
        self._address[name] = address

    def set_input_shape(self, name, shape):
        self.shape = tuple(shape)

    def execute_async_v3(self, stream):
        num_bytes = 4 * int(np.prod(self.shape))
        data = ctypes.string_at(self._address["images"], num_bytes)
        images = np.frombuffer(data, np.float32).reshape(self.shape)
        for name, plane in zip(NAMES[1:], self._session.run(list(NAMES[1:]), {"images": images})):
            ctypes.memmove(self._address[name], plane.ctypes.data, plane.nbytes)
        return True


def library_module(real, model):
    """Return TensorRT's module with a runtime that runs a model, whatever engine it is given."""
    engine = SimpleNamespace(
        create_execution_context=lambda: Context(model),
        num_io_tensors=len(NAMES),
        get_tensor_name=lambda i: NAMES[i],
        get_tensor_mode=lambda name: "input" if name == "images" else "output",
    )
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda data: engine)
    return SimpleNamespace(
        **{name: getattr(real, name) for name in dir(real) if not name.startswith("_")}
        | {"Runtime": lambda log: runtime, "TensorIOMode": MODE, "__version__": real.__version__}
    )
