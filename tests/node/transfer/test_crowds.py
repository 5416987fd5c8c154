"""Many who fetch from one: upload slots, super-seeding, and how near to the bound a swarm comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.swarm.slots import SLOTS
from shoal.wire.ids import Cid

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
DATA = Path("/data")
PIECE = 16 << 10
UP = 1e5
"""Bytes a second of every uplink: a piece takes a sixth of a second."""


async def crowd(
    world: World, start: Start, some_bytes: SomeBytes, count: int, pieces: int
) -> tuple[Any, list[Any], str]:
    """One seed of a folder of small files, and so many that want it."""
    seed = await start("seed")
    for number in range(pieces):
        seed.write(f"set/{number:04}", some_bytes(PIECE, number))
    cid = await seed.share("set")
    leechers = [await start(f"m{number}") for number in range(count)]
    for name in ("seed", *(leecher.name for leecher in leechers)):
        faults.set_access(world.network, name, up=UP, down=10 * UP)
    return seed, leechers, cid


async def fetch_all(leechers: list[Any], cid: str, peers: Callable[[Any], list[Any]]) -> float:
    """Let all fetch at once; return how long the last one took."""
    begun = trio.current_time()

    async def fetch(leecher: Any) -> None:
        addrs = [peer.addr for peer in peers(leecher)]
        await leecher.node.get(cid, DATA / "got", peers=addrs)

    with trio.fail_after(24 * 3600):
        async with trio.open_nursery() as nursery:
            for leecher in leechers:
                nursery.start_soon(fetch, leecher)
    return trio.current_time() - begun


async def test_a_crowd_larger_than_the_slots_is_served_by_turns(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    seed, leechers, cid = await crowd(world, start, some_bytes, SLOTS + 4, 24)
    most = 0
    choked: set[str] = set()

    async def watch() -> None:
        nonlocal most
        while True:
            await trio.sleep(0.5)
            swarm = seed.node.transfers.swarms.get(Cid.parse(cid))
            links = list(swarm.links.values()) if swarm is not None else []
            busy = [link for link in links if link.upload is not None and link.upload.waiting]
            most = max(most, len(busy))
            choked.update(str(link.peer) for link in links if link.choking)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await fetch_all(leechers, cid, lambda leecher: [seed])
        nursery.cancel_scope.cancel()
    assert most <= SLOTS
    assert len(choked) >= 4
    for leecher in leechers:
        assert len(leecher.tree("got")) == 24


async def test_a_single_seed_sends_little_more_than_each_piece_once(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    pieces = 256
    seed, leechers, cid = await crowd(world, start, some_bytes, 5, pieces)
    others = [seed, *leechers]
    await fetch_all(leechers, cid, lambda leecher: [x for x in others if x is not leecher])
    # The first who comes sees all of it and chooses freely, and at the end all help all.
    assert seed.node.host.statistics().bytes_out < 1.5 * pieces * PIECE


async def test_what_was_hidden_comes_although_nobody_else_helps(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    seed, leechers, cid = await crowd(world, start, some_bytes, 3, 64)
    await fetch_all(leechers, cid, lambda leecher: [seed])
    for leecher in leechers:
        assert len(leecher.tree("got")) == 64


@pytest.mark.long
async def test_a_swarm_comes_near_to_the_kumar_ross_bound(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    """Kumar & Ross 2006: T = max(F / d, F / u_seed, L F / (u_seed + L u))."""
    count, pieces = 10, 512
    seed, leechers, cid = await crowd(world, start, some_bytes, count, pieces)
    chance = Random(1)
    everybody = [seed, *leechers]

    def some(leecher: Any) -> list[Any]:
        return chance.sample([x for x in everybody if x is not leecher], 5)

    took = await fetch_all(leechers, cid, some)
    size = pieces * PIECE
    bound = max(size / (10 * UP), size / UP, count * size / (UP * (count + 1)))
    assert bound <= took <= 1.25 * bound
