"""Networks with seeded random weights through export, parity check and the edge runtime."""

import ast
import hashlib
import json

import numpy as np
import onnx
import pytest
import torch
from seeded import photo, seeded_net
from torch import nn

from weedseg.classes import DEFAULT_CLASSES, ClassTable
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ConfigError, ExportError, ParityError
from weedseg.export import photo_sizes
from weedseg.export.details import ModelDetails, model_properties, to_literal
from weedseg.export.model import export_model
from weedseg.export.onnx_graph import IR_VERSION, OPSET, describe, export_onnx, logits_graph, ship
from weedseg.export.parity import check_parity
from weedseg.export.photo_sizes import cut_at_weed
from weedseg.imaging import read_image, read_mask_pixels

TILE_PX = 96
DETAILS = ModelDetails(
    tile_px=TILE_PX,
    overlap_px=32,
    scale=0.5,
    temperature=1.7,
    mm_per_px=(0.8, 1.2),
    data_fingerprint="f" * 64,
    metrics={"miou": None, "iou": {"weed": 0.5}, "final": True},
    evaluation_note="within-field",
    license="CC-BY-SA-4.0",
    author='Grower\'s "test" \\ é 🌱',
)


PHOTOS = [photo(301, 420, 1), photo(170, 90, 2)]


@pytest.fixture(scope="module", autouse=True)
def few_big_tiles():
    """Repeat photos to fewer tiles than a real export does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photo_sizes, "MAX_BIG_TILES", (2, 3))
        yield


@pytest.fixture(scope="module")
def net():
    return seeded_net()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "model.onnx"
    return path, export_model(net, DEFAULT_CLASSES, DETAILS, PHOTOS, path)


def test_the_file_equals_the_network(exported):
    _, figures = exported
    assert figures["max_dlogit"] <= 1e-3
    assert figures["equal_share"] >= 0.9999
    assert figures["max_dconfidence"] <= 1
    assert figures["batches"] == [1, 2, 5]
    assert figures["photos"] == figures["weed_photos"] == 2
    assert figures["images"] == 8


def test_the_file_describes_itself(exported):
    path, figures = exported
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert not model.functions
    values = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert values == {p.key: ast.literal_eval(p.value) for p in model.metadata_props}
    names = {"0": "background", "1": "crop", "2": "weed"}
    expected = {
        "names": names,
        "class_names": names,
        "task": "semantic",
        "imgsz": [TILE_PX, TILE_PX],
        "model_type": "Segmentor",
        "resolution": 0.2,
        "tile_size": TILE_PX,
        "tiles_size": TILE_PX,
        "tiles_overlap": 33,
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
        "author": DETAILS.author,
    }
    assert expected.items() <= values.items()
    keys = "stride batch channels description date version license docs seg_thresh"
    assert {*keys.split(), "seg_small_segment", "weedseg"} <= set(values)
    inner = values["weedseg"]
    assert inner["parity"] == figures
    assert inner["metrics"] == {"iou": {"weed": 0.5}, "final": 1}
    assert inner["resize"] == {"kind": "scale", "scale": 0.5}
    assert inner["roles"] == {"background": [0], "crop": [1], "weed": [2]}
    assert (inner["schema"], inner["quantisation"]) == (1, "none")
    assert '"Segmentor"' in {p.value for p in model.metadata_props}


def test_shapes_and_types(exported):
    model = onnx.load(exported[0])
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "images": (onnx.TensorProto.FLOAT, ["batch", 3, TILE_PX, TILE_PX]),
        "mask": (onnx.TensorProto.UINT8, ["batch", TILE_PX, TILE_PX]),
        "confidence": (onnx.TensorProto.UINT8, ["batch", TILE_PX, TILE_PX]),
    }


def test_batch_norm_is_folded(exported):
    kinds = {node.op_type for node in onnx.load(exported[0]).graph.node}
    assert "BatchNormalization" not in kinds
    assert not kinds & {"Shape", "Gather", "Softmax", "ArgMax"}


def test_the_golden_sample_is_what_the_file_says(exported):
    path, _ = exported
    segmenter = Segmenter(path)
    sums = segmenter.metadata.properties["golden_sha256"]
    golden = path.parent / "golden"
    for name in ("in", "out"):
        assert hashlib.sha256((golden / f"{name}.png").read_bytes()).hexdigest() == sums[name]
    image = read_image(golden / "in.png")
    assert image.shape[:2] == (2 * TILE_PX, 2 * TILE_PX)
    class_map = read_mask_pixels(golden / "out.png")
    np.testing.assert_array_equal(segmenter.segment(image).class_map, class_map)
    assert {0, 1, 2} == set(np.unique(class_map))


class Small(nn.Module):
    """A network that exports in a second."""

    def __init__(self, num_outputs=3, trick=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, num_outputs, 3, padding=1)
        self.trick = trick

    def forward(self, images):
        logits = 9 * self.conv(images)
        if self.trick == "differs" and torch.compiler.is_exporting():
            return logits + torch.linspace(-1, 1, logits.shape[1]).view(1, -1, 1, 1)
        if self.trick == "nan":
            return logits * float("nan")
        return logits


SMALL = ModelDetails(tile_px=64, overlap_px=16, date="2026-01-01")


def test_two_exports_are_equal(tmp_path):
    paths = [tmp_path / name / "model.onnx" for name in "ab"]
    for path in paths:
        export_model(Small(), DEFAULT_CLASSES, SMALL, PHOTOS, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_other_weights_are_noticed(tmp_path):
    path, net = tmp_path / "model.onnx", Small()
    twin = export_onnx(net, DEFAULT_CLASSES, SMALL, path).SerializeToString()
    assert check_parity(net, path, twin, PHOTOS)["max_dlogit"] < 1e-4
    with torch.no_grad():
        net.conv.bias[2] += 2e-3 / 9
    with pytest.raises(ParityError, match=r"logits differ by 0\.002; expected <= 0\.001"):
        check_parity(net, path, twin, PHOTOS)
    with torch.no_grad():
        net.conv.bias[2] += 0.1
    fitting = logits_graph(net, SMALL.tile_px).SerializeToString()
    with pytest.raises(ParityError, match="% of pixels equal"):
        check_parity(net, path, fitting, PHOTOS)
    with pytest.raises(ParityError, match="no photo"):
        check_parity(net, path, twin, [])


@pytest.mark.parametrize("trick", ["differs", "nan"])
def test_a_model_that_differs_is_not_written(tmp_path, trick):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the older model")
    with pytest.raises(ParityError):
        export_model(Small(trick=trick), DEFAULT_CLASSES, SMALL, PHOTOS, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"the older model"


def test_a_forced_model_tells_what_it_failed(tmp_path):
    path, net = tmp_path / "model.onnx", Small(trick="differs")
    figures = export_model(net, DEFAULT_CLASSES, SMALL, PHOTOS, path, force=True)
    own = Segmenter(path).metadata.properties
    assert "exported model is not the trained network" in own["forced"]
    assert own["parity"] == figures


def test_photos_without_weeds_are_told(tmp_path):
    net = Small()
    with torch.no_grad():
        net.conv.bias[2] -= 100
    figures = export_model(net, DEFAULT_CLASSES, SMALL, PHOTOS, tmp_path / "model.onnx")
    assert (figures["photos"], figures["weed_photos"]) == (2, 0)


def test_many_classes(tmp_path):
    rows = [{"name": f"class {i}", "role": "weed" if i else "background"} for i in range(9)]
    classes = ClassTable.from_list(rows)
    path = tmp_path / "model.onnx"
    export_model(Small(9), classes, SMALL, PHOTOS, path)
    result = Segmenter(path).segment(PHOTOS[0])
    assert len(np.unique(result.class_map)) >= 3
    assert list(result.coverage) == list(classes.names)


def test_the_network_is_left_as_it_was(tmp_path):
    net = Small().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export_onnx(net, DEFAULT_CLASSES, SMALL, tmp_path / "model.onnx")
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_class_too_many_is_refused(tmp_path):
    with pytest.raises(ExportError, match="network with 4 outputs; expected 3"):
        export_onnx(Small(4), DEFAULT_CLASSES, SMALL, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoder", ["mobilenetv3", "resnet34"])
def test_every_encoder_exports(encoder):
    details = ModelDetails(tile_px=TILE_PX, overlap_px=32)
    other = seeded_net(encoder)
    twin = logits_graph(other, TILE_PX)
    shipped = ship(twin, DEFAULT_CLASSES, 1.0)
    describe(shipped, model_properties(DEFAULT_CLASSES, details))
    figures = check_parity(other, shipped.SerializeToString(), twin.SerializeToString(), PHOTOS[1:])
    assert figures["weed_photos"] == 1


@pytest.mark.parametrize(
    "values",
    [{"temperature": 0.0}, {"temperature": float("nan")}, {"scale": 0.0}, {"scale": 100.0}],
)
def test_odd_details_are_refused(values):
    with pytest.raises(ExportError):
        ModelDetails(**values)


def test_odd_tiles_are_refused():
    with pytest.raises(ConfigError, match="tile_px"):
        ModelDetails(tile_px=100)


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, object(), {1, 2}, b"x"])
def test_what_is_no_literal_is_refused(value):
    with pytest.raises(ExportError):
        to_literal(value)


def test_cuts_lie_at_the_weed():
    image = np.arange(100 * 80 * 3, dtype=np.uint32).reshape(100, 80, 3).astype(np.uint8)
    class_map = np.zeros((100, 80), np.uint8)
    class_map[90:95, 70:75] = 2
    tile = cut_at_weed(image, class_map, DEFAULT_CLASSES, (40, 30))
    np.testing.assert_array_equal(tile, image[60:, 50:])
    assert cut_at_weed(image, class_map, DEFAULT_CLASSES, (400, 30)).shape == (100, 30, 3)


@pytest.mark.real_data
def test_real_photos(net, field_data, tmp_path):
    paths = sorted((field_data / "cwfid" / "images").glob("*"))[:1]
    photos = [read_image(path) for path in paths]
    details = ModelDetails(tile_px=256, overlap_px=32, scale=0.5)
    figures = export_model(net, DEFAULT_CLASSES, details, photos, tmp_path / "model.onnx")
    assert figures["equal_share"] >= 0.9999
