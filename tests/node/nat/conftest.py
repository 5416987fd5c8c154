"""Hosts in a simulated internet, some of them behind firewalls or routers."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from shoal.node.nat.nat import Nat, NatSettings
from shoal.node.net.errors import NetError
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.simulations.link import Link
from shoal.simulations.nat_box import NatBox
from shoal.simulations.world import World
from shoal.wire.addresses import parse_multiaddr, with_peer
from shoal.wire.keys import PrivateKey

ECHO = "/test/echo"
PORT = 4001


def key_of(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


async def echo(stream: Stream) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)
    await stream.send_eof()


@dataclass
class Peer:
    """A host, and what it does to be reached."""

    host: Host
    nat: Nat
    changes: list[tuple[str, tuple[str, ...]]]

    @property
    def id(self) -> Any:
        return self.host.peer_id

    @property
    def addr(self) -> Any:
        return with_peer(self.host.listen_addrs()[0], self.host.peer_id)


MakePeer = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def make_peer(world: World) -> MakePeer:
    """Start a host at a place of its own, on port 4001.

    `reachable`: others can dial it, there is no firewall; `behind`: its router.
    """
    world.network.default = Link(latency=0.03)

    async def make(
        name: str,
        *,
        reachable: bool = True,
        behind: NatBox | None = None,
        ips: Sequence[str] = (),
        **settings: Any,
    ) -> Peer:
        environment = world.environment(name, ips, behind=behind)
        world.network.places[name].reachable = reachable
        host = Host(environment, key_of(name))
        host.handle(ECHO, echo)
        changes: list[tuple[str, tuple[str, ...]]] = []

        def changed() -> None:
            changes.append((nat.reachability, tuple(map(str, host.told_addrs()))))

        nat = Nat(environment, host, NatSettings(**settings), changed)
        await world.nursery.start(host.run, [parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}")])
        await world.nursery.start(nat.run)
        return Peer(host, nat, changes)

    return make


MakeHost = Callable[..., Awaitable[Host]]


@pytest.fixture
async def make_host(world: World) -> MakeHost:
    """Start a host that does nothing to be reached: what it says, a test says."""

    async def make(name: str, ips: Sequence[str] = ()) -> Host:
        host = Host(world.environment(name, ips), key_of(name))
        host.handle(ECHO, echo)
        await world.nursery.start(host.run, [parse_multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}")])
        return host

    return make


async def publics(make_peer: MakePeer, count: int = 4) -> list[Peer]:
    """Start hosts that can be reached; all know the first."""
    peers = [await make_peer(f"public{number}") for number in range(count)]
    for peer in peers[1:]:
        await peer.host.dial(peers[0].addr)
    return peers


async def join(peer: Peer, others: Sequence[Peer]) -> None:
    """Connect with all of these."""
    for other in others:
        await peer.host.dial(other.addr)


async def until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    """Wait in virtual time until something holds."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - of anything, in virtual time
            await trio.sleep(0.5)


async def echoed(connection: Any, data: bytes) -> bytes:
    """Send bytes to the other end's echo; return what comes back (BrokenResourceError)."""
    got = bytearray()
    broken = False
    try:
        async with await connection.open_stream([ECHO]) as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            while part := await stream.receive_some():
                got += part
    except* (trio.BrokenResourceError, NetError):
        broken = True
    if broken:
        raise trio.BrokenResourceError
    return bytes(got)
