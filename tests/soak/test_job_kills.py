"""Workers and servers are killed under load: no job is lost, stuck or done twice.

In full 300 kills of workers and 50 of servers on each database; 2 % of it in the ordinary check.
"""

import contextlib
import random
import threading
import time

import httpx
import pytest
from job_place import OWNER, Place, field_photo, kill_all, upload_over
from serving import Server
from sqlalchemy import func, select

from weedseg.serve.job_store import MAX_ATTEMPTS
from weedseg.serve.job_tables import Job, JobStatus, Step

pytestmark = pytest.mark.soak

WORKER_KILLS, SERVER_KILLS = 300, 50
NUM_WORKERS, NUM_PHOTOS = 3, 6
MOST_OPEN_JOBS = 4
"""So many jobs always wait or run."""
STEPS_PER_KILL = 60
"""Steps done between two kills of a full campaign."""
KILLED_ATTEMPTS = MAX_ATTEMPTS - 2
"""A step that loses its worker MAX_ATTEMPTS times fails by design. So kills wait while a step runs
that was tried more often than this; what is left is for stalls longer than a lease, and for a kill
that comes a moment too late."""
PHOTOS = {f"{n}.png": field_photo(n) for n in range(NUM_PHOTOS)}


@pytest.fixture
def place(tmp_path, database_url):
    made = Place(tmp_path, database_url)
    yield made
    made.close()


def reference(place):
    job_id = place.submit(PHOTOS)
    place.work()
    return place.files(job_id)


def judge(place, jobs, wanted, owner=OWNER):
    """Every job is successful, complete, and has the bytes of one that was never disturbed."""
    listed = [view.id for view in place.jobs.list(owner, 100_000)]
    assert len(listed) == len(set(listed))
    assert set(jobs) <= set(listed)
    attempts = []
    for job_id in jobs:
        view = place.jobs.get(owner, job_id)
        steps = place.steps(job_id)
        assert view.status is JobStatus.SUCCESSFUL, view
        assert {step.status for step in steps} == {"done"}, [step.error for step in steps]
        assert [step.number for step in steps] == list(range(NUM_PHOTOS + 2))
        assert place.files(job_id, owner) == wanted
        attempts += [step.attempts for step in steps]
    assert max(attempts) <= MAX_ATTEMPTS
    again = sum(attempts) - len(attempts)
    return {"jobs": len(jobs), "steps": len(attempts), "steps_again": again}


def kind(place):
    return "sqlite" if place.database.is_sqlite else "postgresql"


def test_workers_are_killed(place, soak_share, keep_campaign):
    wanted, rng = reference(place), random.Random(0)
    num_kills = round(WORKER_KILLS * soak_share)
    uploads = [place.upload(name, data) for name, data in PHOTOS.items()]
    jobs, stop = [], threading.Event()

    def load():
        while not stop.is_set():
            counts = place.jobs.count_by_status()
            if counts["accepted"] + counts["running"] < MOST_OPEN_JOBS:
                jobs.append(place.jobs.submit(OWNER, uploads, place.options()).id)
            stop.wait(0.02)

    thread = threading.Thread(target=load)
    thread.start()
    workers = [place.start_worker() for _ in range(NUM_WORKERS)]
    in_step = 0
    for number in range(num_kills):
        victim = workers[number % NUM_WORKERS]
        wait_for_steps(place, STEPS_PER_KILL if soak_share == 1 else 3)
        wait_until_it_worked(place, victim)
        time.sleep(rng.random() * 0.3)
        assert victim.poll() is None, place.log()
        wait_for_an_early_attempt(place)
        place.kill(victim)
        in_step += bool(running_steps(place, victim))
        place.processes.remove(victim)
        workers[number % NUM_WORKERS] = place.start_worker()
    stop.set()
    thread.join()
    place.wait(jobs, 120)
    told = judge(place, jobs, wanted)
    told = {"kills": num_kills, "kills_in_step": in_step, **told}
    keep_campaign("job_kills", what="workers", database=kind(place), **told)
    assert len(jobs) >= num_kills // NUM_WORKERS


def wait_for_steps(place, num_steps):
    end, before = time.monotonic() + 120, None
    while time.monotonic() < end:
        with place.database.read() as session:
            whole = session.scalar(select(func.count()).where(Job.status == "successful"))
            part = session.scalar(
                select(func.count()).where(Step.status == "done", in_active_jobs())
            )
        done = whole * (NUM_PHOTOS + 2) + part
        before = done if before is None else before
        if done >= before + num_steps:
            return
        time.sleep(0.05)


def in_active_jobs():
    """Keep looks into the database short: finished jobs hold thousands of steps."""
    active = select(Job.id).where(Job.status.in_(["accepted", "running"]))
    return Step.job_id.in_(active)


def wait_until_it_worked(place, process):
    end = time.monotonic() + 60
    while not running_steps(place, process) and time.monotonic() < end:
        time.sleep(0.005)


def wait_for_an_early_attempt(place):
    """Return when no running step is in one of its last attempts."""
    late = select(Step.number).where(
        Step.status == "running", Step.attempts > KILLED_ATTEMPTS, in_active_jobs()
    )
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with place.database.read() as session:
            if not session.scalars(late).all():
                return
        time.sleep(0.005)


def running_steps(place, process):
    with place.database.read() as session:
        return session.scalars(
            select(Step.number).where(
                Step.status == "running",
                Step.worker.contains(f"-{process.pid}-"),
                in_active_jobs(),
            )
        ).all()


class Client(threading.Thread):
    """Hands jobs in, each again and again with the same key until it is answered."""

    def __init__(self, server):
        super().__init__()
        self.jobs = {}
        self.stop = threading.Event()
        self._server = server

    def run(self):
        while not self.stop.is_set():
            key = f"key-{len(self.jobs)}"
            while key not in self.jobs:
                with contextlib.suppress(httpx.TransportError):
                    self._submit(key)
                time.sleep(0.05)

    def _submit(self, key):
        with httpx.Client(base_url=self._server.url, timeout=30) as client:
            ids = [upload_over(client, name, data) for name, data in PHOTOS.items()]
            answer = client.post(
                "/processes/weed-map/execution",
                json={"inputs": {"photos": ids}},
                headers={"Idempotency-Key": key},
            )
            assert answer.status_code == 201, answer.text
            self.jobs[key] = answer.json()["jobID"]


def wait_for_more(client):
    before, end = len(client.jobs), time.monotonic() + 60
    while len(client.jobs) == before and time.monotonic() < end:
        time.sleep(0.01)


def test_servers_are_killed(place, soak_share, keep_campaign):
    wanted, rng = reference(place), random.Random(1)
    num_kills = round(SERVER_KILLS * soak_share)
    given = {"job_worker": "true", "requests_per_minute": 1_000_000}
    given |= {name: getattr(place.settings, name) for name in ("model", "database_url")}
    server = Server(place.settings.data, **given)
    server.start()
    client = Client(server)
    client.start()
    try:
        for _ in range(num_kills):
            wait_for_more(client)
            time.sleep(2 * rng.random())
            wait_for_an_early_attempt(place)
            kill_all(server)
            server.start()
        client.stop.set()
        client.join()
        place.wait(client.jobs.values(), 180, "local")
    finally:
        client.stop.set()
        client.join(60)
        server.stop()
    told = judge(place, client.jobs.values(), wanted, "local")
    assert len(set(client.jobs.values())) == len(client.jobs)
    # Where an answer was lost, the same key found the job: there is none that nobody knows.
    listed = {view.id for view in place.jobs.list("local", 100_000)}
    assert listed == set(client.jobs.values())
    keep_campaign("job_kills", what="servers", database=kind(place), kills=num_kills, **told)
