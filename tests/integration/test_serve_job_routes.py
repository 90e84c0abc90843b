"""Jobs over HTTP, from the upload to the report, with the worker that the server brings along."""

import csv
import io
import signal
import time
import zipfile
from pathlib import Path

import pytest
from job_place import field_photo, upload_over, zip_of
from PIL import Image
from serving import Server, finished

from weedseg.serve.database import Database
from weedseg.serve.keys import KeyStore

PHOTO = field_photo()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with keys of two farms, and the model file."""
    from colour_model import make_colour_model

    made = tmp_path_factory.mktemp("jobs")
    (made / "colours.onnx").write_bytes(make_colour_model())
    return made


@pytest.fixture(scope="module")
def keys(folder):
    database = Database.open(folder / "data")
    store = KeyStore(database)
    made = {owner: store.make("test", owner, ["jobs"]) for owner in ("north", "south")}
    made["weak"] = store.make("test", "north", ["predict"])
    database.close()
    return made


@pytest.fixture(scope="module")
def server(folder, keys):
    with Server(folder / "data", model=folder / "colours.onnx", job_worker="true") as running:
        yield running


@pytest.fixture
def client(server, keys):
    with client_of(server, keys["north"]) as made:
        yield made


def client_of(server, key):
    return server.client(headers={"Authorization": f"Bearer {key}"})


def execute(client, photos, key=None, **inputs):
    headers = {"Prefer": "respond-async", **({"Idempotency-Key": key} if key else {})}
    body = {"inputs": {"photos": photos, **inputs}}
    return client.post("/processes/weed-map/execution", json=body, headers=headers)


@pytest.fixture(scope="module")
def job(server, keys):
    """A finished job of three photos, one of them bad."""
    with client_of(server, keys["north"]) as client:
        ids = [
            upload_over(client, "a.png", PHOTO),
            upload_over(client, "more.zip", zip_of({"x/1.png": field_photo(1)})),
            upload_over(client, "bad.jpg", b"no photo"),
        ]
        answer = execute(client, ids, mm_per_px=2)
        assert answer.status_code == 201, answer.text
        assert answer.headers["Preference-Applied"] == "respond-async"
        url = answer.headers["Location"]
        assert answer.json()["jobID"] == url.removeprefix("/jobs/")
        return finished(client, url)


def test_the_process_is_described(client):
    (process,) = client.get("/processes").json()["processes"]
    assert process["id"] == "weed-map"
    assert process["jobControlOptions"] == ["async-execute", "dismiss"]
    described = client.get("/processes/weed-map").json()
    assert described["inputs"]["photos"]["minOccurs"] == 1
    assert set(described["outputs"]) == {"csv", "masks", "report", "map"}


def test_status_of_a_finished_job(client, job):
    assert (job["status"], job["progress"], job["type"]) == ("successful", 100, "process")
    assert job["photos"] == {"total": 3, "bad": 1}
    assert job["created"] <= job["started"] <= job["finished"] < job["expires"]
    assert job["inputs"] == {
        "photos": ["a.png", "more.zip", "bad.jpg"],
        "model": "colours",
        "mm_per_px": 2.0,
        "crop": "",
        "cell_m": 5.0,
        "resample": False,
        "boundary": False,
    }
    assert [j["jobID"] for j in client.get("/jobs?status=successful").json()["jobs"]].count(
        job["jobID"]
    ) == 1
    assert client.get("/jobs?status=failed").json()["jobs"] == []
    page = client.get("/jobs?limit=1").json()
    assert page["links"][-1] == {
        "href": "/jobs?limit=1&offset=1",
        "rel": "next",
        "type": "application/json",
        "title": "",
    }


def test_results_and_downloads(client, job):
    base = f"/jobs/{job['jobID']}"
    results = client.get(f"{base}/results").json()
    assert results["total"] == 3
    good, zipped, bad = results["photos"]
    assert (good["status"], zipped["photo"], bad["links"]) == ("done", "x/1.png", {})
    assert bad["problem"].startswith("bad.jpg: no photo in it; expected")
    rows = list(csv.DictReader(io.StringIO(client.get(results["csv"]["href"]).text)))
    assert [row["photo"] for row in rows] == ["a.png", "x/1.png", "bad.jpg"]
    weed = good["summary"]["classes"][2]
    assert float(rows[0]["weed_percent"]) == pytest.approx(100 * weed["coverage"], abs=1e-3)
    assert float(rows[0]["weed_area_m2"]) == pytest.approx(weed["area_m2"], abs=1e-4)
    masks = zipfile.ZipFile(io.BytesIO(client.get(results["masks"]["href"]).content))
    assert masks.namelist() == ["00001_a_classes.png", "00002_1_classes.png"]
    assert Image.open(masks.open("00001_a_classes.png")).size == (64, 48)
    report = client.get(results["report"]["href"])
    assert report.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "sandbox" in report.headers["Content-Security-Policy"]
    assert 'src="http' not in report.text
    for kind, url in good["links"].items():
        answer = client.get(url)
        assert answer.status_code == 200, url
        if kind == "json":
            assert answer.json()["classes"][2]["rle"]["size"] == [48, 64]
        else:
            assert Image.open(io.BytesIO(answer.content)).size == (64, 48)
    assert client.get(f"{base}/photos/3/overlay").status_code == 404
    assert client.get(f"{base}/photos/9/overlay").status_code == 404
    assert client.get(f"{base}/photos/1/secret").status_code == 422


def test_another_owner_finds_nothing(server, keys, job):
    base = f"/jobs/{job['jobID']}"
    paths = [base, f"{base}/photos", f"{base}/results", f"{base}/photos/1/photo"]
    paths += [f"{base}/results/{name}" for name in ("csv", "masks.zip", "report.html")]
    with client_of(server, keys["south"]) as other:
        assert {other.get(path).status_code for path in paths} == {404}
        assert other.delete(base).status_code == 404
        assert other.get("/jobs").json()["jobs"] == []
        assert other.get("/v1/uploads").json()["uploads"] == []
    with client_of(server, keys["weak"]) as weak:
        assert {weak.get(path).status_code for path in [*paths, "/jobs"]} == {403}
    with server.client() as nobody:
        assert {nobody.get(path).status_code for path in [*paths, "/jobs"]} == {401}


def test_requests_that_make_no_job(client):
    whole = upload_over(client, "a.png", PHOTO)
    for photos, inputs, status in (
        ([], {}, 422),
        ([whole, whole], {}, 422),
        (["nothing"], {}, 404),
        ([whole], {"model": "nothing"}, 404),
        ([whole], {"mm_per_px": 0}, 422),
        ([whole], {"colour": "red"}, 422),
    ):
        assert execute(client, photos, **inputs).status_code == status
    announced = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
    half = client.post("/v1/uploads", headers=announced).headers["Location"]
    assert execute(client, [half.rpartition("/")[2]]).status_code == 409


def test_the_same_key_gives_the_same_job_and_a_dismissed_one_is_gone(client):
    photo = upload_over(client, "b.png", PHOTO)
    first = execute(client, [photo], key="once")
    assert execute(client, [photo], key="once").json()["jobID"] == first.json()["jobID"]
    url = first.headers["Location"]
    finished(client, url)
    assert client.delete(url).json()["status"] == "dismissed"
    assert client.get(url).status_code == 404
    assert client.delete(url).status_code == 404


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_server_takes_all_its_processes_along_and_the_next_one_goes_on(
    server, client, job
):
    photos = zip_of({f"{n:03d}.png": field_photo(n) for n in range(60)})
    url = execute(client, [upload_over(client, "all.zip", photos)]).headers["Location"]
    assert client.get(url).json()["status"] in ("accepted", "running")
    assert client.get(f"{url}/results").status_code == 409
    processes = server.processes()
    assert len(processes) >= 5  # main process, HTTP, two decoders, job worker
    server.stop(signal.SIGKILL)  # the main process alone
    end = time.monotonic() + 10
    while any(map(alive, processes)):
        assert time.monotonic() < end, "processes stay behind"
        time.sleep(0.05)
    server.port = int(server.url.rpartition(":")[2])
    server.start()
    status = finished(client, url)
    assert (status["status"], status["photos"]) == ("successful", {"total": 60, "bad": 0})
    assert client.get(f"/jobs/{job['jobID']}").json() == job
