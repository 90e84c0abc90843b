import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from weedseg.classes import ClassTable
from weedseg.edge import session as session_module
from weedseg.edge.segmenter import GRID_PX, Result, Segmenter, check_image, segment_photo
from weedseg.edge.session import PROVIDERS, physical_cores
from weedseg.errors import ImageError, ModelFileError, RuntimeUnavailableError, TileError
from weedseg.tiles import plan_tiles


@pytest.fixture(scope="module")
def segmenter(colour_model):
    return Segmenter(colour_model, threads=1)


SIZES = [(1, 1), (1, 300), (300, 1), (63, 65), (64, 64), (65, 64), (200, 131), (129, 340)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_size_gives_what_every_pixel_says(
    colour_model, expect_colours, field_photo, size, batch
):
    photo = field_photo(*size)
    result = Segmenter(colour_model, threads=1, batch=batch).segment(photo)
    class_map, confidence = expect_colours(photo)
    assert isinstance(result, Result)
    assert result.class_map.dtype == result.confidence.dtype == np.uint8
    np.testing.assert_array_equal(result.class_map, class_map)
    assert np.abs(result.confidence.astype(int) - confidence).max() <= 1
    assert result.coverage == {
        name: pytest.approx(float((class_map == i).mean()))
        for i, name in enumerate(("background", "crop", "weed"))
    }
    assert sum(result.coverage.values()) == pytest.approx(1)


def test_a_photo_that_is_a_view_is_fine(segmenter, field_photo):
    photo = field_photo(150, 170)
    expected = segmenter.segment(photo).class_map
    turned = segmenter.segment(photo[::-1, ::-1]).class_map
    np.testing.assert_array_equal(turned[::-1, ::-1], expected)


def test_temperature_changes_the_confidence_only(make_colour_model, expect_colours, field_photo):
    photo = field_photo(64, 64)
    expected = expect_colours(photo, temperature=4.0)
    result = Segmenter(make_colour_model(temperature=4.0), threads=1).segment(photo)
    np.testing.assert_array_equal(result.class_map, expected[0])
    assert np.abs(result.confidence.astype(int) - expected[1]).max() <= 1
    assert (
        result.confidence.mean() < Segmenter(make_colour_model()).segment(photo).confidence.mean()
    )


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 401), (260, 190)])
def test_scaled_photos_come_back_at_their_size(make_colour_model, size, scale):
    photo = np.zeros((*size, 3), np.uint8)
    photo[: size[0] // 2] = (0, 200, 0)
    photo[size[0] // 2 :] = (220, 0, 0)
    result = Segmenter(make_colour_model(scale=scale), threads=1).segment(photo)
    assert result.class_map.shape == result.confidence.shape == size
    if size[0] > 200:
        assert (result.class_map[: size[0] // 2 - 2] == 1).all()
        assert (result.class_map[size[0] // 2 + 2 :] == 2).all()


def test_many_classes(make_colour_model, field_photo):
    rows = [{"name": f"weed {i}", "role": "weed"} for i in range(12)]
    rows[0] = {"name": "soil", "role": "background"}
    segmenter = Segmenter(make_colour_model(classes=ClassTable.from_list(rows)), threads=1)
    result = segmenter.segment(field_photo(70, 70))
    assert list(result.coverage) == list(segmenter.classes.names)
    # Classes 3 to 11 have logit 0, class 0 has 2: the first of the largest wins.
    assert set(np.unique(result.class_map)) == {0, 1, 2}


class CountingNet:
    """Says for every tile which one it is."""

    def __init__(self):
        self.batches = []
        self.num = 0

    def __call__(self, images):
        self.batches.append(len(images))
        ids = np.arange(self.num, self.num + len(images)) % 3
        self.num += len(images)
        planes = np.broadcast_to(ids[:, None, None], (len(images), *images.shape[2:]))
        return planes.astype(np.uint8), np.full(planes.shape, 50, np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 7))
def test_the_nearest_tile_centre_wins(segmenter, height, width, batch):
    net = CountingNet()
    metadata = segmenter.metadata
    image = np.zeros((height, width, 3), np.uint8)
    result = segment_photo(image, metadata, net, batch)
    plan = plan_tiles((height, width), metadata.tile_px, metadata.overlap_px, grid_px=GRID_PX)
    assert net.num == len(plan.placements)
    assert max(net.batches) <= batch
    for number, place in enumerate(plan.placements):
        kept = result.class_map[
            place.keep_top : place.keep_bottom, place.keep_left : place.keep_right
        ]
        assert (kept == number % 3).all()


def test_ids_beyond_the_table_are_refused(segmenter):
    def odd(images):
        planes = np.full((len(images), *images.shape[2:]), 7, np.uint8)
        return planes, planes

    with pytest.raises(ModelFileError, match="class id 7"):
        segment_photo(np.zeros((9, 9, 3), np.uint8), segmenter.metadata, odd)


@pytest.mark.parametrize(
    ("image", "error", "sentence"),
    [
        (None, ImageError, "type NoneType"),
        ([[1]], ImageError, "type list"),
        (np.zeros((4, 4), np.uint8), ImageError, r"uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ImageError, r"\(4, 4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), ImageError, "float32"),
        (np.zeros((4, 4, 3), np.uint16), ImageError, "uint16"),
        (np.zeros((0, 0, 3), np.uint8), TileError, "0x0 px"),
        (np.zeros((0, 5, 3), np.uint8), TileError, "5x0 px"),
    ],
)
def test_what_is_no_photo_is_refused(segmenter, image, error, sentence):
    with pytest.raises(error, match=sentence):
        segmenter.segment(image)
    with pytest.raises(error, match=sentence):
        check_image(image)


@pytest.mark.parametrize("batch", [0, -1, 257])
def test_odd_batches_are_refused(colour_model, batch):
    with pytest.raises(TileError, match="batch"):
        Segmenter(colour_model, batch=batch)


def test_what_runs_is_told(segmenter):
    assert segmenter.runtime.provider == "cpu"
    assert segmenter.runtime.threads == 1
    assert physical_cores() >= 1


def test_a_required_provider_that_is_not_there_is_an_error(colour_model):
    assert (
        Segmenter(colour_model, require_provider="CPUExecutionProvider").runtime.provider == "cpu"
    )
    with pytest.raises(RuntimeUnavailableError, match="provider 'quantum' is not in this"):
        Segmenter(colour_model, require_provider="quantum")


class FallingBack:
    """An ONNX Runtime that lists a GPU and then silently runs on the CPU, as the real one does."""

    def __init__(self, real):
        self._real = real
        self.tried = []

    def __getattr__(self, name):
        return getattr(self._real, name)

    def get_available_providers(self):
        return list(PROVIDERS.values())

    def InferenceSession(self, data, options, providers):
        self.tried.append(providers[0])
        return self._real.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def test_a_silent_fallback_is_noticed(colour_model, monkeypatch):
    import onnxruntime

    fake = FallingBack(onnxruntime)
    monkeypatch.setattr(session_module, "import_onnxruntime", lambda: fake)
    assert Segmenter(colour_model).runtime.provider == "cpu"
    assert fake.tried == list(PROVIDERS.values())
    with pytest.raises(RuntimeUnavailableError, match="cuda does not start"):
        Segmenter(colour_model, require_provider="cuda")


def test_a_missing_runtime_is_a_sentence_with_the_command(colour_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'weedseg\[cpu\]'"):
        Segmenter(colour_model)


def rewired(data, edit):
    model = onnx.load_from_string(data)
    edit(model.graph)
    return model.SerializeToString()


def no_confidence(graph):
    del graph.output[1]


def other_side(graph):
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 32


def more_inputs(graph):
    graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def unknown_operator(graph):
    graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize("edit", [no_confidence, other_side, more_inputs, unknown_operator])
def test_models_of_another_form_are_refused(colour_model, edit):
    with pytest.raises(ModelFileError):
        Segmenter(rewired(colour_model, edit))


def test_a_failing_run_is_a_sentence(segmenter):
    with pytest.raises(RuntimeUnavailableError, match="ONNX Runtime failed"):
        segmenter._session(np.zeros((1, 3, 8, 8), np.float32))


def test_importing_the_edge_loads_nothing_heavy():
    code = (
        "import sys, json; before = set(sys.modules); import weedseg.edge, weedseg.edge.predict; "
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(run.stdout))
    heavy = {"torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "typer", "click"}
    heavy |= {"rich", "sklearn", "scipy", "matplotlib", "fastapi", "safetensors"}
    assert not loaded & heavy
    assert "cv2" in loaded
