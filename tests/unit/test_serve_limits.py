"""Requests per minute and bytes by owner."""

import os
import shutil

import pytest

from weedseg.serve.limits import SPARE_BYTES, Limits
from weedseg.serve.problems import Problem


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "owners" / "farm" / "uploads"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(bytes(600))
    (tmp_path / "owners" / "other").mkdir()
    (tmp_path / "owners" / "other" / "b").write_bytes(bytes(5000))
    return tmp_path


def _refusal(call, *args):
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value


def test_no_sixty_seconds_hold_more_requests_than_allowed(data):
    clock = Clock()
    limits = Limits(data, 5, 0, clock)
    accepted = []
    for tick in range(2000):  # a request every 0.3 s for ten minutes
        clock.now_s = 1000 + 0.3 * tick
        try:
            limits.count_request("farm")
        except Problem:
            continue
        accepted.append(clock.now_s)
    in_a_minute = [sum(t <= other < t + 60 for other in accepted) for t in accepted]
    assert max(in_a_minute) == 5
    assert len(accepted) == 5 * 10


def test_who_waits_as_told_is_let_in(data):
    clock = Clock()
    limits = Limits(data, 2, 0, clock)
    limits.count_request("farm")
    clock.now_s += 20.5
    limits.count_request("farm")
    problem = _refusal(limits.count_request, "farm")
    assert (problem.status, problem.headers) == (429, {"Retry-After": "40"})
    clock.now_s += 40
    limits.count_request("farm")
    limits.count_request("other")


def test_zero_is_no_limit(data):
    limits = Limits(data, 0, 0)
    for _ in range(1000):
        limits.count_request("farm")
    limits.demand("farm", 10**6)


def test_the_quota_is_exact(data):
    limits = Limits(data, 0, 1000)
    limits.demand("farm", 400)
    full = _refusal(limits.demand, "farm", 401)
    assert (full.status, full.title) == (507, "Quota is full")
    assert "400 of 1000 bytes are left" in full.detail
    limits.demand("farm", 300, 100)
    assert _refusal(limits.demand, "farm", 301, 100).status == 507
    assert _refusal(limits.demand, "farm", 1001).status == 413
    assert "; 0 of 1000 bytes" in _refusal(limits.demand, "other", 1).detail  # 5000 lie there
    limits.demand("new-owner", 1000)


def test_a_link_to_an_upload_takes_no_room(data):
    jobs = data / "owners" / "farm" / "jobs" / "j" / "photos"
    jobs.mkdir(parents=True)
    os.link(data / "owners" / "farm" / "uploads" / "a", jobs / "1")
    (jobs / "elsewhere").symlink_to(data / "owners" / "other" / "b")
    used = Limits(data, 0, 0).used_bytes("farm")
    assert 600 < used < 1000  # the symbolic link itself has a size


def test_a_full_disk_is_told_before_anything_is_written(data, monkeypatch):
    limits = Limits(data, 0, 0)
    usage = shutil.disk_usage(data)._replace(free=SPARE_BYTES + 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    limits.demand("farm", 100)
    assert _refusal(limits.demand, "farm", 101).status == 507
    assert _refusal(limits.demand, "farm", 50, 51).title == "Disk is full"
