"""Upload slots as peers see them: Choke, Reject and Unchoke."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from shoal.swarm.slots import LONGEST_TURN, SLOTS
from shoal.wire.ids import Cid
from shoal.wire.swarm import (
    Bitfield,
    BitfieldKind,
    Choke,
    Have,
    Piece,
    Reject,
    RejectReason,
    Request,
    Unchoke,
)

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
PIECE = 1 << 20


async def crowd(
    start: Start, puppet: Callable[..., Awaitable[Any]], data: bytes, count: int
) -> tuple[Any, list[Any]]:
    """One seed, and so many peers that lack everything and each ask for a piece."""
    alice = await start("alice")
    alice.write("film", data)
    cid = Cid.parse(await alice.share("film"))
    wires = []
    for number in range(count):
        machine = await puppet(f"p{number}")
        wire = await machine.join(alice, cid)
        await wire.receive()  # what the seed holds
        await wire.send(Bitfield(BitfieldKind.NONE), Request(1, 0, 1))
        wires.append(wire)
    return alice, wires


async def answer(wire: Any) -> list[Any]:
    """Return the next frames up to one that ends a request."""
    seen: list[Any] = []
    while not seen or not isinstance(seen[-1], Piece | Reject):
        body, _ = await wire.receive()
        seen.append(body)
    return seen


async def test_as_many_as_there_are_slots_are_never_choked(
    autojump_clock: object, start: Start, puppet: Any, some_bytes: SomeBytes
) -> None:
    _, wires = await crowd(start, puppet, some_bytes(2 * PIECE), SLOTS)
    for wire in wires:
        assert all(not isinstance(body, Choke) for body in await answer(wire))
    for wire in wires:
        assert await wire.everything(5 * LONGEST_TURN) == b""


async def test_every_request_of_a_choked_peer_ends_in_a_reject(
    autojump_clock: object, start: Start, puppet: Any, some_bytes: SomeBytes
) -> None:
    _, wires = await crowd(start, puppet, some_bytes(2 * PIECE), SLOTS + 1)
    last = wires[-1]
    assert await answer(last) == [Choke(), Reject(1, RejectReason.CHOKED)]
    await last.send(Request(2, 1, 1))
    assert await answer(last) == [Reject(2, RejectReason.CHOKED)]
    with trio.fail_after(LONGEST_TURN + 2):
        assert (await last.receive())[0] == Unchoke()
    await last.send(Request(3, 1, 1))
    assert await answer(last) == [Piece(3, 1, PIECE)]


async def test_requests_that_wait_when_their_peer_is_choked_are_rejected(
    autojump_clock: object, start: Start, puppet: Any, some_bytes: SomeBytes
) -> None:
    alice, wires = await crowd(start, puppet, some_bytes(2 * PIECE), SLOTS)
    alice.node.transfers.limits.up.set_node(2000)
    cid = next(iter(alice.node.transfers.swarms))
    for wire in wires:
        await wire.send(Request(7, 0, 2))
    late = await (await puppet("late")).join(alice, cid)
    await late.receive()
    await late.send(Bitfield(BitfieldKind.NONE), Request(1, 0, 1))
    rejected: list[int] = []

    async def watch(wire: Any) -> None:
        while True:
            match (await wire.receive())[0]:
                case Reject(id=number, reason=RejectReason.CHOKED):
                    rejected.append(number)

    with trio.move_on_after(60 * LONGEST_TURN):
        async with trio.open_nursery() as nursery:
            for wire in wires:
                nursery.start_soon(watch, wire)
    assert 7 in rejected


async def test_a_peer_that_has_all_makes_room_at_once(
    autojump_clock: object, start: Start, puppet: Any, some_bytes: SomeBytes
) -> None:
    _, wires = await crowd(start, puppet, some_bytes(2 * PIECE), SLOTS + 2)
    for wire in wires:
        await answer(wire)
    await trio.sleep(LONGEST_TURN - 3)
    await wires[0].send(Have(((0, 1),)), Have(((1, 1),)))
    with trio.fail_after(1):
        assert (await wires[SLOTS].receive())[0] == Unchoke()
    await wires[SLOTS + 1].send(Have(((0, 2),)))  # it got all elsewhere: it waits for nothing
    with trio.fail_after(1):
        assert (await wires[SLOTS + 1].receive())[0] == Unchoke()


async def test_a_seed_hears_of_any_number_of_pieces(
    autojump_clock: object, start: Start, puppet: Any, some_bytes: SomeBytes
) -> None:
    alice = await start("alice")
    for number in range(6000):
        alice.write(f"many/{number}", b"%d" % number)
    cid = Cid.parse(await alice.share("many"))
    wire = await (await puppet("p")).join(alice, cid)
    await wire.receive()
    await wire.send(Bitfield(BitfieldKind.NONE))
    for number in range(0, 6000, 2):
        await wire.send(Have(((number, 1),)))
    await wire.send(Request(1, 1, 1))
    (piece,) = await answer(wire)
    assert isinstance(piece, Piece)
