"""Peers that break rules, take and never give, or say nothing: the host stays well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from shoal.node.net.bounds import Limits
from shoal.node.net.connection import (
    FAULT_SECONDS,
    MAX_FAULTS,
    MAX_QUEUED,
    MAX_REFUSED_STREAMS,
    MAX_UNAGREED,
    MAX_UNREAD,
)
from shoal.node.net.host import Host
from shoal.node.net.roster import SHUN_SECONDS
from shoal.node.net.stream import SEND_AHEAD, Stream
from shoal.simulations.world import World
from shoal.wire.yamux import MAX_STREAMS
from shoal.wire.yamux_frames import DATA, FIN, GO_AWAY, HEADER, PING, RST, SYN, WINDOW

ECHO = "/test/echo"
MakeHost = Callable[..., Awaitable[Host]]
MakeRawPeer = Callable[..., Awaitable[Any]]


@pytest.fixture
async def bob(make_host: MakeHost) -> Host:
    return await make_host("bob")


async def still_well(bob: Host, make_host: MakeHost) -> None:
    """Let a well-behaved peer use the host."""
    carol = await make_host("carol")
    stream = await carol.open_stream(bob.peer_id, [ECHO], bob.listen_addrs()[:1])
    await stream.send_all(b"well?")
    assert await stream.receive_some() == b"well?"
    await stream.aclose()


async def test_many_streams_at_once_are_refused_and_too_many_end_the_connection(
    autojump_clock: MockClock, bob: Host, make_host: MakeHost, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    (connection,) = bob.connections()
    for _ in range(10):
        await eve.send(b"".join(eve.open() for _ in range(100)))
        await trio.sleep(0.01)
        # One stream is our own question who she is.
        assert connection.streams <= MAX_UNAGREED + 1
    await trio.sleep(1)
    assert bob.faults == {"streams-unagreed": 1000 - MAX_UNAGREED}
    await trio.sleep(30)
    assert connection.streams <= 1

    await eve.send(b"".join(eve.open() for _ in range(MAX_UNAGREED + MAX_REFUSED_STREAMS)))
    await trio.sleep(1)
    assert not connection.closed
    await eve.send(eve.open())
    await trio.sleep(2)
    assert connection.closed
    assert bob.faults["faults-too-many"] == 1
    assert eve.got[GO_AWAY, 0] == 1
    await still_well(bob, make_host)


async def test_one_who_breaks_a_rule_again_and_again_loses_the_connection(
    autojump_clock: MockClock, bob: Host, make_host: MakeHost, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    (connection,) = bob.connections()
    nonsense = b"\x05hello"

    async def breach(times: int) -> None:
        for _ in range(times):
            opening = eve.open()
            stream = 2 * eve.streams - 1
            await eve.send(opening + HEADER.pack(0, DATA, 0, stream, len(nonsense)) + nonsense)
        await trio.sleep(0.1)

    for _ in range(3):  # now and then a fault is forgiven
        await breach(MAX_FAULTS)
        await trio.sleep(FAULT_SECONDS)
    assert not connection.closed
    await breach(MAX_FAULTS + 1)
    await trio.sleep(2)

    assert connection.closed
    assert connection.reason == "the peer broke too many rules"
    assert bob.faults["faults-too-many"] == 1
    assert sum(bob.faults.values()) == 4 * MAX_FAULTS + 2
    again = await raw_peer(bob)  # the same identity
    assert not bob.connections()
    assert again.ended.is_set()
    assert bob.faults["upgrade-Shunned"] == 1
    await trio.sleep(SHUN_SECONDS)
    await raw_peer(bob)
    assert len(bob.connections()) == 1
    await still_well(bob, make_host)


async def test_ten_thousand_streams_without_reading_the_answers(
    autojump_clock: MockClock, bob: Host, make_host: MakeHost, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    await eve.send(b"".join(eve.open() for _ in range(10_000)))
    await trio.sleep(1)
    assert bob.connections() == []
    assert bob.faults["faults-too-many"] + bob.faults["yamux-control-flood"] >= 1
    await still_well(bob, make_host)


async def test_streams_of_a_connection_are_bounded(
    autojump_clock: MockClock, bob: Host, make_host: MakeHost, raw_peer: MakeRawPeer
) -> None:
    async def wait(stream: Stream) -> None:
        await stream.receive_some()

    bob.handle("/test/wait", wait, max_inbound=10_000)
    eve = await raw_peer(bob)
    for _ in range(10):
        await eve.send(b"".join(eve.open("/test/wait") for _ in range(50)))
        await trio.sleep(0.2)
    (connection,) = bob.connections()
    assert connection.session.inbound == MAX_STREAMS
    assert eve.got[WINDOW, RST] == 500 - MAX_STREAMS
    await still_well(bob, make_host)


async def test_a_peer_that_never_reads_is_dropped(
    autojump_clock: MockClock, world: World, bob: Host, make_host: MakeHost
) -> None:
    waiting: list[int] = []

    async def pour(stream: Stream) -> None:
        for number in range(1000):
            waiting.append(number)
            await stream.send_all(bytes(100_000))

    bob.handle("/test/pour", pour)
    alice = await make_host("alice")
    connection = await alice.dial(bob.listen_addrs()[0])
    stream = await connection.open_stream(["/test/pour"])
    await trio.sleep(10)
    theirs = bob.connection(alice.peer_id)
    assert theirs is not None
    # A stream whose window is used up holds what it may queue, and no more.
    assert theirs.session.queued <= SEND_AHEAD + 100_000
    assert connection.session.unread <= 256 * 1024
    assert len(waiting) <= 8
    await stream.aclose()
    await trio.sleep(60)
    assert theirs.session.queued == 0
    assert not theirs.closed


async def test_a_socket_that_is_never_read_ends_the_connection(
    autojump_clock: MockClock, bob: Host, raw_peer: MakeRawPeer, make_host: MakeHost
) -> None:
    async def pour(stream: Stream) -> None:
        while True:
            await stream.send_all(bytes(1 << 20))

    bob.handle("/test/pour", pour)
    eve = await raw_peer(bob)
    eve.stop.cancel()
    await eve.send(eve.open("/test/pour") + HEADER.pack(0, WINDOW, 0, 1, 1 << 30))
    await trio.sleep(1)
    (connection,) = bob.connections()
    assert connection.session.queued <= MAX_QUEUED
    await trio.sleep(100)
    assert connection.closed
    assert "took nothing" in connection.reason or "did not answer" in connection.reason
    await still_well(bob, make_host)


async def test_unread_bytes_are_bounded(
    autojump_clock: MockClock, bob: Host, make_host: MakeHost, raw_peer: MakeRawPeer
) -> None:
    async def deaf(stream: Stream) -> None:
        await trio.sleep_forever()

    bob.handle("/test/deaf", deaf)
    eve = await raw_peer(bob)
    window = 256 * 1024
    for _ in range(20):
        opening = eve.open("/test/deaf")
        body = window - (len(opening) - 24)
        await eve.send(opening + HEADER.pack(0, DATA, 0, 2 * eve.streams - 1, body) + bytes(body))
        await trio.sleep(0.2)
        (connection,) = bob.connections()
        assert connection.session.unread <= MAX_UNREAD
    assert bob.faults["unread-memory"] >= 10
    await still_well(bob, make_host)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (HEADER.pack(0, DATA, SYN, 1, (256 << 10) + 1) + bytes(70_000), "yamux-window-exceeded"),
        (HEADER.pack(0, DATA, SYN, 1, 0xFFFFFFFF), "yamux-window-exceeded"),
        (HEADER.pack(7, DATA, SYN, 1, 0), "yamux-version"),
        (HEADER.pack(0, PING, SYN, 0, 0) * 5000, "yamux-control-flood"),
    ],
)
async def test_a_broken_rule_ends_the_connection_with_a_word(
    autojump_clock: MockClock,
    bob: Host,
    make_host: MakeHost,
    raw_peer: MakeRawPeer,
    frames: bytes,
    reason: str,
) -> None:
    eve = await raw_peer(bob)
    await eve.send(frames)
    with trio.fail_after(5):
        await eve.ended.wait()
    assert eve.got[GO_AWAY, 0] == 1
    assert bob.connections() == []
    assert bob.faults == {reason: 1}
    await still_well(bob, make_host)


async def test_tampered_bytes_end_the_connection(
    autojump_clock: MockClock, bob: Host, make_host: MakeHost, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    await eve.raw.send_all(b"\x00\x20" + bytes(32))
    with trio.fail_after(5):
        await eve.ended.wait()
    assert bob.faults == {"noise-decrypt": 1}
    await still_well(bob, make_host)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(2000), b"\xff" * 2000])
async def test_something_else_than_libp2p(
    autojump_clock: MockClock, world: World, bob: Host, make_host: MakeHost, garbage: bytes
) -> None:
    raw = await world.environment("eve").transport.dial(bob.listen_addrs()[0])
    await raw.send_all(garbage)
    with trio.fail_after(15):
        while await raw.receive_some():
            pass
    assert bob.faults.total() == 1
    await still_well(bob, make_host)


async def test_silence_is_ended_and_does_not_keep_others_out(
    autojump_clock: MockClock, world: World, bob: Host, make_host: MakeHost
) -> None:
    limit = Limits().upgrades
    transport = world.environment("eve").transport
    raws = [await transport.dial(bob.listen_addrs()[0]) for _ in range(limit + 3)]
    await trio.sleep(1)
    assert bob.faults["upgrades-busy"] == 3
    assert await raws[-1].receive_some() == b""
    await trio.sleep(10)
    assert bob.faults["upgrade-TooSlowError"] == limit
    await still_well(bob, make_host)


async def test_a_stream_without_a_protocol_is_given_up(
    autojump_clock: MockClock, bob: Host, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    await eve.send(eve.open() + eve.open() + HEADER.pack(0, DATA, FIN, 3, 0))
    await trio.sleep(1)
    (connection,) = bob.connections()
    assert connection.session.inbound == 1
    await trio.sleep(30)
    assert connection.session.inbound == 0
    assert not connection.closed
