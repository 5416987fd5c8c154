"""Two hosts over a simulated network: streams, round trips, identify, ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from shoal.node.net.connection import Connection
from shoal.node.net.errors import ConnectionLost, StreamRefused
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.simulations import faults
from shoal.simulations.world import World

ECHO = "/test/echo"
RTT = 0.1
MakeHost = Callable[..., Awaitable[Host]]


@pytest.fixture
async def alice(make_host: MakeHost) -> Host:
    return await make_host("alice")


@pytest.fixture
async def bob(make_host: MakeHost) -> Host:
    return await make_host("bob")


async def ask(stream: Stream, data: bytes) -> bytes:
    await stream.send_all(data)
    await stream.send_eof()
    answer = b""
    while part := await stream.receive_some():
        answer += part
    await stream.aclose()
    return answer


async def test_a_megabyte_comes_back(autojump_clock: MockClock, alice: Host, bob: Host) -> None:
    stream = await alice.open_stream(bob.peer_id, [ECHO], bob.listen_addrs())
    data = bytes(range(256)) * 4096
    answer = bytearray()

    async def send() -> None:
        await stream.send_all(data)
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while part := await stream.receive_some():
            answer += part
    assert answer == data
    await stream.aclose()
    await trio.sleep(1)
    for host in (alice, bob):
        (connection,) = host.connections()
        assert connection.streams == 0
        assert not host.faults
        assert connection.session.unread == connection.session.queued == 0
        assert host.statistics().bytes_in > len(data)


async def test_an_answer_from_a_peer_never_met_takes_three_round_trips(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    """Connect; multistream and Noise; then Noise's end, yamux, the protocol and the request."""
    began = trio.current_time()
    stream = await alice.open_stream(bob.peer_id, [ECHO], bob.listen_addrs(), lazy=True)
    assert await ask(stream, b"?") == b"?"
    assert trio.current_time() - began == pytest.approx(3 * RTT)


async def test_an_answer_from_a_connected_peer_takes_one_round_trip(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    connection = await alice.connect(bob.peer_id, bob.listen_addrs())
    await connection.identified()
    began = trio.current_time()
    stream = await connection.open_stream([ECHO])
    assert await ask(stream, b"?") == b"?"
    assert trio.current_time() - began == pytest.approx(RTT)


async def test_both_sides_know_each_other(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    ours = await alice.dial(bob.listen_addrs()[0])
    info = await ours.identified()
    theirs = bob.connection(alice.peer_id)
    assert theirs is not None
    await theirs.identified()
    assert ours.peer_id == bob.peer_id
    assert (ours.direction, theirs.direction) == ("out", "in")
    assert (ours.is_initiator, theirs.is_initiator) == (True, False)
    assert ours.handshake_hash == theirs.handshake_hash
    assert ours.remote == bob.listen_addrs()[0]
    assert ECHO in info.protocols
    assert info.observed_addr == theirs.remote
    # Loopback addresses mean nothing to a peer at another place.
    assert info.listen_addrs == tuple(bob.listen_addrs()[:1])
    assert bob.peerstore.addrs(alice.peer_id) == alice.listen_addrs()[:1]
    assert ours.rtt == pytest.approx(RTT)


async def test_changes_are_pushed(autojump_clock: MockClock, alice: Host, bob: Host) -> None:
    connection = await alice.dial(bob.listen_addrs()[0])
    await connection.identified()
    told: list[bool | None] = []
    alice.on_identified.append(lambda c: told.append(c.speaks("/test/new")))
    bob.handle("/test/new", ask_nothing)
    await trio.sleep(3)
    assert told == [True]
    await trio.sleep(10)
    bob.unhandle("/test/new")
    await trio.sleep(3)
    assert told == [True, False]


async def ask_nothing(stream: Stream) -> None:
    await stream.receive_some()


async def test_ping(autojump_clock: MockClock, alice: Host, bob: Host) -> None:
    await alice.dial(bob.listen_addrs()[0])
    assert await alice.ping(bob.peer_id) == pytest.approx(RTT)


async def test_nobody_serves_it(autojump_clock: MockClock, alice: Host, bob: Host) -> None:
    connection = await alice.dial(bob.listen_addrs()[0])
    with pytest.raises(StreamRefused, match="does not speak /test/none"):
        await connection.open_stream(["/test/none"])
    stream = await connection.open_stream(["/test/none"], lazy=True)
    with pytest.raises(trio.BrokenResourceError, match="does not speak"):
        await stream.receive_some()
    second_choice = await connection.open_stream(["/test/none", ECHO])
    assert second_choice.protocol == ECHO
    assert await ask(second_choice, b"!") == b"!"


async def test_streams_of_a_protocol_are_bounded(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    bob.handle("/test/few", ask_nothing, max_inbound=2)
    connection = await alice.dial(bob.listen_addrs()[0])
    streams = [await connection.open_stream(["/test/few"]) for _ in range(3)]
    with pytest.raises(trio.BrokenResourceError):
        await streams[2].receive_some()
    assert bob.faults["streams-of-protocol"] == 1
    for stream in streams:
        await stream.aclose()
    await trio.sleep(1)
    again = await connection.open_stream(["/test/few"])
    await again.send_eof()
    assert await again.receive_some() == b""


async def test_a_handler_that_ends_in_a_group_of_peers_faults_ends_its_stream_alone(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    async def broken(stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads)
            nursery.start_soon(fails)

    async def reads() -> None:
        raise trio.BrokenResourceError("gone")

    async def fails() -> None:
        from shoal.wire.errors import PeerFault

        raise PeerFault("test-fault")

    bob.handle("/test/broken", broken)
    connection = await alice.dial(bob.listen_addrs()[0])
    stream = await connection.open_stream(["/test/broken"])
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert bob.faults["test-fault"] == 1
    assert await ask(await connection.open_stream([ECHO]), b"alive") == b"alive"


async def test_a_hundred_streams_at_once(autojump_clock: MockClock, alice: Host, bob: Host) -> None:
    connection = await alice.dial(bob.listen_addrs()[0])
    answers: list[bytes] = []

    async def one(number: int) -> None:
        stream = await connection.open_stream([ECHO])
        answers.append(await ask(stream, b"%d" % number))

    bob.handle(ECHO, echo_all, max_inbound=200)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)
    assert sorted(answers) == sorted(b"%d" % number for number in range(100))
    assert not bob.faults


async def echo_all(stream: Stream) -> None:
    await stream.send_all(await stream.receive_some())
    await stream.send_eof()


# Ends


async def test_a_goodbye_comes_behind_what_was_sent(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    got = bytearray()
    over = trio.Event()

    async def take(stream: Stream) -> None:
        while data := await stream.receive_some():
            got.extend(data)
        over.set()

    bob.handle("/test/take", take)
    connection = await alice.dial(bob.listen_addrs()[0])
    stream = await connection.open_stream(["/test/take"])
    await stream.send_all(bytes(100_000))
    await stream.send_eof()
    theirs = bob.connection(alice.peer_id)
    assert theirs is not None
    await connection.aclose("enough")
    await over.wait()
    await theirs.wait_closed()
    assert len(got) == 100_000
    assert connection.reason == "enough"
    assert alice.connections() == bob.connections() == []
    with pytest.raises(ConnectionLost, match="enough"):
        await connection.open_stream([ECHO])


async def test_a_broken_connection_breaks_its_streams(
    autojump_clock: MockClock, world: World, alice: Host, bob: Host
) -> None:
    ended: list[Connection] = []
    alice.on_disconnected.append(ended.append)
    connection = await alice.dial(bob.listen_addrs()[0])
    stream = await connection.open_stream([ECHO])
    assert faults.reset(world.network, "alice", "bob") == 1
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")
    await connection.wait_closed()
    await trio.testing.wait_all_tasks_blocked()
    assert ended == [connection]
    assert alice.connection(bob.peer_id) is None


async def test_a_silent_peer_is_noticed(
    autojump_clock: MockClock, world: World, alice: Host, bob: Host
) -> None:
    connection = await alice.dial(bob.listen_addrs()[0])
    faults.cut(world.network, "alice", "bob")
    with trio.fail_after(60):
        await connection.wait_closed()
    assert "did not answer" in connection.reason


async def test_an_idle_connection_lives(autojump_clock: MockClock, alice: Host, bob: Host) -> None:
    connection = await alice.dial(bob.listen_addrs()[0])
    await trio.sleep(600)
    assert not connection.closed
    assert await ask(await connection.open_stream([ECHO]), b"hi") == b"hi"


async def test_a_stream_that_the_peer_never_ends_is_given_up(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    async def talks(stream: Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(1000))
                await trio.sleep(1)

    bob.handle("/test/talks", talks)
    connection = await alice.dial(bob.listen_addrs()[0])
    stream = await connection.open_stream(["/test/talks"])
    assert await stream.receive_some()
    await stream.aclose()
    await trio.sleep(60)
    assert connection.streams == 0
    assert not connection.closed


async def test_a_cancelled_opening_leaves_nothing(
    autojump_clock: MockClock, world: World, alice: Host, bob: Host
) -> None:
    connection = await alice.dial(bob.listen_addrs()[0])
    await connection.identified()
    with trio.move_on_after(RTT / 2):
        await connection.open_stream(["/test/unknown"])
    await trio.sleep(1)
    assert connection.streams == 0
    theirs = bob.connection(alice.peer_id)
    assert theirs is not None
    assert theirs.streams == 0


# trio's own test of streams


async def test_streams_keep_trios_contract(
    autojump_clock: MockClock, alice: Host, bob: Host
) -> None:
    arrived: list[tuple[Stream, trio.Event]] = []

    async def keep(stream: Stream) -> None:
        over = trio.Event()
        arrived.append((stream, over))
        await over.wait()

    bob.handle("/test/keep", keep, max_inbound=200)
    connection = await alice.dial(bob.listen_addrs()[0])
    held: list[trio.Event] = []

    async def pair() -> tuple[Stream, Stream]:
        ours = await connection.open_stream(["/test/keep"])
        await trio.sleep(1)
        theirs, over = arrived.pop()
        held.append(over)
        return ours, theirs

    async def clogged() -> tuple[Stream, Stream]:
        ours, theirs = await pair()
        for stream in (ours, theirs):
            stream.queue(bytes(1 << 20))
        await trio.sleep(1)
        return ours, theirs

    with trio.fail_after(1000):
        await trio.testing.check_half_closeable_stream(pair, clogged)
