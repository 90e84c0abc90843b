"""The typed client and the curl examples against a real service."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import zipfile

import pytest
from colour_field import outline, random_squares, write_field
from serving import GOLDEN, ROOT, Server

from weedseg.client import Client, Download, Job, MapOptions
from weedseg.edge import Segmenter
from weedseg.errors import FieldDataError, ServiceError
from weedseg.imaging import read_image

PHOTO = GOLDEN / "in.png"
EXAMPLES = ROOT / "deploy" / "rest.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(
        tmp_path_factory.mktemp("client") / "data", models=ROOT / "models", job_worker="true"
    ) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.url) as opened:
        yield opened


def test_one_photo_is_what_the_edge_runtime_says(client):
    found = client.predict(PHOTO, mm_per_px=2.0)
    model = ROOT / "models" / "peanut-lite0" / "model.onnx"
    expected = Segmenter(model, threads=1).segment(read_image(PHOTO))
    assert found.class_map().tobytes() == expected.class_map.tobytes()
    assert found.coverage("weed") == pytest.approx(expected.coverage["weed"], abs=1e-6)
    assert found.details["classes"][2]["area_m2"] == pytest.approx(
        found.details["classes"][2]["area_px"] * 4e-6
    )
    with pytest.raises(ServiceError, match=r"class 'tree'; expected one of background, crop, weed"):
        found.coverage("tree")
    assert client.overlay(PHOTO).startswith(b"\xff\xd8")
    assert "peanut-lite0" in {model["name"] for model in client.models()}


def test_a_job_over_a_folder_and_a_zip(client, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        shutil.copy(PHOTO, folder / f"{number}.png")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(PHOTO, "2.png")
        archive.writestr("broken.jpg", b"no photo")
    seen = []
    job = client.submit([folder, tmp_path / "more.zip"])
    job = client.wait(job, timeout_s=120, progress=seen.append)
    assert (job.status, job.progress, job.num_photos, job.num_bad) == ("successful", 100, 4, 1)
    assert seen[-1] == job
    assert [row["photo"] for row in client.results(job) if row["problem"]] == ["broken.jpg"]
    for what in (Download.TABLE, Download.MASKS, Download.REPORT):
        client.download(job, what, tmp_path / what.name)
        assert (tmp_path / what.name).stat().st_size > 100
    with pytest.raises(ServiceError, match="has no map"):
        client.weed_map(job)
    with zipfile.ZipFile(tmp_path / "MASKS") as masks:
        assert masks.testzip() is None
        assert len(masks.namelist()) >= 3
    client.cancel(job)
    with pytest.raises(ServiceError, match="404") as caught:
        client.job(job.id)
    assert caught.value.status == 404


def test_a_map_and_its_files(client, tmp_path):
    path = write_field(tmp_path / "field.tif", random_squares(30, 40))
    options = MapOptions(crop="peanut", cell_m=0.5, resample=True)
    job = client.wait(client.submit([path], map_options=options), timeout_s=120)
    assert job.status == "successful", job.message
    found = client.weed_map(job)
    assert found.details["cell_m"] == [0.5, 0.5]
    assert found.details["crop"] == "peanut"
    assert 0 <= found.weed_share <= 1
    for what in Download:
        if what.value.startswith("map/"):
            client.download(job, what, tmp_path / what.name)
            assert (tmp_path / what.name).stat().st_size > 100
    details = json.loads((tmp_path / "MAP_DETAILS").read_text(encoding="utf-8"))
    assert details["totals"]["weed_share"] == found.weed_share
    told = client.prescribe(job, tmp_path / "spray.zip", threshold=0.3, rate=150, force=True)
    assert told["prescribed_l"] <= told["broadcast_l"]
    with zipfile.ZipFile(tmp_path / "spray.zip") as archive:
        assert archive.testzip() is None
    with pytest.raises(ServiceError, match="409"):
        client.prescribe(job, tmp_path / "b.zip", threshold=0.001, rate=150)
    with pytest.raises(ServiceError, match="404"):
        client.download(job, Download.MASKS, tmp_path / "masks.zip")


def test_a_map_inside_a_boundary(client, tmp_path):
    path = write_field(tmp_path / "field.tif", random_squares(30, 40))
    boundary = outline(((0.1, 0.1), (0.9, 0.1), (0.9, 0.6), (0.1, 0.6)))
    (feature,) = boundary["features"]
    for found in (boundary, feature, feature["geometry"]):
        (tmp_path / "north.geojson").write_text(json.dumps(found), encoding="utf-8")
        options = MapOptions(cell_m=0.5, resample=True, boundary=tmp_path / "north.geojson")
        job = client.wait(client.submit([path], map_options=options), timeout_s=120)
        assert job.status == "successful", job.message
        ground_m2 = client.weed_map(job).details["totals"]["ground_m2"]
        assert ground_m2 == pytest.approx(0.4, rel=0.01)
    (tmp_path / "north.geojson").write_text("<kml/>", encoding="utf-8")
    with pytest.raises(FieldDataError, match="no GeoJSON file; expected the outline"):
        client.submit([path], map_options=options)


def test_a_refused_photo_is_a_sentence(client, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(ServiceError, match=r"answered 4\d\d: .*request ") as caught:
        client.predict(tmp_path / "a.jpg")
    assert 400 <= caught.value.status < 500
    with pytest.raises(ServiceError, match="no photo; expected at least one"):
        client.submit([tmp_path / "empty"] if (tmp_path / "empty").mkdir() else [])


def test_a_download_that_fails_leaves_nothing(client, tmp_path):
    job = Job(id="none", status="successful", progress=100, message="", num_photos=0, num_bad=0)
    with pytest.raises(ServiceError, match="404"):
        client.download(job, Download.TABLE, tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr("weedseg.client.time.sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ServiceError, match="no answer"),
    ):
        client.models()


class Cutter:
    """Passes bytes on to the service and cuts the first connections after so many of them."""

    def __init__(self, port, cuts):
        self._port, self._cuts = port, list(cuts)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._passed = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                here, _ = self._socket.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._port))
            self._passed += [here, there]
            threading.Thread(target=self._pass, args=(here, there, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(there, here, False), daemon=True).start()

    def _pass(self, source, sink, up):
        passed = 0
        try:
            while piece := source.recv(16384):
                passed += len(piece)
                if up and self._cuts and passed > self._cuts[0]:
                    self._cuts.pop(0)
                    break
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        for end in (self._socket, *self._passed):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_an_upload_goes_on_after_dropped_connections(server, tmp_path, monkeypatch):
    monkeypatch.setattr("weedseg.client.PIECE_BYTES", 1 << 18)
    large = tmp_path / "large.zip"
    with zipfile.ZipFile(large, "w") as archive:
        for number in range(4):
            archive.write(PHOTO, f"{number}.png")
    assert large.stat().st_size > 1 << 20
    port = int(server.url.rsplit(":", maxsplit=1)[-1])
    cutter = Cutter(port, [300_000, 500_000, 100_000])
    told = []
    with Client(cutter.url) as client:
        upload = client.upload(large, lambda sent, size: told.append(sent))
    cutter.close()
    assert told == sorted(told)
    assert told[-1] == large.stat().st_size
    with Client(server.url) as client:
        job = client.wait(client.submit([upload]), timeout_s=120)
    assert (job.status, job.num_photos, job.num_bad) == ("successful", 4, 0)


def test_the_curl_examples_work(server, tmp_path):
    text = EXAMPLES.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    field = write_field(tmp_path.parent / "curl-field.tif", random_squares(30, 40))
    script = "set -eu\n" + "\n".join(blocks[1:])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"URL": server.url, "PHOTO": str(PHOTO), "FIELD": str(field), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {path.name for path in tmp_path.iterdir()}
    expected = {
        "answer.json",
        "classes.png",
        "overlay.jpg",
        "weeds.csv",
        "masks.zip",
        "report.html",
        "field-classes.tif",
        "field.pdf",
        "spray.json",
        "spray.zip",
    }
    assert expected | {"metrics.txt"} == made
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "0.png" in (tmp_path / "weeds.csv").read_text()
        or "photo.png" in (tmp_path / "weeds.csv").read_text()
    )
