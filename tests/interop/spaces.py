"""Hosts of ours in network namespaces, though they all run in the tests' own process.

A socket belongs to the namespace in which it was made, whoever uses it later. So the thread enters
the namespace, makes the socket, and is back before anybody else runs.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import trio
from multiaddr import Multiaddr

from shoal.node.environment import Environment, Listener, RawStream, real_environment
from shoal.node.net.tcp import TcpTransport

CLONE_NEWNET = 0x40000000

_space: ContextVar[str | None] = ContextVar("_space", default=None)


@contextmanager
def _inside(space: str) -> Iterator[None]:
    """Have this thread in a namespace; nothing may be awaited meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(Path("/run/netns") / space, os.O_RDONLY)
    try:
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)
        os.close(there)


class SpaceSockets(trio.abc.SocketFactory):
    """Makes sockets in the namespace that the running task is concerned with."""

    def socket(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 - trio names it so
        proto: int = 0,
    ) -> trio.socket.SocketType:
        space = _space.get()
        if space is None:
            return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))
        with _inside(space):
            return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


class SpaceTransport:
    """The real transport, in a namespace."""

    def __init__(self, space: str) -> None:
        self._space = space
        self._real = TcpTransport()

    def can_dial(self, addr: Multiaddr) -> bool:
        return self._real.can_dial(addr)

    async def dial(self, addr: Multiaddr, *, source_port: int | None = None) -> RawStream:
        token = _space.set(self._space)
        try:
            return await self._real.dial(addr, source_port=source_port)
        finally:
            _space.reset(token)

    async def listen(self, addr: Multiaddr) -> Listener:
        token = _space.set(self._space)
        try:
            return await self._real.listen(addr)
        finally:
            _space.reset(token)

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        return await self._real.resolve(addr)


def environment_in(space: str) -> Environment:
    """Return the environment of a node whose sockets are in a namespace, in a run of trio."""
    trio.socket.set_custom_socket_factory(SpaceSockets())
    return replace(real_environment(), transport=SpaceTransport(space), on_a_network=False)
