import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weedseg.edge import Frame, Limits, Segmenter, SelfTest, Status, Stream
from weedseg.edge.result import empty_result
from weedseg.edge.watch import Judgement, TimeWatch, blind_share, worst
from weedseg.errors import ConfigError

LIMITS = Limits(settle_frames=2)


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


class Model:
    sha256 = "a" * 64

    def __init__(self):
        self.passed, self.num_tests, self.images = True, 0, []

    def segment(self, image):
        self.images.append(image)
        return empty_result(Status.DEGRADED, "", image.shape[:2])

    def self_test(self):
        self.num_tests += 1
        return SelfTest(passed=self.passed, reason="" if self.passed else "broken memory")


class Machine:
    """A stream whose camera gives lively pictures every 50 ms with a delay of 10 ms."""

    def __init__(self, limits=LIMITS, model=None):
        self.rng = np.random.default_rng(0)
        self.clock, self.model = Clock(), model or Model()
        self.stream = Stream(self.model, limits, self.clock)

    def picture(self, size=(120, 160)):
        coarse = self.rng.integers(30, 220, (size[0] // 5, size[1] // 5, 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(5, 0).repeat(5, 1))

    def offer(self, image=None, captured_s=None, number=None):
        self.clock.now_s += 0.05
        at = self.clock.now_s - 0.01 if captured_s is None else captured_s
        picture = self.picture() if image is None else image
        self.stream.offer(Frame(image=picture, captured_s=at, frame_id="f", number=number))

    def frames(self, num):
        for _ in range(num):
            self.offer()
            self.stream.step()
        return self.stream.latest()


def test_a_fresh_frame_is_ok_until_its_deadline():
    machine = Machine()
    assert machine.stream.latest().status is Status.INVALID
    result = machine.frames(3)
    assert (result.status, result.reason) == (Status.OK, "")
    assert result.age_ms == pytest.approx(10)
    assert (result.frame_id, result.model_sha256) == ("f", "a" * 64)
    now_s = machine.clock.now_s
    assert result.may_actuate(now_s)
    assert not result.may_actuate(now_s + 0.15)
    machine.clock.now_s += 0.15
    late = machine.stream.latest()
    assert late.status is Status.INVALID
    assert "younger than 150 ms" in late.reason


def test_the_newest_frame_wins():
    machine = Machine()
    machine.frames(3)
    pictures = [machine.picture() for _ in range(3)]
    for picture in pictures:
        machine.offer(picture)
    assert machine.stream.step()
    assert not machine.stream.step()
    assert machine.model.images[-1] is pictures[-1]
    assert len(machine.model.images) == 4


def test_lost_frames_latch_until_reset():
    machine = Machine()
    machine.frames(3)
    for _ in range(11):  # more than 20 % of 50
        machine.offer()
        assert machine.frames(1).status is not Status.INVALID
    assert machine.frames(100).status is Status.DEGRADED
    assert "lost" in machine.stream.latest().reason
    machine.stream.reset()
    assert machine.frames(3).status is Status.OK


def test_gaps_in_the_count_of_the_camera_are_lost_frames():
    machine = Machine()
    machine.frames(3)
    machine.offer(number=7)
    machine.stream.step()
    assert machine.stream.latest().status is Status.OK
    machine.offer(number=19)
    machine.stream.step()
    assert machine.stream.latest().status is Status.DEGRADED
    machine.offer(number=19)
    assert "number does not go forward" in machine.stream.latest().reason


@pytest.mark.parametrize(
    ("shift_s", "reason"),
    [(0.02, "future"), (-0.08, "not go forward"), (float("nan"), "without a capture time")],
)
def test_odd_times_are_invalid_and_pass(shift_s, reason):
    machine = Machine()
    machine.frames(3)
    machine.offer(captured_s=machine.clock.now_s + 0.05 - 0.01 + shift_s)
    result = machine.stream.latest()
    assert result.status is Status.INVALID
    assert reason in result.reason
    assert machine.frames(1).status is Status.OK


def test_a_frame_that_arrives_too_early_has_a_wrong_time():
    watch = TimeWatch(Limits(settle_frames=1))
    for number in range(100):
        delay_s = 0.05 + 0.01 * (number % 2)
        judgement = watch.judge(number, number + delay_s, None)
        assert judgement.status is (Status.OK if number else Status.DEGRADED)
    assert watch.judge(101.03, 101.05, None).reason == "clock of the camera jumped"
    assert watch.judge(102, 102.05, None).status is Status.OK
    drifting = [watch.judge(103 + n, 103.05 + n * (1 - 1e-4), None) for n in range(300)]
    assert {judgement.status for judgement in drifting} == {Status.OK}


def test_an_equal_picture_is_frozen_a_standing_robot_is_not():
    machine = Machine()
    scene = machine.picture()
    for _ in range(100):
        noise = machine.rng.integers(0, 3, scene.shape, dtype=np.uint8)
        machine.offer(scene + noise)
        machine.stream.step()
    assert machine.stream.latest().status is Status.OK
    machine.offer(scene + noise)
    machine.stream.step()
    assert machine.stream.latest().reason.startswith("frozen")
    assert not machine.stream.latest().class_map.any()
    assert machine.frames(1).status is Status.OK


def test_a_covered_camera_is_invalid_a_dirty_one_degraded():
    machine = Machine()
    machine.frames(3)
    scene = machine.picture()
    for share, status in ((0.2, Status.DEGRADED), (0.7, Status.INVALID)):
        dirty = scene.copy()
        dirty[:, : round(160 * share)] = (90, 70, 50)
        machine.offer(dirty)
        machine.stream.step()
        assert machine.stream.latest().status is status
        assert blind_share(dirty) == pytest.approx(share, abs=0.13)
    for grey in (0, 128, 255):
        assert blind_share(np.full((60, 80, 3), grey, np.uint8)) == 1


@pytest.mark.real_data
def test_real_photos_are_seen(field_data):
    from weedseg.imaging import read_image

    for name in ("cwfid", "peanut"):
        for path in sorted((field_data / name / "images").iterdir())[::40]:
            assert blind_share(read_image(path)) == 0


@pytest.mark.parametrize("image", [None, np.zeros((0, 0, 3), np.uint8), np.zeros((9, 9), np.uint8)])
def test_what_is_no_picture_is_invalid(image):
    machine = Machine()
    machine.frames(3)
    machine.clock.now_s += 0.05
    machine.stream.offer(Frame(image=image, captured_s=machine.clock.now_s))
    machine.stream.step()
    assert machine.stream.latest().status is Status.INVALID
    machine.offer(machine.picture((60, 80)))
    machine.stream.step()
    assert machine.stream.latest().reason == "frame of another size"


def test_the_self_test_runs_first_and_again():
    machine = Machine(Limits(settle_frames=1, self_test_s=10))
    machine.model.passed = False
    assert "broken memory" in machine.frames(5).reason
    assert machine.stream.latest().status is Status.INVALID
    assert machine.model.images == []
    machine.model.passed = True
    machine.clock.now_s += 10
    assert machine.frames(5).status is Status.OK
    assert machine.model.num_tests == 2
    machine.model.passed = False
    machine.clock.now_s += 10
    assert machine.frames(1).status is Status.INVALID


def test_the_worst_judgement_counts():
    fine, doubt, bad = (Judgement(status, status.value) for status in Status)
    assert worst(fine, doubt) is doubt
    assert worst(doubt, bad, fine) is bad


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(-0.3, 0.3)), min_size=1, max_size=40))
def test_ok_never_outlives_the_deadline(moves):
    machine = Machine(Limits(settle_frames=1))
    machine.frames(2)
    for wait_s, shift_s in moves:
        machine.offer(captured_s=machine.clock.now_s + shift_s)
        machine.stream.step()
        machine.clock.now_s += wait_s
        result = machine.stream.latest()
        if result.status is Status.OK:
            assert 0 <= machine.clock.now_s - result.captured_s <= 0.15
            assert result.may_actuate(machine.clock.now_s)


@pytest.mark.parametrize(
    "values", [{"deadline_ms": 0}, {"window": 1}, {"max_dropped_share": 2.0}, {"min_detail": -1}]
)
def test_odd_limits_are_refused(values):
    with pytest.raises(ConfigError):
        Limits(**values)


def test_the_worker_segments_with_the_real_runtime(colour_model, field_photo):
    segmenter = Segmenter(colour_model, threads=1)
    segmenter.self_test = lambda: SelfTest(passed=True)
    seen = set()
    with Stream(segmenter, Limits(settle_frames=1, deadline_ms=10_000)) as stream:
        end = time.monotonic() + 20
        while not {Status.OK, Status.DEGRADED} <= seen and time.monotonic() < end:
            noise = field_photo(120, 160, seed=len(seen) + int(1e6 * time.monotonic()) % 10**6)
            stream.offer(Frame(image=noise, captured_s=time.monotonic()))
            time.sleep(0.02)
            seen.add(stream.latest().status)
    assert Status.OK in seen
    assert stream.latest().reason == "the stream is closed"
    assert not [t for t in threading.enumerate() if t.name == "weedseg-stream"]


STOPPED = """
import sys, time
import numpy as np
from weedseg.edge import Frame, Limits, SelfTest, Stream, Status
from weedseg.edge.result import empty_result

class Model:
    sha256 = ""
    def segment(self, image):
        return empty_result(Status.DEGRADED, "", image.shape[:2])
    def self_test(self):
        return SelfTest(passed=True)

rng = np.random.default_rng(0)
with Stream(Model(), Limits(deadline_ms=200)) as stream:
    for _ in range(100_000):
        coarse = rng.integers(30, 220, (24, 32, 3), dtype=np.uint8)
        picture = np.ascontiguousarray(coarse.repeat(5, 0).repeat(5, 1))
        stream.offer(Frame(image=picture, captured_s=time.monotonic()))
        for _ in range(5):
            result = stream.latest()
            if result.may_actuate(time.monotonic()):
                print(1000 * (time.monotonic() - result.captured_s), flush=True)
            time.sleep(0.002)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP on this system")
def test_a_stopped_process_does_not_act_on_what_it_had():
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True
    ) as process:
        ages = [float(process.stdout.readline()) for _ in range(50)]
        for _ in range(3):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(process.pid, signal.SIGCONT)
            ages += [float(process.stdout.readline()) for _ in range(100)]
        process.kill()
    # Between the last question and the act itself nothing can be asked; that is one line here.
    assert sum(age > 200 for age in ages) <= 1
    assert len(ages) == 350


@pytest.mark.parametrize(
    ("score", "status"),
    [
        (None, Status.OK),
        (0.0, Status.OK),
        (1.0, Status.OK),
        (1.01, Status.DEGRADED),
        (float("nan"), Status.DEGRADED),
        (float("inf"), Status.DEGRADED),
    ],
)
def test_frames_unlike_those_of_training_are_degraded(score, status):
    class Scoring(Model):
        def segment(self, image):
            return replace(super().segment(image), ood_score=score)

    machine = Machine(model=Scoring())
    result = machine.frames(4)
    assert result.status is status
    assert ("unlike the photos of training" in result.reason) == (status is Status.DEGRADED)
    assert not machine.stream.latest().may_actuate(machine.clock.now_s + 10)


def test_the_limit_of_unlikeness_can_be_moved():
    class Scoring(Model):
        def segment(self, image):
            return replace(super().segment(image), ood_score=1.5)

    wide = Limits(settle_frames=2, max_ood_score=2.0)
    assert Machine(wide, Scoring()).frames(4).status is Status.OK
    assert Machine(LIMITS, Scoring()).frames(4).status is Status.DEGRADED
