"""A service restored from a backup answers as the one that was backed up."""

import threading

import pytest
from fastapi.testclient import TestClient
from job_place import Place, field_photo

from weedseg.serve.app import create_app
from weedseg.serve.backup import back_up, restore
from weedseg.serve.keys import KeyStore
from weedseg.serve.routes.jobs import Kind
from weedseg.serve.worker import run_worker

OWNER = "north-farm"


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


def _client(settings, key):
    url, address = "http://127.0.0.1:8000", ("127.0.0.1", 50000)
    headers = {"X-API-Key": key}
    return TestClient(create_app(settings), base_url=url, client=address, headers=headers)


def _answers(client, job_id):
    """Everything that the owner can read, byte by byte."""
    results = f"/jobs/{job_id}/results"
    paths = ["/v1/session", "/v1/uploads", "/v1/models", "/jobs", f"/jobs/{job_id}", results]
    paths += [f"{results}/{name}" for name in ("csv", "masks.zip", "report.html")]
    paths += [f"/jobs/{job_id}/photos/{n}/{kind.value}" for n in (1, 2) for kind in Kind]
    answers = {path: client.get(path) for path in paths}
    assert {path: a.status_code for path, a in answers.items() if a.status_code != 200} == {}
    return {path: answer.content for path, answer in answers.items()}


def test_a_restored_service_answers_the_same_and_goes_on_with_its_jobs(place, tmp_path):
    key, revoked = (KeyStore(place.database).make(n, OWNER, ["jobs"]) for n in ("a", "lost"))
    KeyStore(place.database).revoke(revoked.split("_")[1])
    done = place.submit({"1.png": field_photo(1), "2.png": field_photo(2)}, OWNER)
    place.work()
    waiting = place.submit({"3.png": field_photo(3)}, OWNER)
    with _client(place.settings, key) as client:
        before = _answers(client, done)
        back_up(place.settings.data, tmp_path / "backup.zip")  # while the service runs
    restore(tmp_path / "backup.zip", tmp_path / "back")
    settings = place.settings.model_copy(update={"data": tmp_path / "back"})
    with _client(settings, key) as client:
        assert _answers(client, done) == before
        assert client.get("/jobs", headers={"X-API-Key": revoked}).status_code == 401
        stop = threading.Event()
        worker = threading.Thread(target=run_worker, args=[settings, stop])
        worker.start()
        try:
            _wait_for(client, waiting)
        finally:
            stop.set()
            worker.join()
        photo = client.get(f"/jobs/{waiting}/photos/1/classmap").content
    place.work()
    with _client(place.settings, key) as client:
        assert client.get(f"/jobs/{waiting}/photos/1/classmap").content == photo


def _wait_for(client, job_id):
    pause = threading.Event()
    for _ in range(600):
        status = client.get(f"/jobs/{job_id}").json()["status"]
        if status not in ("accepted", "running"):
            break
        pause.wait(0.05)
    assert status == "successful"
