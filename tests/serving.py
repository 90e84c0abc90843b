"""A real server in a process of its own, for tests."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "models" / "peanut-lite0" / "golden"
START_S = 60.0


class Server:
    """``weedseg serve`` on a free port; settings are given as for `Settings`."""

    def __init__(self, data: Path, **settings: object) -> None:
        self.data = data
        self.log = data.parent / f"{data.name}.log"
        defaults = {"job_worker": "false", "requests_per_minute": 0, "infer_threads": 1}
        self._settings = {**defaults, **settings}
        self.url = ""
        self.port = 0
        """0 takes a free one."""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    def start(self) -> None:
        known = {k: v for k, v in os.environ.items() if not k.startswith("WEEDSEG_")}
        own = {f"WEEDSEG_{name.upper()}": str(value) for name, value in self._settings.items()}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "weedseg", "serve", *self._flags()],
                stderr=log,
                stdout=log,
                cwd=ROOT,
                env={**known, **own},
            )
        self._wait()

    def _flags(self) -> list[str]:
        return ["--port", str(self.port), "--data", str(self.data)]

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            found = re.search(r"http://\S+", self.text())
            if found:
                self.url = found[0]
                try:
                    if httpx.get(f"{self.url}/readyz").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"the server does not start:\n{self.text()}")

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def connect(self) -> socket.socket:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def stop(self, number: int = signal.SIGTERM, wait_s: float = 60) -> int:
        self.process.send_signal(number)
        return self.process.wait(wait_s)

    def processes(self) -> list[int]:
        """Every process of the server, children and grandchildren too."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(stat.parent.name)] = int(fields[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def memory_mib(self) -> float:
        """Memory of all processes; pages that several share count for each by its part."""
        total = 0
        for pid in self.processes():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])
        return total / 1024


def finished(client, url, seconds=60):
    """Ask for a job until it has ended; returns its status."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = client.get(url).json()
        if status["status"] not in ("accepted", "running"):
            return status
        time.sleep(0.1)
    raise AssertionError(status)
