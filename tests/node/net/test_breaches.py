"""Peers that break rules: what they cost is bounded and counted, and others are served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from shoal.node.net.connection import (
    MAX_QUEUED,
    OPEN_SECONDS,
    Connection,
)
from shoal.node.net.dialer import UPGRADE_SECONDS
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.simulations.world import World
from shoal.wire.errors import PeerFault
from shoal.wire.multistream import HEADER as GREETING
from shoal.wire.multistream import message
from shoal.wire.yamux import MAX_CONTROL, Session
from shoal.wire.yamux_frames import ACK, DATA, FIN, GO_AWAY, HEADER, PING, RST, SYN, WINDOW

ECHO = "/test/echo"
MakeHost = Callable[..., Awaitable[Host]]
MakeRawPeer = Callable[..., Awaitable[Any]]


def frame(kind: int, flags: int, stream: int, length: int, version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream, length)


@pytest.fixture
async def bob(make_host: MakeHost) -> Host:
    return await make_host("bob")


@pytest.fixture
async def alice(make_host: MakeHost) -> Host:
    return await make_host("alice")


async def assert_serves(host: Host, other: Host) -> None:
    """Check that the host still answers an honest peer at once."""
    with trio.fail_after(5):
        stream = await other.open_stream(host.peer_id, [ECHO], host.listen_addrs())
        await stream.send_all(b"still there?")
        assert await stream.receive_some() == b"still there?"
        await stream.aclose()


def connection_of(host: Host, other: Host) -> Connection:
    (found,) = [c for c in host.connections() if c.peer_id != other.peer_id]
    return found


OPENED = frame(WINDOW, SYN, 1, 0)
PROPOSAL = message(GREETING) + message(ECHO)

BREACHES = {
    "yamux-version": frame(DATA, 0, 1, 0, version=1),
    "yamux-type": frame(9, 0, 1, 0),
    "yamux-stream-zero": frame(DATA, 0, 0, 1) + b"x",
    "yamux-stream-parity": frame(WINDOW, SYN, 2, 0),
    "yamux-stream-reused": OPENED + OPENED,
    "yamux-window-exceeded": OPENED + frame(DATA, 0, 1, (256 << 10) + 1),
    "yamux-window-overflow": OPENED + frame(WINDOW, 0, 1, 0xFFFFFFFF),
    "yamux-data-after-end": OPENED
    + frame(DATA, FIN, 1, len(PROPOSAL))
    + PROPOSAL
    + frame(DATA, 0, 1, 1)
    + b"x",
}


@pytest.mark.parametrize("reason", BREACHES)
async def test_a_breach_of_yamux_ends_the_connection(
    autojump_clock: MockClock, bob: Host, alice: Host, raw_peer: MakeRawPeer, reason: str
) -> None:
    eve = await raw_peer(bob)
    await eve.send(BREACHES[reason])
    with trio.fail_after(5):
        await eve.ended.wait()
    assert bob.faults == {reason: 1}
    assert eve.got[GO_AWAY, 0] == 1
    assert not bob.connections()
    await assert_serves(bob, alice)


async def test_streams_without_a_protocol_are_reset_in_time(
    autojump_clock: MockClock, bob: Host, alice: Host, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    await eve.send(eve.open() + eve.open(ECHO) + eve.open()[:8])  # the last one is cut
    await trio.sleep(1)
    connection = bob.connections()[0]
    assert connection.streams == 3  # two of hers, and identify
    await trio.sleep(2 * OPEN_SECONDS + 1)
    assert not connection.closed
    # Only the echo goes on: nobody waits for ever for her word on who she is.
    left = [
        inner.id
        for inner in connection.session.streams.values()
        if isinstance(inner.driver, Stream) and not inner.driver.is_closed
    ]
    assert left == [3]
    assert eve.got[WINDOW, RST] == 1


async def test_pings_without_reading_end_the_connection(
    autojump_clock: MockClock, bob: Host, alice: Host, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob, reads=False)
    session = bob.connections()[0].session
    assert isinstance(session, Session)
    connection = bob.connections()[0]
    flood = frame(PING, SYN, 0, 7) * 5000
    with suppress(trio.BrokenResourceError):
        for _ in range(400):
            await eve.send(flood)
            assert len(session._control) <= MAX_CONTROL + 1
            await assert_serves(bob, alice)
    assert bob.faults == {"yamux-control-flood": 1}
    await connection.wait_closed()
    await assert_serves(bob, alice)


async def test_answers_that_nobody_reads_wait_within_bounds(
    autojump_clock: MockClock, bob: Host, alice: Host, raw_peer: MakeRawPeer
) -> None:
    async def endless(stream: Stream) -> None:
        while True:
            await stream.send_all(bytes(100_000))

    bob.handle("/test/endless", endless, max_inbound=256)
    eve = await raw_peer(bob, reads=False)
    connection = bob.connections()[0]
    for _ in range(200):
        await eve.send(eve.open("/test/endless"))
        await trio.sleep(0.1)
    assert connection.streams > 100
    assert connection.session.queued < MAX_QUEUED + 200 * 100_000
    await assert_serves(bob, alice)
    # The stream takes nothing more, so a batch cannot go out: that ends the connection.
    with trio.fail_after(130):
        await connection.wait_closed()
    assert "took nothing" in connection.reason or "did not answer" in connection.reason
    await assert_serves(bob, alice)
    (left,) = bob.connections()
    assert left.peer_id == alice.peer_id
    assert bob._budgets.shared.queued == left.session.queued == 0


GARBAGE = {
    "no header": message("/http/1.1"),
    "a line without end": b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "too long a line": b"\xff\xff\x7f" + bytes(100),
    "no newline": b"\x05hello",
    "not UTF-8": b"\x03\xff\xfe\n",
    "an empty line": b"\x00",
    "endless proposals": message(GREETING) + message("/no") * 100,
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_nonsense_in_a_negotiation_resets_the_stream_alone(
    autojump_clock: MockClock, bob: Host, alice: Host, raw_peer: MakeRawPeer, name: str
) -> None:
    eve = await raw_peer(bob)
    said = GARBAGE[name]
    await eve.send(eve.open() + frame(DATA, 0, 1, len(said)) + said)
    await trio.sleep(1)
    (connection,) = bob.connections()
    assert connection.streams == 1  # our question who she is
    assert sum(bob.faults.values()) == 1
    assert next(iter(bob.faults)).startswith("multistream-")
    hello = eve.open(ECHO)
    await eve.send(hello + frame(DATA, 0, 3, 5) + b"hello")
    await trio.sleep(1)
    assert eve.payload.endswith(b"hello")


async def test_streams_that_are_opened_and_reset_at_once_cost_nothing(
    autojump_clock: MockClock, bob: Host, alice: Host, raw_peer: MakeRawPeer
) -> None:
    """The pattern of the "rapid reset" attack on HTTP/2."""
    running = 0

    async def slow(stream: Stream) -> None:
        nonlocal running
        running += 1
        try:
            await stream.receive_some()
        finally:
            running -= 1

    bob.handle("/test/slow", slow, max_inbound=8)
    eve = await raw_peer(bob)
    for _ in range(1000):
        opening = eve.open("/test/slow")
        await eve.send(opening + frame(WINDOW, RST, 2 * eve.streams - 1, 0))
        assert running <= 8
    await trio.sleep(1)
    assert running == 0
    assert bob.connections()[0].streams == 1
    assert not bob.connections()[0]._serving.running["/test/slow"]
    await assert_serves(bob, alice)


async def test_a_goodbye_leaves_running_streams_alone(
    autojump_clock: MockClock, bob: Host, raw_peer: MakeRawPeer
) -> None:
    eve = await raw_peer(bob)
    await eve.send(eve.open(ECHO) + frame(GO_AWAY, 0, 0, 0))
    await eve.send(frame(DATA, 0, 1, 5) + b"hello")
    await trio.sleep(1)
    assert eve.payload.endswith(b"hello")
    assert bob.connection(bob.connections()[0].peer_id) is None  # not for new streams


# Before the peer is known


async def test_an_upgrade_that_takes_too_long_is_broken_off(
    autojump_clock: MockClock, world: World, bob: Host, alice: Host
) -> None:
    transport = world.environment("eve").transport
    raw = await transport.dial(bob.listen_addrs()[0])
    began = trio.current_time()
    with suppress(trio.BrokenResourceError):
        for byte in message(GREETING) + message("/noise") + b"\x00\x40" + bytes(64):
            await raw.send_all(bytes([byte]))
            await trio.sleep(1)
    assert trio.current_time() - began == pytest.approx(UPGRADE_SECONDS, abs=2)
    assert bob.faults == {"upgrade-TooSlowError": 1}
    await assert_serves(bob, alice)


HELLO = message(GREETING) + message("/noise")

STRANGERS = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "upgrade-ConnectionLost"),
    "zeros": (bytes(100), "multistream-line"),
    "another protocol": (message(GREETING) + message("/tls/1.0.0") * 100, "multistream-proposals"),
    "a long handshake": (HELLO + b"\xff\xff", "noise-handshake-length"),
    "a short handshake": (HELLO + b"\x00\x10" + bytes(16), "noise-handshake-length"),
    "a weak key": (HELLO + b"\x00\x20" + bytes(32), "noise-public-key"),
    "a hang-up": (HELLO[:5], "upgrade-ConnectionLost"),
    "nothing": (b"", "upgrade-ConnectionLost"),
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_strangers_are_sent_away(
    autojump_clock: MockClock, world: World, bob: Host, alice: Host, name: str
) -> None:
    said, reason = STRANGERS[name]
    raw = await world.environment("eve").transport.dial(bob.listen_addrs()[0])
    await raw.send_all(said)
    await raw.send_eof()
    with trio.fail_after(5):
        while await raw.receive_some():
            pass
    assert bob.faults == {reason: 1}
    assert not bob.connections()
    await assert_serves(bob, alice)


async def test_a_fault_found_behind_the_handlers_end_is_counted(
    autojump_clock: MockClock, bob: Host, raw_peer: MakeRawPeer
) -> None:
    class Picky:
        """A sink that finds a fault."""

        def feed(self, data: memoryview) -> int:
            raise PeerFault("picky", "no")

        def pass_done(self) -> None:
            raise AssertionError("the stream was reset")

        def ended(self, reason: str | None) -> None:
            why.append(reason)

    why: list[str | None] = []

    async def install(stream: Stream) -> None:
        stream.install_sink(Picky())
        await trio.sleep(5)

    bob.handle("/test/picky", install)
    eve = await raw_peer(bob)
    await eve.send(eve.open("/test/picky") + frame(DATA, 0, 1, 5) + b"hello")
    await trio.sleep(1)
    await eve.send(eve.open("/test/picky"))
    await trio.sleep(1)
    await eve.send(frame(DATA, 0, 3, 5) + b"hello")
    await trio.sleep(1)
    assert bob.faults == {"picky": 2}
    assert why == ["picky: no", "picky: no"]
    assert eve.got[WINDOW, RST] == 2
    assert eve.got[PING, ACK] == 0
