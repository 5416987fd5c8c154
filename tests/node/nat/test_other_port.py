"""Hole punching with a peer that cannot dial from the port that it listens on, as js-libp2p."""

from __future__ import annotations

import trio

from shoal.node.nat.circuit import read_message, send_message
from shoal.node.nat.punch import DIAL_SECONDS
from shoal.node.nat.relay_server import RelayPolicy
from shoal.node.net.paths import Path
from shoal.node.net.stream import Stream
from shoal.simulations.world import World
from shoal.wire.addresses import host_port, relayed_addr, tcp_addr
from shoal.wire.circuit import HOP
from shoal.wire.dcutr import MAX_MESSAGE, PROTOCOL, Dial, Invited

from .conftest import MakePeer, echoed, until


async def test_its_dial_is_taken_told_and_ends_the_attempt(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    server = await make_peer("relay", relay="own", own=RelayPolicy(limit=None))
    bob = await make_peer("bob", reachable=False, relays=(server.addr,))
    await until(bob.nat.keeper.places)
    other = await make_peer("other", reachable=False, serve=False)
    began: list[float] = []

    async def invited(stream: Stream) -> None:
        side = Invited(other.host.listen_addrs())
        first = side.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
        assert isinstance(first, bytes)
        await send_message(stream, first)
        dial = side.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
        assert isinstance(dial, Dial)
        began.append(trio.current_time())
        world.network.places["bob"].reachable = True  # bob's first packet opens its NAT to our IP
        raw = await other.host.environment.transport.dial(dial.addrs[0])
        await other.host.maker.admit(raw, bob.id, initiator=True)
        stream.connection.close()  # js ends the relayed connection at once

    other.host.handle(PROTOCOL, invited)
    await other.host.connect(bob.id, [relayed_addr(server.addr)])
    await until(lambda: other.id in bob.nat.puncher.outcomes)
    assert trio.current_time() - began[0] < DIAL_SECONDS / 2
    outcome = bob.nat.puncher.outcomes[other.id]
    assert (outcome.path, outcome.attempts) == (Path.PUNCHED, 1)
    direct = bob.host.connection(other.id)
    assert direct is not None
    assert (direct.path, direct.direction) == (Path.PUNCHED, "in")
    assert await echoed(direct, b"x" * 10_000) == b"x" * 10_000


async def test_a_stranger_from_that_ip_is_no_punched_connection(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    bob = await make_peer("bob")
    other, expected = await make_peer("other"), await make_peer("expected")
    pair = host_port(other.host.listen_addrs()[0])
    assert pair is not None
    another_port = tcp_addr(pair[0], pair[1] + 1)
    with bob.host.maker.expecting([another_port], expected.id, initiator=False):
        await other.host.dial(bob.addr)
        await until(lambda: bob.host.connection(other.id))
    connection = bob.host.connection(other.id)
    assert connection is not None
    assert connection.path is Path.DIRECT


async def test_a_stream_that_ends_without_a_word_is_no_fault(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server = await make_peer("relay", relay="own")
    bob = await make_peer("bob", serve=False)
    connection = await bob.host.dial(server.addr)
    stream = await connection.open_stream([HOP])
    await stream.send_eof()
    await trio.sleep(1)
    assert not server.host.faults
    stream = await connection.open_stream([HOP])
    await stream.send_all(b"\x05ab")
    await stream.send_eof()
    await trio.sleep(1)
    assert server.host.faults == {"frame-truncated": 1}
