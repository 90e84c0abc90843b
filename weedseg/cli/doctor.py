"""``weedseg doctor``: what runs on this machine, and the commands for what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer

import weedseg
from weedseg.cli import packages
from weedseg.errors import RuntimeUnavailableError

TINY_MODEL = bytes.fromhex(
    "080812003a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)
"""An ONNX model of 65 bytes, y = x + x on float32 [1], opset 13: proof that a provider computes."""

Line = tuple[str, str]


def doctor() -> None:
    """Show versions, cores, memory, GPU, the ONNX Runtime providers really usable, what to install.

    Raises:
        RuntimeUnavailableError: `weedseg predict` cannot run here.
    """
    gpu = _gpu()
    usable, runtime_lines = _runtime(gpu is not None)
    remedies: list[str] = []
    for title, value in (*_machine(gpu), *_versions(), *runtime_lines):
        typer.echo(f"{title:<34}{value}")
        if value.startswith("missing: "):
            remedies.append(value.partition("; ")[2])
    edge_missing = packages.absent(packages.EDGE)
    train_missing = packages.absent(packages.TRAIN)
    typer.echo(f"{'predict':<34}{'no' if edge_missing or not usable else 'yes'}")
    typer.echo(f"{'train and export':<34}{'no' if train_missing or not usable else 'yes'}")
    for table, names in ((packages.EDGE, edge_missing), (packages.TRAIN, train_missing)):
        if names:
            remedies.append(packages.install_command([table[name] for name in names]))
    for remedy in remedies:
        typer.echo(f"to do: {remedy}")
    if edge_missing or not usable:
        what = ", ".join(edge_missing) or "a working ONNX Runtime"
        raise RuntimeUnavailableError(
            f"predict cannot run without {what}", "it to be installed", f"{remedies[0]}"
        )


def _machine(gpu: str | None) -> Iterator[Line]:
    yield "weedseg", weedseg.__version__
    yield "python", f"{platform.python_version()}  {sys.executable}"
    yield "system", f"{platform.system()} {platform.machine()}"
    yield "cores usable", str(_num_cores())
    memory = _memory_gib()
    yield "memory", f"{memory:.1f} GiB" if memory else "unknown"
    yield "gpu", gpu or "none found"


def _num_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float | None:
    """Return the machine's memory, GiB; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def _gpu() -> str | None:
    """Name the first GPU as torch or nvidia-smi sees it."""
    if not packages.absent({"torch": "torch"}):
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return f"{torch.cuda.get_device_name(0)} (torch)"
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = answer.stdout.strip().splitlines()
    return f"{names[0]} (nvidia-smi)" if names else None


def _versions() -> Iterator[Line]:
    for table in (packages.EDGE, packages.TRAIN):
        for distribution in table.values():
            name = distribution.partition("==")[0]
            yield name, _version(name) or "-"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _runtime(gpu: bool) -> tuple[bool, list[Line]]:
    """Say which ONNX Runtime is there and which of its providers compute.

    Args:
        gpu: A GPU is there.

    Returns:
        Whether the CPU provider computes, and the lines to show.
    """
    wheels = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    found = [f"{name} {version}" for name, version in wheels.items() if version]
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError:
        return False, [("onnx runtime", f"missing: no package; {packages.runtime_command(gpu)}")]
    make = getattr(module, "InferenceSession", None)
    if make is None:
        command = packages.install_command(["--force-reinstall", "onnxruntime"])
        return False, [("onnx runtime", f"missing: the package is broken; {command}")]
    lines = [("onnx runtime", ", ".join(found) or f"{module.__version__} (no pip package)")]
    if len(found) == 2:
        lines.append(("onnx runtime", f"missing: two packages share one folder; {_mend(gpu)}"))
    states = {p: probe(make, module.SessionOptions, p) for p in module.get_available_providers()}
    lines += [(f"  {name}", state) for name, state in states.items()]
    if gpu and wheels["onnxruntime"] and not wheels["onnxruntime-gpu"]:
        lines.append(("  GPU provider", f"missing: the package is the CPU build; {_mend(gpu)}"))
    return states.get("CPUExecutionProvider") == "usable", lines


def _mend(gpu: bool) -> str:
    """Return the command that leaves exactly one ONNX Runtime."""
    remove = "python -m pip uninstall -y onnxruntime onnxruntime-gpu"
    return f"{remove} && {packages.runtime_command(gpu)}"


def probe(make: Callable[..., Any], options: Callable[[], Any], provider: str) -> str:
    """Try one provider on a tiny model; what the runtime lists as available proves nothing.

    Args:
        make: ``onnxruntime.InferenceSession``.
        options: ``onnxruntime.SessionOptions``.
        provider: Its name, e.g. ``CUDAExecutionProvider``.

    Returns:
        ``usable``, or why it is not.
    """
    import numpy as np

    settings = options()
    settings.log_severity_level = 4
    if provider != "CPUExecutionProvider":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = make(TINY_MODEL, settings, providers=[provider])
        result = session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # noqa: BLE001 - each provider raises its own kinds
        return f"not usable ({' '.join(str(error).split())[:100]})"
    if provider not in session.get_providers():
        return "not usable (listed, but its libraries do not load)"
    return "usable" if float(result[0][0]) == 2.0 else "not usable (wrong result)"
