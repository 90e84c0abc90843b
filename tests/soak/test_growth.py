"""Memory over 100,000 frames in full: flat, and the measurement notices a leak."""

import multiprocessing

import numpy as np
import pytest
from colour_model import make_colour_model

from weedseg.bench.edge_figures import measure_growth
from weedseg.edge import Frame, Limits, Segmenter, SelfTest, Stream
from weedseg.edge.ood import OodReference

pytestmark = pytest.mark.soak

NUM_FRAMES, INTERVAL_S = 100_000, 0.05
MOST_MIB = 40.0
"""Growth over 100,000 frames that is called flat; the leaking control grows by about 800 MiB."""
SIDE_PX = 64


class Camera:
    """A stream on a simulated clock, with the real runtime behind it."""

    def __init__(self, data):
        self.now_s = 100.0
        self.segmenter = Segmenter(data, threads=1)
        self.stream = Stream(self, Limits(settle_frames=2), lambda: self.now_s)
        self.sha256 = self.segmenter.sha256
        rng = np.random.default_rng(0)
        coarse = rng.integers(30, 220, (16, 16, 3), dtype=np.uint8)
        self.scene = np.ascontiguousarray(coarse.repeat(4, 0).repeat(4, 1))
        self.num_ok = 0

    def segment(self, image):
        return self.segmenter.segment(image)

    def self_test(self):
        return SelfTest(passed=True)

    def frame(self, number):
        self.now_s += INTERVAL_S
        image = np.roll(self.scene, number, axis=0)
        image[number // 64 % 64, number % 64] = number // 4096 % 256  # no two are equal
        self.stream.offer(Frame(image=image, captured_s=self.now_s - 0.01, number=number))
        self.stream.step()
        result = self.stream.latest()
        self.num_ok += result.status.value == "OK"
        return result


def in_a_process_of_its_own(keep, num):
    """Measure there: this process may hold free memory that hides a leak."""
    work = multiprocessing.get_context("spawn").Pool(1)
    with work:
        return work.apply(grow, (keep, num))


def grow(keep, num):
    """Let a camera run; `keep` keeps every result. Returns the growth and how many were OK."""
    reference = OodReference(mean=np.zeros(10), weights=1e-4 * np.eye(10))
    camera, kept = Camera(make_colour_model(ood=reference.to_dict())), []

    def one(number):
        result = camera.frame(number)
        if keep:
            kept.append(result)

    return measure_growth(one, num), camera.num_ok


def test_memory_does_not_grow(soak_share):
    num = int(NUM_FRAMES * soak_share)
    found, num_ok = in_a_process_of_its_own(False, num)
    print(found, "OK:", num_ok)
    assert num_ok >= 0.98 * num
    assert found["mib_per_100000"] <= MOST_MIB


def test_a_leak_is_noticed():
    """The control: every result is kept."""
    found, _ = in_a_process_of_its_own(True, NUM_FRAMES // 50)
    print(found)
    assert found["mib_per_100000"] > 5 * MOST_MIB
