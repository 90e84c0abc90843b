"""``torchrun`` with two processes: one run folder, one voice, the same files."""

from __future__ import annotations

import json
import subprocess
import sys


def test_two_processes_train_one_model(farm, tmp_path, tiny):
    root, run = farm(8, 2), tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    train = ["-m", "weedseg", "train", "--farm-images", str(root), "--out", str(run), *tiny]
    command = [*launch, "--standalone", *train, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy unknown") == 1
    assert done.stderr.count("pretrain 6/6") == 1
    assert json.loads((run / "run.json").read_text())["processes"] == 2
    assert (run / "model.onnx").is_file()
    assert (run / "report.html").is_file()
    rows = (run / "finetune" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 6
