"""Connections with js-libp2p, dialled from either side: identify, ping, streams, many bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
import trio
from multiaddr import Multiaddr

from shoal.node.environment import real_environment
from shoal.node.net.connection import Connection
from shoal.node.net.errors import StreamRefused, WrongPeer
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.wire.addresses import without_peer
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

ECHO = "/interop/echo/1.0.0"
SINK = "/interop/sink/1.0.0"
SOURCE = "/interop/source/1.0.0"
NEW = "/interop/new/1.0.0"
NEWER = "/interop/newer/1.0.0"
PING = "/ipfs/ping/1.0.0"
IDENTIFY = "/ipfs/id/1.0.0"
ANY = Multiaddr("/ip4/127.0.0.1/tcp/0")
DEADLINE = 45.0
MANY_BYTES = 64 << 20
PIECE = 1 << 18

ANY_QUIC = Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1")

Dialler = Literal["ours", "js", "ours-quic", "js-quic"]
"""Who dials; over TCP, Noise and yamux unless it is said."""


async def send_random(stream: Stream, count: int) -> str:
    """Send bytes and the end; return their hash."""
    source = random.Random(count)
    digest = hashlib.sha256()
    while count:
        data = source.randbytes(min(count, PIECE))
        count -= len(data)
        digest.update(data)
        await stream.send_all(data)
    await stream.send_eof()
    return digest.hexdigest()


async def read_digest(stream: Stream) -> tuple[int, str]:
    """Read to the end; return how much, and its hash."""
    digest = hashlib.sha256()
    count = 0
    async for data in stream:
        count += len(data)
        digest.update(data)
    return count, digest.hexdigest()


async def read_all(stream: Stream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


class Ours:
    """A host of ours that serves what `peer.mjs` serves."""

    def __init__(self) -> None:
        self.host = Host(real_environment(), PrivateKey(bytes(31) + b"\x01"))
        self.host.handle(ECHO, self._echo, max_inbound=256)
        self.host.handle(SINK, self._sink)
        self.host.handle(SOURCE, self._source)
        self.sent = ""

    async def _echo(self, stream: Stream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def _sink(self, stream: Stream) -> None:
        count, digest = await read_digest(stream)
        await stream.send_all(f"{count} {digest}".encode())

    async def _source(self, stream: Stream) -> None:
        self.sent = await send_random(stream, int(await read_all(stream)))


@asynccontextmanager
async def ours(listen: Multiaddr = ANY) -> AsyncIterator[Ours]:
    node = Ours()
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            await nursery.start(node.host.run, [listen])
            yield node
            assert not node.host.faults
            await node.host.aclose()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def pair(js_peer: Any, dialler: Dialler) -> AsyncIterator[tuple[Ours, Any, Connection]]:
    """One node of each kind and the connection between them."""
    quic = dialler.endswith("-quic")
    async with (
        ours(ANY_QUIC if quic else ANY) as node,
        js_peer(2, transport="quic" if quic else "tcp") as js,
    ):
        if dialler.startswith("ours"):
            connection = await node.host.dial(Multiaddr(js.addrs[0]))
        else:
            (addr,) = node.host.listen_addrs()
            told = await js.ask("dial", addr=f"{addr}/p2p/{node.host.peer_id}")
            assert told == {"peer": str(node.host.peer_id), "direction": "outbound"}
            # Over QUIC who dials is done half a round trip before the other side.
            while (found := node.host.connection(PeerId.parse(js.peer))) is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
            connection = found
        await connection.identified()
        yield node, js, connection


async def identity_at(js: Any, host: Host) -> Any:
    """What js knows of us, once identify has told it."""
    return await js.until("identity", lambda told: told["agent"], peer=str(host.peer_id))


both = pytest.mark.parametrize("dialler", ["ours", "js"])
all_four = pytest.mark.parametrize("dialler", ["ours", "js", "ours-quic", "js-quic"])


@all_four
async def test_each_side_learns_who_the_other_is(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        info = await connection.identified()
        assert str(connection.peer_id) == js.peer
        assert [f"{addr}/p2p/{js.peer}" for addr in info.listen_addrs] == js.addrs
        assert info.agent_version is not None
        assert info.agent_version.startswith("js-libp2p/")
        assert set(info.protocols) == set(await js.ask("protocols"))
        assert {IDENTIFY, PING, ECHO} <= set(info.protocols)
        told = await identity_at(js, node.host)
        assert told["agent"] == node.host.config.agent
        assert told["version"] == "shoal/1"
        assert set(told["addrs"]) == {str(addr) for addr in node.host.listen_addrs()}
        assert set(told["protocols"]) == set(node.host.protocols)
        # js dials QUIC from another port than it listens on; we dial from where we listen.
        observed = connection.local if dialler == "ours" else node.host.listen_addrs()[0]
        assert info.observed_addr is not None
        assert without_peer(info.observed_addr) == observed


@both
async def test_pings_go_both_ways(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        assert 0 < await node.host.ping(connection.peer_id) < DEADLINE
        assert 0 <= await js.ask("ping", peer=str(node.host.peer_id)) < DEADLINE * 1000


@all_four
async def test_many_bytes_arrive_whole_both_ways(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        count = MANY_BYTES if dialler in ("ours", "js") else MANY_BYTES // 4
        ourselves = str(node.host.peer_id)
        stream = await connection.open_stream([SINK])
        sent = await send_random(stream, count)
        assert await read_all(stream) == f"{count} {sent}".encode()
        stream = await connection.open_stream([SOURCE])
        await stream.send_all(str(count).encode())
        await stream.send_eof()
        assert await read_digest(stream) == (count, await js.ask("sourced"))
        pushed = await js.ask("push", peer=ourselves, bytes=count)
        assert pushed["answer"] == f"{count} {pushed['sha256']}"
        pulled = await js.ask("pull", peer=ourselves, bytes=count)
        assert pulled == {"bytes": count, "sha256": node.sent}


@all_four
async def test_a_hundred_streams_at_once(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        good = 0

        async def echo(number: int) -> None:
            nonlocal good
            data = random.Random(number).randbytes(20_000)
            stream = await connection.open_stream([ECHO])
            await stream.send_all(data)
            await stream.send_eof()
            answer = await read_all(stream)
            good += answer == data
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(echo, number)
        assert good == 100
        peer = str(node.host.peer_id)
        assert await js.ask("echoes", peer=peer, count=100, bytes=20_000) == 100
        assert node.host.connections() == [connection]


@all_four
async def test_an_unknown_protocol_is_refused(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        with pytest.raises(StreamRefused, match="does not speak /interop/none or /interop/other"):
            await connection.open_stream(["/interop/none", "/interop/other"])
        stream = await connection.open_stream(["/interop/none", ECHO])
        assert stream.protocol == ECHO
        await stream.aclose()
        refused = await js.error_of("open", peer=str(node.host.peer_id), protocol="/interop/none")
        assert "UnsupportedProtocolError" in refused
        assert await js.ask("open", peer=str(node.host.peer_id), protocol=ECHO) == ECHO


@both
async def test_a_request_may_go_out_with_the_proposal(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (_, _js, connection):
        connection.info = None  # as before identify has told anything
        stream = await connection.open_stream([ECHO], lazy=True)
        await stream.send_all(b"at once")
        await stream.send_eof()
        assert await read_all(stream) == b"at once"
        stream = await connection.open_stream(["/interop/none"], lazy=True)
        await stream.send_all(b"in vain")
        with pytest.raises(trio.BrokenResourceError):
            await read_all(stream)


@both
async def test_new_protocols_are_pushed(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        await identity_at(js, node.host)
        node.host.handle(NEW, node._echo)
        peer = str(node.host.peer_id)
        await js.until("identity", lambda told: NEW in told["protocols"], peer=peer)
        await js.ask("serve", protocol=NEWER)
        await js.until("protocols", lambda _: connection.speaks(NEWER))


@all_four
async def test_a_goodbye_ends_the_connection(js_peer: Any, dialler: Dialler) -> None:
    async with pair(js_peer, dialler) as (node, js, connection):
        await js.ask("hangup", peer=str(node.host.peer_id))
        await connection.wait_closed()
        assert node.host.connections() == []
        again = await node.host.dial(Multiaddr(js.addrs[0]))
        await again.identified()
        await again.aclose()
        await js.until("connections", lambda peers: not peers)


async def test_the_wrong_peer_is_told_apart(js_peer: Any) -> None:
    someone = PrivateKey(bytes(31) + b"\x09").peer_id
    async with js_peer(2) as js, trio.open_nursery() as nursery:
        host = Host(real_environment(), PrivateKey(bytes(31) + b"\x01"))
        await nursery.start(host.run, [ANY])
        with trio.fail_after(DEADLINE), pytest.raises(WrongPeer) as caught:
            await host.dial(Multiaddr(js.addrs[0].replace(js.peer, str(someone))))
        assert str(caught.value.found) == js.peer
        (addr,) = host.listen_addrs()
        refused = await js.error_of("dial", addr=f"{addr}/p2p/{someone}")
        assert str(host.peer_id) in refused
        nursery.cancel_scope.cancel()
