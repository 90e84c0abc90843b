"""A real PostgreSQL from installed binaries: no root, no network, gone after the tests.

Fixtures: `postgres_url` is an empty database of its own for each test; `database_url` runs a
test twice, on a SQLite file and on PostgreSQL.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

QUIET = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
}


class Postgres:
    """One server in a temporary folder."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._who = _plain_user()
        self.folder = Path(tempfile.mkdtemp(prefix="weedseg-pg-"))
        if self._who:
            os.chown(self.folder, *self._who)
        self._log = (self.folder / "log").open("ab")
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        data = self.folder / "data"
        command = ["initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        done = subprocess.run(**self._as_user([*command, "--locale=C"]), check=False)
        if done.returncode:
            raise RuntimeError((self.folder / "log").read_text())
        for _ in range(3):  # the free port may be taken by the time the server wants it
            if self._serve(data):
                return
        raise RuntimeError((self.folder / "log").read_text())

    def _serve(self, data: Path) -> bool:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {**QUIET, "port": self.port, "unix_socket_directories": self.folder}
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._server = subprocess.Popen(**self._as_user(["postgres", "-D", str(data), *options]))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._server.poll() is None:
            if self._ready():
                return True
            time.sleep(0.05)
        self._stop_server()
        return False

    def _as_user(self, command: list[str]) -> dict[str, object]:
        command = [str(self._binaries / command[0]), *command[1:]]
        options: dict[str, object] = {
            "args": command,
            "cwd": self.folder,
            "stdin": subprocess.DEVNULL,
            "stdout": self._log,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,  # Ctrl-C in the terminal is for pytest
            "env": {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
        }
        if self._who:
            options |= {"user": self._who[0], "group": self._who[1], "extra_groups": []}
        return options

    def _ready(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres", driver="")).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, name: str, driver: str = "+psycopg") -> str:
        return f"postgresql{driver}://postgres@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url("postgres", driver=""), autocommit=True) as connection:
            connection.execute(statement)

    def _stop_server(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.send_signal(signal.SIGQUIT)  # at once: nothing in there is worth saving
            self._server.wait(30)

    def stop(self) -> None:
        self._stop_server()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _plain_user() -> tuple[int, int] | None:
    """Return ids of a user that PostgreSQL agrees to run as; None to stay who we are."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return entry.pw_uid, entry.pw_gid


def find_binaries() -> Path | None:
    """Return the folder of initdb and postgres, or None."""
    tool = shutil.which("pg_config")
    if tool is None:
        return None
    folder = subprocess.run([tool, "--bindir"], capture_output=True, text=True, check=True)
    binaries = Path(folder.stdout.strip())
    return binaries if all((binaries / n).is_file() for n in ("initdb", "postgres")) else None


@pytest.fixture(scope="session")
def postgres_server():
    """The server of this test process; started by the first test that wants it."""
    pytest.importorskip("psycopg", reason="PostgreSQL tests need psycopg")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: pg_config, initdb and postgres are needed")
    server = Postgres(binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres_url(postgres_server):
    """Address of an empty database that this test has to itself."""
    name = f"test_{secrets.token_hex(6)}"
    postgres_server.run(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """Address of an empty database: a test that takes it runs on both kinds."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'weedseg.sqlite'}"
