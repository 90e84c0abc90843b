"""Written prescriptions, opened by readers that did not write them."""

import json
import zipfile
from dataclasses import asdict

import geopandas
import numpy as np
import pytest
import shapefile
import shapely
from cell_maps import TRUSTED, UNTESTED, options, weed_map
from isoxml.converter.np_grid import to_numpy_array
from isoxml.models.ddi_entities import DDEntity
from isoxml.util.isoxml_io import isoxml_from_path
from pyproj import Geod, Transformer

from weedseg import __version__
from weedseg.classes import DEFAULT_CLASSES
from weedseg.cli import main
from weedseg.errors import ConfigError, FieldDataError, OutputError
from weedseg.maps import prescription_files
from weedseg.maps.ground import Ground
from weedseg.maps.isoxml_file import rate_grid
from weedseg.maps.prescription import prescribe
from weedseg.maps.prescription_files import (
    prescribe_folder,
    remove_prescription,
    write_prescription,
)
from weedseg.maps.validate import validate
from weedseg.maps.vectors import save_weed_map

RNG = np.random.default_rng(5)
COVER = np.where(RNG.random((40, 30)) < 0.15, RNG.uniform(0, 20, (40, 30)), 0.0)
COVER[:6, :9] = np.nan  # a corner that was not seen
TURNED = weed_map(COVER, heading=25.0)
STEPS = options((1, 100), (5, 250), buffer_m=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("map")
    prescription = prescribe(TURNED, STEPS, TRUSTED)
    return prescription, out, write_prescription(prescription, out)


def metres(shapes):
    """Move polygons of longitude and latitude to UTM with pyproj."""
    to = Transformer.from_crs("EPSG:4326", TURNED.grid.crs, always_xy=True)
    return shapely.transform(shapes, lambda xy: np.stack(to.transform(*xy.T), axis=1))


def areas_by_rate(shapes, rates):
    sizes = shapely.area(metres(shapes))
    return {float(rate): sizes[np.asarray(rates) == rate].sum() for rate in np.unique(rates)}


def expected_areas(prescription):
    """Every cell has 9 m2."""
    rates, counts = np.unique(prescription.rate, return_counts=True)
    return {float(r): pytest.approx(9.0 * c, rel=1e-3) for r, c in zip(rates, counts)}


def test_all_files_are_there_and_nothing_else(written):
    _, out, files = written
    cells = {"cells.csv", "cells.geojson", "cells.gpkg", "cells_README.txt"}
    prescribed = {"prescription.json", "prescription.geojson", "prescription.kml"}
    archives = {"prescription_shapefile.zip", "TASKDATA.zip", "TASKDATA"}
    assert {path.name for path in files} == cells | prescribed | archives
    assert {path.name for path in out.iterdir()} == {path.name for path in files}


def test_shapefile_with_pyshp(written):
    prescription, out, _ = written
    path = out / "prescription_shapefile.zip"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        assert b"GCS_WGS_1984" in archive.read("prescription.prj")
        assert archive.read("prescription.cpg") == b"UTF-8"
        assert TRUSTED.note in archive.read("prescription.txt").decode()
    suffixes = ("cpg", "dbf", "prj", "shp", "shx", "txt")
    assert names == {f"prescription.{suffix}" for suffix in suffixes}
    with shapefile.Reader(str(path)) as reader:
        assert reader.shapeTypeName == "POLYGON"
        assert [(f.name, str(f.field_type)[-1]) for f in reader.fields[1:]] == [("rate", "N")]
        rates = [row["rate"] for row in reader.records()]
        rings = [shape.points for shape in reader.shapes()]
    assert not any(shapely.is_ccw(shapely.LinearRing(ring)) for ring in rings)
    assert areas_by_rate(shapely.polygons(rings), rates) == expected_areas(prescription)


@pytest.mark.parametrize("name", ["prescription.geojson", "prescription.kml"])
def test_vectors_with_geopandas(written, name):
    prescription, out, _ = written
    frame = geopandas.read_file(out / name)
    assert frame.crs == "EPSG:4326"
    assert areas_by_rate(frame.geometry.values, frame["rate"]) == expected_areas(prescription)
    west, south, east, north = frame.total_bounds
    assert 15 < west < east < 18
    assert 47 < south < north < 49


def test_no_polygon_overlaps_another(written):
    frame = geopandas.read_file(written[1] / "prescription.geojson")
    shapes = metres(frame.geometry.values)
    assert shapely.union_all(shapes).area == pytest.approx(shapely.area(shapes).sum(), rel=1e-4)


def test_isoxml_with_its_own_reader(written, tmp_path):
    _, out, _ = written
    with zipfile.ZipFile(out / "TASKDATA.zip") as archive:
        archive.extractall(tmp_path)
    for place in (tmp_path, out):
        data, binary = isoxml_from_path(place / "TASKDATA")
        (task,) = data.tasks
        (grid,) = task.grids
        assert data.version_major.value == "3"
        assert {
            task.default_treatment_zone_code,
            task.position_lost_treatment_zone_code,
            task.out_of_field_treatment_zone_code,
        } == {0}
        (nothing,) = task.treatment_zones
        (value,) = nothing.process_data_variables
        assert nothing.code == value.process_data_value == 0
        entry = DDEntity.from_bytes(value.process_data_ddi)
        assert (entry.ddi, entry.unit, entry.bit_resolution) == (1, "mm³/m²", 0.01)
        raw = to_numpy_array(binary["GRD00000"], grid)
        per_m2 = to_numpy_array(binary["GRD00000"], grid, [entry])[..., 0]  # mm3 on a m2
        assert set(np.unique(raw)) == {0, 1_000_000, 2_500_000}
        assert np.allclose(per_m2 * 1e4 / 1e6, raw / 10_000)  # 10,000 m2/ha, 1e6 mm3/l
        assert len(binary["GRD00000"]) == grid.filelength == 4 * raw.size


def test_the_isoxml_grid_lies_where_the_cells_lie(written):
    """Look each cell's middle up in the grid, with the reader's row 0 in the south."""
    prescription, out, _ = written
    data, binary = isoxml_from_path(out / "TASKDATA")
    grid = data.tasks[0].grids[0]
    rates = to_numpy_array(binary["GRD00000"], grid) / 10_000
    middles = shapely.get_coordinates(shapely.centroid(TURNED.polygons()))
    back = Transformer.from_crs(TURNED.grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = back.transform(*middles.T)
    row = ((lat - float(grid.minimum_north_position)) / grid.cell_north_size).astype(int)
    column = ((lon - float(grid.minimum_east_position)) / grid.cell_east_size).astype(int)
    found = rates[row, column]
    assert (found >= prescription.rate)[prescription.treat].mean() > 0.99
    flipped = rates[::-1][row, column]
    assert (flipped >= prescription.rate)[prescription.treat].mean() < 0.8


def test_isoxml_cells_are_a_section_wide_and_cover_the_field(written):
    prescription, _, _ = written
    grid = rate_grid(prescription)
    geod = Geod(ellps="WGS84")
    north, east = grid.cell_deg
    _, _, tall = geod.inv(grid.west, grid.south, grid.west, grid.south + north)
    _, _, wide = geod.inv(grid.west, grid.south, grid.west + east, grid.south)
    assert (tall, wide) == (pytest.approx(3, abs=2e-3), pytest.approx(3, abs=2e-3))
    finer = rate_grid(
        prescribe(TURNED, options((1, 100), (5, 250), buffer_m=1, isoxml_cell_m=0.5), TRUSTED)
    )
    treated = prescription.savings().treated_m2
    assert finer.cell_m == 0.5
    assert treated <= finer.to_dict()["treated_m2"] < grid.to_dict()["treated_m2"]
    assert finer.to_dict()["treated_m2"] == pytest.approx(treated, rel=0.15)
    assert finer.to_dict()["prescribed_l"] == pytest.approx(
        prescription.savings().prescribed_l, rel=0.15
    )


@pytest.mark.parametrize("heading", [0.0, 10.0, 45.0, 90.0, 135.0])
@pytest.mark.parametrize("corner", [(541_200.0, 5_331_000.0), (300_001.3, 5_331_001.9)])
def test_no_treated_cell_is_lost_in_the_isoxml_grid(heading, corner):
    lone = np.zeros((24, 24))
    lone[2::5, 2::5] = 10
    found = weed_map(lone, heading=heading, corner=corner)
    prescription = prescribe(found, options(), TRUSTED)
    grid = rate_grid(prescription)
    back = Transformer.from_crs(found.grid.crs, "EPSG:4326", always_xy=True)
    for outline in found.polygons()[prescription.treat]:
        west, south, east, north = outline.bounds
        xs, ys = (a.ravel() for a in np.meshgrid(*np.linspace((west, south), (east, north), 25).T))
        inside = shapely.contains_xy(outline, xs, ys)
        lon, lat = back.transform(xs[inside], ys[inside])
        row = ((lat - grid.south) / grid.cell_deg[0]).astype(int).clip(0, len(grid.rate) - 1)
        column = ((lon - grid.west) / grid.cell_deg[1]).astype(int)
        column = column.clip(0, grid.rate.shape[1] - 1)
        assert (grid.rate[row, column] == 200).mean() > 0.6


def test_a_coarse_isoxml_grid_loses_no_lone_cell():
    lone = np.zeros((24, 24))
    lone[3, 20] = 10
    found = weed_map(lone, corner=(500_000.0, 5_331_000.0))
    grid = rate_grid(prescribe(found, options(isoxml_cell_m=24), TRUSTED))
    assert grid.rate.shape == (3, 3)
    assert (grid.rate > 0).sum() == 1


def test_aligned_cells_are_the_isoxml_cells():
    """On the central meridian, north up, both grids coincide."""
    found = weed_map(np.diag([9.0, 5.0, 1.0, 0.0, 3.0]), corner=(500_000.0, 5_331_000.0))
    grid = rate_grid(prescribe(found, options(), TRUSTED))
    assert grid.rate.tolist() == [
        [0, 0, 0, 0, 200],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 200, 0, 0, 0],
        [200, 0, 0, 0, 0],
    ]
    assert grid.to_dict()["treated_m2"] == 27
    assert grid.to_dict()["prescribed_l"] == pytest.approx(27 / 10_000 * 200)


def test_too_small_isoxml_cells_are_refused():
    wide = weed_map(np.ones((2, 2)) * 5, cell_m=(900.0, 900.0))
    with pytest.raises(ConfigError, match="choose a larger ISOXML cell"):
        rate_grid(prescribe(wide, options(isoxml_cell_m=0.1), TRUSTED))


def test_the_record_holds_options_savings_and_sentences(written):
    prescription, out, files = written
    record = json.loads((out / "prescription.json").read_text(encoding="utf-8"))
    assert record["options"]["steps"] == [
        {"threshold": 0.01, "rate": 100},
        {"threshold": 0.05, "rate": 250},
    ]
    assert record["options"]["broadcast_rate"] == 250
    saved = prescription.savings()
    assert record["savings"]["treated_m2"] == pytest.approx(saved.treated_m2)
    assert record["sentences"] == [TRUSTED.note]
    assert record["forced"] is False
    assert (
        record["isoxml"]["rows"] * record["isoxml"]["columns"] * 4
        == (out / "TASKDATA" / "GRD00000.bin").stat().st_size
    )
    assert {out / name for name in record["files"]} <= set(files)


def test_cells_carry_treat_and_rate(written):
    prescription, out, _ = written
    frame = geopandas.read_file(out / "cells.gpkg", layer="cells")
    assert frame["rate"].tolist() == prescription.rate.tolist()
    assert (frame["treat"] == 1).tolist() == prescription.treat.tolist()


def test_what_was_forced_is_said_in_every_file(tmp_path):
    prescription = prescribe(TURNED, options(force=True), UNTESTED)
    for path in write_prescription(prescription, tmp_path):
        if path.is_dir():
            text = (path / "TASKDATA.XML").read_text(encoding="utf-8")
        elif path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                inside = [n for n in archive.namelist() if n.endswith((".txt", ".XML"))]
                text = archive.read(inside[0]).decode()
        elif path.name == "cells.csv":
            continue  # cells_README.txt speaks for it
        else:
            text = path.read_bytes().decode("utf-8", "replace")
        assert "untested on this crop: here grows maize" in text, path
        assert "this prescription was forced" in text, path


def test_a_second_prescription_replaces_the_first(tmp_path):
    for rate in (100, 180):
        write_prescription(prescribe(TURNED, options((2, rate)), TRUSTED), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert all(not checked.faults for checked in validate(tmp_path))
    _data, binary = isoxml_from_path(tmp_path / "TASKDATA")
    assert set(np.frombuffer(binary["GRD00000"], "<i4")) == {0, 1_800_000}
    assert set(geopandas.read_file(tmp_path / "prescription.kml")["rate"]) == {0, 180}


def test_a_fault_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prescription_files, "write_isoxml", full)
    with pytest.raises(OutputError, match="No space left"):
        write_prescription(prescribe(TURNED, options(), TRUSTED), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_arrives_damaged_is_not_put_in_place(tmp_path, monkeypatch):
    write = prescription_files._zip

    def cut(path, files, folder):
        write(path, files, folder)
        path.write_bytes(path.read_bytes()[:-40])

    monkeypatch.setattr(prescription_files, "_zip", cut)
    with pytest.raises(OutputError, match=r"\.zip was not written right"):
        write_prescription(prescribe(TURNED, options(), TRUSTED), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_cell_is_a_field(tmp_path):
    prescription = prescribe(weed_map([[5]]), options(), TRUSTED)
    write_prescription(prescription, tmp_path)
    assert all(not checked.faults for checked in validate(tmp_path))


def test_nothing_to_treat_is_a_prescription_too(tmp_path):
    write_prescription(prescribe(weed_map(np.zeros((4, 4))), options(), TRUSTED), tmp_path)
    assert all(not checked.faults for checked in validate(tmp_path))
    assert not np.frombuffer((tmp_path / "TASKDATA" / "GRD00000.bin").read_bytes(), "<i4").any()


# --- the verb ----------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path):
    """What ``weedseg map`` leaves, as far as prescriptions need it."""
    save_weed_map(TURNED, TRUSTED, tmp_path)
    ground = Ground(
        size=(2400, 1800),
        crs=TURNED.grid.crs,
        transform=(0.05, 0.0, 541_200.0, 0.0, -0.05, 5_331_120.0),
        metric_crs=TURNED.grid.crs,
    )
    values = {
        "schema": 1,
        "input": "/nowhere/field.tif",
        "model": {"name": "model", "sha256": "0" * 64},
        "classes": DEFAULT_CLASSES.to_list(),
        "crop": "peanut",
        "ground": asdict(ground),
        "trust": TRUSTED.to_dict(),
        "weedseg_version": __version__,
    }
    (tmp_path / "map.json").write_text(json.dumps(values), encoding="utf-8")
    return tmp_path


def test_the_verb_works_from_the_folder_of_a_map(mapped, capsys):
    assert main(["prescribe", str(mapped), "--threshold", "2", "--rate", "200"]) == 0
    said = capsys.readouterr().out
    assert TRUSTED.note in said
    assert "saves" in said
    record = json.loads((mapped / "prescription.json").read_text(encoding="utf-8"))
    direct = prescribe(TURNED, options(), TRUSTED).savings()
    assert record["savings"]["prescribed_l"] == direct.prescribed_l
    assert f"{record['savings']['saved_volume_percent']:.1f} % of the volume" in said
    assert main(["validate-map", str(mapped)]) == 0
    page = (mapped / "report.html").read_text(encoding="utf-8")
    assert "by this prescription" in page


def test_a_prescription_can_be_taken_away(tmp_path):
    write_prescription(prescribe(TURNED, options(), TRUSTED), tmp_path)
    remove_prescription(tmp_path)
    assert all(path.name.startswith("cells") for path in tmp_path.iterdir())
    remove_prescription(tmp_path)


def test_the_verb_takes_steps_and_a_broadcast_rate(mapped):
    arguments = ["--steps", "1:100, 5:250", "--rate", "300", "--buffer-m", "1"]
    assert main(["prescribe", str(mapped), *arguments]) == 0
    record = json.loads((mapped / "prescription.json").read_text(encoding="utf-8"))
    assert [s["rate"] for s in record["options"]["steps"]] == [100, 250]
    assert record["options"]["broadcast_rate"] == 300


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--threshold", "2"], 2, "no threshold with a rate"),
        (["--threshold", "2", "--rate", "9", "--steps", "1:2"], 2, "--threshold and --steps"),
        (["--steps", "1-100"], 2, "--steps 1-100"),
        (["--steps", "1:100:3"], 2, "--steps 1:100:3"),
        (["--threshold", "0.01", "--rate", "200"], 10, "below the 0.050%"),
    ],
)
def test_the_verb_refuses_in_one_line(mapped, capsys, arguments, code, says):
    assert main(["prescribe", str(mapped), *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert not (mapped / "prescription.json").exists()


@pytest.mark.parametrize("content", [None, "[]", "{", '{"trust": 5}', '{"trust": {"odd": 1}}'])
def test_a_folder_without_a_map_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "map.json").write_text(content, encoding="utf-8")
    with pytest.raises(FieldDataError, match="holds no record of a weed map"):
        prescribe_folder(tmp_path, options())


def test_sample_points_are_no_map(tmp_path):
    (tmp_path / "samples.csv").write_text("photo,lon,lat\n", encoding="utf-8")
    with pytest.raises(FieldDataError, match=r"sample points .* err by metres; .*orthomosaic"):
        prescribe_folder(tmp_path, options())
