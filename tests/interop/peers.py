"""Hosts of ours that do what a node does to be reached, for the tests against js-libp2p."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from multiaddr import Multiaddr

from shoal.node.environment import Environment, real_environment
from shoal.node.nat.nat import Nat, NatSettings
from shoal.node.net.connection import Connection
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.wire.addresses import with_peer
from shoal.wire.keys import PrivateKey

ECHO = "/interop/echo/1.0.0"
ANY = Multiaddr("/ip4/127.0.0.1/tcp/0")
DEADLINE = 40.0


async def echo(stream: Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


class Peer:
    """A host of ours and what it does to be reached."""

    def __init__(self, number: int, environment: Environment, **settings: Any) -> None:
        self.host = Host(environment, PrivateKey(bytes(31) + bytes([number])))
        self.host.handle(ECHO, echo)
        self.nat = Nat(self.host.environment, self.host, NatSettings(**settings), lambda: None)

    @property
    def addr(self) -> Multiaddr:
        return with_peer(self.host.listen_addrs()[0], self.host.peer_id)


@asynccontextmanager
async def ours(
    number: int,
    *,
    environment: Environment | None = None,
    listen: Multiaddr = ANY,
    **settings: Any,
) -> AsyncIterator[Peer]:
    """Run a host for the time of a `with`; settings are those of `NatSettings`."""
    peer = Peer(number, environment or real_environment(), **settings)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(peer.host.run, [listen])
            await nursery.start(peer.nat.run)
            yield peer
            assert not peer.host.faults
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - of anything
        await trio.sleep(0.02)


async def echoes(connection: Connection, count: int) -> bool:
    """Send bytes to the other end and have them back."""
    data = random.Random(count).randbytes(count)
    got = bytearray()
    async with await connection.open_stream([ECHO]) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        async for part in stream:
            got += part
    return bytes(got) == data
