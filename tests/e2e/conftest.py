"""What the end-to-end tests share: tiny settings, small farms, commands, one trained run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from weedseg.data.synthetic import write_farm

SETTINGS = (
    "pretrain.steps=6",
    "pretrain.tile_px=64",
    "pretrain.batch=2",
    "pretrain.stages=2",
    "finetune.steps=6",
    "finetune.tile_px=64",
    "finetune.batch=2",
    "finetune.evaluations=2",
    "net.encoder=mobilenetv3",
    "net.decoder_channels=16",
    "export.tile_px=96",
    "export.overlap_px=16",
)
TINY = [part for setting in SETTINGS for part in ("--set", setting)]
SIZE = (96, 128)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def ok(self) -> Done:
        assert self.code == 0, self.err
        return self

    def refused(self, code: int, *words: str) -> Done:
        """Check that one sentence on standard error says why, with these words."""
        assert self.code == code, self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("weedseg: ")
        assert lines[0].count("; ") >= 2, "found, expected, what to do"
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err
        return self


class Commands:
    """Runs ``weedseg`` commands in processes of their own."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments, cwd=None, die="", checkpoint_every=0) -> Done:
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            command = {
                "arguments": [str(a) for a in arguments],
                "cwd": str(cwd or Path.cwd()),
                "out": str(out),
                "err": str(err),
                "die": die,
                "checkpoint_every": checkpoint_every,
            }
            self._server.stdin.write(json.dumps(command) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            return Done(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()


@pytest.fixture(scope="session")
def cli():
    commands = Commands()
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for all workers of this test session, and a way to make something in it once."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def once(name, make):
        path = root / name
        with (root / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                unfinished = root / f".{name}"
                shutil.rmtree(unfinished, ignore_errors=True)
                make(unfinished)
                unfinished.rename(path)
        return path

    return once


def make_farm(root, num_photos, num_labelled, flat=False, size=SIZE):
    """Draw a farm of small photos in three fields, or in one field without a name or a date."""
    write_farm(root, seed=3, num_photos=num_photos, num_labelled=num_labelled, size=size)
    if flat:
        for kind in ("images", "masks"):
            (root / kind).mkdir()
            for path in root.glob(f"field-*/*/{kind}/*.png"):
                path.rename(root / kind / path.name)
        for folder in root.glob("field-*"):
            shutil.rmtree(folder)
        (root / "fields.csv").unlink()
    return root


@pytest.fixture(scope="session")
def size():
    """(height, width) of all photos, px."""
    return SIZE


@pytest.fixture(scope="session")
def tiny():
    """Options that make everything as small as it can be."""
    return TINY


@pytest.fixture(scope="session")
def draw_farm():
    """The function that draws a farm in any folder."""
    return make_farm


@pytest.fixture
def farm(tmp_path):
    """A way to draw a farm in the test's own folder."""

    def draw(num_photos, num_labelled, **others):
        return make_farm(tmp_path / "farm", num_photos, num_labelled, **others)

    return draw


@pytest.fixture(scope="session")
def holdout_farm(shared):
    """24 labelled photos and 6 others from three fields; never change it."""
    return shared("holdout-farm", lambda path: make_farm(path, 30, 24))


@pytest.fixture(scope="session")
def trained(shared, cli, holdout_farm):
    """A finished run on `holdout_farm`, with what the command said; never change it."""

    def make(path):
        done = cli("train", "--farm-images", holdout_farm, "--out", path, *TINY, checkpoint_every=2)
        done.ok()
        (path / ".out").write_text(done.out)
        (path / ".err").write_text(done.err)

    return shared("trained", make)
