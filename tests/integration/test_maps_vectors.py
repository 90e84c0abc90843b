"""The weed map's files, read by others: geopandas, sqlite3, csv, json."""

import csv
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.errors import FieldDataError, OutputError
from weedseg.maps.trust import UNTESTED, Trust
from weedseg.maps.vectors import cell_table, load_weed_map, save_weed_map
from weedseg.maps.weed_map import Grid, WeedMap

TRUST = Trust(evaluated=False, note=f'{UNTESTED}: hier wächst "Mais" & <Soja>')
NAMES = ["cell_id", "weed_pct", "weed_m2", "crop_pct", "n_patch", "patch_m2", "conf", "valid_pct"]
NAMES += ["treat", "rate"]
FILES = ["cells.gpkg", "cells.geojson", "cells.csv", "cells_README.txt"]
LOCAL = (
    'PROJCS["farm",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["latitude_of_origin",50],PARAMETER["central_meridian",9.2],'
    'PARAMETER["scale_factor",1],PARAMETER["false_easting",0],PARAMETER["false_northing",0],'
    'UNIT["metre",1]]'
)


def weed_map_of(rng, size=(12, 9), heading_deg=33.3, crs="EPSG:32632", share=0.8):
    """Draw a map with gaps, every number of it random."""
    held = rng.random(size) < share
    held[0, 0] = True
    rows, columns = np.nonzero(held)
    number = len(rows)
    shares = rng.dirichlet([1, 1, 2], number)
    ground = rng.random(number) * 12
    patches = rng.integers(0, 50, number)
    corner = (1234.5, 678.9) if crs == LOCAL else (600_000.1, 5_600_000.2)
    return WeedMap(
        grid=Grid(
            crs=crs,
            corner=corner,
            heading_deg=heading_deg,
            cell_m=(4.0, 3.0),
            num_rows=size[0],
            num_columns=size[1],
        ),
        rows=rows,
        columns=columns,
        ground_m2=ground,
        valid_share=ground / 12,
        weed_share=shares[:, 0],
        crop_share=shares[:, 1],
        weed_m2=shares[:, 0] * ground,
        crop_m2=shares[:, 1] * ground,
        num_patches=patches,
        patch_m2=rng.random(number) * (patches > 0),
        confidence=rng.random(number),
        min_patch_m2=0.0004,
    )


@pytest.fixture(scope="module")
def weed_map():
    return weed_map_of(np.random.default_rng(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weed_map):
    out = tmp_path_factory.mktemp("map") / "new"
    assert [path.name for path in save_weed_map(weed_map, TRUST, out)] == FILES
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    return out


def same(one, other):
    """Two maps are equal to the last bit, types too."""
    assert one.grid == other.grid
    for name, value in vars(one).items():
        found = getattr(other, name)
        if isinstance(value, np.ndarray):
            assert found.dtype == value.dtype, name
            np.testing.assert_array_equal(found, value, err_msg=name)
        else:
            assert found == value, name


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    heading=st.floats(0, 179.999),
    crs=st.sampled_from(["EPSG:32632", "EPSG:32733", LOCAL]),
)
def test_a_map_is_read_as_it_was_written(tmp_path_factory, seed, size, heading, crs):
    out = tmp_path_factory.mktemp("map")
    weed_map = weed_map_of(np.random.default_rng(seed), size, heading, crs)
    save_weed_map(weed_map, TRUST, out)
    same(load_weed_map(out), weed_map)


def test_geopandas_reads_the_geopackage(folder, weed_map):
    cells = geopandas.read_file(folder / "cells.gpkg", layer="cells")
    assert [*cells.columns] == [*NAMES, "geometry"]
    assert cells.crs == weed_map.grid.crs
    np.testing.assert_allclose(cells.area, 12.0)
    assert shapely.equals_exact(cells.geometry.values, weed_map.polygons(), 1e-9).all()
    np.testing.assert_allclose(cells["weed_pct"], 100 * weed_map.weed_share, atol=1e-6)
    np.testing.assert_allclose(cells["crop_pct"], 100 * weed_map.crop_share, atol=1e-6)
    np.testing.assert_allclose(cells["conf"], 100 * weed_map.confidence, atol=1e-6)
    np.testing.assert_allclose(cells["valid_pct"], 100 * weed_map.valid_share, atol=1e-6)
    np.testing.assert_allclose(cells["patch_m2"], weed_map.patch_m2, atol=1e-6)
    assert cells["weed_m2"].sum() == pytest.approx(weed_map.totals()["weed_m2"], abs=1e-4)
    assert cells["n_patch"].sum() == weed_map.totals()["num_patches"]
    assert not cells[["treat", "rate"]].any(axis=None)
    assert cells["cell_id"].is_unique


def test_sqlite_reads_the_geopackage(folder, weed_map):
    with closing(sqlite3.connect(folder / "cells.gpkg")) as base:
        kinds = base.execute("SELECT table_name, data_type, description FROM gpkg_contents")
        assert kinds.fetchall() == [
            ("cells", "features", TRUST.note),
            ("weed_map", "attributes", TRUST.note),
        ]
        assert base.execute("SELECT count(*) FROM cells").fetchone() == (len(weed_map.rows),)
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        exact = base.execute("SELECT weed_m2 FROM weed_map ORDER BY fid").fetchall()
        assert [value for (value,) in exact] == weed_map.weed_m2.tolist()


def test_the_geojson_is_rfc_7946(folder, weed_map):
    text = (folder / "cells.geojson").read_text(encoding="utf-8")
    data = json.loads(text)
    assert data["type"] == "FeatureCollection"
    assert "crs" not in data
    assert data["description"] == TRUST.note
    assert len(data["features"]) == len(weed_map.rows)
    expected = geopandas.GeoSeries(weed_map.polygons(), crs=weed_map.grid.crs).to_crs(4326)
    table = cell_table(weed_map)
    for number, feature in enumerate(data["features"]):
        assert list(feature["properties"]) == NAMES
        for name, value in feature["properties"].items():
            assert value == table[name][number]
        assert feature["geometry"]["type"] == "Polygon"
        (ring,) = feature["geometry"]["coordinates"]
        assert shapely.LinearRing(ring).is_ccw
        np.testing.assert_allclose(
            ring, shapely.get_coordinates(expected[number]), atol=1e-8
        )  # 1 mm


def test_the_csv_has_the_columns_and_the_centres(folder, weed_map):
    with (folder / "cells.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == [*NAMES, "lon", "lat"]
    table = cell_table(weed_map)
    outlines = json.loads((folder / "cells.geojson").read_text(encoding="utf-8"))["features"]
    assert len(rows) == len(outlines)
    for number, (row, outline) in enumerate(zip(rows, outlines)):
        assert row[0] == table["cell_id"][number]
        assert [float(v) for v in row[1:10]] == [float(table[n][number]) for n in NAMES[1:]]
        middle = shapely.geometry.shape(outline["geometry"]).centroid
        assert (middle.x, middle.y) == pytest.approx((float(row[10]), float(row[11])), abs=2e-8)


def test_every_file_says_what_is_known_of_the_model(folder):
    assert (folder / "cells_README.txt").read_text(encoding="utf-8").count(TRUST.note) == 1
    for layer in ("cells", "weed_map"):
        info = pyogrio.read_info(folder / "cells.gpkg", layer=layer)
        assert info["layer_metadata"]["DESCRIPTION"] == TRUST.note
    readme = (folder / "cells_README.txt").read_text(encoding="utf-8")
    assert all(f"\n{name} " in readme for name in NAMES)


def test_a_cell_keeps_its_name_in_another_flight(weed_map):
    """The second flight's grid begins three rows and two columns later."""
    grid = weed_map.grid
    column, row = grid.affine() @ (2, 3)
    later = replace(weed_map, grid=replace(grid, corner=(column, row)))
    names = [cell_table(m)["cell_id"] for m in (weed_map, later)]
    places = [dict(zip(n, m.polygons())) for n, m in zip(names, (weed_map, later))]
    shared = places[0].keys() & places[1].keys()
    assert len(shared) > 20
    for name in shared:
        assert places[0][name].equals_exact(places[1][name], 1e-6)


def test_a_prescription_fills_its_columns(tmp_path, weed_map):
    treat = weed_map.weed_share > 0.2
    rate = np.where(treat, 150.5, 0.0)
    save_weed_map(weed_map, TRUST, tmp_path)
    save_weed_map(weed_map, TRUST, tmp_path, treat=treat, rate=rate)
    cells = geopandas.read_file(tmp_path / "cells.gpkg", layer="cells")
    assert cells["treat"].tolist() == treat.astype(int).tolist()
    assert cells["rate"].tolist() == rate.tolist()
    same(load_weed_map(tmp_path), weed_map)


def test_a_folder_that_is_none_is_refused(tmp_path, weed_map):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_weed_map(weed_map, TRUST, tmp_path / "file")


@pytest.mark.parametrize("largest", ["cells.gpkg", "cells.geojson"])
def test_a_full_disk_leaves_what_was_there(tmp_path, largest):
    """No file may grow to the size that this one would have: it breaks off just before its end."""
    big = weed_map_of(np.random.default_rng(2), (60, 60))
    save_weed_map(big, TRUST, tmp_path)
    limit = (tmp_path / largest).stat().st_size - 1000
    small = weed_map_of(np.random.default_rng(1), (2, 2))
    save_weed_map(small, TRUST, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = (
        "import sys, numpy as np; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_maps_vectors import TRUST, save_weed_map, weed_map_of\n"
        "from weedseg.errors import OutputError\n"
        "big = weed_map_of(np.random.default_rng(2), (60, 60))\n"
        "try: save_weed_map(big, TRUST, Path(sys.argv[1]))\n"
        "except OutputError as error: print(error)\n"
    )

    def no_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path), __file__.rpartition("/")[0]],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=no_room,
    )
    assert "the weed map cannot be written" in done.stdout, done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    same(load_weed_map(tmp_path), small)


def test_what_is_no_weed_map_is_refused(tmp_path, folder):
    with pytest.raises(FieldDataError, match=r"holds no cells\.gpkg; .*weedseg map"):
        load_weed_map(tmp_path)
    path = tmp_path / "cells.gpkg"
    data = (folder / "cells.gpkg").read_bytes()
    for wrong in (b"", b"field", data[:5000], data[: len(data) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(FieldDataError, match="is damaged"):
            load_weed_map(tmp_path)
    path.unlink()
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=32632).to_file(
        path, layer="cells", driver="GPKG"
    )
    with pytest.raises(FieldDataError, match="no metadata of weedseg"):
        load_weed_map(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("DELETE FROM weed_map WHERE fid = 1", "cells are missing"),
        ("DROP TABLE weed_map", "damaged"),
        ("UPDATE weed_map SET num_patches = NULL WHERE fid = 1", "damaged"),
        (
            """UPDATE gpkg_metadata SET metadata = replace(metadata, 'schema": 1', 'schema": 9')""",
            "schema 9",
        ),
    ],
)
def test_a_map_that_was_tampered_with_is_refused(tmp_path, folder, change, why):
    path = tmp_path / "cells.gpkg"
    path.write_bytes((folder / "cells.gpkg").read_bytes())
    with closing(sqlite3.connect(path)) as base:
        # GDAL's triggers need functions that Python's SQLite lacks.
        for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            base.execute(f'DROP TRIGGER "{name}"')
        base.execute(change)
        base.commit()
    with pytest.raises(FieldDataError, match=why):
        load_weed_map(tmp_path)
