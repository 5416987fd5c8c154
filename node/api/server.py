"""The control socket: HTTP/1.1 on a Unix socket in the home folder, for this user alone.

Starlette answers, Hypercorn speaks HTTP. Hypercorn's own way of opening sockets gives no say about
who connects, so we listen ourselves, look at the other side's user id, and hand the stream over.
The libraries are imported at the first connection: a node starts faster without them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..client import Client
from ..environment import RunBlocking, run_in_thread
from ..errors import Refused

if TYPE_CHECKING:
    from .app import Converse

MAX_CONNECTIONS = 256
"""At once: a script may leave a `get` running for each of many contents. More are closed."""

BACKLOG = 64
"""Connections that wait to be accepted."""

NO_FILES_SECONDS = 0.2
"""How long to leave new connections waiting when the process has no file descriptor left."""


async def serve_control(
    client: Client,
    path: Path,
    *,
    run_blocking: RunBlocking = run_in_thread,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the node on a Unix socket until cancelled.

    The caller holds the home's lock, so whatever lies at `path` is stale and is removed.

    Raises:
        Refused: The socket cannot be made there.
    """
    try:
        listener = _listen(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Refused(f"the control socket {path} cannot be made: {reason}") from error
    try:
        task_status.started()
        async with trio.open_nursery() as nursery:
            door = _Door(client, run_blocking)
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                        raise
                    await trio.sleep(NO_FILES_SECONDS)
                    continue
                nursery.start_soon(door.admit, stream)
    finally:
        listener.socket.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen(path: Path) -> trio.SocketListener:
    _remove(path)
    server = socket.socket(socket.AF_UNIX)
    try:
        server.bind(os.fspath(path))
        # Between bind and chmod the folder's mode, 0700, keeps others out.
        path.chmod(0o600)
        server.listen(BACKLOG)
    except OSError:
        server.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(server))


def peer_uid(stream: trio.SocketStream) -> int | None:
    """Return the user id of the process at the other end; None if the system does not tell."""
    if sys.platform == "linux":
        size = struct.calcsize("3i")
        packed = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", packed)[1])
    if sys.platform == "darwin":
        # struct xucred: version, uid, groups; level SOL_LOCAL = 0, option LOCAL_PEERCRED = 1
        return int(struct.unpack_from("=II", stream.socket.getsockopt(0, 1, 76))[1])
    return None


class _Door:
    """Lets in the home's owner (and root), a bounded number at a time."""

    def __init__(self, client: Client, run_blocking: RunBlocking) -> None:
        self._client = client
        self._run_blocking = run_blocking
        self._inside = 0
        self._importing = trio.Lock()
        self._converse: Converse | None = None

    async def admit(self, stream: trio.SocketStream) -> None:
        """Answer one connection until it ends, or turn it away."""
        async with stream:
            if self._inside >= MAX_CONNECTIONS or peer_uid(stream) not in (os.geteuid(), 0):
                return
            self._inside += 1
            try:
                await self._serve(stream)
            finally:
                self._inside -= 1

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with self._importing:
            if self._converse is None:
                make = await self._run_blocking(_import_app)
                self._converse = make(self._client)
        await self._converse(stream)


def _import_app() -> Callable[[Client], Converse]:
    from .app import converse_with

    return converse_with
