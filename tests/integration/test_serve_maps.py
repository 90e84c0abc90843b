"""Maps as jobs of the service: on SQLite and on PostgreSQL, killed, cancelled, and of bad files."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from colour_field import outline, pixels_of, random_squares, write_field
from job_place import LEASE_S, OWNER, Place, field_photo, upload_over
from serving import Server, finished

from weedseg.errors import FieldDataError, GeoreferenceError
from weedseg.maps.cells import CellOptions
from weedseg.maps.parts import FOLDER as PARTS
from weedseg.maps.run import MapOptions, make_map
from weedseg.maps.validate import validate
from weedseg.serve import map_work, mosaic_intake
from weedseg.serve.job_schemas import MapFile
from weedseg.serve.job_tables import JobStatus
from weedseg.serve.mosaic_intake import copy_mosaic, sandboxed
from weedseg.serve.results import MAP_FILES

IDS = random_squares(30, 40)
SEEN = np.ones((360, 480), bool)
SEEN[:50, :200] = False
SAME = ("classes.tif", "confidence.tif", "cells.csv", "cells.geojson", "overview.png")
"""Files that have the same bytes however often the work was interrupted."""
MEMORY = 768 << 20


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    path = tmp_path_factory.mktemp("mosaic") / "field.tif"
    return write_field(path, IDS, SEEN, compress="deflate").read_bytes()


@pytest.fixture
def place(tmp_path, database_url):
    """On both databases."""
    made = Place(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def local(tmp_path):
    """On SQLite alone."""
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def usual(tmp_path_factory, mosaic):
    """Results of a job that nobody disturbed."""
    place = Place(tmp_path_factory.mktemp("usual"))
    job_id = submit(place, mosaic)
    place.work()
    yield results_of(place, job_id)
    place.close()


def submit(place, mosaic, name="north field.tif", **options):
    return place.submit({name: mosaic}, **{"cell_m": 0.25, "crop": "sugar beet", **options})


def results_of(place, job_id):
    return place.jobs.job_folder(OWNER, job_id) / "results"


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def failed(place, job_id):
    """Return why a job failed; no message says where its files lie."""
    view = place.jobs.get(OWNER, job_id)
    assert view.status is JobStatus.FAILED, view
    assert str(place.settings.data) not in view.message
    return view.message


def test_a_mosaic_becomes_a_map(local, mosaic):
    job_id = submit(local, mosaic)
    worker, progress = local.worker(), []
    assert worker.work_once()
    view = local.jobs.get(OWNER, job_id)
    assert (view.status, view.num_photos, view.num_mapped) == (JobStatus.RUNNING, 0, 0)
    assert view.num_shards > 3
    while worker.work_once():
        progress.append(local.jobs.get(OWNER, job_id).progress)
    assert progress == sorted(progress)
    assert len(set(progress)) == view.num_shards + 1
    view = local.jobs.get(OWNER, job_id)
    assert (view.status, view.progress, view.message) == (JobStatus.SUCCESSFUL, 100, "")
    assert view.num_mapped == view.num_shards
    folder = results_of(local, job_id)
    assert {*MAP_FILES, "report.html", "map_summary.json"} <= {p.name for p in folder.iterdir()}
    assert not (folder / PARTS).exists()
    assert not (folder.parent / "photos").exists()
    assert np.array_equal(read(folder / "classes.tif"), np.where(SEEN, pixels_of(IDS), 255))


HALF = ((0.1, 0.1), (0.9, 0.1), (0.5, 0.7))
"""Corners of a field, m; the mosaic has 0.96 by 0.72 m."""


def test_a_boundary_counts_as_on_the_command_line(local, mosaic, usual, tmp_path):
    boundary = outline(HALF)
    job_id = submit(local, mosaic, boundary=boundary)
    local.work()
    assert local.jobs.get(OWNER, job_id).status is JobStatus.SUCCESSFUL
    folder = results_of(local, job_id)
    (tmp_path / "field.tif").write_bytes(mosaic)
    (tmp_path / "north.geojson").write_text(json.dumps(boundary), encoding="utf-8")
    options = MapOptions(
        mosaic=tmp_path / "field.tif",
        out=tmp_path / "map",
        model=local.models.default.path,
        crop="sugar beet",
        cells=CellOptions(cell_m=0.25),
        boundary=tmp_path / "north.geojson",
    )
    values = make_map(options).values
    for name in SAME[:4]:
        assert (folder / name).read_bytes() == (tmp_path / "map" / name).read_bytes(), name
    found = json.loads((folder / "map_summary.json").read_text(encoding="utf-8"))
    assert found["totals"] == values["totals"]
    assert found["totals"]["ground_m2"] == pytest.approx(0.5 * 0.8 * 0.6, rel=0.01)
    assert found["boundary"] == "boundary.geojson"
    whole = json.loads((usual / "map.json").read_text(encoding="utf-8"))
    assert whole["totals"]["ground_m2"] > 2 * found["totals"]["ground_m2"]
    assert (folder / "overview.png").read_bytes() != (usual / "overview.png").read_bytes()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "boundary.geojson" in page
    assert "no longer there" not in page
    for path in folder.iterdir():
        if path.suffix != ".tif":
            assert str(local.settings.data).encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("corners", "sentence"),
    [
        (((500, 0), (501, 0), (501, 1)), "boundary.geojson lies 0.5 km from the mosaic"),
        (((0, 0), (0.9, 0.7), (0.9, 0), (0, 0.7)), "crosses itself"),
    ],
)
def test_a_boundary_that_cannot_be_used_fails_with_a_sentence(local, mosaic, corners, sentence):
    job_id = submit(local, mosaic, boundary=outline(corners))
    local.work()
    assert sentence in failed(local, job_id)


def test_the_map_is_that_of_the_command_line(usual, mosaic, tmp_path):
    folder, out, data = usual, tmp_path / "map", usual.parents[4]
    (tmp_path / "field.tif").write_bytes(mosaic)
    options = MapOptions(
        mosaic=tmp_path / "field.tif",
        out=out,
        model=data.parent / "model" / "colours.onnx",
        crop="sugar beet",
        cells=CellOptions(cell_m=0.25),
    )
    values = make_map(options).values
    for name in SAME[:4]:
        assert (folder / name).read_bytes() == (out / name).read_bytes(), name
    found = json.loads((folder / "map.json").read_text(encoding="utf-8"))
    assert found["totals"] == values["totals"]
    assert found["input"] == "north field.tif"
    for path in folder.iterdir():
        if path.suffix != ".tif":
            assert str(data).encode() not in path.read_bytes(), path.name
    assert "no longer where it was" not in (folder / "report.html").read_text(encoding="utf-8")
    for name in ("classes.tif", "cells.gpkg", "cells.geojson"):
        assert [checked.faults for checked in validate(folder / name)] == [[]], name


def test_a_killed_worker_costs_nothing(place, mosaic, usual):
    """A process is killed in the middle; the next one ends in the same bytes."""
    job_id = submit(place, mosaic)
    process, end = place.start_worker(), time.monotonic() + 100
    while True:
        view = place.jobs.get(OWNER, job_id)
        if view.num_shards and view.num_mapped >= 0.3 * view.num_shards:
            break
        assert time.monotonic() < end, place.log()
        time.sleep(0.005)
    place.kill(process)
    assert view.status is JobStatus.RUNNING
    place.start_worker()
    place.wait([job_id], 200)
    assert place.jobs.get(OWNER, job_id).status is JobStatus.SUCCESSFUL
    assert sum(step.attempts for step in place.steps(job_id)) <= len(place.steps(job_id)) + 1
    for name in SAME:
        assert (results_of(place, job_id) / name).read_bytes() == (usual / name).read_bytes(), name


def test_a_part_that_got_lost_is_made_again(local, mosaic):
    job_id = submit(local, mosaic)
    worker, folder = local.worker(), results_of(local, job_id)
    while local.jobs.get(OWNER, job_id).num_mapped < 3:
        worker.work_once()
    sorted((folder / PARTS).glob("*.part"))[1].write_bytes(b"torn")
    local.work()
    assert np.array_equal(read(folder / "classes.tif"), np.where(SEEN, pixels_of(IDS), 255))


def test_a_cancelled_map_leaves_nothing(local, mosaic, monkeypatch):
    job_id = submit(local, mosaic)
    worker, folder = local.worker(), local.jobs.job_folder(OWNER, job_id)
    for _ in range(3):
        assert worker.work_once()
    local.jobs.remove(OWNER, job_id)
    assert not worker.work_once()
    assert not folder.exists()

    monkeypatch.setattr(map_work, "_ASK_S", 0.0)
    job_id = submit(local, mosaic)
    folder = local.jobs.job_folder(OWNER, job_id)
    view = local.jobs.get(OWNER, job_id)
    while not view.num_shards or view.num_mapped < view.num_shards:
        assert worker.work_once()
        view = local.jobs.get(OWNER, job_id)
    real, told = map_work.make_map, []

    def make(options, tell):
        local.jobs.remove(OWNER, job_id)
        told.append(real(options, tell))

    monkeypatch.setattr(map_work, "make_map", make)
    assert worker.work_once()
    assert told == [], "the work did not end before the map was there"
    assert not folder.exists()


def test_a_photo_with_the_same_ending_stays_a_photo(local):
    tiff = field_photo(kind="TIFF")
    for photos in ({"a.tif": tiff}, {"a.tif": tiff, "b.tif": field_photo(1, kind="TIFF")}):
        job_id = local.submit(photos)
        local.work()
        view = local.jobs.get(OWNER, job_id)
        assert (view.status, view.num_photos) == (JobStatus.SUCCESSFUL, len(photos))
        assert view.num_shards == 0


# --- bad files -----------------------------------------------------------------------------------


def named_bands(path):
    """A mosaic whose first band is near infrared."""
    write_field(path, IDS)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("nir", "red", "green", "")
    return "near infrared|nir"


def turned(path):
    write_field(path, IDS, transform=Affine(0.002, 0.001, 6e5, 0.001, -0.002, 5.6e6))
    return "turned"


def floats(path):
    profile = {"driver": "GTiff", "count": 3, "width": 40, "height": 30, "crs": "EPSG:32632"}
    place = Affine(0.1, 0, 6e5, 0, -0.1, 5.6e6)
    with rasterio.open(path, "w", dtype="float32", transform=place, **profile) as file:
        file.write(np.ones((3, 30, 40), np.float32))
    return "8 or 16 bits"


def cut_off(path):
    write_field(path, IDS, compress="deflate")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 4000])
    return "cannot be read|reading it takes"


def torn(path):
    """A mosaic with rubbish in the middle of its pixels."""
    write_field(path, IDS, compress="deflate")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = os.urandom(2000)
    path.write_bytes(data)
    return "cannot be read|reading it takes"


def enormous(path):
    """Four kilobytes that claim 90 gigapixels."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    place = Affine(0.001, 0, 6e5, 0, -0.001, 5.6e6)
    size = {"width": 300_000, "height": 300_000, "sparse_ok": True, "bigtiff": "YES"}
    tiles = {"tiled": True, "blockxsize": 16384, "blockysize": 16384}
    with rasterio.open(path, "w", transform=place, **profile, **size, **tiles):
        pass
    return "90000 million pixels"


def without_crs(path):
    """As some programs export a mosaic: where its pixels lie, but not in which CRS."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "sparse_ok": True}
    place = Affine(0.001, 0, 6e5, 0, -0.001, 5.6e6)
    size = {"width": 20_000, "height": 10_000, "tiled": True}
    with rasterio.open(path, "w", transform=place, **size, **profile):
        pass
    return "a TIFF of 200 million pixels without a CRS"


def greedy(path):
    """One tile of 1.6 gigapixels: more than the process may have."""
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    place = Affine(0.001, 0, 6e5, 0, -0.001, 5.6e6)
    size = {"width": 40_000, "height": 40_000, "sparse_ok": True, "compress": "deflate"}
    tiles = {"tiled": True, "blockxsize": 40_000, "blockysize": 40_000}
    with rasterio.open(path, "w", transform=place, **profile, **size, **tiles) as file:
        del file
    return "cannot be read|reading it takes|no pixel"


BAD = [named_bands, turned, floats, cut_off, torn, enormous, without_crs]


@pytest.mark.parametrize("make", BAD)
def test_a_bad_mosaic_fails_with_a_sentence(local, tmp_path, make):
    path = tmp_path / "made.tif"
    sentences = make(path).split("|")
    job_id = submit(local, path.read_bytes(), "my field.tif")
    local.work()
    message = failed(local, job_id)
    assert any(sentence in message for sentence in sentences), message
    assert "00001" not in message
    left = [p for p in results_of(local, job_id).rglob("*") if p.is_file()]
    assert left == [], "half a map"
    assert sum(step.attempts for step in local.steps(job_id)) == 1


def test_a_file_of_another_driver_is_not_opened(local, tmp_path):
    """A VRT could read any file of the server; GeoTIFF's driver alone is used."""
    secret = tmp_path / "secret.tif"
    write_field(secret, IDS)
    vrt = f"""<VRTDataset rasterXSize="480" rasterYSize="360"><SRS>EPSG:32632</SRS>
      <GeoTransform>600000,0.002,0,5600000,0,-0.002</GeoTransform>
      <VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{secret}
      </SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
    job_id = submit(local, vrt.encode(), "field.tif")
    local.work()
    failed(local, job_id)
    with sandboxed(secret, "x", MEMORY) as source:
        assert source.open(10**9, 10**9).size == (360, 480)
    (tmp_path / "field.vrt").write_text(vrt)
    with sandboxed(tmp_path / "field.vrt", "x", MEMORY) as source:
        assert source.open(10**9, 10**9) is None


def test_files_beside_a_mosaic_are_not_read(tmp_path):
    """Neither another CRS nor another mask comes from a file that lies there."""
    path = write_field(tmp_path / "a.tif", IDS, crs=None)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32632</SRS><GeoTransform>6e5,1,0,5e6,0,-1</GeoTransform></PAMDataset>"
    )
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n600000\n5600000\n")
    with sandboxed(path, "x", MEMORY) as source:
        assert source.open(10**9, 10**9) is None


def copy(source, target):
    copy_mosaic(source, source.open(2 * 10**9, 10**9), target, lambda: None)


def test_reading_has_limits_of_memory_and_time(tmp_path, monkeypatch):
    path = tmp_path / "greedy.tif"
    greedy(path)
    small = sandboxed(path, "greedy.tif", 64 << 20)
    with small as source, pytest.raises(FieldDataError, match=r"greedy\.tif"):
        copy(source, tmp_path / "copy.tif")
    assert not list(tmp_path.glob("*copy*"))
    monkeypatch.setattr(mosaic_intake, "_WAIT_S", 0.0)
    whole = write_field(tmp_path / "whole.tif", IDS)
    with (
        sandboxed(whole, "whole.tif", MEMORY) as source,
        pytest.raises(
            FieldDataError, match=r"whole\.tif: reading it takes too much memory or time"
        ),
    ):
        source.open(10**9, 10**9)


def test_a_mosaic_too_large_for_the_quota_is_refused(local, mosaic):
    local.settings = local.settings.model_copy(update={"quota_bytes": 1 << 20})
    job_id = submit(local, mosaic)
    local.work()
    assert "quota" in failed(local, job_id)


def test_a_broken_shard_fails_the_map_with_its_reason(local, mosaic, monkeypatch):
    job_id = submit(local, mosaic)
    worker = local.worker()
    for _ in range(2):
        worker.work_once()

    def fail(*_):
        raise GeoreferenceError("the mosaic has a hole", "none", "patch it")

    monkeypatch.setattr(map_work, "segment_shard", fail)
    assert worker.work_once()
    assert failed(local, job_id) == "the mosaic has a hole; expected none; patch it"
    assert not worker.work_once()


def test_what_a_command_line_flag_does_is_said_in_words_of_the_service(local, mosaic, monkeypatch):
    def refuse(*_, **__):
        raise GeoreferenceError("x", "y", "add --resample to resize it, or --as-is to map it")

    monkeypatch.setattr("weedseg.maps.run.choose_resolution", refuse)
    job_id = submit(local, mosaic)
    local.work()
    assert failed(local, job_id).endswith("hand it in again with 'resample' switched on")


# --- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    from colour_model import make_colour_model

    folder = tmp_path_factory.mktemp("maps")
    (folder / "colours.onnx").write_bytes(make_colour_model())
    with Server(folder / "data", model=folder / "colours.onnx", job_worker="true") as running:
        yield running


def execute(client, upload, **inputs):
    body = {"inputs": {"photos": [upload], **inputs}}
    return client.post("/processes/weed-map/execution", json=body)


def test_a_map_over_http(server, mosaic):
    with server.client() as client:
        upload = upload_over(client, "north.tif", mosaic)
        answer = execute(client, upload, crop="maize", cell_m=0.2, resample=True)
        assert answer.status_code == 201, answer.text
        status = finished(client, answer.headers["Location"])
        assert status["status"] == "successful", status
        assert status["shards"]["total"] == status["shards"]["done"] > 3
        assert status["photos"] == {"total": 0, "bad": 0}
        wanted = {"crop": "maize", "cell_m": 0.2, "resample": True, "photos": ["north.tif"]}
        assert wanted.items() <= status["inputs"].items()
        base = f"{answer.headers['Location']}/results"
        results = client.get(base).json()
        found = results["map"]
        assert results["masks"] is None
        assert results["photos"] == []
        assert found["crop"] == "maize"
        assert found["cell_m"] == [0.2, 0.2]
        assert found["boundary"] is None
        assert not found["trust"]["evaluated"]
        assert any("untested on this crop" in text for text in found["warnings"])
        assert not any("--" in text for text in found["warnings"])
        truth = pixels_of(IDS)[SEEN]
        assert found["totals"]["weed_share"] == pytest.approx(np.mean(truth == 2), abs=1e-9)
        shares = [row["weed_share"] for row in found["worst"]]
        assert shares == sorted(shares, reverse=True)
        assert [link["rel"] for link in found["files"]] == [*MAP_FILES][:-1]
        for link in (*found["files"], found["overview"], results["csv"], results["report"]):
            got = client.get(link["href"])
            assert got.status_code == 200, link
            assert got.headers["Content-Type"].startswith(link["type"]), link
            attached = "attachment" in got.headers["Content-Disposition"]
            assert attached == (link["rel"] not in ("overview.png", "report"))
        assert client.get(results["report"]["href"]).headers["Content-Security-Policy"]
        assert client.get(f"{base}/map/../map_summary.json").status_code == 404
        assert client.get(f"{base}/map/map_summary.json").status_code == 422
        assert client.get(f"{base}/masks.zip").status_code == 404


def test_a_boundary_over_http(server, mosaic):
    with server.client() as client:
        upload = upload_over(client, "north.tif", mosaic)
        answer = execute(client, upload, cell_m=0.2, boundary=outline(HALF))
        assert answer.status_code == 201, answer.text
        status = finished(client, answer.headers["Location"])
        assert status["status"] == "successful", status
        assert status["inputs"]["boundary"] is True
        found = client.get(f"{answer.headers['Location']}/results").json()["map"]
        assert found["totals"]["ground_m2"] == pytest.approx(0.24, rel=0.01)
        assert found["boundary"] == "boundary.geojson"


def _changed(**changes):
    boundary = outline(HALF)
    boundary["features"][0]["geometry"] |= changes
    return boundary


RING = [[9.0, 50.0], [9.1, 50.0], [9.1, 50.1], [9.0, 50.0]]


@pytest.mark.parametrize(
    "boundary",
    [
        {"type": "FeatureCollection", "features": []},
        {"type": "Polygon", "coordinates": [RING]},
        _changed(type="LineString"),
        _changed(coordinates=[RING[:3]]),
        _changed(coordinates=[[["a", 50.0], *RING]]),
        _changed(coordinates=[[[1e999, 50.0], *RING]]),
        _changed(coordinates=[[9.0, 50.0]]),
        _changed(coordinates=[RING * 1251]),
        {**_changed(), "crs": {"type": "link", "properties": {"href": "http://127.0.0.1/"}}},
    ],
)
def test_a_boundary_that_is_none_is_refused(server, mosaic, boundary):
    body = {"inputs": {"photos": ["q83vEjRWeJASNFZ4kBI0Vg"], "boundary": boundary}}
    with server.client() as client:
        answer = client.post(
            "/processes/weed-map/execution",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 422, answer.text


def test_photos_have_no_map(server):
    with server.client() as client:
        answer = execute(client, upload_over(client, "a.png", field_photo()))
        assert finished(client, answer.headers["Location"])["shards"] == {"total": 0, "done": 0}
        base = f"{answer.headers['Location']}/results"
        assert client.get(base).json()["map"] is None
        assert client.get(f"{base}/map/classes.tif").status_code == 404


@pytest.mark.parametrize(
    "wrong", [{"cell_m": 0}, {"cell_m": 1e9}, {"crop": "x" * 101}, {"cell": 1}]
)
def test_wrong_inputs_are_refused(server, mosaic, wrong):
    with server.client() as client:
        answer = execute(client, upload_over(client, "north.tif", mosaic[:100]), **wrong)
        assert answer.status_code == 422


def test_every_file_of_a_map_has_a_name_in_the_document():
    assert [name.value for name in MapFile] == list(MAP_FILES)
    assert Path(MapFile.CLASSES.value).suffix == ".tif"
    assert LEASE_S > 0
