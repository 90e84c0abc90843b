"""The runtime for the field: numpy, OpenCV, Pillow and ONNX Runtime only.

    from weedseg.edge import Segmenter
    result = Segmenter("model.onnx").segment(image)  # uint8 (H, W, 3), RGB

ONNX Runtime is imported when the first model is loaded. A robot takes a `Stream`, whose results say
whether a machine may act on them, and a `Boom`, which turns them into nozzles.
"""

from weedseg.edge.boom import Boom, Decision, decide
from weedseg.edge.golden import SelfTest
from weedseg.edge.result import Result, Status
from weedseg.edge.segmenter import Segmenter, segment_photo
from weedseg.edge.stream import Frame, Stream
from weedseg.edge.watch import Limits

__all__ = [
    "Boom",
    "Decision",
    "Frame",
    "Limits",
    "Result",
    "Segmenter",
    "SelfTest",
    "Status",
    "Stream",
    "decide",
    "segment_photo",
]
