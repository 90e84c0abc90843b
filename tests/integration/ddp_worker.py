"""What each process of test_distributed does: ``torchrun ddp_worker.py FARM OUT``.

Writes ``gradients-<number of processes>.pt`` (two losses, batch norm frozen) and, when there are
several processes, trains to the end in ``run``; what each process saw goes to ``rank-<n>.json``.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from trainer import TINY

from weedseg.config import load_recipe
from weedseg.data.index import index_farm
from weedseg.finetuning import run as finetuning
from weedseg.pretraining import run as pretraining
from weedseg.training import checkpoint, distributed

CPU = torch.device("cpu")


def gradients(task):
    """Return the gradient of the first step; batch norm keeps its statistics."""
    task.net.eval().train = lambda mode=True: task.net
    model = distributed.wrap(task.net, CPU)
    loss, _ = task.loss(model, task.prepare(0, 0), 0)
    loss.backward()
    return {"loss": loss.detach(), **{n: p.grad for n, p in task.net.named_parameters()}}


def tasks(farm, folder):
    """Build both tasks; seven tiles, so that two processes do not get equally many."""
    recipe = load_recipe("default", [*TINY, "pretrain.batch=7", "finetune.batch=7"])
    first = pretraining.PretrainOptions(folder=folder, device=CPU, seed=3)
    yield "pretrain", pretraining.build_task(farm, farm.photos, recipe, first)
    second = finetuning.FinetuneOptions(
        folder=folder, device=CPU, seed=3, scale=1.0, practice=farm.photos
    )
    task = finetuning.build_task(farm, (farm.labelled[:4], ()), recipe, second)
    yield "finetune", task


def watch_writes(seen):
    """Note every durable file that this process writes."""
    real = checkpoint.write_durably

    def write(path, data):
        seen.append(path.name)
        real(path, data)

    for module in (checkpoint, pretraining):
        module.write_durably = write


def train(farm, out):
    """Train both phases to the end; returns what this process saw."""
    seen = []
    watch_writes(seen)
    recipe = load_recipe("default", list(TINY))
    folder = out / "pretrain"
    before = pretraining.pretrain(
        farm, farm.photos, recipe, pretraining.PretrainOptions(folder=folder, device=CPU, seed=0)
    )
    distributed.wait_for_all()
    after = finetuning.finetune(
        farm,
        (farm.labelled[:4], farm.labelled[1:]),
        recipe,
        finetuning.FinetuneOptions(
            folder=out / "finetune",
            device=CPU,
            seed=0,
            scale=1.0,
            init=str(folder / "weights.safetensors"),
            practice=farm.photos,
        ),
    )
    keys = ("steps", "best_step", "best_score")
    return {
        "writes": seen,
        "scored_share": before["scored_share"],
        "photos_per_process": len(distributed.own_slots(recipe.pretrain.batch)),
        **{key: after[key] for key in keys},
    }


def main():
    farm, out = index_farm(Path(sys.argv[1])), Path(sys.argv[2])
    torch.set_num_threads(1)
    with distributed.process_group():
        found = {name: gradients(task) for name, task in tasks(farm, out / "unused")}
        if distributed.rank() == 0:
            torch.save(found, out / f"gradients-{distributed.world_size()}.pt")
        if distributed.world_size() > 1:
            values = train(farm, out / "run")
            (out / f"rank-{distributed.rank()}.json").write_text(json.dumps(values))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
