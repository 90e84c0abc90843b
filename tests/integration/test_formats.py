"""The variants of a model file: each passes its gate or is not written."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from weedseg.classes import DEFAULT_CLASSES
from weedseg.cli.export import FILES, FORMATS, _parse, _sentence
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, ModelFileError, ParityError
from weedseg.export import gis, half, int8, photo_sizes, quantise
from weedseg.export.agreement import Tolerance
from weedseg.export.details import ModelDetails
from weedseg.export.int8 import Int8Material, export_int8
from weedseg.export.onnx_graph import logits_graph
from weedseg.export.quantise import TENSORRT

DETAILS = ModelDetails(tile_px=64, overlap_px=16, scale=0.5, temperature=2.0, mm_per_px=(0.8, 1.2))


class Small(nn.Module):
    """Green is crop, red is weed, by way of a few wide convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 64, 3, padding=1)
        self.middle = nn.Conv2d(64, 64, 3, padding=1)
        self.last = nn.Conv2d(64, 3, 1)

    def forward(self, images):
        colours = torch.tensor([[0, 0, 0], [-9.0, 18, -9], [18, -9, -9]])[:, :, None, None]
        inner = torch.relu(self.middle(torch.relu(self.first(images))))
        bias = torch.tensor([2.0, 0, 0])[:, None, None]
        return nn.functional.conv2d(images, colours) + bias + 0.2 * self.last(inner)


def photo(height, width, seed):
    rng = np.random.default_rng(seed)
    colours = np.array([(90, 80, 80), (40, 190, 30), (210, 30, 40)])
    ids = np.kron(rng.integers(0, 3, (-(-height // 15), -(-width // 15))), np.ones((15, 15), int))
    noise = rng.integers(-9, 10, (height, width, 3))
    image = np.clip(colours[ids[:height, :width]] + noise, 0, 255).astype(np.uint8)
    return image, ids[:height, :width].astype(np.uint8)


LABELLED = [photo(151, 203, 1), photo(90, 64, 2)]
PHOTOS = [image for image, _ in LABELLED]
MATERIAL = Int8Material(calibration=PHOTOS, labelled=LABELLED)


def own_metadata(path):
    entries = {p.key: p.value for p in onnx.load(path).metadata_props}
    return json.loads(entries["weedseg"]), entries


@pytest.fixture(scope="module")
def net():
    return Small().eval()


@pytest.fixture(scope="module")
def twin(net):
    return logits_graph(net, DETAILS.tile_px)


@pytest.fixture(autouse=True)
def exported_once(twin, monkeypatch):
    """Spare the tests torch's export, which `test_export.py` tests."""
    for module in (half, gis, int8):
        monkeypatch.setattr(module, "logits_graph", lambda net, tile_px: twin)
    monkeypatch.setattr(photo_sizes, "MAX_BIG_TILES", (3, 3))


def test_half_is_typed_and_tells_how_close_it_is(net, tmp_path):
    path = tmp_path / "model.fp16.onnx"
    figures = half.export_half(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path)
    assert figures["equal_share"] >= 0.999
    assert (figures["photos"], figures["weed_photos"], len(figures["sizes"])) == (2, 2, 8)
    own, _ = own_metadata(path)
    assert (own["quantisation"], own["parity"]) == ("fp16", figures)
    assert "forced" not in own
    kinds = {i.data_type for i in onnx.load(path).graph.initializer if "weight" in i.name}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert Segmenter(path).self_test().passed
    assert (tmp_path / "golden" / "out.fp16.png").is_file()


def test_half_that_differs_is_refused_or_recorded(net, tmp_path, monkeypatch):
    monkeypatch.setattr(half, "TOLERANCE", Tolerance(equal_share=1.1))
    path = tmp_path / "model.fp16.onnx"
    with pytest.raises(ParityError):
        half.export_half(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path)
    assert not list(tmp_path.iterdir())
    half.export_half(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path, force=True)
    assert "of pixels equal" in own_metadata(path)[0]["forced"]


def test_gis_gives_probabilities(net, tmp_path, monkeypatch):
    path = tmp_path / "model.gis.onnx"
    figures = gis.export_gis(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path)
    assert figures["max_dprob"] <= 1e-3
    assert figures["weed_tiles"] > 0
    assert len(figures["sizes"]) == 6
    model = onnx.load(path)
    (output,) = model.graph.output
    shape = [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim]
    assert (output.name, shape) == ("probs", ["batch", 3, 64, 64])
    own, entries = own_metadata(path)
    assert own["parity"] == figures
    deepness = {
        "model_type": '"Segmentor"',
        "class_names": '{"0": "background", "1": "crop", "2": "weed"}',
        "resolution": "0.2",
        "tile_size": "64",
        "tiles_size": "64",
        "tiles_overlap": "25",
        "standardization_mean": "[0.0, 0.0, 0.0]",
        "standardization_std": "[1.0, 1.0, 1.0]",
    }
    assert deepness.items() <= entries.items()
    with pytest.raises(ModelFileError, match="outputs \\['probs'\\]"):
        Segmenter(path)
    path.unlink()
    monkeypatch.setattr(gis, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(ParityError, match="probabilities differ"):
        gis.export_gis(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path)
    assert not path.exists()
    gis.export_gis(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path, force=True)
    assert own_metadata(path)[0]["forced"]


@pytest.fixture
def speeds(monkeypatch):
    """Say how fast int8 is; the clock of a busy machine is no test."""
    said = {"time_share": 0.5, "ms": 1.0, "ms_fp32": 2.0, "threads": 1}
    monkeypatch.setattr(int8, "compare_speed", lambda *args: dict(said))
    return said


def test_int8_passes_its_gate(net, tmp_path, speeds):
    path = tmp_path / "model.int8.onnx"
    figures = export_int8(net, DEFAULT_CLASSES, DETAILS, MATERIAL, path)
    assert figures["miou"] >= 0.99 * figures["miou_fp32"]
    assert figures["miou_fp32"] > 0.9
    assert (figures["weed_photos"], len(figures["sizes"])) == (2, 6)
    assert figures["min_equal_share"] > 0.9
    assert figures["bytes"] < 2 * path.stat().st_size
    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    assert "QuantizeLinear" in kinds
    scales = {i.name: i for i in model.graph.initializer}
    assert any(i.data_type == onnx.TensorProto.INT8 for i in scales.values())
    assert any(name.endswith("_scale") and list(i.dims) == [64] for name, i in scales.items())
    own, _ = own_metadata(path)
    assert (own["quantisation"], own["parity"]) == ("int8", figures)
    assert Segmenter(path).self_test().passed


def test_int8_for_tensorrt_is_symmetric_and_untimed(net, tmp_path, speeds):
    speeds["time_share"] = 9.9  # of a CPU, which is not its target
    path = tmp_path / "model.int8-trt.onnx"
    figures = export_int8(net, DEFAULT_CLASSES, DETAILS, replace(MATERIAL, flavour=TENSORRT), path)
    assert figures["miou"] >= 0.99 * figures["miou_fp32"]
    assert figures["speed"].startswith("not measured")
    assert "time_share" not in figures
    assert "speed not measured" in _sentence("onnx-int8-trt", figures)
    graph = onnx.load(path).graph
    values = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    steps = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    zeros = [values[node.input[2]] for node in steps]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.int8)}
    assert not any(zero.any() for zero in zeros)
    assert any(values[node.input[1]].shape == (64,) for node in steps)  # one scale per channel
    quantised = {name for node in steps for name in node.output}
    biases = [n.input[2] for n in graph.node if n.op_type == "Conv" and len(n.input) > 2]
    assert biases
    assert all(values[name].dtype == np.float32 for name in biases)
    assert any(n.input[0] in quantised for n in graph.node if n.op_type == "Conv")
    own, _ = own_metadata(path)
    assert (own["quantisation"], own["parity"]) == ("int8-trt", figures)
    assert Segmenter(path).self_test().passed
    assert (tmp_path / "golden" / "out.int8-trt.png").is_file()


def test_int8_that_is_slower_is_refused_or_recorded(net, tmp_path, speeds):
    speeds["time_share"] = 1.3
    path = tmp_path / "model.int8.onnx"
    with pytest.raises(ParityError, match=r"takes 1\.30 of the time of fp32"):
        export_int8(net, DEFAULT_CLASSES, DETAILS, MATERIAL, path)
    assert not list(tmp_path.iterdir())
    export_int8(net, DEFAULT_CLASSES, DETAILS, MATERIAL, path, force=True)
    assert "1.30 of the time" in own_metadata(path)[0]["forced"]


def test_parts_that_lose_accuracy_stay_in_fp32(net, tmp_path, speeds, monkeypatch):
    faults = int8._faults
    monkeypatch.setattr(quantise, "NUM_PARTS", 3)
    monkeypatch.setattr(
        int8, "_faults", lambda f: faults(f) if f["fp32_nodes"] else ["is too inaccurate"]
    )
    figures = export_int8(net, DEFAULT_CLASSES, DETAILS, MATERIAL, tmp_path / "model.int8.onnx")
    assert figures["fp32_nodes"] > 0


def test_int8_without_masks_or_photos_is_refused(net, tmp_path):
    nothing = Int8Material(calibration=[], labelled=[])
    with pytest.raises(ParityError, match="no labelled photo"):
        export_int8(net, DEFAULT_CLASSES, DETAILS, nothing, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("weed", "miou", "share", "num"),
    [(0.80, 0.90, 0.9, 0), (0.78, 0.90, 0.9, 1), (0.80, 0.88, 0.9, 1), (None, 0.5, 1.0, 3)],
)
def test_the_gate_of_int8(weed, miou, share, num):
    figures = {"miou": miou, "miou_fp32": 0.9, "weed_iou": weed, "weed_iou_fp32": 0.8}
    figures |= {"min_equal_share": 0.9}
    assert len(int8._faults(figures | {"time_share": share})) == num
    unknown = {"miou": 0.9, "miou_fp32": 0.9, "weed_iou": None, "weed_iou_fp32": None}
    assert int8._faults(unknown | {"min_equal_share": 1.0}) == []
    assert len(int8._faults(unknown | {"min_equal_share": 0.8})) == 1


def test_both_speeds_come_from_one_run(net, tmp_path):
    path = tmp_path / "model.fp16.onnx"
    half.export_half(net, DEFAULT_CLASSES, DETAILS, PHOTOS[1:], path)
    data = path.read_bytes()
    tile = np.zeros((1, 3, 64, 64), np.float32)
    figures = int8.compare_speed(data, data, tile, rounds=5)
    assert min(figures["time_share"], figures["ms"], figures["ms_fp32"]) > 0


def test_formats_are_read():
    assert _parse("onnx, gis,onnx") == ["onnx", "gis"]
    assert set(FILES) == set(FORMATS)
    with pytest.raises(ConfigError, match="--format 'exe'"):
        _parse("onnx,exe")
