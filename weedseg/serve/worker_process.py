"""The job worker that the server brings along: a process of its own, started again when it dies."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

from weedseg.serve.settings import Settings

_log = logging.getLogger(__name__)

WITH_PARENT_VARIABLE = "WEEDSEG_WORKER_PARENT"
"""Holds the process that a worker belongs to: without that one it stops."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_QUIET_S = 60.0


class WorkerProcess:
    """Keeps one worker process alive."""

    def __init__(self, settings: Settings) -> None:
        """Remember the settings; `start` starts.

        Args:
            settings: Those of the server; the worker gets the same.
        """
        self._settings = settings
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="weedseg-worker", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self, wait_s: float) -> None:
        """Let the worker finish its step; after a while it is killed, and the step done later.

        Args:
            wait_s: How long to wait for the step.
        """
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(5.0)

    def _keep(self) -> None:
        pause_s = _FIRST_PAUSE_S
        environment = {**os.environ, **self._settings.to_environment()}
        environment[WITH_PARENT_VARIABLE] = str(os.getpid())
        while not self._stopping.is_set():
            self._process = subprocess.Popen(
                [sys.executable, "-m", "weedseg", "worker"], env=environment
            )
            if self._stopping.is_set():  # told to stop in this very moment
                self._process.terminate()
            try:
                code = self._process.wait(_QUIET_S)
            except subprocess.TimeoutExpired:
                pause_s = _FIRST_PAUSE_S  # it lives well
                code = self._process.wait()
            if not self._stopping.is_set():
                _log.warning("the job worker ended with code %d; it is started again", code)
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
