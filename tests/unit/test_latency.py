import numpy as np
import pytest

from weedseg.bench import latency
from weedseg.bench.latency import (
    PHASES,
    Camera,
    LatencyPlan,
    camera_pictures,
    latency_table,
    measure_latency,
    parse_camera,
    percentiles,
    smallest_weed,
    travelled_cm,
)
from weedseg.edge import Segmenter
from weedseg.errors import ConfigError


def test_cameras_are_read():
    assert parse_camera("1920x1200@20") == Camera()
    assert parse_camera("640x480@7.5") == Camera(width_px=640, height_px=480, fps=7.5)
    for text in ("", "1920", "1920x1200", "0x5@20", "5x5@0", "-1x5@2", "5x5@nan"):
        with pytest.raises(ConfigError, match="--camera"):
            parse_camera(text)


def test_one_line_per_number_of_threads(colour_model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(colour_model)
    camera = Camera(width_px=160, height_px=120, fps=50)
    plan = LatencyPlan(
        model=path, camera=camera, threads=(1, 2), rounds=2, stream_seconds=0.3, deadline_ms=5000
    )
    lines = measure_latency(plan)
    assert [line["threads"] for line in lines] == [1, 2]
    for line in lines:
        assert set(line["ms"]) == set(PHASES)
        assert line["megapixels_s"] > 0
        assert line["stream"]["frames"] > 0
        # This model has no golden sample, so nothing may be OK.
        assert line["stream"]["ok_share"] == 0
        assert "golden" in line["stream"]["last_reason"]
    table = latency_table(lines)
    assert "megapixels/s" in table
    assert "0 % of" in table


def test_the_phases_sum_up_to_the_total(colour_model, field_photo):
    pictures = [field_photo(90, 120, seed) for seed in range(3)]
    times = latency._time_phases(Segmenter(colour_model, threads=1), pictures, 4)
    assert times.shape == (4, len(PHASES))
    np.testing.assert_allclose(times[:, :-1].sum(1), times[:, -1])


def test_percentiles_and_distances():
    found = percentiles(np.arange(101.0))
    assert found == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "worst": 100}
    assert travelled_cm(30, 7.2) == pytest.approx(6)  # a 6 cm cell at 7.2 km/h passes in 30 ms


def test_the_smallest_weed_follows_scale_and_ground_resolution(make_colour_model):
    assert smallest_weed(Segmenter(make_colour_model()).metadata) == {"px": 8}
    metadata = Segmenter(make_colour_model(scale=0.5, mm_per_px=(0.5, 1.0))).metadata
    assert smallest_weed(metadata) == {"px": 16, "mm": 8}


def test_pictures_differ_and_have_the_size_of_the_camera(tmp_path):
    pictures = camera_pictures(tmp_path / "model.onnx", Camera(width_px=70, height_px=48))
    assert {picture.shape for picture in pictures} == {(48, 70, 3)}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
