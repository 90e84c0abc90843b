"""Good map files pass, each planted error is found, hostile files give a sentence."""

import io
import json
import re
import shutil
import sqlite3
import struct
import zipfile
from contextlib import closing

import geopandas
import numpy as np
import pytest
import rasterio
import shapefile
import shapely
from cell_maps import TRUSTED, options, weed_map
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weedseg.classes import DEFAULT_CLASSES
from weedseg.cli import main
from weedseg.data.mosaics import Window
from weedseg.errors import FieldDataError
from weedseg.maps import checks
from weedseg.maps.ground import Ground
from weedseg.maps.prescription import prescribe
from weedseg.maps.prescription_files import write_prescription
from weedseg.maps.raster import LayerWriter
from weedseg.maps.validate import validate

RNG = np.random.default_rng(11)
COVER = np.where(RNG.random((30, 20)) < 0.1, RNG.uniform(2, 20, (30, 20)), 0.0)
COVER[0, 0] = 9
PRESCRIBED = (
    "prescription_shapefile.zip",
    "prescription.geojson",
    "prescription.kml",
    "TASKDATA.zip",
    "TASKDATA",
)
CELLS = ("cells.gpkg", "cells.geojson", "cells.csv")
RASTERS = ("classes.tif", "confidence.tif")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a good file of every kind."""
    out = tmp_path_factory.mktemp("good")
    found = weed_map(COVER, heading=20.0)
    write_prescription(prescribe(found, options((2, 100), (8, 250)), TRUSTED), out)
    write_rasters(out)
    return out


def write_rasters(out, crs="EPSG:32633", place=(0.05, 0.0, 541_200.0, 0.0, -0.05, 5_331_060.0)):
    ground = Ground(size=(1200, 1100), crs=crs, transform=place, metric_crs=crs)
    layer = RNG.integers(0, 3, ground.size).astype(np.uint8)
    layer[:300, :200] = 255
    share = np.where(layer == 255, 255, RNG.integers(0, 101, ground.size)).astype(np.uint8)
    for name, values, classes in zip(RASTERS, (layer, share), (DEFAULT_CLASSES, None)):
        with closing(LayerWriter(out / name, out, ground)) as writer:
            writer.describe(name, classes)
            writer.add(Window(0, 0, *ground.size), values)
            writer.finish()


@pytest.fixture
def planted(good, tmp_path):
    """Return a function that copies a good file with its neighbours, changes and checks it."""

    def plant(name, change):
        for beside in ("prescription.json", "prescription.geojson"):
            shutil.copy(good / beside, tmp_path / beside)
        if (good / name).is_dir():
            shutil.copytree(good / name, tmp_path / name)
        else:
            shutil.copy(good / name, tmp_path / name)
        change(tmp_path / name)
        (checked,) = validate(tmp_path / name)
        return checked

    return plant


def found_one(checked, says):
    assert len(checked.faults) == 1, [str(fault) for fault in checked.faults]
    assert re.search(says, str(checked.faults[0])), str(checked.faults[0])


# --- good files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PRESCRIBED, *CELLS, *RASTERS])
def test_good_files_pass(good, name):
    (checked,) = validate(good / name)
    assert [str(fault) for fault in checked.faults] == []
    assert checked.notes == []


def test_a_folder_is_checked_file_by_file(good):
    assert {c.path.name for c in validate(good)} == {*PRESCRIBED, *CELLS, *RASTERS}


@pytest.mark.parametrize("name", ["TASKDATA.XML", "TASKDATA.zip"])
def test_task_data_alone_say_what_was_not_compared(good, tmp_path, name):
    (tmp_path / "TASKDATA").mkdir()
    source = good / ("TASKDATA/TASKDATA.XML" if name.endswith("XML") else name)
    place = tmp_path / ("TASKDATA" if name.endswith("XML") else "") / name
    shutil.copy(source, place)
    if name.endswith("XML"):
        shutil.copy(good / "TASKDATA" / "GRD00000.bin", tmp_path / "TASKDATA")
    (checked,) = validate(place)
    assert checked.faults == []
    assert checked.notes == [
        "the order of rows was not compared: no readable prescription.geojson beside it"
    ]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2056", "EPSG:2193", "EPSG:3857"])
def test_rasters_of_any_crs_pass(tmp_path, crs):
    places = {
        "EPSG:4326": (1e-6, 0.0, 16.4, 0.0, -1e-6, 48.2),
        "EPSG:3857": (0.05, 0.0, 1_825_000.0, 0.0, -0.05, 6_140_000.0),
    }
    place = places.get(crs, (0.05, 0.0, 2_600_000.0, 0.0, -0.05, 1_200_000.0))
    write_rasters(tmp_path, crs, place)
    assert all(checked.faults == [] for checked in validate(tmp_path))


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 179.9),
    st.sampled_from([(3.0, 3.0), (1.0, 3.0), (10.0, 0.5), (0.7, 6.0)]),
    st.sampled_from([None, 0.5, 3.0, 24.0]),
    st.sampled_from([0.02, 0.3, 0.9]),
)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_right_grid_is_never_called_wrong(tmp_path, seed, heading, cell_m, isoxml_m, share):
    """What is written is checked at once, so a false alarm would refuse a right prescription."""
    rng = np.random.default_rng(seed)
    cover = np.where(rng.random(rng.integers(1, 25, 2)) < share, 9.0, 0.0)
    place = (rng.uniform(200_000, 800_000), rng.uniform(100_000, 9_000_000))
    found = weed_map(cover, cell_m=cell_m, heading=heading, corner=place)
    chosen = options((2, 100), (8, 250), isoxml_cell_m=isoxml_m)
    write_prescription(prescribe(found, chosen, TRUSTED), tmp_path)
    assert [str(fault) for checked in validate(tmp_path) for fault in checked.faults] == []


# --- planted errors: Shapefile -----------------------------------------------------------------


def rezip(path, change):
    """Change the members of an archive: name -> content, in place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def shapes(change, fields=(("rate", "N", 24, 6),), kind=shapefile.POLYGON):
    """Return a change that writes the Shapefile again with pyshp.

    Args:
        change: Takes the points (n, 2) of a ring and its rate, returns points and a row.
        fields: Columns.
        kind: Type of shape.
    """

    def write(members):
        parts = {s: io.BytesIO(members[f"prescription.{s}"]) for s in ("shp", "shx", "dbf")}
        with shapefile.Reader(**parts) as reader:
            pairs = [(np.array(s.shape.points), s.record[0]) for s in reader.shapeRecords()]
        out = {s: io.BytesIO() for s in ("shp", "shx", "dbf")}
        with shapefile.Writer(**out, shapeType=kind) as writer:
            for name, letter, size, decimal in fields:
                writer.field(name, letter, size=size, decimal=decimal)
            for points, rate in pairs:
                ring, row = change(points, rate)
                if kind == shapefile.POINT:
                    writer.point(*ring[0])
                else:
                    writer.shape({"type": "Polygon", "coordinates": [ring.tolist()]})
                writer.record(*row)
        members.update({f"prescription.{s}": out[s].getvalue() for s in out})

    return write


def raw_shapes(change):
    """Return a change of the points in the bytes of the .shp, which pyshp would put right."""

    def write(members):
        data = bytearray(members["prescription.shp"])
        at = 100
        while at < len(data):
            words = struct.unpack_from(">i", data, at + 4)[0]
            number = struct.unpack_from("<i", data, at + 8 + 40)[0]
            start = at + 8 + 44 + 4
            points = np.frombuffer(bytes(data[start : start + 16 * number]), "<f8").reshape(-1, 2)
            data[start : start + 16 * number] = change(points.copy()).astype("<f8").tobytes()
            at += 8 + 2 * words
        members["prescription.shp"] = bytes(data)

    return write


def open_ring(points):
    points[-1] += 1e-6
    return points


def bow_tie(points):
    return points[[0, 2, 1, 3, 0]]


def into_folder(members):
    for name in list(members):
        members[f"prescription/{name}"] = members.pop(name)


def cut_rows(members):
    table = members["prescription.dbf"]
    (count,) = struct.unpack_from("<I", table, 4)
    members["prescription.dbf"] = table[:4] + struct.pack("<I", count - 2) + table[8:]


PROJECTED = b'PROJCS["WGS_1984_UTM_Zone_33N",GEOGCS["GCS_WGS_1984"]]'
SHAPEFILE_ERRORS = {
    "inner folder": (into_folder, "lies in a folder within the archive"),
    "no prj": (lambda m: m.pop("prescription.prj"), r"no \.prj"),
    "no cpg": (lambda m: m.pop("prescription.cpg"), r"no \.cpg"),
    "no dbf": (lambda m: m.pop("prescription.dbf"), r"no \.dbf"),
    "projected prj": (lambda m: m.update({"prescription.prj": PROJECTED}), "CRS in the .prj"),
    "swapped": (shapes(lambda p, r: (p[:, ::-1], [r])), "latitude comes first"),
    "metres": (raw_shapes(lambda p: p * 30_000), "metres labelled as degrees"),
    "elsewhere": (raw_shapes(lambda p: p + 0.01), "outside the field"),
    "not a number": (raw_shapes(lambda p: p * np.nan), "no finite number"),
    "counter-clockwise": (raw_shapes(lambda p: p[::-1]), "outlines turn the wrong way"),
    "open ring": (raw_shapes(open_ring), "do not end where they begin"),
    "bow tie": (raw_shapes(bow_tie), "invalid"),
    "two columns": (
        shapes(lambda p, r: (p, [r, 1]), (("rate", "N", 24, 6), ("treat", "N", 2, 0))),
        "columns rate .*, treat",
    ),
    "text": (shapes(lambda p, r: (p, [f"{r}"]), (("rate", "C", 20, 0),)), r"columns rate \(C\)"),
    "other name": (shapes(lambda p, r: (p, [r]), (("dose", "N", 24, 6),)), "columns dose"),
    "negative": (shapes(lambda p, r: (p, [-r])), "a rate of -250 l/ha"),
    "too high": (shapes(lambda p, r: (p, [r * 100])), "a rate of 25000 l/ha; expected 0 to 5000"),
    "gallons": (shapes(lambda p, r: (p, [r / 9.354])), "one that prescription.json states"),
    "no rate": (shapes(lambda p, r: (p, [r or None])), "are no numbers"),
    "fewer rows": (cut_rows, "polygons and .* rows"),
    "points": (shapes(lambda p, r: (p, [r]), kind=shapefile.POINT), "shape type 1"),
}


@pytest.mark.parametrize("error", SHAPEFILE_ERRORS)
def test_shapefile_errors(planted, error):
    change, says = SHAPEFILE_ERRORS[error]
    found_one(planted("prescription_shapefile.zip", lambda p: rezip(p, change)), says)


# --- planted errors: GeoJSON and KML -----------------------------------------------------------


def geojson(change):
    def write(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return write


def each_ring(change):
    def write(content):
        for feature in content["features"]:
            rings = feature["geometry"]["coordinates"]
            feature["geometry"]["coordinates"] = [change(ring) for ring in rings]

    return write


def each_row(change):
    return lambda content: [change(f["properties"]) for f in content["features"]]


def named_crs(content):
    content["crs"] = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}


def to_point(content):
    content["features"][0]["geometry"] = {"type": "Point", "coordinates": [16, 48]}


GEOJSON_ERRORS = {
    "swapped": (each_ring(lambda r: [p[::-1] for p in r]), "latitude comes first"),
    "metres": (each_ring(lambda r: [[5e5, 5e6], *r[1:]]), "metres labelled as degrees"),
    "far east, swapped": (each_ring(lambda r: [[48, 150]] * 4), "latitude comes first"),
    "elsewhere": (each_ring(lambda r: [[x + 1, y] for x, y in r]), "outside the field"),
    "clockwise": (each_ring(lambda r: r[::-1]), "outlines turn the wrong way"),
    "open": (each_ring(lambda r: r[:-1]), "do not end where they begin"),
    "crs": (named_crs, "the CRS urn:ogc:def:crs:EPSG::32633"),
    "point": (to_point, "a Point"),
    "more": (each_row(lambda v: v.update(note="x")), "the properties note"),
    "fewer": (each_row(lambda v: v.pop("rate")), "polygons without rate"),
    "text": (each_row(lambda v: v.update(rate=str(v["rate"]))), "are no numbers"),
    "truth": (each_row(lambda v: v.update(rate=v["rate"] > 0)), "are no numbers"),
    "infinite": (each_row(lambda v: v.update(rate=float("inf"))), "Infinity is no JSON"),
    "huge": (each_row(lambda v: v.update(rate=1e308)), "a rate of 1e"),
    "empty": (lambda c: c["features"].clear(), "holds no polygon"),
    "no collection": (lambda c: c.update(type="Feature"), "no FeatureCollection"),
    "null shape": (lambda c: c["features"][0].update(geometry=None), "cannot be read"),
}


@pytest.mark.parametrize("error", GEOJSON_ERRORS)
def test_geojson_errors(planted, error):
    change, says = GEOJSON_ERRORS[error]
    found_one(planted("prescription.geojson", geojson(change)), says)


def text(change):
    return lambda path: path.write_text(change(path.read_text("utf-8")), encoding="utf-8")


def swap_kml(content):
    return re.sub(r"([\d.]+),([\d.]+),0", r"\2,\1,0", content)


KML_ERRORS = {
    "swapped": (swap_kml, "latitude comes first"),
    "no rate": (lambda t: t.replace('"rate">250', '"dose">250'), "are no numbers"),
    "text": (lambda t: t.replace('"rate">250', '"rate">much'), "cannot be read"),
    "other namespace": (lambda t: t.replace("kml/2.2", "kml/9"), "begins with"),
    "cut": (lambda t: t[: len(t) // 2], "is no XML"),
    "entities": (
        lambda t: t.replace("<kml", '<!DOCTYPE k [<!ENTITY a "b">]><kml', 1),
        "declares a document type or entities",
    ),
    "open": (lambda t: re.sub(r"([\d.]+,[\d.]+,0)\s*</coord", "</coord", t), "do not end"),
    "empty": (lambda t: t.replace("Placemark", "Place"), "holds no polygon"),
}


@pytest.mark.parametrize("error", KML_ERRORS)
def test_kml_errors(planted, error):
    change, says = KML_ERRORS[error]
    found_one(planted("prescription.kml", text(change)), says)


# --- planted errors: ISOXML --------------------------------------------------------------------


def xml(pattern, new):
    def write(path):
        file = path / "TASKDATA.XML"
        old = file.read_text("utf-8")
        changed = re.sub(pattern, new, old)
        assert changed != old
        file.write_text(changed, encoding="utf-8")

    return write


def grid(change):
    """Return a change of the values, (rows, columns)."""

    def write(path):
        head = (path / "TASKDATA.XML").read_text("utf-8")
        columns = int(re.search(r'<GRD[^>]* E="(\d+)"', head)[1])
        file = path / "GRD00000.bin"
        raw = np.frombuffer(file.read_bytes(), "<i4").reshape(-1, columns)
        file.write_bytes(np.ascontiguousarray(change(raw)).tobytes())

    return write


def second_treatment(path):
    xml(r"(<TZN .*?</TZN>)", r"\1")  # the pattern is there
    file = path / "TASKDATA.XML"
    old = file.read_text("utf-8")
    (first,) = re.findall(r"(?s)<TZN .*?</TZN>", old)
    sprayed = first.replace('A="0"', 'A="1"', 1).replace('B="0" ', 'B="2000000" ')
    assert sprayed.count("2000000") == 1
    changed = old.replace(first, first + sprayed).replace('I="0"', 'I="1"')
    file.write_text(changed, encoding="utf-8")


def renamed(path):
    (path / "TASKDATA.XML").rename(path / "taskdata.xml")


def without_grid(path):
    (path / "GRD00000.bin").unlink()


ISOXML_ERRORS = {
    "rows from the north": (grid(lambda g: g[::-1]), "first row of the grid is the northern"),
    "columns from the east": (grid(lambda g: g[:, ::-1]), "first column of the grid is the east"),
    "big-endian": (grid(lambda g: g.astype(">i4")), "a raw value of"),
    "litres": (grid(lambda g: g // 10_000), "only 0.025 l/ha"),
    "mm3 per m2": (grid(lambda g: g // 100), "one that prescription.json states"),
    "negative": (grid(lambda g: -g), "a raw value of -2500000"),
    "empty": (grid(lambda g: g * 0), "cells treat other places than prescription.geojson"),
    "cut": (grid(lambda g: g[:-1]), "bytes in GRD00000.bin"),
    "longer": (grid(lambda g: np.vstack([g, g])), "bytes in GRD00000.bin"),
    "no binary": (without_grid, "no file GRD00000.bin"),
    "sprayed without a position": (second_treatment, "without a position has the raw rate 2000000"),
    "default not set": (xml(r'(<TSK[^>]*) H="0"', r"\1"), "default treatment zone is not set"),
    "outside not set": (xml(r'(<TSK[^>]*) J="0"', r"\1"), "outside the field is not set"),
    "mass": (xml('PDV A="0001"', 'PDV A="0006"'), "data dictionary entries 0006"),
    "type 1": (xml(r'(<GRD[^>]*) I="2"', r'\1 I="1"'), "a grid of type 1"),
    "version": (xml('VersionMajor="3"', 'VersionMajor="2"'), "version 2"),
    "origin": (xml('DataTransferOrigin="1"', 'DataTransferOrigin="2"'), "origin 2"),
    "scale": (xml(r'(<VPN[^>]*) C="0.0001"', r'\1 C="0.01"'), "a scale of 0.01"),
    "moved": (xml(r'(<GRD[^>]*) A="48.', r'\1 A="47.'), "does not cover the field"),
    "metres": (xml(r'(<GRD[^>]*) B="15.', r'\1 B="541215.'), "south-west corner"),
    "swapped": (xml(r'(<GRD) A="([^"]*)" B="([^"]*)"', r'\1 A="\3" B="\2"'), "does not cover"),
    "no size": (xml(r'(<GRD[^>]*) C="[^"]*"', r'\1 C="0"'), "cells of 0 x"),
    "no number": (xml(r'(<GRD[^>]*) E="\d+"', r'\1 E="many"'), "cannot be read"),
    "huge": (xml(r'(<GRD[^>]*) F="\d+"', r'\1 F="4000000000"'), "bytes in GRD00000.bin"),
    "other file": (xml('G="GRD00000"', 'G="../../../etc/passwd"'), r"no file \.\./"),
    "two tasks": (xml(r"(?s)(<TSK.*</TSK>)", r"\1\1"), "2 tasks"),
    "other root": (xml("ISO11783_TaskData", "TaskData"), "begins with TaskData"),
    "small letters": (renamed, "no TASKDATA/TASKDATA.XML"),
}


@pytest.mark.parametrize("error", ISOXML_ERRORS)
def test_isoxml_errors(planted, error):
    change, says = ISOXML_ERRORS[error]
    found_one(planted("TASKDATA", change), says)


def test_task_data_at_the_top_of_an_archive(planted):
    def flatten(members):
        for name in list(members):
            members[name.rpartition("/")[2]] = members.pop(name)

    found_one(
        planted("TASKDATA.zip", lambda p: rezip(p, flatten)), "no TASKDATA/TASKDATA.XML among GRD"
    )


# --- planted errors: cells ---------------------------------------------------------------------


def sql(*commands):
    def write(path):
        with closing(sqlite3.connect(path)) as base:
            for (trigger,) in base.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall():
                base.execute(f'DROP TRIGGER "{trigger}"')
            for command in commands:
                base.execute(command)
            base.commit()

    return write


def degrees_as_metres(path):
    with closing(sqlite3.connect(path)) as base:
        name = "gpkg_geometry_columns"
        (column,) = base.execute(f"SELECT column_name FROM {name}").fetchone()
        rows = base.execute(f"SELECT fid, {column} FROM cells").fetchall()
    shapes_in = []
    for fid, blob in rows:
        start = 8 + (0, 32, 48, 48, 64)[blob[3] >> 1 & 7]
        points = np.frombuffer(blob[start + 13 :], "<f8") / 1e5
        shapes_in.append((blob[: start + 13] + points.tobytes(), fid))
    sql()(path)
    with closing(sqlite3.connect(path)) as base:
        base.executemany(f"UPDATE cells SET {column} = ? WHERE fid = ?", shapes_in)
        base.commit()


GPKG_ERRORS = {
    "no crs": (sql("DELETE FROM gpkg_spatial_ref_sys WHERE srs_id > 4326"), "no CRS in"),
    "other crs": (sql("UPDATE gpkg_contents SET srs_id = 4326"), "no CRS in"),
    "degrees": (degrees_as_metres, "degrees labelled as metres"),
    "column": (sql("ALTER TABLE cells RENAME COLUMN weed_pct TO weeds"), "without weed_pct"),
    "long name": (
        sql("ALTER TABLE cells ADD COLUMN weed_percent_of_ground REAL"),
        "with weed_percent_of_ground",
    ),
    "twice": (sql("UPDATE cells SET cell_id = '1_1' WHERE fid < 3"), "cell_id occur twice"),
    "no number": (sql("UPDATE cells SET conf = NULL WHERE fid = 3"), "no number somewhere in conf"),
    "too much": (sql("UPDATE cells SET weed_pct = 120 WHERE fid = 3"), "weed_pct 120"),
    "shares": (sql("UPDATE cells SET valid_pct = valid_pct / 100"), "valid_pct up to 1: shares"),
    "weed shares": (sql("UPDATE cells SET weed_pct = weed_pct / 100"), "weed_m2 sums to"),
    "hectares": (sql("UPDATE cells SET weed_m2 = weed_m2 / 10000"), "weed_m2 sums to"),
    "sum": (sql("UPDATE cells SET crop_pct = 100"), "weed_pct and crop_pct together"),
    "contradiction": (sql("UPDATE cells SET treat = 0"), "contradict each other"),
    "negative": (sql("UPDATE cells SET rate = -rate WHERE treat = 1"), "rate -"),
    "no layer": (sql("DELETE FROM gpkg_geometry_columns"), "0 layers"),
    "no cell": (sql("DELETE FROM cells"), "holds no Polygon"),
    "no geometry": (sql("UPDATE cells SET geom = NULL"), "cannot be read"),
    "no table": (sql("ALTER TABLE cells RENAME TO other"), "no table 'cells'"),
}


@pytest.mark.parametrize("error", GPKG_ERRORS)
def test_gpkg_errors(planted, error):
    change, says = GPKG_ERRORS[error]
    checked = planted("cells.gpkg", change)
    if error == "negative":
        assert re.search(says, str(checked.faults[0]))
        return
    found_one(checked, says)


CELL_ERRORS = {
    "swapped": (each_ring(lambda r: [[48, 150]] * 5), "latitude comes first"),
    "clockwise": (each_ring(lambda r: r[::-1]), "outlines turn the wrong way"),
    "column": (each_row(lambda v: v.pop("conf")), "without conf"),
    "shares": (each_row(lambda v: v.update(weed_pct=v["weed_pct"] / 100)), "weed_m2 sums to"),
}


@pytest.mark.parametrize("error", CELL_ERRORS)
def test_cells_geojson_errors(planted, error):
    change, says = CELL_ERRORS[error]
    found_one(planted("cells.geojson", geojson(change)), says)


CSV_ERRORS = {
    "column": (lambda t: t.replace("weed_pct", "weeds", 1), "without weed_pct"),
    "semicolons": (lambda t: t.replace(",", ";"), "without cell_id, weed_pct"),
    "text": (lambda t: t.replace("90.0", "high", 1), "no number somewhere in conf"),
    "shares": (lambda t: t.replace("90.0", "0.9"), "conf up to 0.9: shares"),
    "empty": (lambda t: t.split("\n")[0], "holds no row"),
}


@pytest.mark.parametrize("error", CSV_ERRORS)
def test_csv_errors(planted, error):
    change, says = CSV_ERRORS[error]
    found_one(planted("cells.csv", text(change)), says)


# --- sample points -----------------------------------------------------------------------------

SAMPLE = {
    "photo": "a.jpg",
    "lon": 16.4,
    "lat": 48.2,
    "alt_m": 171.0,
    "gps_err_m": 4.0,
    "taken": "2024-05-03T10:00:00",
    "weed_pct": 2.5,
    "crop_pct": 31.0,
    "conf": 92.0,
}


@pytest.fixture
def samples(tmp_path):
    """Return a function that writes two samples in all formats with GDAL and checks them."""

    def write(change):
        rows = [dict(SAMPLE), {**SAMPLE, "photo": "b.jpg", "lon": 16.41, "alt_m": np.nan}]
        change(rows[0])
        frame = geopandas.GeoDataFrame(rows, geometry=[shapely.Point(16.4, 48.2)] * 2, crs=4326)
        frame.loc[1, "geometry"] = shapely.Point(16.41, 48.2)
        frame.to_file(tmp_path / "samples.gpkg", layer="samples")
        frame.to_file(tmp_path / "samples.geojson", RFC7946="YES")
        frame.drop(columns="geometry").to_csv(tmp_path / "samples.csv", index=False)
        (tmp_path / "no_position.csv").write_text("photo,why\nc.jpg,none\n")
        return validate(tmp_path)

    return write


def test_good_samples_pass(samples):
    assert [checked.faults for checked in samples(lambda row: None)] == [[], [], []]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"lon": 48.2, "lat": 116.4}, "latitude comes first"),
        ({"lon": 16.5}, "do not lie at lon and lat"),
        ({"weed_pct": 140.0}, "weed_pct 140"),
        ({"weed_pct": -1.0}, "weed_pct -1"),
        ({"conf": np.nan}, "conf nan|covers cannot be read"),
        ({"crop_pct": 99.0}, "weed_pct and crop_pct together 101.5"),
    ],
)
def test_sample_errors(samples, wrong, says):
    faulty = [checked for checked in samples(lambda row: row.update(wrong)) if checked.faults]
    assert len(faulty) == (2 if says.startswith("do not lie") else 3)
    for checked in faulty:
        found_one(checked, says)


# --- planted errors: GeoTIFF -------------------------------------------------------------------


def raster(**others):
    """Return a change that writes a raster again with other properties."""

    def write(path):
        with rasterio.open(path) as file:
            values, profile = file.read(1), file.profile
            table = None if "confidence" in path.name else file.colormap(1)
            tags = file.tags()
        plain = {"driver": "GTiff", "photometric": "minisblack" if table is None else "palette"}
        profile.update(plain, compress="deflate", tiled=True, blockxsize=512, blockysize=512)
        change = others.pop("values", None)
        colours, looks = others.pop("colours", True), others.pop("overviews", True)
        profile.update(others)
        if not colours:
            profile.update(photometric="minisblack")
        values = values if change is None else change(values)
        with rasterio.open(path, "w", **profile) as file:
            for band in range(1, profile["count"] + 1):
                file.write(values.astype(profile["dtype"]), band)
            if table and colours and profile["dtype"] == "uint8":
                file.write_colormap(1, table)
            file.update_tags(**tags)
            if looks:
                file.build_overviews([2, 4])

    return write


def put(value):
    def change(values):
        values[600, 600] = value
        return values

    return change


DEGREES = rasterio.Affine(1e-6, 0, 16.5, 0, -1e-6, 48.1)
TIFF_ERRORS = {
    "no crs": ("classes.tif", raster(crs=None), "no CRS"),
    "no place": ("classes.tif", raster(transform=None), "no transform"),
    "degrees as metres": ("classes.tif", raster(transform=DEGREES), "in metres; expected"),
    "metres as degrees": ("classes.tif", raster(crs="EPSG:4326"), "in degrees; expected"),
    "nodata": ("classes.tif", raster(nodata=0), "nodata 0"),
    "no nodata": ("confidence.tif", raster(nodata=None), "nodata not set"),
    "16 bits": ("confidence.tif", raster(dtype="uint16"), "1 bands of 16 bits"),
    "three bands": ("confidence.tif", raster(count=3), "3 bands"),
    "not packed": ("classes.tif", raster(compress=None), "compression 1"),
    "no colours": ("classes.tif", raster(colours=False), "no colour table"),
    "no overviews": ("classes.tif", raster(overviews=False), "no overviews"),
    "class": ("classes.tif", raster(values=put(7)), "the class id 7"),
    "confidence": ("confidence.tif", raster(values=put(101)), "a confidence of 101 %"),
    "nothing": ("classes.tif", raster(values=lambda v: v * 0 + 255), "no pixel with data"),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("error", TIFF_ERRORS)
def test_tiff_errors(planted, error):
    name, change, says = TIFF_ERRORS[error]
    found_one(planted(name, change), says)


def test_rewritten_rasters_pass(planted):
    """What the planted errors do beside their error is none."""
    for name in RASTERS:
        checked = planted(name, raster())
        assert [str(fault) for fault in checked.faults] == []


# --- hostile files -----------------------------------------------------------------------------


def test_an_archive_that_points_outside_is_not_read(planted):
    escape = lambda members: members.update({"../../prescription.shp": b"x"})  # noqa: E731
    checked = planted("prescription_shapefile.zip", lambda p: rezip(p, escape))
    found_one(checked, "points outside the archive")


@pytest.mark.parametrize("name", ["/etc/x.shp", "C:\\x.shp", "a/../../x.shp", "..\\x.shp"])
def test_names_that_point_outside_are_refused(planted, name):
    checked = planted("TASKDATA.zip", lambda p: rezip(p, lambda m: m.update({name: b"x"})))
    found_one(checked, "points outside the archive")


def test_an_archive_that_unpacks_to_too_much_is_not_read(planted, monkeypatch):
    monkeypatch.setattr(checks, "MAX_BYTES", 1 << 20)

    def bomb(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("prescription.shp", bytes(8 << 20))

    found_one(planted("prescription_shapefile.zip", bomb), "too large unpacked")


def test_an_archive_of_many_files_is_not_read(planted):
    def many(path):
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(1001):
                archive.writestr(f"{number}.txt", b"")

    found_one(planted("TASKDATA.zip", many), "too large unpacked")


def test_entities_are_not_expanded(planted):
    lol = '<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'

    def bomb(path):
        old = (path / "TASKDATA.XML").read_text("utf-8")
        head, _, rest = old.partition("\n")
        (path / "TASKDATA.XML").write_text(f"{head}\n{lol}{rest}", encoding="utf-8")

    found_one(planted("TASKDATA", bomb), "declares a document type or entities")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.geojson", b"[" * 100_000, "cannot be read"),
        ("a.geojson", b"\xff\xfe", "cannot be read"),
        ("a.geojson", b"{}", "no FeatureCollection"),
        ("a.geojson", b'{"type": "FeatureCollection"}', "cannot be read"),
        ("a.geojson", b'{"type": "FeatureCollection", "crs": 5, "features": []}', "cannot be read"),
        ("a.kml", b"", "is no XML"),
        ("a.kml", b"<a>" * 20_000, "is no XML"),
        ("a.zip", b"PK\x05\x06", "cannot be read"),
        ("a.zip", b"", "cannot be read"),
        ("a.gpkg", b"SQLite format 3\0" + bytes(200), "cannot be read"),
        ("a.gpkg", b"", "cannot be read"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.csv", b"", "holds no row"),
        ("a.tif", b"II*\0", "cannot be read"),
        ("a.tif", b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 65535), "cannot be read"),
        ("a.tif", b"nothing at all", "no TIFF"),
        ("a.png", b"", "of no known kind"),
    ],
)
def test_rubbish_gets_a_sentence(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    (checked,) = validate(tmp_path / name)
    found_one(checked, says)


def test_what_is_not_there_gets_a_sentence(tmp_path):
    with pytest.raises(FieldDataError, match=r"no .*nowhere"):
        validate(tmp_path / "nowhere")
    with pytest.raises(FieldDataError, match="no map file in"):
        validate(tmp_path)


@pytest.mark.parametrize("name", [*PRESCRIBED[:4], *CELLS, *RASTERS])
@given(st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_damage_never_ends_in_a_crash(good, tmp_path, name, data):
    content = bytearray((good / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    path = tmp_path / name
    path.write_bytes(content)
    (checked,) = validate(path)
    assert all(str(fault).count(";") >= 2 for fault in checked.faults)


@pytest.mark.parametrize("member", ["prescription.shp", "prescription.shx", "prescription.dbf"])
@given(st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_damage_inside_an_archive(good, tmp_path, member, data):
    path = tmp_path / "prescription_shapefile.zip"
    shutil.copy(good / path.name, path)

    def damage(members):
        content = bytearray(members[member])
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        members[member] = bytes(content)

    rezip(path, damage)
    (checked,) = validate(path)
    assert all(str(fault).count(";") >= 2 for fault in checked.faults)


# --- the verb ----------------------------------------------------------------------------------


def test_the_verb_prints_findings_and_ends_with_3(good, tmp_path, capsys):
    assert main(["validate-map", str(good)]) == 0
    assert capsys.readouterr().out.count(", ok") == len([*PRESCRIBED, *CELLS, *RASTERS])
    bad = tmp_path / "prescription_shapefile.zip"
    shutil.copy(good / bad.name, bad)
    rezip(bad, into_folder)
    assert main(["validate-map", str(bad)]) == 3
    said = capsys.readouterr()
    assert "a prescription as Shapefile, faulty" in said.out
    assert "lies in a folder within the archive" in said.out
    assert said.err.startswith("weedseg: 1 fault in ")
    assert len(said.err.splitlines()) == 1
