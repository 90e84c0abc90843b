"""The runtime for the field: numpy, OpenCV, Pillow and ONNX Runtime only.

    from weedseg.edge import Segmenter
    result = Segmenter("model.onnx").segment(image)  # uint8 (H, W, 3), RGB

ONNX Runtime is imported when the first model is loaded.
"""

from weedseg.edge.segmenter import Result, Segmenter, segment_photo

__all__ = ["Result", "Segmenter", "segment_photo"]
