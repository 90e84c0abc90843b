"""A network between a client and a server that a test can cut or slow down."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from urllib.parse import urlsplit


class Wire:
    """Passes connections on to a server of this machine, until told otherwise."""

    def __init__(self, url: str) -> None:
        self._target = ("127.0.0.1", urlsplit(url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sent = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cut_at: int | None = None
        """Bytes on their way to the server, in all, at which their connection is cut, once."""
        self.bytes_per_s: float | None = None
        """How fast a connection to the server is at most."""

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bytes_per_s = None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[near], daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far:
            back = threading.Thread(target=self._pass_on, args=[far, near], daemon=True)
            back.start()
            self._pass_on(near, far, count=True)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket, count: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if count and not self._let_through(len(data)):
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _let_through(self, num_bytes: int) -> bool:
        self._sent += num_bytes
        if self.cut_at is not None and self._sent > self.cut_at:
            self.cut_at = None
            return False
        if self.bytes_per_s is not None:
            time.sleep(num_bytes / self.bytes_per_s)
        return True
