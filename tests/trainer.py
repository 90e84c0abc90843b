"""A process that trains tiny networks in forked children, so that each can be killed.

Usage: ``python tests/trainer.py FARM``, then one JSON order a line on standard input, answered by
the child's process id on standard output; then the line ``wait``, answered by its exit code. Until
then the child is not reaped, so that its process id stays its own.
An order: ``{"phase": "pretrain" | "finetune", "out": ..., "recipe": [name, settings], "seed": ...,
"resume": ..., "every": steps between checkpoints}``.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

TINY = (
    "net.encoder=mobilenetv3",
    "net.decoder_channels=8",
    "data.cache_mib=64",
    "pretrain.batch=4",
    "pretrain.tile_px=64",
    "pretrain.steps=8",
    "pretrain.stages=3",  # so "default" chooses by scores here, as "selective" does
    "pretrain.first_stage_share=0.25",
    "pretrain.clean_share=0.25",
    "scoring.time_share=0.3",
    "finetune.steps=8",
    "finetune.batch=4",
    "finetune.tile_px=64",
    "finetune.consistency_min_steps=0",
    "finetune.evaluations=4",
    "export.overlap_px=16",
    "export.tile_px=64",
)
"""Settings of a training that takes about a second."""


class Trainer:
    """A handle on such a process; use it in a ``with`` statement."""

    def __init__(self, farm):
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(farm)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads},
        )

    def start(self, phase, out, *, recipe=("default", ()), seed=0, resume=False, every=2):
        """Start a child; returns its process id."""
        order = {"phase": phase, "out": str(out), "recipe": recipe, "seed": seed}
        order |= {"resume": resume, "every": every}
        return self._ask(json.dumps(order))

    def wait(self):
        """Wait for the child; returns its exit code, negative for a signal."""
        return self._ask("wait")

    def run(self, *args, **kwargs):
        """Start a child and wait for it; returns its exit code."""
        self.start(*args, **kwargs)
        return self.wait()

    def _ask(self, text):
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the trainer is gone")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)


def _train(farm, order):
    """Do one order: the real code with more checkpoints and every step in the metrics."""
    import torch

    from weedseg.config import load_recipe
    from weedseg.finetuning import run as finetuning
    from weedseg.pretraining import run as pretraining

    torch.set_num_threads(1)
    module = pretraining if order["phase"] == "pretrain" else finetuning
    options_of = module._fit_options
    module._fit_options = lambda *args: replace(
        options_of(*args), checkpoint_every=order["every"], log_every=1
    )
    name, settings = order["recipe"]
    recipe = load_recipe(name, [*TINY, *settings])
    where = {
        "folder": Path(order["out"]),
        "device": torch.device("cpu"),
        "seed": order["seed"],
        "resume": order["resume"],
    }
    if order["phase"] == "pretrain":
        pretraining.pretrain(farm, farm.photos, recipe, pretraining.PretrainOptions(**where))
    else:
        photos = (farm.labelled[:4], farm.labelled[1:])
        options = finetuning.FinetuneOptions(**where, scale=1.0, practice=farm.photos)
        finetuning.finetune(farm, photos, recipe, options)


def _serve():
    from weedseg.data.index import index_farm
    from weedseg.finetuning import run  # noqa: F401 - loaded once, before the forks
    from weedseg.pretraining import run as _  # noqa: F401

    farm = index_farm(Path(sys.argv[1]))
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                _train(farm, json.loads(line))
                code = 0
            except SystemExit as error:
                code = error.code
            except BaseException:  # noqa: BLE001 - shown, and told by the exit code
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
