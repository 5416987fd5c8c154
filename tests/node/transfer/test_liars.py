"""Seeders that send wrong bytes: what is fetched is right all the same, and they are found out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.node.errors import ShoalError
from shoal.wire.ids import Cid, PeerId

Start = Callable[..., Awaitable[Any]]
MIB = 1 << 20


def bans(machine: Any, cid: str) -> set[str]:
    now = machine.node.environment.clock.now()
    found = machine.node.store.peers.bans(now, Cid.parse(cid))
    return {str(PeerId(ban.peer)) for ban in found}


@pytest.mark.parametrize("cores", [1, 8])  # with many, pieces are verified by the writers
async def test_a_liar_among_three_is_banned_and_the_fetch_ends_right(
    autojump_clock: object, start: Start, some_bytes: Callable[[int], bytes], cores: int
) -> None:
    data = some_bytes(20 * MIB + 77)
    seeders = [await start(name) for name in ("honest", "liar", "upright")]
    bob = await start("bob")
    bob.node.transfers.cores = cores
    for seeder in seeders:
        seeder.write("film", data)
        cid = await seeder.share("film")
    liar = seeders[1]
    for piece in range(21):
        liar.rot("film", piece * MIB + 70)

    complete = await bob.get(cid, *seeders)

    assert bob.read("got") == data
    assert complete.banned == (str(liar.node.peer_id),)
    assert str(liar.node.peer_id) not in {source.peer_id for source in complete.sources}
    assert sum(source.bytes for source in complete.sources) == complete.bytes == len(data)
    assert sum(source.pieces for source in complete.sources) == 21
    assert complete.wasted_bytes >= MIB
    assert bob.node.host.faults["swarm-piece-hash"] == 1
    assert bans(bob, cid) == {str(liar.node.peer_id)}
    bob.assert_nothing_reserved()


async def test_a_ban_outlives_a_restart_and_ends_after_a_day(
    autojump_clock: object, start: Start, some_bytes: Callable[[int], bytes]
) -> None:
    data = some_bytes(3 * MIB)
    liar, bob = await start("liar"), await start("bob")
    liar.write("film", data)
    cid = await liar.share("film")
    for piece in range(3):
        liar.rot("film", piece * MIB)
    with pytest.raises(ShoalError):
        await bob.get(cid, liar, patience=60)
    await bob.stop()
    await bob.start()
    assert bans(bob, cid) == {str(liar.node.peer_id)}
    for piece in range(3):
        liar.rot("film", piece * MIB)  # honest again, but nobody knows

    with pytest.raises(ShoalError, match="answered"):
        await bob.get(cid, liar, patience=60)
    await trio.sleep(24 * 3600)
    assert bans(bob, cid) == set()
    await bob.get(cid, liar, patience=60)

    assert bob.read("got") == data


async def test_who_was_banned_for_one_content_is_asked_for_another(
    autojump_clock: object, start: Start, some_bytes: Callable[..., bytes]
) -> None:
    mixed, bob = await start("mixed"), await start("bob")
    mixed.write("bad", some_bytes(MIB))
    mixed.write("good", some_bytes(MIB, 1))
    bad = await mixed.share("bad")
    good = await mixed.share("good")
    mixed.rot("bad", 5)
    with pytest.raises(ShoalError):
        await bob.get(bad, mixed, patience=60)

    await bob.get(good, mixed)

    assert bob.read("got") == some_bytes(MIB, 1)
