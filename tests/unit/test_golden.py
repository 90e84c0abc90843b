import hashlib

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from weedseg.edge import Segmenter, Status
from weedseg.edge.result import empty_result
from weedseg.export.details import ModelDetails, model_properties
from weedseg.export.onnx_graph import describe
from weedseg.imaging import write_png


@pytest.fixture
def folder(tmp_path, colour_model, field_photo):
    """A model folder with its golden sample."""
    photo = field_photo(90, 120)
    class_map = Segmenter(colour_model, threads=1).segment(photo).class_map
    for name, pixels in (("in", photo), ("out", class_map)):
        write_png(tmp_path / "golden" / f"{name}.png", pixels)
    sums = {
        name: hashlib.sha256((tmp_path / "golden" / f"{name}.png").read_bytes()).hexdigest()
        for name in ("in", "out")
    }
    model = onnx.load_from_string(colour_model)
    classes = Segmenter(colour_model).classes
    details = ModelDetails(tile_px=64, overlap_px=16, date="2026-01-01")
    describe(model, model_properties(classes, details, None, sums))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    return tmp_path


def test_a_sound_machine_passes(folder):
    segmenter = Segmenter(folder / "model.onnx", threads=1)
    test = segmenter.self_test()
    assert (test.passed, test.reason, test.equal_share) == (True, "", 1.0)
    (folder / "golden" / "in.png").unlink()
    assert segmenter.self_test().passed, "the sample is kept in memory"


@pytest.mark.parametrize("name", ["in", "out"])
def test_a_missing_or_changed_sample_is_announced(folder, name):
    path = folder / "golden" / f"{name}.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    test = Segmenter(folder / "model.onnx", threads=1).self_test()
    assert not test.passed
    assert "another checksum" in test.reason
    path.unlink()
    assert "missing" in Segmenter(folder / "model.onnx", threads=1).self_test().reason


def test_the_class_map_of_this_model_is_found_among_several(folder):
    golden = folder / "golden"
    (golden / "out.png").rename(golden / "out.int8.png")
    (golden / "out.png").write_bytes(b"of another model")
    assert Segmenter(folder / "model.onnx", threads=1).self_test().passed


def test_models_without_a_sample_never_pass(colour_model, folder, tmp_path):
    assert "states no golden" in Segmenter(colour_model).self_test(folder / "golden").reason
    assert "without folder" in Segmenter(colour_model).self_test().reason


def test_other_weights_do_not_pass(folder):
    model = onnx.load(folder / "model.onnx")
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[2] *= 0.2
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
    other = folder / "other.onnx"
    keep = {p.key: p.value for p in model.metadata_props}
    describe(model, keep)
    other.write_bytes(model.SerializeToString())
    test = Segmenter(other, threads=1).self_test()
    assert not test.passed
    assert "of pixels as exported" in test.reason
    assert test.equal_share < 0.99


def test_a_model_that_cannot_run_does_not_pass(folder, monkeypatch):
    segmenter = Segmenter(folder / "model.onnx", threads=1)
    monkeypatch.setattr(segmenter, "_session", lambda images: (images[:, 0] + 9,) * 2)
    assert not segmenter.self_test().passed


def test_a_plain_photo_is_never_ok(colour_model, field_photo):
    segmenter = Segmenter(colour_model, threads=1)
    result = segmenter.segment(field_photo(20, 20))
    assert result.status is Status.DEGRADED
    assert result.model_sha256 == segmenter.sha256
    assert not result.may_actuate(0.0)
    assert not empty_result(Status.OK, "").may_actuate(0.0)
    assert np.isnan(result.age_ms)
