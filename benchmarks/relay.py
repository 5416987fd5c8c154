"""A TCP relay that is slow in one direction: a slow line for one real process."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

STEP_SECONDS = 0.1
"""Bytes pass in steps of about this long: a line, not a series of bursts."""

LARGEST_STEP = 64 << 10

BUFFER = 64 << 10
"""Of the sockets: what is on the line must not hide in the kernel."""


class Relay:
    """Passes connections on to `port`, at most `rate` bytes a second back to who connected."""

    def __init__(self, port: int, rate: float) -> None:
        self._to = port
        self._rate = rate
        self._step = max(512, min(LARGEST_STEP, int(rate * STEP_SECONDS)))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                far = socket.socket()
                far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
                far.connect(("127.0.0.1", self._to))
                self._sockets += [near, far]
                for source, target, slow in ((near, far, False), (far, near, True)):
                    arguments = (source, target, slow)
                    threading.Thread(target=self._pass, args=arguments, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        free_at = 0.0
        with suppress(OSError):
            while data := source.recv(self._step if slow else LARGEST_STEP):
                if slow:
                    now = time.monotonic()
                    free_at = max(free_at, now) + len(data) / self._rate
                    time.sleep(free_at - now)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Break all connections and take no more."""
        for end in (self._listener, *self._sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
