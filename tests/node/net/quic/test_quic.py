"""Hosts over QUIC: streams, endings, bad networks."""

from __future__ import annotations

import random

import pytest
import trio

from shoal.node.net.errors import StreamRefused, Unreachable, WrongPeer
from shoal.node.net.paths import Path
from shoal.node.net.quic.session import SEND_AHEAD
from shoal.node.net.stream import Stream
from shoal.wire.addresses import quic_addr, with_peer

from ..conftest import ECHO, key_of
from .conftest import PORT, SINK, Air, MakeQuic, joined, read_all

BYTES = random.Random(3).randbytes(400_000)


async def test_two_hosts_meet_and_know_each_other(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    assert ours.peer_id == bob.peer_id
    assert theirs.peer_id == alice.peer_id
    assert ours.key == bob.identity.public
    assert ours.remote == bob.listen_addrs()[0]
    assert theirs.remote == alice.listen_addrs()[0]  # it dialled from where it listens
    assert (ours.direction, theirs.direction) == ("out", "in")
    assert ours.path is theirs.path is Path.DIRECT
    assert ours.handshake_hash == theirs.handshake_hash
    assert len(ours.handshake_hash) == 32
    assert 0.039 < await alice.ping(bob.peer_id) < 0.1
    assert ours.info is not None
    assert ours.info.observed_addr == alice.listen_addrs()[0]


async def test_another_handshake_has_another_hash(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    first, _ = await joined(alice, bob)
    await first.aclose()
    second, _ = await joined(alice, bob)
    assert first.handshake_hash != second.handshake_hash


async def test_a_host_that_does_not_listen_can_dial(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice", listen=False), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    stream = await ours.open_stream([ECHO])
    await stream.send_all(b"hello")
    await stream.send_eof()
    assert await read_all(stream) == b"hello"
    assert theirs.remote != quic_addr("198.51.100.1", PORT)


@pytest.mark.parametrize(
    "trouble",
    [
        {},
        {"loss": 0.05},
        {"jitter": 0.05},
        {"twice": 0.3},
        {"loss": 0.03, "jitter": 0.02, "twice": 0.1},
    ],
    ids=str,
)
async def test_bytes_arrive_whole_over_a_bad_network(
    autojump_clock: object, make_quic: MakeQuic, air: Air, trouble: dict[str, float]
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, _ = await joined(alice, bob)
    for name, value in trouble.items():
        setattr(air, name, value)
    got: list[bytes] = []

    async def one() -> None:
        stream = await ours.open_stream([ECHO])
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(BYTES)
                await stream.send_eof()

            nursery.start_soon(send)
            got.append(await read_all(stream))

    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
    assert got == [BYTES] * 3
    assert not alice.faults
    assert not bob.faults


async def test_each_half_ends_by_itself(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    stream = await ours.open_stream([SINK])
    await stream.send_all(b"12345")
    await stream.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"6")
    assert await read_all(stream) == b"5"
    await stream.aclose()
    await trio.sleep(1)
    assert ours.streams == theirs.streams == 0


async def test_a_reset_reaches_the_other_side(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    opened: list[Stream] = []
    why: list[str] = []

    async def hold(stream: Stream) -> None:
        opened.append(stream)
        try:
            await stream.receive_some()
            await stream.receive_some()
        except trio.BrokenResourceError as error:
            why.append(str(error))
            raise

    bob.handle("/test/hold", hold)
    stream = await ours.open_stream(["/test/hold"])
    await stream.send_all(b"x")
    await trio.sleep(1)
    stream.reset("enough")
    await trio.sleep(1)
    assert why == ["reset by the peer"]
    assert ours.streams == theirs.streams == 0
    # and the other way
    stream = await ours.open_stream(["/test/hold"])
    await stream.send_all(b"x")
    await trio.sleep(1)
    opened[1].reset("no")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"y")
    await trio.sleep(1)
    assert ours.streams == theirs.streams == 0


async def test_who_takes_no_more_still_tells_the_rest(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    """As go ends a stream: it asks for no more, and what it has said before still counts."""
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)

    # Its library answers our stop with a reset, which shoal takes for the end of both halves.
    theirs.session.reset_by_peer = lambda stream_id: None  # type: ignore[attr-defined]

    async def answer_and_stop(stream: Stream) -> None:
        await stream.send_all(b"the answer")
        theirs.session._engine.stop(stream._inner.id)  # type: ignore[attr-defined]
        await trio.sleep(1)

    bob.handle("/test/stop", answer_and_stop)
    stream = await ours.open_stream(["/test/stop"])
    await stream.send_all(b"a question")
    await trio.sleep(0.5)
    await stream.send_all(bytes(2 * SEND_AHEAD))  # goes nowhere, and blocks nobody
    await stream.send_eof()
    assert await read_all(stream) == b"the answer"
    await trio.sleep(40)
    assert ours.streams == theirs.streams == 0


async def test_an_unknown_protocol_is_refused(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, _ = await joined(alice, bob)
    with pytest.raises(StreamRefused):
        await ours.open_stream(["/test/unknown"])


async def test_another_peer_at_the_address_is_told(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    wrong = key_of("carol").peer_id
    with pytest.raises(WrongPeer) as caught:
        await alice.dial(with_peer(bob.listen_addrs()[0], wrong))
    assert caught.value.found == bob.peer_id
    await trio.sleep(1)
    assert not alice.connections()
    assert not [c for c in bob.connections() if not c.closed]


async def test_nobody_there_is_said_in_time(autojump_clock: object, make_quic: MakeQuic) -> None:
    alice = await make_quic("alice")
    began = trio.current_time()
    with pytest.raises(Unreachable):
        await alice.dial(quic_addr("203.0.113.9", PORT))
    assert trio.current_time() - began < 6
    assert alice.quic is not None
    assert not len(alice.quic.endpoints[0])
    assert alice._budgets.shared.windows == 48 << 20


async def test_a_quiet_connection_stays_and_a_dead_one_goes(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    await trio.sleep(900)
    assert ours.usable
    assert theirs.usable
    air.cut = True
    await trio.sleep(60)
    assert ours.closed
    assert theirs.closed
    assert "did not answer" in ours.reason
    assert alice._budgets.shared.windows == bob._budgets.shared.windows == 48 << 20


async def test_a_doubted_connection_goes_sooner(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, _ = await joined(alice, bob)
    await trio.sleep(1)  # nothing is on its way
    air.cut = True
    ours.doubt()
    await trio.sleep(21)
    assert ours.closed


async def test_closing_sends_what_is_queued_and_is_seen_at_once(
    autojump_clock: object, make_quic: MakeQuic
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    got: list[bytes] = []

    async def take(stream: Stream) -> None:
        while data := await stream.receive_some():
            got.append(data)

    bob.handle("/test/take", take)
    stream = await ours.open_stream(["/test/take"], lazy=True)
    stream.queue(BYTES[:100_000])
    await stream.send_eof()
    began = trio.current_time()
    await ours.aclose("done")
    await trio.sleep(0.1)
    assert b"".join(got) == BYTES[:100_000]
    assert theirs.closed
    assert theirs.reason.startswith("the peer closed the connection")
    assert trio.current_time() - began < 2


async def test_the_last_word_is_said_again_to_who_missed_it(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    ours, theirs = await joined(alice, bob)
    air.cut = True
    await ours.aclose()
    air.cut = False
    theirs.doubt()
    await trio.sleep(1)
    assert theirs.closed


async def test_cancelling_a_dial_leaves_nothing(
    autojump_clock: object, make_quic: MakeQuic, air: Air
) -> None:
    alice, bob = await make_quic("alice"), await make_quic("bob")
    assert alice.quic is not None
    assert bob.quic is not None
    for step in range(1, 14):
        with trio.move_on_after(0.01 * step):
            await alice.dial(with_peer(bob.listen_addrs()[0], bob.peer_id))
        for connection in alice.connections():
            await connection.aclose()
        await trio.sleep(20)
        assert not alice.connections()
        assert not bob.connections()
        assert not len(alice.quic.endpoints[0])
        assert not len(bob.quic.endpoints[0])
        assert not bob.quic.endpoints[0].half_open
    assert alice._budgets.shared.windows == bob._budgets.shared.windows == 48 << 20
