"""Runs ``weedseg`` commands in processes of their own, without importing torch for each.

Reads one JSON object a line: ``arguments``, ``cwd``, ``out`` and ``err`` (files for both streams),
and for faults ``die`` and ``checkpoint_every``. Answers with the process's wait status. ``die``
sends SIGKILL to the process itself at a fixed instant: ``"PHASE:STEP"`` right after that training
step, ``"stage"`` at the start of that stage of the pipeline.
"""

import json
import os
import signal
import sys

import weedseg.cli.predict
import weedseg.cli.progress
import weedseg.cli.train
import weedseg.export.model
import weedseg.pipeline.train as pipeline
from weedseg.cli import main
from weedseg.training.loop import FitOptions


def _die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)


def _arrange(die, checkpoint_every):
    if checkpoint_every:
        FitOptions.__init__.__kwdefaults__["checkpoint_every"] = checkpoint_every
    phase, _, wanted = die.partition(":")
    if not wanted:
        if phase:
            setattr(pipeline, phase, _die)
        return
    bar = weedseg.cli.progress.TrainingBar
    update = bar.update

    def update_or_die(self, name, step, total, values):
        update(self, name, step, total, values)
        if name == phase and step == int(wanted):
            _die()

    bar.update = update_or_die


def _child(command):
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(command[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(command["cwd"])
    _arrange(command["die"], command["checkpoint_every"])
    code = 70
    try:
        code = main(command["arguments"])
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve():
    for line in sys.stdin:
        process = os.fork()
        if not process:
            _child(json.loads(line))
        print(os.waitpid(process, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
