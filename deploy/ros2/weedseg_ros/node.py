"""The thin shell around `weedseg_ros.core`: rclpy, topics and parameters, nothing else.

ros2 run weedseg_ros weedseg --ros-args -p model:=/opt/weedseg/model.onnx -r image:=/camera/image
"""

from __future__ import annotations

import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo, VisionClass

from weedseg.edge import Limits, Segmenter, Stream
from weedseg_ros.core import Header, ImageFields, NodeCore


class WeedsegNode(Node):
    """Subscribes to ``image`` and publishes class map, confidence, colours and diagnostics."""

    def __init__(self) -> None:
        """Load the model and connect the topics."""
        super().__init__("weedseg")
        self.declare_parameter("model", "")
        self.declare_parameter("threads", 0)
        self.declare_parameter("require_provider", "")
        self.declare_parameter("deadline_ms", 150.0)
        segmenter = Segmenter(
            self.get_parameter("model").value,
            threads=self.get_parameter("threads").value,
            require_provider=self.get_parameter("require_provider").value or None,
        )
        self.stream = Stream(segmenter, Limits(deadline_ms=self.get_parameter("deadline_ms").value))
        self.core = NodeCore(self.stream, segmenter.classes, self._clocks)
        names = ("mask", "confidence", "mask_color")
        self.outputs = {
            name: self.create_publisher(Image, f"~/{name}", qos_profile_sensor_data)
            for name in names
        }
        self.diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        info = LabelInfo()
        info.class_map = [VisionClass(class_id=i, class_name=n) for i, n in self.core.label_info()]
        self.labels = self.create_publisher(LabelInfo, "~/label_info", latched)
        self.labels.publish(info)
        self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        self.create_timer(0.01, self._publish)

    def _clocks(self) -> tuple[float, float]:
        return self.get_clock().now().nanoseconds * 1e-9, time.monotonic()

    def _on_image(self, message: Any) -> None:
        stamp = message.header.stamp
        header = Header(stamp.sec, stamp.nanosec, message.header.frame_id)
        self.core.on_image(
            ImageFields(
                header=header,
                height=message.height,
                width=message.width,
                encoding=message.encoding,
                step=message.step,
                data=bytes(message.data),
            )
        )

    def _publish(self) -> None:
        pictures, state = self.core.newest()
        for name, fields in pictures.items():
            message = Image(
                height=fields.height,
                width=fields.width,
                encoding=fields.encoding,
                step=fields.step,
                data=fields.data,
            )
            message.header.stamp.sec = fields.header.seconds
            message.header.stamp.nanosec = fields.header.nanoseconds
            message.header.frame_id = fields.header.frame_id
            self.outputs[name].publish(message)
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        array.status = [
            DiagnosticStatus(
                level=bytes([state.level]),
                name="weedseg",
                message=state.message,
                values=[KeyValue(key=k, value=v) for k, v in state.values.items()],
            )
        ]
        self.diagnostics.publish(array)


def main() -> None:
    """Run the node until it is stopped."""
    rclpy.init()
    node = WeedsegNode()
    try:
        with node.stream:
            rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
