"""Readers that stop, too many streams, and windows: what a connection holds is bounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import trio

from shoal.node.net.connection import MAX_UNREAD
from shoal.node.net.errors import StreamRefused
from shoal.node.net.quic.endpoint import ACCEPTED_WINDOW, SMALL_WINDOW
from shoal.node.net.quic.session import (
    CROWDED,
    MAX_HELD,
    SEND_AHEAD,
    SEND_AHEAD_CROWDED,
    SEND_AHEAD_LEAST,
    SEND_AHEAD_TOTAL,
    STALL_ASKED_SECONDS,
    STALL_SECONDS,
)
from shoal.node.net.stream import SEND_AHEAD as QUEUED
from shoal.node.net.stream import Stream
from shoal.simulations.world import World
from shoal.wire.errors import PeerFault

from ..conftest import ECHO
from .conftest import SINK, Air, MakeQuic, joined, read_all


async def test_a_reader_that_stops_stops_the_sender(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    """Until it reads on, neither side's memory grows, and nothing is lost."""
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    read_on = trio.Event()
    sizes: list[int] = []
    done = trio.Event()

    async def slow(stream: Stream) -> None:
        first = await stream.receive_some()
        await read_on.wait()
        sizes.append(len(first) + len(await read_all(stream)))
        done.set()

    bob.handle("/test/slow", slow)
    stream = await ours.open_stream(["/test/slow"])
    await stream.send_all(b"x")
    total = 16 << 20
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < total:
            await stream.send_all(bytes(1 << 16))
            sent += 1 << 16
        await stream.send_eof()

    before = theirs.bytes_in
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(STALL_SECONDS - 2)
        assert sent < MAX_HELD + ACCEPTED_WINDOW + SEND_AHEAD + (1 << 20)
        assert theirs.bytes_in - before < MAX_HELD + 1.1 * ACCEPTED_WINDOW + (1 << 17)
        assert MAX_HELD <= theirs.session.unread < MAX_HELD + (1 << 17)
        assert ours.session.queued <= SEND_AHEAD + QUEUED + (1 << 17)
        read_on.set()
        with trio.fail_after(120):
            await done.wait()
    assert sizes == [total + 1]
    assert not bob.faults


async def test_a_reader_that_stays_away_loses_its_stream_and_no_other(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)

    async def never(stream: Stream) -> None:
        await stream.receive_some()
        await trio.sleep_forever()

    bob.handle("/test/never", never)
    stream = await ours.open_stream(["/test/never"])
    await stream.send_all(b"x")
    other = await ours.open_stream([ECHO])
    ended: list[str] = []

    async def push() -> None:
        try:
            while True:
                await stream.send_all(bytes(1 << 16))
        except trio.BrokenResourceError as error:
            ended.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push)
        await trio.sleep(2)
        await other.send_all(b"are you there?")
        with trio.fail_after(STALL_SECONDS + 5):
            assert await other.receive_some(14) == b"are you there?"
    assert ended == ["reset by the peer"]
    assert bob.faults["unread-memory"] == 1
    assert theirs.usable
    assert theirs.session.unread == 0
    assert ours.session.queued == 0


async def test_many_streams_that_nobody_reads_stay_within_the_bound(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    worst = 0

    async def never(stream: Stream) -> None:
        await trio.sleep_forever()

    bob.handle("/test/never", never, max_inbound=100)

    async def push() -> None:
        stream = await ours.open_stream(["/test/never"])
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(50_000))
                await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(push)
        for _ in range(200):
            await trio.sleep(0.2)
            worst = max(worst, theirs.session.unread)
            assert ours.session.queued < SEND_AHEAD_TOTAL + 40 * (SEND_AHEAD + 50_000)
        nursery.cancel_scope.cancel()
    assert worst <= MAX_UNREAD + (1 << 19)
    assert bob.faults["unread-memory"] > 0


async def test_where_much_is_queued_each_connection_holds_little(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, _ = await joined(alice, bob)
    streams = [await ours.open_stream([SINK]) for _ in range(8)]
    shared = alice._budgets.shared
    shared.queued += CROWDED
    most = 0
    engine = ours.session._engine  # type: ignore[attr-defined]
    for stream in streams:
        stream.queue(bytes(1 << 20))
        await stream.send_eof()
    for _ in range(4000):
        await trio.sleep(0.001)
        most = max(most, engine.queued())
        assert shared.queued == CROWDED + ours.session.queued
    assert 0 < most <= SEND_AHEAD_CROWDED + 8 * SEND_AHEAD_LEAST
    for stream in streams:
        assert await read_all(stream) == str(1 << 20).encode()
    assert shared.queued == CROWDED


async def test_streams_that_are_held_up_hold_up_no_others(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    """The peer gives no window for them; what they have given to the library is all it takes."""
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    other = await ours.open_stream([ECHO])
    engine = ours.session._engine  # type: ignore[attr-defined]
    queued: Callable[..., int] = engine.queued

    def of_a_full_library(stream: int | None = None) -> int:
        return queued(stream) + (SEND_AHEAD_TOTAL if stream is None else 0)

    engine.queued = of_a_full_library
    await other.send_all(b"all the same")
    with trio.fail_after(1):
        assert await other.receive_some() == b"all the same"
    engine.queued = queued
    assert theirs.usable


async def test_a_reader_of_what_we_asked_for_has_more_time(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, _ = await joined(alice, bob)

    async def pour(stream: Stream) -> None:
        await stream.send_all(bytes(1 << 20))
        await stream.send_eof()

    bob.handle("/test/pour", pour)
    got: list[int] = []
    for asked, seconds in ((True, STALL_ASKED_SECONDS - 1), (False, STALL_SECONDS + 1)):
        stream = await ours.open_stream(["/test/pour"])
        if asked:
            stream.grow_window(16 << 20)
        await trio.sleep(seconds)
        with suppress(trio.BrokenResourceError):
            got.append(len(await read_all(stream)))
    assert got == [1 << 20]


async def test_a_flood_of_streams_is_bounded(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    session = ours.session
    opened = 0
    while session.can_open:
        session.open().queue(b"\x13/multistream/1.0.0\n")
        opened += 1
    ours.wake_writer()
    assert 96 <= opened <= 100  # what the library lets peers open
    with pytest.raises(StreamRefused):
        await ours.open_stream([ECHO])
    await trio.sleep(3)
    assert theirs.session.inbound == opened
    await trio.sleep(30)
    assert theirs.session.inbound == 0  # they named no protocol in time
    assert theirs.usable
    stream = await ours.open_stream([ECHO])
    await stream.send_all(b"again")
    assert await stream.receive_some() == b"again"


async def test_windows_come_from_the_process_budget(
    autojump_clock: object, make_quic: MakeQuic, world: World
) -> None:
    bob = await make_quic("bob")
    bob._budgets.shared.windows = ACCEPTED_WINDOW - SMALL_WINDOW
    alice, carol = await make_quic("alice"), await make_quic("carol")
    await joined(alice, bob)
    assert bob._budgets.shared.windows == 0
    _, second = await joined(carol, bob)
    assert second._pump._link.window == SMALL_WINDOW  # type: ignore[attr-defined]
    for host in (alice, carol):
        for connection in host.connections():
            await connection.aclose()
    await trio.sleep(5)
    assert bob._budgets.shared.windows == ACCEPTED_WINDOW - SMALL_WINDOW


async def test_a_fault_of_the_peer_ends_its_stream_alone(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)

    async def strict(stream: Stream) -> None:
        raise PeerFault("test-fault")

    bob.handle("/test/strict", strict)
    stream = await ours.open_stream(["/test/strict"])
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert bob.faults["test-fault"] == 1
    assert theirs.usable
    theirs._pump.break_off("too many rules")
    await trio.sleep(1)
    assert ours.closed
    assert "too many rules" in ours.reason
