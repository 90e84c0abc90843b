"""The variant from bytes, and runs whose memory is reserved once: both say what the others say."""

import numpy as np
import onnx
import onnxruntime
import pytest

from weedseg.edge import Segmenter
from weedseg.edge.session import BoundRuns
from weedseg.errors import RuntimeUnavailableError
from weedseg.export.onnx_graph import describe
from weedseg.export.u8 import take_bytes

SIZES = [(64, 64), (30, 100), (150, 131)]


@pytest.fixture(scope="module")
def bytes_model(colour_model):
    model = onnx.load_from_string(colour_model)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    found = take_bytes(model)
    describe(found, properties)
    return found.SerializeToString()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
def test_bytes_give_the_same_class_map(bytes_model, colour_model, field_photo, size, batch):
    photo = field_photo(*size)
    found = Segmenter(bytes_model, batch=batch).segment(photo)
    expected = Segmenter(colour_model).segment(photo)
    np.testing.assert_array_equal(found.class_map, expected.class_map)
    assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 1


def test_the_input_is_what_the_conventions_say(bytes_model):
    (value,) = onnxruntime.InferenceSession(bytes_model).get_inputs()
    assert (value.name, value.type, value.shape) == ("images_u8", "tensor(uint8)", [1, 64, 64, 3])


def test_bytes_of_another_size_are_a_sentence(bytes_model):
    segmenter = Segmenter(bytes_model)
    assert segmenter.run_tiles.takes_bytes
    with pytest.raises(RuntimeUnavailableError, match="ONNX Runtime failed"):
        segmenter.run_tiles(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", ["bytes_model", "colour_model"])
def test_reserved_memory_changes_nothing(kind, field_photo, request):
    """The way of GPUs, on a CPU; results of one frame must outlive the next."""
    data = request.getfixturevalue(kind)
    plain, bound = Segmenter(data, batch=2), Segmenter(data, batch=2)
    session = bound.run_tiles
    session._bound = BoundRuns(onnxruntime, session._session, "cpu")
    photos = [field_photo(*size, seed) for seed, size in enumerate([*SIZES, *SIZES])]
    found = [bound.segment(photo) for photo in photos]
    for photo, result in zip(photos, found):
        expected = plain.segment(photo)
        np.testing.assert_array_equal(result.class_map, expected.class_map)
        np.testing.assert_array_equal(result.confidence, expected.confidence)
    tile = np.zeros((1, 64, 64, 3), np.uint8)
    if kind == "bytes_model":
        first = session(tile)
        before = [part.copy() for part in first]
        session(tile + 255)
        assert all(np.array_equal(a, b) for a, b in zip(first, before))
