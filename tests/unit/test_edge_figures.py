"""Figures of the runtime on a model whose answers are known."""

import json
import subprocess
import sys

import numpy as np
import pytest

from weedseg.bench import edge_figures
from weedseg.bench.calibration import (
    CORRUPTIONS,
    CalibrationPlan,
    calibration_table,
    match_roles,
    measure_calibration,
    without_temperature,
)
from weedseg.bench.edge_figures import (
    edge_table,
    measure_edge,
    measure_memory,
    measure_overhead,
    measure_shift,
)
from weedseg.classes import ClassTable
from weedseg.edge import Segmenter
from weedseg.edge.ood import OodReference, photo_statistics
from weedseg.edge.segmenter import segment_photo
from weedseg.errors import FieldDataError
from weedseg.evaluation.ood import fit_ood
from weedseg.imaging import write_png


@pytest.fixture
def photos(field_photo):
    return [field_photo(150, 170, seed) for seed in range(3)]


def test_a_network_of_single_pixels_does_not_mind_where_tiles_lie(colour_model, photos):
    found = measure_shift(Segmenter(colour_model), photos)
    assert (found["changed"], found["weed_lost"], found["weed_differs"]) == (0, 0, 0)


def test_a_network_that_looks_at_its_border_does(colour_model, photos, monkeypatch):
    segmenter = Segmenter(colour_model)

    def border(images):
        mask = np.zeros((len(images), *images.shape[2:]), np.uint8)
        mask[:, :, :24] = 2
        return mask, mask

    monkeypatch.setattr(type(segmenter), "run_tiles", property(lambda self: border))
    found = measure_shift(segmenter, photos)
    assert found["changed"] > 0.01
    assert found["weed_differs"] >= found["weed_lost"] > 0.01


def test_memory_beyond_the_arrays_does_not_follow_the_photo(make_colour_model, photos):
    segmenter = Segmenter(make_colour_model(), threads=1)
    found = measure_memory(segmenter, photos[0], (1, 2, 3))
    assert found["arrays_per_px"] == 2
    # Tiles of 64 px are many: the plan of a photo takes 0.2 bytes per px.
    assert found["bytes_per_px"] == pytest.approx(2, abs=0.3)
    assert max(found["rest_bytes"]) - min(found["rest_bytes"]) < 1 << 20
    assert max(found["rest_bytes"]) < 16 << 20


def test_the_bare_runs_are_as_many_as_the_photo_has_tiles(colour_model, photos, monkeypatch):
    """On a clock of its own: 10 ms a tile, and 20 ms a photo around them."""
    now = [0.0]
    monkeypatch.setattr(edge_figures.time, "perf_counter", lambda: now[0])
    segmenter = Segmenter(colour_model)
    real = segmenter.run_tiles

    def run(images):
        now[0] += 0.01 * len(images)
        return real(images)

    def segment(self, photo):
        now[0] += 0.02
        return segment_photo(photo, self.metadata, run)

    monkeypatch.setattr(Segmenter, "run_tiles", property(lambda self: run))
    monkeypatch.setattr(Segmenter, "segment", segment)
    found = measure_overhead(segmenter, photos)  # 150 x 170 px: 4 x 5 tiles
    assert found == {
        "bare_ms": pytest.approx(200),
        "whole_ms": pytest.approx(220),
        "ratio": pytest.approx(1.1),
    }


def test_growth_is_the_slope_and_a_single_step_is_none():
    """In a process of its own: this one may hold free memory that hides a leak."""
    code = """
import json
from weedseg.bench.edge_figures import measure_growth
kept = []
leak = measure_growth(lambda number: kept.append(bytearray(100_000)), 300)
step = measure_growth(lambda number: kept.append(bytearray(50 << 20 if number == 150 else 1)), 300)
print(json.dumps([leak, step]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    leak, step = json.loads(done.stdout)
    assert leak["bytes_per_frame"] == pytest.approx(100_000, rel=0.2)
    assert step["mib_per_100000"] < leak["mib_per_100000"] / 20


def test_one_line_holds_all_figures(colour_model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(edge_figures, "MEGAPIXELS", (1, 2))
    path = tmp_path / "model.onnx"
    path.write_bytes(colour_model)
    line = measure_edge(path, photos[:1], rounds=3)
    assert line["import"]["ratio"] > 0
    table = edge_table(line)
    assert "the bare runs" in table
    assert f"{line['import']['ratio']:.2f} x that of numpy" in table


@pytest.fixture
def farm(tmp_path, field_photo, expect_colours):
    root = tmp_path / "farm"
    for number in range(6):
        image = field_photo(96, 128, number)
        write_png(root / "images" / f"{number}.png", image)
        write_png(root / "masks" / f"{number}.png", expect_colours(image)[0])
    return root


@pytest.fixture
def model(make_colour_model, field_photo, tmp_path):
    rows = np.array([photo_statistics(field_photo(96, 128, seed)) for seed in range(40)])
    mean, weights = fit_ood(rows)
    path = tmp_path / "model.onnx"
    ood = OodReference(mean=mean, weights=weights).to_dict()
    path.write_bytes(make_colour_model(temperature=4.0, ood=ood))
    return path


def test_without_temperature_is_the_model_that_has_none(
    model, make_colour_model, expect_colours, field_photo
):
    plain = Segmenter(without_temperature(model))
    photo = field_photo(64, 64)
    assert plain.metadata.temperature == 1
    expected = Segmenter(make_colour_model()).segment(photo).confidence
    np.testing.assert_array_equal(plain.segment(photo).confidence, expected)
    assert (Segmenter(model).segment(photo).confidence < expected).any()


def test_fields_and_corruptions_are_measured(model, farm, tmp_path):
    test = tmp_path / "test.txt"
    test.write_text("images/1.png\nimages/4.png\n")
    plan = CalibrationPlan(model=model, in_domain=farm, test=test, others=(farm,), most=4)
    line = measure_calibration(plan)
    own, again = line["sets"]["in-domain"], line["sets"]["farm"]
    assert (own["photos"], again["photos"]) == (2, 3)
    assert own["accuracy"] == own["weed_iou"] == 1
    # All is right, so less confidence is only a fault: the temperature makes it worse.
    assert own["ece"] > own["ece_before"]
    assert own["ok_share"] == 1
    assert set(line["corruptions"]) == set(CORRUPTIONS)
    assert line["corruptions"]["lens cap"] == {
        "ok_share": 0,
        "auroc": {"ood_score": 1, **_rest(line["corruptions"]["lens cap"])},
    }
    assert "lens cap" in calibration_table(line)
    test.write_text("nothing.png")
    with pytest.raises(FieldDataError, match="no such labelled photo"):
        measure_calibration(plan)


def _rest(found):
    return {key: value for key, value in found["auroc"].items() if key != "ood_score"}


def test_a_model_without_statistics_has_no_share_of_ok(make_colour_model, farm, tmp_path):
    path = tmp_path / "plain.onnx"
    path.write_bytes(make_colour_model())
    line = measure_calibration(CalibrationPlan(model=path, in_domain=farm, most=2))
    assert line["sets"]["in-domain"]["ok_share"] is None
    assert "ood_score" not in line["corruptions"]["blur"]["auroc"]
    assert calibration_table(line).startswith("temperature 1")


def test_classes_are_matched_by_role(make_colour_model):
    wanted = Segmenter(make_colour_model()).classes
    rows = wanted.to_list()
    found = ClassTable.from_list([rows[0], rows[2] | {"name": "thistle"}, rows[1]])
    assert list(match_roles(found, wanted)[[0, 1, 2, 3, 255]]) == [0, 2, 1, 255, 255]
