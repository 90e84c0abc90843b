"""Jobs and their leases, on SQLite and on PostgreSQL; the work itself with a real model."""

import json
import sys
import threading
import time

import pytest
from job_place import OWNER, Place, field_photo, zip_of
from sqlalchemy import update

from weedseg.errors import OutputError
from weedseg.serve import job_work, worker
from weedseg.serve.job_store import MAX_ATTEMPTS, JobStore, PhotoSource
from weedseg.serve.job_tables import Job, JobStatus, Step
from weedseg.serve.problems import Problem

PHOTO = field_photo()


@pytest.fixture
def place(tmp_path, database_url):
    """On both databases."""
    made = Place(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """One for all tests: the model is the same for each."""
    made = Place(tmp_path_factory.mktemp("model"))
    yield made.predictor
    made.close()


@pytest.fixture
def local(tmp_path, predictor):
    """On SQLite alone: for what has nothing to do with the database."""
    made = Place(tmp_path)
    made._predictor = predictor
    yield made
    made._predictor = None
    made.close()


def accepted(place, owner=OWNER):
    return place.submit({"a.png": PHOTO}, owner)


def unpacked(place, *sizes):
    """Jobs of so many photos each, which nobody looked at yet."""
    jobs = [accepted(place) for _ in sizes]
    for num in sizes:  # the job that has waited longest comes first
        claim = place.store.claim("w0")
        assert claim.kind == "unpack"
        place.store.unpacked(claim, [PhotoSource(name=f"{n}", file="x") for n in range(num)])
    return jobs


def test_a_job_goes_through_its_steps(place):
    job_id, store = accepted(place), place.store
    assert place.jobs.get(OWNER, job_id).status is JobStatus.ACCEPTED
    claim = store.claim("w1")
    assert (claim.kind, claim.number, claim.attempt) == ("unpack", 0, 1)
    assert store.claim("w2") is None
    photos = [PhotoSource(name="a"), PhotoSource(name="b"), PhotoSource(name="c", error="bad")]
    assert store.unpacked(claim, photos)
    first, second = store.claim("w1"), store.claim("w2")
    assert (first.name, second.name) == ("a", "b")
    assert store.claim("w3") is None
    assert store.finish(first, summary={"width": 3})
    view = place.jobs.get(OWNER, job_id)
    assert (view.num_photos, view.num_bad, view.progress) == (3, 1, 60)
    assert store.claim("w3") is None  # the report waits for the last photo
    assert store.finish(second, error="damaged")
    report = store.claim("w3")
    assert report.kind == "report"
    assert store.finish(report)
    view = place.jobs.get(OWNER, job_id)
    assert (view.status, view.progress, view.num_bad) == (JobStatus.SUCCESSFUL, 100, 2)
    assert view.created_s <= view.started_s <= view.finished_s
    assert [(s.status, s.error) for s in place.jobs.photos(OWNER, job_id)] == [
        ("done", ""),
        ("failed", "damaged"),
        ("failed", "bad"),
    ]
    assert store.claim("w1") is None
    assert place.jobs.num_waiting() == 0


def test_a_silent_worker_loses_its_step_and_its_result_does_not_count(place):
    (job_id,) = unpacked(place, 1)
    slow = JobStore(place.database, lease_s=0.1).claim("dead")
    time.sleep(0.15)
    adopted = place.store.claim("alive")
    assert (adopted.number, adopted.attempt) == (slow.number, 2)
    assert not place.store.renew(slow)
    assert not place.store.finish(slow, summary={"from": "dead"})
    assert not place.store.try_again(slow, "late", 0)
    assert place.store.finish(adopted, summary={"from": "alive"})
    assert not place.store.finish(adopted, summary={"from": "twice"})
    assert place.jobs.photo(OWNER, job_id, 1).summary == {"from": "alive"}


def test_a_renewed_lease_lasts_longer(place):
    (job_id,) = unpacked(place, 1)
    claim = place.store.claim("w1")
    ends = [place.jobs.photo(OWNER, job_id, 1).lease_s]
    for _ in range(2):
        assert place.store.renew(claim)
        ends.append(place.jobs.photo(OWNER, job_id, 1).lease_s)
    assert ends == sorted(set(ends))
    assert place.steps(job_id)[1].attempts == 1


def test_a_step_is_tried_three_times_even_when_each_try_ends_its_worker(place):
    (job_id,) = unpacked(place, 1)
    store = JobStore(place.database, lease_s=0.01)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert store.claim(f"w{attempt}").attempt == attempt
        time.sleep(0.02)
    claim = place.store.claim("w4")
    assert claim.kind == "report"
    photo = place.jobs.photo(OWNER, job_id, 1)
    assert (photo.status, photo.attempts) == ("failed", MAX_ATTEMPTS)
    assert "ended 3 times" in photo.error


def test_a_fault_that_passes_is_tried_again_later_then_fails_with_its_cause(place):
    (job_id,) = unpacked(place, 1)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        claim = place.store.claim("w1")
        assert (claim.kind, claim.attempt) == ("photo", attempt)
        assert place.store.try_again(claim, "disk is full", wait_s=1000)
        if attempt < MAX_ATTEMPTS:
            assert place.store.claim("w2") is None
            with place.database.begin() as session:
                session.execute(update(Step).values(lease_s=0))
    photo = place.jobs.photo(OWNER, job_id, 1)
    assert (photo.status, photo.error, photo.attempts) == ("failed", "disk is full", MAX_ATTEMPTS)


def test_a_job_whose_unpacking_kills_workers_fails_with_its_cause(place):
    job_id = accepted(place)
    store = JobStore(place.database, lease_s=0.01)
    for _ in range(MAX_ATTEMPTS):
        store.claim("w")
        time.sleep(0.02)
    assert store.claim("w") is None
    view = place.jobs.get(OWNER, job_id)
    assert view.status is JobStatus.FAILED
    assert "ended 3 times" in view.message


def test_many_workers_at_once_do_every_step_once(place):
    jobs = unpacked(place, 6, 6)
    done, lock = [], threading.Lock()

    def work(name):
        idle = 0
        while idle < 20:
            claim = place.store.claim(name)
            if claim is None:
                idle += 1
                time.sleep(0.01)
                continue
            assert place.store.finish(claim, summary={"by": name})
            with lock:
                done.append((claim.job_id, claim.number))

    threads = [threading.Thread(target=work, args=[f"w{n}"]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted((job, n) for job in jobs for n in range(1, 8))
    assert {place.jobs.get(OWNER, job).status for job in jobs} == {JobStatus.SUCCESSFUL}


def test_a_small_job_does_not_wait_for_a_large_one(place):
    (large,) = unpacked(place, 20)
    place.store.finish(place.store.claim("w1"))
    small = accepted(place)
    claims = [place.store.claim("w1") for _ in range(2)]
    assert {claim.job_id for claim in claims} == {large, small}


def test_cancel_frees_the_workers_and_delete_forgets(place):
    (job_id,) = unpacked(place, 3)
    claim = place.store.claim("w1")
    folder = place.jobs.job_folder(OWNER, job_id)
    assert folder.is_dir()
    view = place.jobs.remove(OWNER, job_id)
    assert (view.status, view.message) == (JobStatus.DISMISSED, "cancelled")
    assert not folder.exists()
    assert place.store.claim("w2") is None
    assert not place.store.renew(claim)
    assert not place.store.finish(claim, summary={})
    assert place.jobs.get(OWNER, job_id).status is JobStatus.DISMISSED
    place.jobs.remove(OWNER, job_id)
    with pytest.raises(Problem, match="no such job"):
        place.jobs.get(OWNER, job_id)
    assert place.steps(job_id) == []


def test_the_same_request_twice_is_one_job(place):
    upload = place.upload("a.png", PHOTO)
    first = place.jobs.submit(OWNER, [upload], place.options(), "key-1")
    assert place.jobs.submit(OWNER, [upload], place.options(), "key-1").id == first.id
    assert place.jobs.submit("south-farm", [place.upload("a.png", PHOTO, "south-farm")],
                             place.options(), "key-1").id != first.id  # fmt: skip
    found = []

    def submit():
        found.append(place.jobs.submit(OWNER, [upload], place.options(), "key-2").id)

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(place.jobs.list(OWNER, 10)) == 2
    assert len(list(place.jobs.job_folder(OWNER, "x").parent.iterdir())) == 2


def test_what_others_own_is_not_there(place):
    job_id = accepted(place)
    upload = place.upload("a.png", PHOTO)
    for call in (
        lambda: place.jobs.get("south-farm", job_id),
        lambda: place.jobs.photos("south-farm", job_id),
        lambda: place.jobs.photo("south-farm", job_id, 1),
        lambda: place.jobs.remove("south-farm", job_id),
        lambda: place.uploads.get("south-farm", upload),
        lambda: place.uploads.open("south-farm", upload, 0),
        lambda: place.uploads.remove("south-farm", upload),
        lambda: place.jobs.submit("south-farm", [upload], place.options()),
    ):
        with pytest.raises(Problem) as raised:
            call()
        assert raised.value.status == 404
    assert place.jobs.list("south-farm", 10) == []
    assert place.jobs.get(OWNER, job_id).status is JobStatus.ACCEPTED


def test_old_finished_jobs_expire_and_running_ones_do_not(place):
    old, new, running = unpacked(place, 1, 1, 1)
    for job_id in (old, new):
        with place.database.begin() as session:
            session.execute(
                update(Job)
                .where(Job.id == job_id)
                .values(status="successful", updated_s=0 if job_id == old else time.time())
            )
    with place.database.begin() as session:
        session.execute(update(Job).where(Job.id == running).values(updated_s=0))
    assert place.jobs.known(OWNER) == {old, new, running}
    assert place.jobs.expire(time.time() - 60) == 1
    assert place.jobs.known(OWNER) == {new, running}
    assert not place.jobs.job_folder(OWNER, old).exists()
    assert place.jobs.job_folder(OWNER, new).exists()


def test_unfinished_uploads_and_a_full_quota_are_refused(local):
    upload = local.uploads.create(OWNER, "a.png", 100)
    with pytest.raises(Problem, match="0 of 100 bytes") as raised:
        local.jobs.submit(OWNER, [upload.id], local.options())
    assert raised.value.status == 409
    whole = local.upload("a.png", PHOTO)
    local.limits._quota_bytes = len(PHOTO) + 200
    with pytest.raises(Problem, match="200 of"):
        local.jobs.submit(OWNER, [whole], local.options())
    assert local.jobs.list(OWNER, 10) == []
    assert list(local.jobs.job_folder(OWNER, "x").parent.glob("*")) == []


def test_results_of_photos_zips_and_bad_files(local):
    tall = field_photo(3, (40, 96), "JPEG", exif=b"Exif\x00\x00" + orientation_and_gps(6))
    job_id = local.submit(
        {
            "=cmd.png": PHOTO,
            "phone.jpg": tall,
            "more.zip": zip_of({"field/1.png": field_photo(1), "field/2.png": b"\x89PNG broken"}),
            "evil.zip": zip_of({"../1.png": PHOTO}),
            "words.txt": b"no photo at all",
        },
        mm_per_px=2.0,
    )
    local.work()
    view = local.jobs.get(OWNER, job_id)
    assert (view.status, view.num_photos, view.num_bad) == (JobStatus.SUCCESSFUL, 6, 3)
    photos = {p.name: p for p in local.jobs.photos(OWNER, job_id)}
    assert "leaves its folder" in photos["evil.zip"].error
    assert photos["words.txt"].error.startswith("words.txt: no photo in it; expected")
    assert photos["field/2.png"].status == "failed"
    phone = photos["phone.jpg"].summary
    assert (phone["height"], phone["width"]) == (96, 40)  # upright
    results = local.jobs.job_folder(OWNER, job_id) / "results"
    answer = json.loads((results / "00001_answer.json").read_text())
    weed = answer["classes"][2]
    assert weed["area_m2"] == pytest.approx(weed["area_px"] * 4e-6)
    table = (results / "weeds.csv").read_text().splitlines()
    assert len(table) == 7
    assert table[1].startswith("1,'=cmd.png,")
    report = (results / "report.html").read_text()
    assert "never evaluated" in report
    assert "evil.zip has a path that leaves its folder" in report
    for path in results.iterdir():
        assert b"Exif" not in path.read_bytes(), path
    assert not (results.parent / "photos").exists()


def orientation_and_gps(value):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = value
    exif.get_ifd(0x8825)[2] = (51.0, 30.0, 0.0)
    return exif.tobytes().removeprefix(b"Exif\x00\x00")


def test_a_job_without_any_good_photo_fails_with_the_sentence(local):
    job_id = local.submit({"a.png": b"nothing"})
    zipped = local.submit({"a.zip": zip_of({"notes.txt": b"x"})})
    local.work()
    view = local.jobs.get(OWNER, job_id)
    assert view.status is JobStatus.FAILED
    assert view.message.startswith("a.png: no photo in it; expected")
    assert local.jobs.get(OWNER, zipped).message.startswith("no photo in this job; expected 1 to")


def test_the_same_photos_give_the_same_bytes(local):
    photos = {f"{n}.png": field_photo(n) for n in range(2)} | {"bad.jpg": b"x"}
    first, second = local.submit(photos), local.submit(photos)
    local.work()
    assert local.files(first) == local.files(second)
    assert len(local.files(first)) == 2 * 6 + 3


def test_what_a_killed_worker_began_to_write_is_taken_away(local):
    job_id = local.submit({"a.png": PHOTO})
    folder = local.jobs.job_folder(OWNER, job_id) / "results"
    folder.mkdir(parents=True)
    (folder / ".weeds.csv.k2j4_5").write_bytes(b"half a ta")
    local.work()
    names = local.files(job_id)
    assert "weeds.csv" in names
    assert not [name for name in names if name.startswith(".")]


def test_a_model_that_was_exchanged_is_not_used(local):
    job_id = local.submit({"a.png": PHOTO}, model_sha256="0" * 64)
    local.work()
    view = local.jobs.get(OWNER, job_id)
    assert view.status is JobStatus.FAILED
    assert "has changed since the job was handed in" in view.message


def test_a_full_disk_is_waited_for(local, monkeypatch):
    job_id = local.submit({"a.png": PHOTO})
    real, calls = job_work.write_photo, []

    def full_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise OutputError("a cannot be written: no space", "room", "free some space")
        return real(*args)

    monkeypatch.setattr(job_work, "write_photo", full_once)
    monkeypatch.setattr("weedseg.serve.worker.WAIT_S", 0.01)
    for _ in range(3):
        local.work()
        time.sleep(0.03)
    local.work()
    assert local.jobs.get(OWNER, job_id).status is JobStatus.SUCCESSFUL
    assert [step.attempts for step in local.steps(job_id)] == [1, 2, 1]


def test_a_worker_that_finds_its_job_cancelled_leaves_nothing(local, monkeypatch):
    job_id = local.submit({"a.png": PHOTO})
    real = job_work.write_photo

    def cancelled_meanwhile(*args):
        local.jobs.remove(OWNER, job_id)
        return real(*args)

    monkeypatch.setattr(job_work, "write_photo", cancelled_meanwhile)
    local.work()
    assert local.jobs.get(OWNER, job_id).status is JobStatus.DISMISSED
    assert not local.jobs.job_folder(OWNER, job_id).exists()


def test_a_worker_whose_step_hangs_ends_itself(local, monkeypatch):
    unpacked(local, 1)
    monkeypatch.setattr(worker, "STEP_LIMIT_S", 0.0)
    monkeypatch.setattr(worker.os, "_exit", sys.exit)
    store = JobStore(local.database, lease_s=0.03)
    with pytest.raises(SystemExit) as raised:
        worker._Lease(store, store.claim("hanging"))._renew()
    assert raised.value.code == worker.EXIT_HANGS
