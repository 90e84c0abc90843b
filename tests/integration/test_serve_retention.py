"""Old things go, new things stay, and no crash leaves files behind for good: on both databases."""

import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, update

from weedseg.errors import RuntimeUnavailableError
from weedseg.serve.database import Database
from weedseg.serve.job_tables import Job, JobStatus
from weedseg.serve.jobs import JobQueue
from weedseg.serve.keys import KeyStore
from weedseg.serve.limits import Limits
from weedseg.serve.retention import ORPHAN_AGE_S, Retention, Swept
from weedseg.serve.uploads import Upload, UploadStore

DAYS = 30
KEPT_S = DAYS * 86400.0
ROOT = Path(__file__).resolve().parents[2]
DIES_BETWEEN = f"""
import os, sys, time
from pathlib import Path
from weedseg.serve.database import Database
from weedseg.serve.limits import Limits
from weedseg.serve.uploads import UploadStore

data = Path(sys.argv[2])
options = {{"max_bytes": 1, "retention_days": {DAYS}}}
store = UploadStore(Database(sys.argv[1]), data, Limits(data, 0, 0), **options)
os.unlink = lambda *_, **__: os._exit(9)
store.expire(time.time() - {KEPT_S})
"""


class Place:
    """A data folder with the real stores, and a clock that can be put forward."""

    def __init__(self, url, data):
        self.data = data
        self.database = Database(url)
        limits = Limits(data, 0, 0)
        self.uploads = UploadStore(
            self.database, data, limits, max_bytes=1 << 20, retention_days=DAYS
        )
        self.jobs = JobQueue(self.database, data, self.uploads, limits)
        self.keys = KeyStore(self.database)
        self.later_s = 0.0

    def sweep(self):
        stores = [self.uploads, self.jobs]
        clock = lambda: time.time() + self.later_s  # noqa: E731
        return Retention(self.data, KEPT_S, stores, self.keys, clock).sweep()

    def upload(self, owner, content=b"photo"):
        upload = self.uploads.create(owner, "photo.jpg", len(content))
        with closing(self.uploads.open(owner, upload.id, 0)) as writer:
            writer.write(content)
        return upload.id

    def job(self, owner, status):
        options = {"model": "m", "model_sha256": "0", "mm_per_px": None}
        job = self.jobs.submit(owner, [self.upload(owner)], options, None)
        with self.database.begin() as session:
            session.get_one(Job, job.id).status = status.value
        return job.id

    def age(self, table, row_id, seconds):
        """Let a row and its files look older."""
        column = {Upload: Upload.changed_s, Job: Job.updated_s}[table]
        with self.database.begin() as session:
            session.execute(
                update(table).where(table.id == row_id).values({column: time.time() - seconds})
            )

    def ids(self, table):
        with self.database.read() as session:
            return set(session.scalars(select(table.id)))

    def files(self, folder):
        return {path.name for path in self.data.glob(f"owners/*/{folder}/*")}


@pytest.fixture
def place(database_url, tmp_path):
    made = Place(database_url, tmp_path / "data")
    made.data.mkdir(exist_ok=True)
    yield made
    made.database.close()


def _make_old(path, seconds=ORPHAN_AGE_S + 60):
    moment = time.time() - seconds
    os.utime(path, (moment, moment), follow_symlinks=False)


def test_what_is_older_than_the_limit_goes_with_its_files(place):
    old, young = place.upload("farm"), place.upload("other")
    place.age(Upload, old, KEPT_S + 60)
    place.age(Upload, young, KEPT_S - 60)
    assert place.sweep() == Swept(expired=1, orphans=0, sessions=0)
    assert place.ids(Upload) == place.files("uploads") == {young}
    assert place.sweep() == Swept(expired=0, orphans=0, sessions=0)


def test_old_jobs_go_but_never_one_that_still_works(place):
    statuses = (JobStatus.SUCCESSFUL, JobStatus.FAILED, JobStatus.RUNNING, JobStatus.ACCEPTED)
    done, failed, running, waiting = (place.job("farm", status) for status in statuses)
    young = place.job("farm", JobStatus.SUCCESSFUL)
    for job in (done, failed, running, waiting):
        place.age(Job, job, KEPT_S + 60)
        _make_old(place.jobs.job_folder("farm", job), KEPT_S)
    assert place.sweep().expired == 2
    assert place.ids(Job) == place.files("jobs") == {running, waiting, young}


def test_files_without_a_row_go_after_an_hour_and_not_before(place):
    kept = place.upload("farm")
    folder = place.data / "owners" / "farm"
    outside = place.data / "precious"
    outside.mkdir()
    (outside / "file").touch()
    (folder / "jobs" / "lost" / "results").mkdir(parents=True)
    (folder / "jobs" / "lost" / "results" / "1.png").touch()
    (folder / "uploads" / "lost").touch()
    (folder / "uploads" / ".temporary-1").touch()
    (folder / "uploads" / f"{kept}.part").touch()
    (folder / "jobs" / "link").symlink_to(outside)
    (place.data / "owners" / "Not An Owner" / "uploads").mkdir(parents=True)
    (place.data / "owners" / "Not An Owner" / "uploads" / "mine").touch()
    assert place.sweep().orphans == 0
    for path in [*folder.glob("*/*"), *(place.data / "owners").glob("*/*/*")]:
        _make_old(path)
    assert place.sweep().orphans == 4
    assert place.files("jobs") == set()
    assert place.files("uploads") == {kept, f"{kept}.part", "mine"}
    assert (outside / "file").exists()


def test_a_kill_between_row_and_file_leaves_nothing_for_good(place):
    """A process dies after the row is gone and before the file is."""
    upload = place.upload("farm")
    place.age(Upload, upload, KEPT_S + 60)
    address = place.database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", DIES_BETWEEN, address, str(place.data)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    assert place.ids(Upload) == set()
    assert place.files("uploads") == {upload}
    place.sweep()
    assert place.files("uploads") == {upload}  # it could be the file of a row to come
    _make_old(place.data / "owners" / "farm" / "uploads" / upload)
    assert place.sweep().orphans == 1
    assert place.files("uploads") == set()


def test_a_new_upload_is_safe_from_a_sweep_at_any_moment(place, monkeypatch):
    """The sweep runs between file and row, and right after the row."""
    begin = place.database.begin

    def sweep_first():
        monkeypatch.setattr(place.database, "begin", begin)
        place.sweep()
        return begin()

    monkeypatch.setattr(place.database, "begin", sweep_first)
    upload = place.upload("farm")
    place.sweep()
    assert place.files("uploads") == place.ids(Upload) == {upload}


def test_ended_sessions_go_too(place):
    key = place.keys.make("phone", "farm", ["jobs"])
    place.keys.sign_in(key, hours=-1)
    token, _ = place.keys.sign_in(key, hours=1)
    assert place.sweep().sessions == 1
    assert place.keys.verify_sign_in(token) is not None


def test_the_thread_goes_on_after_a_fault_and_stops_when_told(tmp_path, caplog):
    class Flaky:
        folder, calls = "uploads", 0

        def expire(self, before_s):
            self.calls += 1
            if self.calls == 1:
                raise RuntimeUnavailableError("the database does not answer", "one", "start it")
            return 0

        def known(self, owner):
            return set()

    database, flaky = Database.open(tmp_path), Flaky()
    retention = Retention(tmp_path, KEPT_S, [flaky], KeyStore(database))
    with retention.running(every_s=0.01):
        deadline = time.monotonic() + 10
        while flaky.calls < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    calls = flaky.calls
    assert calls >= 3
    assert "sweep failed" in caplog.text
    time.sleep(0.1)
    assert flaky.calls == calls
    database.close()
