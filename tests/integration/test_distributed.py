"""Two processes on one CPU compute the gradient that one would, and train to the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from weedseg.errors import ConfigError
from weedseg.training import distributed

WORKER = Path(__file__).with_name("ddp_worker.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(*args):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def out(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    start(WORKER, tiny_folder, folder)
    start(*TORCHRUN, WORKER, tiny_folder, folder)
    return folder


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_two_processes_compute_the_gradient_of_one(out, phase):
    """Seven tiles, four and three: the means must still be over all."""
    one, two = (torch.load(out / f"gradients-{n}.pt", weights_only=True)[phase] for n in (1, 2))
    assert one.keys() == two.keys()
    assert max(float(value.abs().max()) for value in one.values()) > 1e-3
    largest = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert largest <= 1e-5


@pytest.fixture(scope="module")
def ranks(out):
    return [json.loads((out / f"rank-{n}.json").read_text()) for n in (0, 1)]


def test_both_train_to_the_end_and_agree(ranks):
    for name in ("steps", "best_step", "best_score", "scored_share"):
        assert ranks[0][name] == ranks[1][name]
    assert ranks[0]["steps"] == 8
    assert ranks[0]["scored_share"] > 0
    assert ranks[0]["photos_per_process"] == 2


def test_only_the_first_process_writes(ranks, out):
    assert ranks[1]["writes"] == []
    assert {"pretrain.json", "finetune.json", "weights.safetensors"} <= set(ranks[0]["writes"])
    for phase in ("pretrain", "finetune"):
        lines = (out / "run" / phase / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == sorted(set(steps))
        assert steps[-1] == 8


# --- without any process group -----------------------------------------------------------------


def test_one_process_is_its_own_group():
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    with distributed.process_group():
        assert distributed.world_size() == 1
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    assert distributed.any_process(True)
    assert not distributed.any_process(False)
    assert distributed.own_slots(5) == range(5)
    values = torch.tensor([1.0, 2.0, 6.0])
    assert distributed.global_sum(values) is values
    assert distributed.batch_mean(values) == 3


def test_more_processes_than_tiles_is_said(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(ConfigError, match="batch of 3 for 4 processes"):
        distributed.own_slots(3)
