"""300 trainings killed (kill -9) at a random instant: each goes on and ends with the same bytes.

In full (``make soak``) a finished trial is a line of
``models/benchmarks/soak/checkpoint_kills.jsonl`` and is not done again; otherwise a seeded 2 % of
the trials runs and nothing is kept.
"""

import hashlib
import json
import os
import platform
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from trainer import Trainer

from weedseg import __version__
from weedseg.data.synthetic import write_farm
from weedseg.training import checkpoint

pytestmark = pytest.mark.soak

NUM_KILLS = 300
LINES = Path(__file__).parents[2] / "models" / "benchmarks" / "soak" / "checkpoint_kills.jsonl"
PHASES = ("pretrain", "finetune")


def digest(folder):
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def done_before():
    if not LINES.exists():
        return {}
    lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    return {line["number"]: line for line in lines}


def reference(trainer, folder):
    """Train both phases undisturbed, twice; returns the digest and the seconds when warm."""
    found = {}
    for phase in PHASES:
        for turn in ("cold", "warm"):
            started = time.monotonic()
            assert trainer.run(phase, folder / turn / phase, every=1) == 0
            seconds = time.monotonic() - started
        found[phase] = (digest(folder / "warm" / phase), seconds)
        assert digest(folder / "cold" / phase) == found[phase][0]
    return found


def trial(trainer, folder, number, wanted):
    """Start, kill at a random instant, look at what is left, go on."""
    phase = PHASES[number % len(PHASES)]
    sha, seconds = wanted[phase]
    delay_s = random.Random(number).uniform(0, seconds)
    process = trainer.start(phase, folder, every=1)
    time.sleep(delay_s)
    os.kill(process, signal.SIGKILL)
    code = trainer.wait()
    left = checkpoint.load_newest(folder / "checkpoints")
    resumed = trainer.run(phase, folder, every=1, resume=True) == 0
    return {
        "number": number,
        "phase": phase,
        "delay_s": round(delay_s, 4),
        "killed": code == -signal.SIGKILL,
        "step_left": left["step"] if left else None,
        "resumed": resumed,
        "same_bytes": resumed and digest(folder) == sha,
    }


def test_every_kill_is_survived(soak_share, tmp_path):
    write_farm(tmp_path / "farm", 0, num_photos=8, num_labelled=6, size=(96, 128), fields=1)
    full = soak_share == 1.0
    chosen = random.Random(0).sample(range(NUM_KILLS), round(NUM_KILLS * soak_share))
    lines = done_before() if full else {}
    machine = {"version": __version__, "torch": torch.__version__, "cpu": platform.machine()}
    with Trainer(tmp_path / "farm") as trainer:
        wanted = reference(trainer, tmp_path / "reference")
        for number in sorted(chosen):
            if number in lines:
                continue
            line = {**trial(trainer, tmp_path / str(number), number, wanted), **machine}
            lines[number] = line
            if full:
                LINES.parent.mkdir(parents=True, exist_ok=True)
                with LINES.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    assert len(lines) == len(chosen)
    assert [line for line in lines.values() if not (line["resumed"] and line["same_bytes"])] == []
    assert sum(line["killed"] for line in lines.values()) > 0.5 * len(lines)
