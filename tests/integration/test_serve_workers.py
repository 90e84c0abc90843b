"""Worker processes that die, are removed for good, or meet a photo that kills them."""

import os
import signal
import time
from pathlib import Path

import pytest
from job_place import OWNER, Place, field_photo

from weedseg.serve.job_store import MAX_ATTEMPTS
from weedseg.serve.job_tables import JobStatus
from weedseg.serve.worker_process import WorkerProcess

POISON = str(Path(__file__).parents[1] / "poison_worker.py")


@pytest.fixture
def place(tmp_path, database_url):
    made = Place(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def local(tmp_path):
    made = Place(tmp_path)
    yield made
    made.close()


def photos(num, size=(48, 64)):
    return {f"{n:02d}.png": field_photo(n % 5, size) for n in range(num)}


def until(what, seconds=30):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.005)
    return found


def workers_of(place, *job_ids):
    return {step.worker for job_id in job_ids for step in place.steps(job_id) if step.worker}


def test_the_work_of_a_removed_worker_is_adopted_by_the_others(place):
    reference = place.submit(photos(12))
    place.work()
    wanted = place.files(reference)
    workers = [place.start_worker() for _ in range(3)]
    jobs = [place.submit(photos(12)) for _ in range(3)]

    def held_by(process):
        return [
            step
            for job_id in jobs
            for step in place.steps(job_id)
            if step.status == "running" and f"-{process.pid}-" in step.worker
        ]

    gone = workers[0]
    until(lambda: held_by(gone))
    gone.send_signal(signal.SIGSTOP)  # so that it holds a step at the moment it is removed
    held = held_by(gone)
    place.kill(gone)
    place.wait(jobs)
    assert all(worker.poll() is None for worker in workers[1:])
    for job_id in jobs:
        view = place.jobs.get(OWNER, job_id)
        assert (view.status, view.num_photos, view.num_bad) == (JobStatus.SUCCESSFUL, 12, 0)
        assert place.files(job_id) == wanted
    for step in held:
        (adopted,) = [s for s in place.steps(step.job_id) if s.number == step.number]
        assert adopted.attempts == 2
        assert adopted.worker != step.worker
    assert len(workers_of(place, *jobs)) >= 2


def test_a_photo_that_kills_its_worker_is_tried_three_times(place):
    job_id = place.submit({"a.png": field_photo(1), "poison.png": field_photo(2)})
    place.start_worker(POISON)
    place.wait([job_id], 90)
    assert place.log().count("a worker ended: 9") == MAX_ATTEMPTS
    view = place.jobs.get(OWNER, job_id)
    assert (view.status, view.num_bad) == (JobStatus.SUCCESSFUL, 1)
    bad = place.jobs.photo(OWNER, job_id, 2)
    assert bad.attempts == MAX_ATTEMPTS
    assert bad.error.startswith("'poison.png': the worker process ended 3 times")


def test_a_job_is_cancelled_while_it_runs(local):
    local.start_worker()
    job_id = local.submit(photos(40, (96, 128)))
    until(lambda: any(s.kind == "photo" and s.status == "done" for s in local.steps(job_id)))
    view = local.jobs.remove(OWNER, job_id)
    assert view.status is JobStatus.DISMISSED
    assert view.progress < 100
    after = local.submit(photos(1))
    local.wait([after])
    assert local.jobs.get(OWNER, after).status is JobStatus.SUCCESSFUL
    until(lambda: not local.jobs.job_folder(OWNER, job_id).exists())
    assert any(s.status == "waiting" for s in local.steps(job_id))


def test_sigterm_lets_a_worker_finish_its_step(local):
    process = local.start_worker()
    job_id = local.submit(photos(30))
    until(lambda: any(s.status == "done" and s.kind == "photo" for s in local.steps(job_id)))
    process.terminate()
    assert process.wait(30) == 0
    steps = local.steps(job_id)
    assert {s.status for s in steps} <= {"done", "waiting", "blocked"}
    assert max(s.attempts for s in steps) == 1


def test_the_servers_own_worker_comes_back_and_goes_with_it(local):
    keeper = WorkerProcess(local.settings)
    keeper.start()
    try:
        local.wait([local.submit(photos(1))])
        first = keeper._process.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: keeper._process.pid != first)
        local.wait([local.submit(photos(1))])
    finally:
        keeper.stop(10)
    assert keeper._process.poll() == 0
