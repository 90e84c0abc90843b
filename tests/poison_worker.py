"""Workers, one after the other, that a photo named ``poison`` kills, as a crash in C would.

They are forked from here, so that only the first one has to load everything.
"""

import os
import signal
import sys

from weedseg.cli.worker import worker
from weedseg.serve.job_work import JobWork
from weedseg.serve.worker_process import WITH_PARENT_VARIABLE

_photo = JobWork.photo


def photo(self, claim):
    if claim.name.startswith("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _photo(self, claim)


if __name__ == "__main__":
    JobWork.photo = photo
    os.environ[WITH_PARENT_VARIABLE] = str(os.getpid())
    while True:
        child = os.fork()
        if child == 0:
            worker(lease=float(sys.argv[1]))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("a worker ended:", status, file=sys.stderr, flush=True)
