"""The ROS node without ROS: its core in full, its shell with stand-ins for rclpy."""

import importlib
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from weedseg.classes import DEFAULT_CLASSES
from weedseg.edge import Limits, Segmenter, SelfTest, Stream
from weedseg.errors import ImageError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def core(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "deploy" / "ros2"))
    return importlib.import_module("weedseg_ros.core")


@pytest.fixture
def message(core, field_photo):
    def make(seed=0, encoding="rgb8", stamp_s=1_700_000_000.25, padding=0):
        photo = field_photo(120, 160, seed)
        wide = photo[:, :, ::-1] if encoding.startswith("bgr") else photo
        if encoding.endswith("a8"):
            wide = np.dstack([wide, np.full(wide.shape[:2], 255, np.uint8)])
        rows = wide.reshape(120, -1)
        rows = np.pad(rows, ((0, 0), (0, padding)))
        header = core.Header(int(stamp_s), round(1e9 * (stamp_s % 1)), "camera")
        fields = core.ImageFields(
            header=header,
            height=120,
            width=160,
            encoding=encoding,
            step=rows.shape[1],
            data=rows.tobytes(),
        )
        return fields, photo

    return make


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
@pytest.mark.parametrize("padding", [0, 7])
def test_messages_become_pictures(core, message, encoding, padding):
    fields, photo = message(encoding=encoding, padding=padding)
    image = core.decode(fields)
    np.testing.assert_array_equal(image, photo)
    assert image.flags.writeable, "a copy of its own"


def test_odd_messages_are_refused(core, message):
    fields, _ = message()
    for changes in ({"encoding": "mono16"}, {"data": b""}, {"step": 5}, {"width": 0, "step": 0}):
        with pytest.raises(ImageError):
            core.decode(core.ImageFields(**{**vars(fields), **changes}))


class Machine:
    """A core whose stream is driven by hand; the ROS clock runs beside the monotonic one."""

    def __init__(self, core, colour_model):
        self.now_s = 50.0
        segmenter = Segmenter(colour_model, threads=1)
        segmenter.self_test = lambda: SelfTest(passed=True)
        limits = Limits(settle_frames=1)
        self.stream = Stream(segmenter, limits, lambda: self.now_s)
        self.core = core.NodeCore(
            self.stream, DEFAULT_CLASSES, lambda: (1_700_000_000 + self.now_s, self.now_s)
        )

    def take(self, message, seed):
        self.now_s += 0.05
        fields, photo = message(seed, stamp_s=1_700_000_000 + self.now_s - 0.02)
        self.core.on_image(fields)
        self.stream.step()
        return fields, photo


def test_a_result_has_the_stamp_of_its_frame(core, colour_model, message, expect_colours):
    machine = Machine(core, colour_model)
    assert machine.core.newest()[1].level == 2
    machine.take(message, 1)
    fields, photo = machine.take(message, 2)
    pictures, state = machine.core.newest()
    assert (state.level, state.message) == (0, "fresh and checked")
    assert float(state.values["age_ms"]) == pytest.approx(20, abs=1)
    assert {"coverage weed", "model_sha256"} <= set(state.values)
    assert {name: p.encoding for name, p in pictures.items()} == {
        "mask": "mono8",
        "confidence": "mono8",
        "mask_color": "rgb8",
    }
    assert {p.header for p in pictures.values()} == {fields.header}
    mask = np.frombuffer(pictures["mask"].data, np.uint8).reshape(120, 160)
    np.testing.assert_array_equal(mask, expect_colours(photo)[0])
    assert machine.core.newest()[0] == {}, "each result is published once"
    assert machine.core.label_info() == [(0, "background"), (1, "crop"), (2, "weed")]


def test_old_and_odd_frames_are_errors_without_pictures(core, colour_model, message):
    machine = Machine(core, colour_model)
    machine.take(message, 1)
    machine.take(message, 2)
    machine.now_s += 1
    pictures, state = machine.core.newest()
    assert (pictures, state.level) == ({}, 2)
    machine.take(message, 3)
    machine.core.on_image(core.ImageFields(**{**vars(message()[0]), "encoding": "yuv422"}))
    pictures, state = machine.core.newest()
    assert (pictures, state.level) == ({}, 2)
    assert "encoding 'yuv422'" in state.message


class StandInNode:
    """What the shell uses of rclpy.node.Node."""

    parameters = None

    def __init__(self, name):
        self.published, self.subscribed = [], {}

    def declare_parameter(self, name, default):
        self.parameters.setdefault(name, default)

    def get_parameter(self, name):
        return SimpleNamespace(value=self.parameters[name])

    def create_publisher(self, kind, topic, quality):
        return SimpleNamespace(publish=lambda message: self.published.append((topic, message)))

    def create_subscription(self, kind, topic, callback, quality):
        self.subscribed[topic] = callback

    def create_timer(self, period, callback):
        self.timer = callback

    def get_clock(self):
        now = SimpleNamespace(nanoseconds=time.time_ns(), to_msg=lambda: None)
        return SimpleNamespace(now=lambda: now)


class Message(SimpleNamespace):
    """Any ROS message."""

    def __init__(self, **fields):
        stamp = SimpleNamespace(sec=0, nanosec=0)
        super().__init__(**{"header": SimpleNamespace(stamp=stamp, frame_id="")} | fields)


@pytest.fixture
def shell(core, monkeypatch, colour_model, tmp_path):
    names = {
        "rclpy": {},
        "rclpy.node": {"Node": StandInNode},
        "rclpy.qos": {
            "DurabilityPolicy": SimpleNamespace(TRANSIENT_LOCAL=1),
            "QoSProfile": Message,
            "qos_profile_sensor_data": 0,
        },
        "diagnostic_msgs.msg": dict.fromkeys(
            ("DiagnosticArray", "DiagnosticStatus", "KeyValue"), Message
        ),
        "sensor_msgs.msg": {"Image": Message},
        "vision_msgs.msg": {"LabelInfo": Message, "VisionClass": Message},
    }
    for name, values in names.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
        parent = name.partition(".")[0]
        monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent, ModuleType(parent)))
    model = tmp_path / "model.onnx"
    model.write_bytes(colour_model)
    monkeypatch.setattr(StandInNode, "parameters", {"model": str(model)})
    monkeypatch.delitem(sys.modules, "weedseg_ros.node", raising=False)
    yield importlib.import_module("weedseg_ros.node")
    sys.modules.pop("weedseg_ros.node", None)


def test_the_shell_wires_topics(shell, message):
    node = shell.WeedsegNode()
    assert list(node.subscribed) == ["image"]
    fields, _ = message(1, stamp_s=time.time() - 0.01)
    stamp = SimpleNamespace(sec=fields.header.seconds, nanosec=fields.header.nanoseconds)
    header = SimpleNamespace(stamp=stamp, frame_id="camera")
    node.subscribed["image"](Message(**{**vars(fields), "header": header}))
    node.stream.step()
    node.timer()
    topics = [topic for topic, _ in node.published]
    assert topics == ["~/label_info", "/diagnostics"], "no golden sample: nothing but the error"
    (state,) = node.published[-1][1].status
    assert state.level == b"\x02"
    assert "golden" in state.message
