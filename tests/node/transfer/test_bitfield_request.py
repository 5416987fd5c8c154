"""A chunk of a bitfield is told again to who asks; what nobody asked for is not taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from shoal.swarm.peer_bits import PeerBits
from shoal.wire.ids import Cid
from shoal.wire.swarm import Bitfield, BitfieldKind, BitfieldRequest, Body

MIB = 1 << 20

Start = Callable[..., Awaitable[Any]]
MakePuppet = Callable[[str], Awaitable[Any]]
SomeBytes = Callable[..., bytes]


async def next_bitfield(wire: Any) -> Bitfield:
    while True:
        body: Body | None = (await wire.receive())[0]
        if isinstance(body, Bitfield):
            return body


async def test_a_chunk_is_told_again_as_it_is_now(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    alice, bob = await start("alice"), await puppet("bob")
    alice.write("film", some_bytes(3 * MIB))
    root = Cid.parse(await alice.share("film"))
    wire = await bob.join(alice, root)
    assert (await next_bitfield(wire)).kind is BitfieldKind.ALL

    await wire.send(BitfieldRequest(0), BitfieldRequest(7))

    bits = PeerBits()
    bits.take(Bitfield(BitfieldKind.NONE))
    bits.size_known(3)
    bits.asked(0)
    bits.take(await next_bitfield(wire))
    assert [bits.has(piece) for piece in range(3)] == [True] * 3
    behind = await next_bitfield(wire)
    assert (behind.chunk, behind.data) == (7, b"")


async def test_who_asks_for_too_much_at_once_is_let_go(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    alice.write("film", some_bytes(9))
    wire = await eve.join(alice, Cid.parse(await alice.share("film")))

    await wire.send(*(BitfieldRequest(0) for _ in range(1000)))
    await wire.everything()

    assert alice.node.host.faults["swarm-bitfield-flood"] == 1


async def test_a_chunk_that_nobody_asked_for_ends_the_stream(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    alice.write("film", some_bytes(9))
    wire = await eve.join(alice, Cid.parse(await alice.share("film")))

    await wire.send(Bitfield(BitfieldKind.NONE), Bitfield(BitfieldKind.RAW, 0, b"\x80"))
    with trio.fail_after(60):
        await wire.everything()

    assert alice.node.host.faults["swarm-bitfield-again"] == 1
