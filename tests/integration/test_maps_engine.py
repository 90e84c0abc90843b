"""From a mosaic to the rasters of a map: exact, resumable, and never half-written."""

import json
import os
from functools import partial

import numpy as np
import pytest
import rasterio
from affine import Affine
from colour_field import pixels_of, random_squares, write_field
from colour_model import make_colour_model
from rio_cogeo.cogeo import cog_validate

from weedseg.classes import DEFAULT_CLASSES
from weedseg.cli import main
from weedseg.errors import (
    ConfigError,
    FieldDataError,
    GeoreferenceError,
    ModelFileError,
    OutputError,
)
from weedseg.maps.cells import CellOptions
from weedseg.maps.engine import ENGINES, ShardJob, run_shards
from weedseg.maps.ground import NO_DATA
from weedseg.maps.parts import FOLDER
from weedseg.maps.run import MapOptions, make_map

IDS = random_squares(45, 60)
SEEN = np.ones((540, 720), bool)
SEEN[:30, :400] = False
RASTERS = ("classes.tif", "confidence.tif")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "colours.onnx"
    path.write_bytes(make_colour_model())
    return path


@pytest.fixture
def mosaic(tmp_path):
    return write_field(tmp_path / "field.tif", IDS, SEEN, compress="deflate")


def options(mosaic, out, model, **changes):
    cells = CellOptions(cell_m=0.25, min_patch_m2=0)
    wanted = {"workers": 2, "cells": cells, **changes}
    return MapOptions(mosaic=mosaic, out=out, model=model, **wanted)


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def rasters(out):
    return [(out / name).read_bytes() for name in RASTERS]


@pytest.fixture(scope="module")
def reference(model, tmp_path_factory):
    """A map made in one go, and what `make_map` said."""
    folder = tmp_path_factory.mktemp("reference")
    mosaic = write_field(folder / "field.tif", IDS, SEEN, compress="deflate")
    said = []
    report = make_map(options(mosaic, folder / "out", model, crop="beet"), said.append)
    return folder / "out", report, said


def test_the_rasters_say_what_the_field_shows(reference):
    out, _, _ = reference
    truth = np.where(SEEN, pixels_of(IDS), NO_DATA)
    np.testing.assert_array_equal(read(out / "classes.tif"), truth)
    confidence = read(out / "confidence.tif")
    assert (confidence[~SEEN] == NO_DATA).all()
    assert 30 < confidence[SEEN].min() <= confidence[SEEN].max() <= 100


def test_the_rasters_are_cloud_optimised_and_lie_where_the_mosaic_lies(reference):
    out, _, _ = reference
    with rasterio.open(out.parent / "field.tif") as field:
        place = field.crs, field.transform, field.shape
    for name in RASTERS:
        assert cog_validate(out / name, strict=True, quiet=True) == (True, [], [])
        with rasterio.open(out / name) as file:
            assert (file.crs, file.transform, file.shape) == place
            assert (file.nodata, file.dtypes, file.overviews(1)) == (255, ("uint8",), [2])
            assert file.compression.value == "DEFLATE"
            small = file.read(1, out_shape=(270, 360))
            np.testing.assert_array_equal(small, file.read(1)[::2, ::2])
    with rasterio.open(out / "classes.tif") as file:
        colours = file.colormap(1)
        assert [colours[i][:3] for i in range(3)] == list(DEFAULT_CLASSES.colours)
        assert json.loads(file.tags()["classes"]) == DEFAULT_CLASSES.to_list()


def test_areas_are_exact_and_map_json_says_where_they_come_from(reference):
    out, report, said = reference
    values = json.loads((out / "map.json").read_text())
    assert values == json.loads(json.dumps(report.values))
    truth = pixels_of(IDS)[SEEN]
    for role, number in (("crop", 1), ("weed", 2)):
        assert values["totals"][f"{role}_m2"] == pytest.approx((truth == number).sum() * 4e-6)
    assert values["totals"]["ground_m2"] == pytest.approx(SEEN.sum() * 4e-6)
    assert values["mm_per_px"] == 2
    assert values["training_mm_per_px"] is None
    assert values["areas"]["weed"]["corrected_m2"] is None
    assert any("--mm-per-px" in sentence for sentence in values["warnings"])
    assert any("untested on this crop" in sentence for sentence in values["warnings"])
    assert all(path.is_file() for path in report.files)
    assert report.num_run == report.num_shards == said[-1].total
    assert (said[-1].done, said[-1].what, said[-1].seconds_left) == (
        report.num_shards,
        "writing",
        0,
    )
    assert not (out / FOLDER).exists()
    assert not [file for file in os.listdir(out) if file.startswith(".")]


class Stopped(Exception):
    pass


def stop_at(number, progress):
    if (progress.done, progress.what) == number:
        raise Stopped


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(reference, mosaic, model, tmp_path):
    out = tmp_path / "out"
    for number in ((3, "segmenting"), (7, "segmenting"), (2, "writing"), (9, "writing")):
        with pytest.raises(Stopped):
            make_map(options(mosaic, out, model), partial(stop_at, number))
        assert sorted(os.listdir(out)) == [FOLDER]
        for part in sorted((out / FOLDER).glob("*.part"))[:2]:  # a power cut
            part.write_bytes(part.read_bytes()[:-5])
    report = make_map(options(mosaic, out, model, workers=3))
    assert report.num_run == 2 < report.num_shards
    assert rasters(out) == rasters(reference[0])
    for name in ("cells.csv", "cells.geojson"):
        assert (out / name).read_bytes() == (reference[0] / name).read_bytes()


def test_a_new_map_takes_an_older_prescription_away(mosaic, model, tmp_path):
    out = tmp_path / "out"
    (out / "TASKDATA").mkdir(parents=True)
    stale = [out / "prescription.json", out / "prescription.kml", out / "TASKDATA" / "a.xml"]
    for path in stale:
        path.write_text("of a map that is no longer there")
    make_map(options(mosaic, out, model))
    assert not [path for path in stale if path.exists()]


def test_parts_of_another_model_are_thrown_away_with_a_word(mosaic, model, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other.onnx"
    other.write_bytes(make_colour_model(overlap_px=20))
    with pytest.raises(Stopped):
        make_map(options(mosaic, out, model), partial(stop_at, (4, "segmenting")))
    report = make_map(options(mosaic, out, other))
    assert report.num_run == report.num_shards
    assert any("another model" in sentence for sentence in report.values["warnings"])


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "uint16"},
        {"nodata": 0},
        {"compress": "lzw", "tiled": False, "blockysize": 1, "blockxsize": None},
        {"interleave": "band", "compress": "zstd"},
        {"crs": "EPSG:3857"},
    ],
)
def test_every_kind_of_mosaic_gives_the_same_map(changes, reference, model, tmp_path):
    changes = {k: v for k, v in changes.items() if v is not None}
    mosaic = write_field(tmp_path / "field.tif", IDS, SEEN, **changes)
    work = {}
    for name, part in all_parts(mosaic, model, tmp_path / "out"):
        work[name] = part
    truth = np.where(SEEN, pixels_of(IDS), NO_DATA)
    np.testing.assert_array_equal(work["class_map"], truth)


def all_parts(mosaic, model, out):
    """Run the shards and put the parts together."""
    from weedseg.edge.segmenter import Segmenter
    from weedseg.maps.engine import read_parts
    from weedseg.maps.georaster import open_field
    from weedseg.maps.parts import PartFolder, map_state
    from weedseg.maps.shards import plan_shards

    segmenter = Segmenter(model, threads=1)
    plan = plan_shards(open_field(mosaic).ground.size, segmenter.metadata)
    parts = PartFolder(out, map_state(mosaic, plan, segmenter.sha256))
    job = ShardJob(mosaic=mosaic, model=model, plan=plan)
    run_shards(job, parts, lambda _: None, workers=2)
    planes = np.full((2, *plan.size), 254, np.uint8)
    for part in read_parts(plan, parts):
        top, left, height, width = part.window
        planes[:, top : top + height, left : left + width] = part.class_map, part.confidence
    return [("class_map", planes[0]), ("confidence", planes[1])]


def test_degrees_are_mapped_with_true_areas(model, tmp_path):
    """Pixels of 2 mm x 2 mm, described in degrees, are squeezed to 0.64 of their height."""
    across, down = 0.002 / 70_950 / 1.0, 0.002 / 111_240
    place = Affine(across, 0, 9.5, 0, -down, 50.5)
    mosaic = write_field(tmp_path / "field.tif", IDS, crs="EPSG:4326", transform=place)
    report = make_map(options(mosaic, tmp_path / "out", model))
    truth = (pixels_of(IDS) == 2).sum() * 4e-6
    assert report.values["totals"]["weed_m2"] == pytest.approx(truth, rel=3e-3)
    assert "EPSG:32632" in report.values["warnings"][0]
    with rasterio.open(tmp_path / "out" / "classes.tif") as file:
        assert (file.crs.to_epsg(), file.transform, file.shape) == (4326, place, (540, 720))


def test_a_mosaic_is_resized_only_on_request(mosaic, model, tmp_path):
    wanted = options(mosaic, tmp_path / "out", model, training_mm=(4, 5))
    with pytest.raises(GeoreferenceError, match="--resample"):
        make_map(wanted)
    assert not (tmp_path / "out").exists()
    report = make_map(options(mosaic, tmp_path / "out", model, training_mm=(4, 5), resample=True))
    assert report.values["resampled"]
    assert read(tmp_path / "out" / "classes.tif").shape == (540, 720)
    found = read(tmp_path / "out" / "classes.tif")[SEEN] == pixels_of(IDS)[SEEN]
    assert found.mean() == 1  # squares of 6 px at half the size


@pytest.mark.parametrize("blind", ["alpha", "nodata"])
def test_a_mosaic_without_data_is_refused(blind, model, tmp_path):
    changes = {"nodata": 0} if blind == "nodata" else {}
    mosaic = write_field(tmp_path / "field.tif", IDS, np.zeros_like(SEEN), **changes)
    with pytest.raises(FieldDataError, match="no pixel of the mosaic has data"):
        make_map(options(mosaic, tmp_path / "out", model))
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_a_model_that_fails_stops_the_run(mosaic, tmp_path, model):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(ModelFileError):
        make_map(options(mosaic, tmp_path / "out", broken))
    with pytest.raises(ConfigError, match="engine 'cloud'; expected one of local"):
        make_map(options(mosaic, tmp_path / "out", model, engine="cloud"))


def test_an_error_in_a_worker_ends_the_run(mosaic, model, tmp_path):
    job = ShardJob(mosaic=mosaic, model=model, plan=plan_of(mosaic, model))

    def fail(number, data):
        raise OutputError(f"part {number}", "room", "make some")

    with pytest.raises(OutputError, match="expected room"):
        list(ENGINES["local"](job, range(9), fail, 2))


def plan_of(mosaic, model):
    from weedseg.edge.segmenter import Segmenter
    from weedseg.maps.georaster import open_field
    from weedseg.maps.shards import plan_shards

    return plan_shards(open_field(mosaic).ground.size, Segmenter(model, threads=1).metadata)


@pytest.mark.parametrize("room", [200, 900, 1400])
def test_a_full_disk_leaves_no_half_written_map(room, small_disk, mosaic, model, reference):
    """Room for a few parts, for all parts, for the first raster."""
    out = small_disk(room) / "out"
    with pytest.raises(OutputError) as caught:
        make_map(options(mosaic, out, model))
    assert "No space left" in str(caught.value)
    assert "kept" in str(caught.value)
    assert "map.json" not in os.listdir(out)
    for name in RASTERS:
        if (out / name).exists():
            assert (out / name).read_bytes() == (reference[0] / name).read_bytes()
    small_disk(50_000)
    report = make_map(options(mosaic, out, model))
    assert report.num_run < report.num_shards
    assert rasters(out) == rasters(reference[0])


def test_the_verb_tells_what_came_of_it(mosaic, model, tmp_path, capsys):
    out = tmp_path / "out"
    said = ["map", str(mosaic), "--model", str(model), "--out", str(out), "--cell-m", "0.25"]
    assert main(said) == 0
    shown = capsys.readouterr()
    assert "% of" not in shown.err
    assert "nobody knows at which ground resolution" in shown.err
    assert "weed patches" in shown.out
    assert f"weedseg prescribe {out}" in shown.out


@pytest.mark.parametrize(
    "refusal",
    [
        (["--mm-per-px", "5", "4"], 2, "LOW <= HIGH"),
        (["--resample", "--as-is"], 2, "one of them"),
        (["--mm-per-px", "4", "5"], 3, "--resample"),
        (["--cell-m", "0.001"], 2, "larger cells"),
        (["--boundary", "nowhere.geojson"], 3, "nowhere.geojson"),
        (["--engine", "steam"], 2, "engine 'steam'"),
    ],
)
def test_the_verb_refuses_in_one_sentence(refusal, mosaic, model, tmp_path, capsys):
    extra, code, word = refusal
    said = ["map", str(mosaic), "--model", str(model), "--out", str(tmp_path / "out"), *extra]
    assert main(said) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert word in lines[-1]
    assert lines[-1].startswith("weedseg: ")
    assert lines[-1].count("; ") >= 2
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_options_that_exclude_each_other_are_refused(mosaic, model, tmp_path):
    with pytest.raises(ConfigError, match="one of them"):
        options(mosaic, tmp_path, model, resample=True, as_is=True)
    for odd in ((5, 4), (0, 1), (1, float("inf"))):
        with pytest.raises(ConfigError, match="LOW <= HIGH"):
            options(mosaic, tmp_path, model, training_mm=odd)


def test_the_benchmark_measures_what_it_says(model, tmp_path, capsys):
    lines = tmp_path / "maps.jsonl"
    said = ["bench", "maps", "--megapixels", "1", "--model", str(model), "--out", str(lines)]
    assert main(said) == 0
    line = json.loads(lines.read_text())
    assert line["mosaic"]["size_px"] == [1000, 1000]
    assert 50 << 20 < line["peak_rss_bytes"] < 1 << 30
    assert set(line["processor_seconds_per_tile"]) >= {"network", "runtime", "reading"}
    assert min(line["processor_seconds_per_tile"].values()) > 0
    for shift in ("shifted_origin", "shifted_mosaic"):  # the model looks at single pixels
        assert (line[shift]["changed"], line[shift]["weed_lost"]) == (0, 0)
    truth = line["areas"]["truth"]
    assert 0.95e6 < truth["valid_px"] < 1e6
    assert line["areas"]["crop"]["true_share"] == truth["crop_px"] / truth["valid_px"]
    assert "throughput against the network alone" in capsys.readouterr().out
