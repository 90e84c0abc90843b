"""Package of the ROS 2 node; `colcon build` runs it."""

from setuptools import setup

setup(
    name="weedseg_ros",
    version="0.1.0",
    packages=["weedseg_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/weedseg_ros"]),
        ("share/weedseg_ros", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    entry_points={"console_scripts": ["weedseg = weedseg_ros.node:main"]},
)
