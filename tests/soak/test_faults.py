"""Faults of a robot, 100,000 in full: no result may be acted on that should not be.

A simulated machine: its clock moves only as told, the camera gives 20 frames a second, an actuator
asks at random moments. What is right is known to the simulation, never asked of the stream.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

import cv2
import numpy as np
import onnxruntime
import pytest
from colour_model import make_colour_model

from weedseg.edge import Frame, Limits, Result, Segmenter, SelfTest, Stream
from weedseg.edge.ood import OodReference, photo_statistics
from weedseg.edge.session import PROVIDERS
from weedseg.errors import ModelFileError, RuntimeUnavailableError
from weedseg.evaluation.ood import fit_ood

pytestmark = pytest.mark.soak

NUM_FAULTS, NUM_CLEAN = 100_000, 100_000
INTERVAL_S, DEADLINE_S = 0.05, 0.15
HEIGHT, WIDTH = 120, 160
LIMITS = Limits(deadline_ms=1e3 * DEADLINE_S, self_test_s=20.0)


class Clock:
    """Time of the simulation; a leap is what a stopped process sees."""

    def __init__(self, rng):
        self.rng, self.now_s, self.leap_share = rng, 1000.0, 0.0

    def __call__(self):
        if self.leap_share and self.rng.random() < self.leap_share:
            self.now_s += float(np.exp(self.rng.uniform(np.log(0.1), np.log(100))))
        self.now_s += 1e-6
        return self.now_s


class Model:
    """Takes time, may fail, and knows what the photos of training looked like."""

    sha256 = "0" * 64

    def __init__(self, clock, reference):
        self.clock, self.seconds, self.fails, self.sound = clock, (0.015, 0.03), False, True
        self.reference = reference

    def segment(self, image):
        self.clock.now_s += self.clock.rng.uniform(*self.seconds)
        if self.fails:
            raise RuntimeUnavailableError("ONNX Runtime failed", "a frame to run", "look after it")
        plane = np.zeros((1, 1), np.uint8)
        score = self.reference.score(image)
        return Result(class_map=plane, confidence=plane, coverage={}, ood_score=score)

    def self_test(self):
        self.clock.now_s += 0.02
        return SelfTest(passed=self.sound, reason="" if self.sound else "another class map")


class Scenery:
    """Pictures of a field, moving or standing, and of what a covered camera sees."""

    def __init__(self, rng):
        self.rng = rng
        blocks = rng.integers(30, 220, (HEIGHT // 4, WIDTH // 4, 3)).astype(np.uint8)
        self.scene = cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)

    def noisy(self, picture):
        noise = self.rng.integers(-7, 8, picture.shape, dtype=np.int16)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)

    def field(self, standing):
        if not standing:
            self.scene = np.roll(self.scene, int(self.rng.integers(3, 20)), axis=0)
        return self.noisy(self.scene)

    def reference(self):
        """Learn from photos of this field in changing light, as a training does."""
        rows = []
        for _ in range(40):
            scene = np.roll(self.scene, int(self.rng.integers(0, HEIGHT)), axis=0)
            light = self.rng.uniform(0.85, 1.15)
            rows.append(photo_statistics(self.noisy((light * scene).astype(np.int16))))
        mean, weights = fit_ood(np.array(rows))
        return OodReference(mean=mean, weights=weights)

    def foreign(self):
        """Another field: other soil, other plants, as sharp as the own one."""
        tint = np.array([0.5, 0.9, 1.1]) * self.rng.uniform(0.8, 1.1)
        return self.noisy((tint * self.scene[:, ::-1]).astype(np.int16))

    def covered(self):
        kind = self.rng.choice(["cap", "mud", "glare", "fog", "blur", "half"])
        if kind == "half":
            picture = self.scene.copy()
            picture[:, : WIDTH * 5 // 8] = self.rng.integers(20, 200, 3)
        elif kind == "blur":
            picture = cv2.GaussianBlur(self.scene, (0, 0), 15)
        else:
            share = 0.05 if kind == "fog" else 0.0
            colour = {"cap": 2, "glare": 253}.get(kind, self.rng.integers(20, 200, 3))
            picture = share * self.scene + (1 - share) * np.asarray(colour)
        return self.noisy(picture.astype(np.int16))


@dataclass
class Truth:
    """What the simulation knows of a frame."""

    captured_s: float
    fault: str = ""


@dataclass
class World:
    """Camera, stream and actuator."""

    seed: int
    num_faults: int = 0
    wrong: list = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.clock = Clock(self.rng)
        self.scenery = Scenery(self.rng)
        self.model = Model(self.clock, self.scenery.reference())
        self.stream = Stream(self.model, LIMITS, self.clock)
        self.truth = {}
        self.number = 0
        self.next_s = self.clock.now_s + INTERVAL_S
        self.lost = deque(maxlen=LIMITS.window)
        self.dropping = False

    def frame(self, picture, *, fault="", shift_s=0.0, delay_s=0.0):
        """Let the camera take a picture and hand it over after its way to the computer."""
        captured_s = max(self.next_s, self.clock.now_s)
        self.next_s = captured_s + INTERVAL_S
        self.clock.now_s = captured_s + self.rng.uniform(0.03, 0.04) + delay_s
        self.number += 1
        self.num_faults += bool(fault)
        name = str(self.number)
        self.truth[name] = Truth(captured_s, fault)
        self.truth.pop(str(self.number - 500), None)
        self.stream.offer(
            Frame(image=picture, captured_s=captured_s + shift_s, frame_id=name, number=self.number)
        )

    def run(self, reads=2):
        """Segment, then let the actuator ask a few times until the next frame."""
        self.stream.step()
        self.lost.append(False)
        for _ in range(reads):
            self.actuate()
            self.clock.now_s += self.rng.uniform(0, 0.01)

    def lose(self):
        self.lost.append(True)
        self.dropping |= sum(self.lost) > 0.2 * LIMITS.window

    def actuate(self):
        result = self.stream.latest()
        now_s = self.clock()
        acts = result.may_actuate(now_s)
        self.statuses[result.status.value if acts else f"not {result.reason[:12]}"] += 1
        if not acts:
            return
        truth = self.truth.get(result.frame_id, Truth(-1.0, "unknown frame"))
        age_s = now_s - truth.captured_s
        fault = truth.fault or ("old" if age_s > DEADLINE_S else "")
        fault = fault or ("dropping" if self.dropping else "")
        if fault:
            self.wrong.append((fault, result.frame_id, age_s))

    def clean(self, num, standing=False):
        for _ in range(num):
            self.frame(self.scenery.field(standing))
            self.run()


def covered(world):
    for _ in range(world.rng.integers(1, 20)):
        world.frame(world.scenery.covered(), fault="covered")
        world.run()


def foreign(world):
    for _ in range(world.rng.integers(1, 20)):
        world.frame(world.scenery.foreign(), fault="foreign field")
        world.run()


def frozen(world):
    picture = world.scenery.field(True)
    world.frame(picture)
    world.run()
    old = [world.scenery.field(False) for _ in range(int(world.rng.integers(0, 3)))]
    for other in old:
        world.frame(other)
        world.run()
    ring = [picture, *old]
    for number in range(world.rng.integers(1, 30)):
        world.frame(ring[number % len(ring)].copy(), fault="frozen")
        world.run()


def late(world):
    for _ in range(world.rng.integers(1, 10)):
        delay_s = float(np.exp(world.rng.uniform(np.log(0.12), np.log(20))))
        world.frame(world.scenery.field(False), fault="late", delay_s=delay_s)
        world.run()


def clock_jump(world):
    shift_s = float(np.exp(world.rng.uniform(np.log(0.04), np.log(1e5))))
    for _ in range(world.rng.integers(1, 20)):
        world.frame(world.scenery.field(False), fault="clock jump", shift_s=shift_s)
        world.run()


def no_time(world):
    for shift_s in (float("nan"), float("inf"), -float("inf"), 1e300):
        world.frame(world.scenery.field(False), fault="no time", shift_s=shift_s)
        world.run()


def stopped(world):
    """Leaps of time between any two instructions; only the age can be wrong here."""
    world.clock.leap_share = 0.1
    for _ in range(10):
        world.frame(world.scenery.field(False))
        world.num_faults += 1
        world.run()
    world.clock.leap_share = 0.0


def failing(world):
    world.model.fails = True
    for _ in range(world.rng.integers(1, 10)):
        world.frame(world.scenery.field(False), fault="failing")
        world.run()
    world.model.fails = False


def silent(world):
    """The camera is dead, or the worker hangs: the actuator keeps asking."""
    for _ in range(40):
        world.num_faults += 1
        world.clock.now_s += world.rng.uniform(0, 0.05)
        world.actuate()


FAULTS = [covered, frozen, late, clock_jump, no_time, stopped, failing, silent, foreign]
LATCHING = [clock_jump, no_time, stopped]
"""Frames of a wrong time count as lost; a person looks after the machine."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults_never_actuate(fault, soak_share):
    num = int(NUM_FAULTS * soak_share / (len(FAULTS) + 1))
    world = World(seed=FAULTS.index(fault))
    world.clean(20)
    while world.num_faults < num:
        fault(world)
        if "were lost" in world.stream.latest().reason or fault in LATCHING:
            world.stream.reset()
        before = world.statuses["OK"]
        world.clean(8)
        assert world.statuses["OK"] > before, "the stream comes back when the fault is over"
    assert world.wrong == []
    assert world.statuses["OK"] > 0


def test_lost_frames_latch(soak_share):
    """A computer that is too slow loses frames; from more than 20 % on nothing is acted on."""
    num_faults = 0
    for seed in range(max(1, int(NUM_FAULTS * soak_share / 9 / 60))):
        world = World(seed=seed)
        world.clean(60)
        share = world.rng.uniform(0.25, 0.9)
        for _ in range(60):
            num_faults += 1
            world.frame(world.scenery.field(False))
            if world.rng.random() < share:
                world.frame(world.scenery.field(False))
                world.lose()
            world.run()
        assert world.wrong == []
        if world.dropping:
            world.clean(100)
            assert world.wrong == []
            world.stream.reset()
            world.dropping = False
            world.clean(20)
            assert world.stream.latest().status.value == "OK"


@pytest.mark.parametrize("standing", [False, True])
def test_clean_frames_are_ok(standing, soak_share):
    world = World(seed=9)
    world.clean(int(NUM_CLEAN * soak_share / 2), standing)
    share = world.statuses["OK"] / sum(world.statuses.values())
    assert world.wrong == []
    assert share >= 0.98, world.statuses


def test_a_failed_self_test_stays(soak_share):
    world = World(seed=1)
    world.clean(40)
    assert world.statuses["OK"]
    world.model.sound = False
    world.clock.now_s += LIMITS.self_test_s
    before = world.statuses["OK"]
    world.clean(int(5_000 * soak_share) + 10)
    assert world.statuses["OK"] == before
    assert "another class map" in world.stream.latest().reason


def test_a_model_with_another_byte_never_runs(soak_share):
    """The stream is never made, so nothing can be OK."""
    data = make_colour_model()
    rng = np.random.default_rng(0)
    for _ in range(int(5_000 * soak_share)):
        place, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
        spoilt = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
        with pytest.raises(ModelFileError):
            Segmenter(spoilt)


@pytest.mark.parametrize("provider", ["cpuu", "", *PROVIDERS])
def test_a_wrong_provider_never_runs(provider):
    if PROVIDERS.get(provider) in onnxruntime.get_available_providers():
        assert (
            Segmenter(make_colour_model(), require_provider=provider).runtime.provider == provider
        )
        return
    with pytest.raises(RuntimeUnavailableError, match="provider"):
        Segmenter(make_colour_model(), require_provider=provider)
