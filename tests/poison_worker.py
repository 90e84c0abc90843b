"""A worker process in which a photo named ``poison`` ends the process, as a crash in C would."""

import os
import signal
import sys
import threading

from weedseg.serve.job_work import JobWork
from weedseg.serve.settings import read_settings
from weedseg.serve.worker import run_worker

_photo = JobWork.photo


def photo(self, claim):
    if claim.name.startswith("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _photo(self, claim)


if __name__ == "__main__":
    JobWork.photo = photo
    run_worker(read_settings(), threading.Event(), float(sys.argv[1]))
