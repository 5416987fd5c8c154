"""How long a node keeps those waiting who ask it something while it works."""

from __future__ import annotations

import http.client
import socket
import time

from processes import Shoal

from shoal.storage.control_path import find_control_socket

PAUSE_SECONDS = 0.02
"""Between two questions."""

QUIET_SECONDS = 2.0
"""A node that uses under `QUIET_SHARE` of a core for so long has done its work."""

QUIET_SHARE = 0.15
LONGEST_SECONDS = 120.0


class _Control(http.client.HTTPConnection):
    """A connection with the control socket of a node."""

    def __init__(self, path: str) -> None:
        super().__init__("shoal", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def quiet_after(node: Shoal) -> tuple[list[float], float]:
    """Ask a node for its id until it is quiet; return the waits, and for how long it was busy."""
    control = _Control(str(find_control_socket(node.home)))
    began = time.perf_counter()
    waits: list[float] = []
    busy_until = began
    mark, used = began, node.cpu_seconds()
    while (now := time.perf_counter()) - began < LONGEST_SECONDS:
        control.request("GET", "/v1/id")
        control.getresponse().read()
        waits.append(time.perf_counter() - now)
        if now - mark >= QUIET_SECONDS / 4:
            share = (node.cpu_seconds() - used) / (now - mark)
            mark, used = now, node.cpu_seconds()
            if share > QUIET_SHARE:
                busy_until = now
            elif now - busy_until > QUIET_SECONDS:
                break
        time.sleep(PAUSE_SECONDS)
    control.close()
    return waits, busy_until - began
