"""Peers that break the swarm protocol: counted, their stream ended, everybody else served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.lowlevel

from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.ids import Cid
from shoal.wire.swarm import (
    MAX_CIDS,
    MAX_TRAILING,
    Bitfield,
    BitfieldKind,
    Cancel,
    Choke,
    Have,
    IndexNode,
    IndexRequest,
    NotHave,
    Piece,
    Reject,
    RejectReason,
    Request,
    Unchoke,
    encode,
)

Start = Callable[..., Awaitable[Any]]
MakePuppet = Callable[[str], Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20
ALL = Bitfield(BitfieldKind.ALL)


Behaviour = Callable[[Any], Awaitable[None]]
DATA_SIZE = 6 * MIB


async def unasked(wire: Any) -> None:
    await wire.send(ALL, Piece(1, 0, MIB), data=bytes(MIB))


async def unasked_node(wire: Any) -> None:
    await wire.send(ALL, IndexNode(Cid(0x55, b"\x12\x20" + bytes(32))), data=b"node")


async def twice(wire: Any) -> None:
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        data = wire.data[request.first * MIB : (request.first + 1) * MIB]
        for _ in range(2):
            await wire.send(Piece(request.id, request.first, len(data)), data=data)


async def too_short(wire: Any) -> None:
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        await wire.send(Piece(request.id, request.first, 9), data=bytes(9))


async def another_index(wire: Any) -> None:
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        await wire.send(Piece(request.id, request.first + request.count, MIB), data=bytes(MIB))


async def another_id(wire: Any) -> None:
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        await wire.send(Piece(request.id + 7, request.first, MIB), data=bytes(MIB))


async def long_bitfield(wire: Any) -> None:
    await wire.send(Bitfield(BitfieldKind.RAW, 0, b"\xff" * 9))


async def far_bitfield(wire: Any) -> None:
    await wire.send(Bitfield(BitfieldKind.RAW, 5, b"\xff" * 8192))


async def two_bitfields(wire: Any) -> None:
    await wire.send(ALL, ALL)


async def far_have(wire: Any) -> None:
    await wire.send(Bitfield(BitfieldKind.NONE), Have(((3, 50),)))


async def second_hello(wire: Any) -> None:
    await wire.send(ALL, wire.greeting(wire.root))


async def garbage(wire: Any) -> None:
    await wire.stream.send_all(b"\xff" * 3000)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (unasked, "swarm-unasked"),
        (unasked_node, "swarm-unasked"),
        (twice, "swarm-unasked"),
        (too_short, "swarm-piece-length"),
        (another_index, "swarm-unasked"),
        (another_id, "swarm-unasked"),
        (long_bitfield, "swarm-bitfield-length"),
        (far_bitfield, "swarm-bitfield"),
        (two_bitfields, "swarm-bitfield-again"),
        (far_have, "swarm-range"),
        (second_hello, "swarm-unexpected"),
        (garbage, "swarm-frame-length"),
    ],
)
async def test_a_seeder_that_breaks_the_rules_is_counted_and_made_up_for(
    autojump_clock: object,
    world: World,
    start: Start,
    puppet: MakePuppet,
    some_bytes: SomeBytes,
    behaviour: Behaviour,
    reason: str,
) -> None:
    data = some_bytes(DATA_SIZE)
    alice, bob, mallory = await start("alice"), await start("bob"), await puppet("mallory")
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=1e6)

    async def misbehave(wire: Any) -> None:
        wire.data, wire.root = data, Cid.parse(cid)
        await behaviour(wire)

    mallory.behave(Cid.parse(cid), misbehave)

    complete = await bob.get(cid, mallory, alice)

    assert bob.read("got") == data
    assert bob.node.host.faults[reason] >= 1
    assert complete.banned == ()
    assert complete.seconds < 20
    assert bob.links(cid) >= 1  # alice's is still there
    bob.assert_nothing_reserved()


async def silent(wire: Any) -> None:
    await wire.send(ALL)
    while True:
        await wire.next_request()


async def rejecting(wire: Any) -> None:
    wire.asked = 0
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        wire.asked += 1
        assert wire.asked < 200
        await wire.send(Reject(request.id, RejectReason.NOT_HELD))


async def choking(wire: Any) -> None:
    await wire.send(Choke(), ALL)
    await wire.next_request()
    raise AssertionError("asked though choked")


async def fluttering(wire: Any) -> None:
    await wire.send(Bitfield(BitfieldKind.NONE))
    for _ in range(200):
        await wire.send(Have(((0, 6),)), Choke(), NotHave(((0, 6),)), Unchoke())
        await trio.sleep(0.05)


async def ending_inside(wire: Any) -> None:
    await wire.send(ALL)
    request = await wire.next_request()
    await wire.stream.send_all(encode(Piece(request.id, request.first, MIB), MIB) + bytes(99))
    await wire.stream.send_eof()


async def dripping(wire: Any) -> None:
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        await wire.stream.send_all(encode(Piece(request.id, request.first, MIB), MIB))
        for _ in range(10_000):
            await wire.stream.send_all(b"x")
            await trio.sleep(0.5)


async def late(wire: Any) -> None:
    """Answer everything right, but a minute late, cancelled or not."""
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        await trio.sleep(60)
        for piece in range(request.first, request.first + request.count):
            data = wire.data[piece * MIB : (piece + 1) * MIB]
            await wire.send(Piece(request.id, piece, len(data)), data=data)


@pytest.mark.parametrize(
    "behaviour",
    [silent, rejecting, choking, fluttering, ending_inside, dripping, late],
)
async def test_a_seeder_that_does_not_deliver_is_made_up_for(
    autojump_clock: object,
    world: World,
    start: Start,
    puppet: MakePuppet,
    some_bytes: SomeBytes,
    behaviour: Behaviour,
) -> None:
    data = some_bytes(DATA_SIZE)
    alice, bob, mallory = await start("alice"), await start("bob"), await puppet("mallory")
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=1e6)

    async def misbehave(wire: Any) -> None:
        wire.data = data
        await behaviour(wire)

    mallory.behave(Cid.parse(cid), misbehave)

    complete = await bob.get(cid, mallory, alice)

    assert bob.read("got") == data
    assert complete.banned == ()
    assert complete.seconds < 30
    await trio.sleep(200)
    bob.assert_nothing_reserved()
    assert "swarm-unasked" not in bob.node.host.faults


@pytest.mark.parametrize("behaviour", [rejecting, choking, silent, fluttering])
async def test_an_only_seeder_that_does_not_deliver_costs_no_busy_loop(
    autojump_clock: object,
    start: Start,
    puppet: MakePuppet,
    some_bytes: SomeBytes,
    behaviour: Behaviour,
) -> None:
    alice, bob, mallory = await start("alice"), await start("bob"), await puppet("mallory")
    alice.write("film", some_bytes(DATA_SIZE))
    cid = await alice.share("film")
    index = alice.node.store.node(Cid.parse(cid))

    async def misbehave(wire: Any) -> None:
        body, _ = await wire.receive()
        while not isinstance(body, IndexRequest):
            body, _ = await wire.receive()
        await wire.send(IndexNode(body.cids[0]), data=index)
        await behaviour(wire)

    mallory.behave(Cid.parse(cid), misbehave)

    async def fetch() -> None:
        await bob.get(cid, mallory, patience=None)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch)
        await trio.sleep(100)
        shots = await bob.node.status()
        assert any(getattr(shot, "waiting", None) for shot in shots), shots
        nursery.cancel_scope.cancel()
    bob.assert_nothing_reserved()


@pytest.mark.parametrize("count", [2, 5])
async def test_peers_that_never_give_the_index_do_not_keep_it_from_us(
    autojump_clock: object,
    start: Start,
    puppet: MakePuppet,
    some_bytes: SomeBytes,
    count: int,
) -> None:
    data = some_bytes(DATA_SIZE)
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", data)
    cid = await alice.share("film")
    mutes = [await puppet(f"mute {number}") for number in range(count)]

    async def say_nothing(wire: Any) -> None:
        await wire.send(ALL)

    for mute in mutes:
        mute.behave(Cid.parse(cid), say_nothing)

    with trio.fail_after(20 + count):
        await bob.get(cid, *mutes, alice)

    assert bob.read("got") == data


# Those who ask


async def test_requests_beyond_the_content_are_a_fault(
    autojump_clock: object, start: Start, puppet: MakePuppet
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    alice.write("film", b"short")
    root = Cid.parse(await alice.share("film"))
    wire = await eve.join(alice, root)

    await wire.send(Request(1, 1, 1))
    await wire.everything()

    assert wire.stream.is_reset
    assert alice.node.host.faults["swarm-request-range"] == 1


async def test_one_who_asks_without_end_is_refused_and_others_are_served(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    data = some_bytes(4 * MIB)
    alice, bob, eve = await start("alice"), await start("bob"), await puppet("eve")
    alice.write("film", data)
    cid = await alice.share("film")
    wire = await eve.join(alice, Cid.parse(cid))
    for number in range(1, 3000):
        await wire.send(Request(number, 0, 4))  # and reads nothing
    await trio.sleep(5)

    await bob.get(cid, alice)

    assert bob.read("got") == data
    assert bob.links(cid) == 1


async def test_one_who_asks_on_though_refused_ends_his_stream(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    alice.write("film", some_bytes(4 * MIB))
    wire = await eve.join(alice, Cid.parse(await alice.share("film")))
    (connection,) = alice.node.host.connections()
    with suppress(trio.BrokenResourceError):
        for number in range(1, 100_000):
            await wire.send(Request(number, 0, 4))  # and reads nothing
            assert connection.session.queued < 64 * 1024

    assert alice.node.host.faults["swarm-request-flood"] == 1


async def test_a_node_that_nobody_asked_for_is_not_kept(
    autojump_clock: object, start: Start, puppet: MakePuppet
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    alice.write("film", b"short")
    root = Cid.parse(await alice.share("film"))
    most = encode(IndexNode(root), MAX_TRAILING) + bytes(1000)  # the rest never comes
    stranger, friend = await eve.open(alice), await eve.join(alice, root)
    await stranger.stream.send_all(most)
    await friend.stream.send_all(most)
    await trio.sleep(1)

    assert stranger.stream.is_reset
    assert friend.stream.is_reset
    faults = alice.node.host.faults
    assert (faults["swarm-before-hello"], faults["swarm-unasked"]) == (1, 1)


async def test_endless_index_requests_end_the_stream(
    autojump_clock: object, start: Start, puppet: MakePuppet
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    alice.write("film", b"short")
    root = Cid.parse(await alice.share("film"))
    wire = await eve.join(alice, root)
    with suppress(trio.BrokenResourceError):
        for _ in range(1000):
            await wire.send(IndexRequest((root,) * MAX_CIDS))
    await wire.everything()

    assert wire.stream.is_reset
    assert alice.node.host.faults["swarm-index-flood"] == 1


async def test_a_cancelled_request_is_not_sent_to_its_end(
    autojump_clock: object, world: World, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    alice, bob = await start("alice"), await puppet("bob")
    alice.write("film", some_bytes(12 * MIB))
    root = Cid.parse(await alice.share("film"))
    faults.set_access(world.network, "alice", up=1e6)
    wire = await bob.join(alice, root)
    await wire.send(Request(1, 0, 12))
    await trio.sleep(1)

    await wire.send(Cancel(1), Request(2, 11, 1))
    came = []
    with trio.move_on_after(60):
        while True:
            body, _ = await wire.receive()
            came.append(body)

    pieces = [(body.id, body.index) for body in came if isinstance(body, Piece)]
    assert pieces[-1] == (2, 11)
    assert len(pieces) < 8
