"""What all tests share: threads, real photos, time budgets, long campaigns."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# Two workers on two cores, so one thread each; set before numpy or torch is loaded.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgres import database_url, postgres_server, postgres_url  # noqa: F401 - fixtures

from weedseg import __version__
from weedseg.bench.lines import append_line, commit

ROOT = Path(__file__).resolve().parents[1]
FIELD_DATA = Path(os.environ.get("WEEDSEG_FIELD_DATA", ROOT.parent / "shared" / "field_data"))
BUDGET_S = {"unit": 30.0, "integration": 300.0, "e2e": 480.0}
"""Summed test time of a tier (folder) on two idle cores. Printed always; a CI run that takes twice
as long fails, so that a busy machine does not."""
CHROMIUM = Path("/usr/bin/chromium")
SOAK_SHARE = 0.02
CAMPAIGNS = ROOT / "models" / "benchmarks" / "soak"

_spent_s: dict[str, float] = defaultdict(float)


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run soak tests in full")


def pytest_collection_modifyitems(config, items):
    no_photos = pytest.mark.skip(
        reason=f"no real photos in {FIELD_DATA}; put them there or set WEEDSEG_FIELD_DATA"
    )
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if item.get_closest_marker("real_data") and not FIELD_DATA.is_dir():
            item.add_marker(no_photos)
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(no_gpu)
        if _talks_to_processes(item.path.name) and not config.getoption("--soak"):
            item.add_marker(pytest.mark.flaky(reruns=1))


def _talks_to_processes(file_name):
    """Servers, workers and browsers on two busy cores: one more try, which the summary counts."""
    pages = ("test_web_page", "test_map_page", "test_maps_cluster")
    return file_name.startswith(("test_serve_", "test_client", "test_bench_serve", *pages))


def _has_gpu():
    import torch

    return torch.cuda.is_available()


def _tier(node_id):
    parts = node_id.split("/")
    return parts[1] if len(parts) > 2 else "rules"


def pytest_runtest_logreport(report):
    if "real_data" not in report.keywords and "soak" not in report.keywords:
        _spent_s[_tier(report.nodeid)] += report.duration


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Let xdist carry what a test printed about file names that are no text."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


def pytest_terminal_summary(terminalreporter):
    for tier, budget_s in BUDGET_S.items():
        if _spent_s[tier]:
            late = "; over budget" if _spent_s[tier] > budget_s else ""
            line = f"{tier}: {_spent_s[tier]:.1f} s of {budget_s:.0f} s{late}"
            terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def logging_as_before():
    """Undo what the command line does to the logger."""
    logger = logging.getLogger("weedseg")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def field_data() -> Path:
    """The folder of real photos; tests that use it are marked `real_data`."""
    if not FIELD_DATA.is_dir():
        pytest.skip(f"no real photos in {FIELD_DATA}")
    return FIELD_DATA


@pytest.fixture(scope="session")
def soak_share(request) -> float:
    """Share of a long campaign to run: all of it with ``--soak``, else 2 %."""
    return 1.0 if request.config.getoption("--soak") else SOAK_SHARE


@pytest.fixture
def keep_campaign(soak_share):
    """Show the figures of a campaign, and keep those of a full one as a line of `file`.jsonl."""
    circumstances = {"version": __version__, "commit": commit(), "machine": platform.platform()}

    def keep(file, **told):
        print(f"\n{json.dumps(told)}")
        if soak_share == 1:
            append_line(CAMPAIGNS / f"{file}.jsonl", {**told, **circumstances})

    return keep


@pytest.fixture
def small_disk(tmp_path):
    """A file system of some KiB that can grow."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(kib):
        wanted = f"size={kib}k" + (",remount" if place.is_mount() else "")
        command = ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system of its own: {done.stderr.strip()}")
        return place

    if not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("only root can mount a small file system")
    yield resize
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()
