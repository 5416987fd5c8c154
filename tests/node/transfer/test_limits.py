"""Limits of bytes a second, on either side, changed while bytes flow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.simulations.world import World
from shoal.wire.ids import Cid

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MB = 1_000_000
PIECE = 1 << 20


async def seconds(work: Callable[[], Awaitable[Any]]) -> float:
    """Return how many virtual seconds something takes."""
    begun = trio.current_time()
    await work()
    return trio.current_time() - begun


def assert_took(took: float, size: int, rate: float) -> None:
    """Check that bytes took the time of their rate, one piece and some seconds of slack apart."""
    assert (size - PIECE - rate / 4) / rate <= took <= size / rate + 2


@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("scope", ["node", "content", "peer"])
async def test_a_limit_on_either_side_sets_the_pace(
    autojump_clock: object, start: Start, some_bytes: SomeBytes, side: str, scope: str
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    data = some_bytes(10 * MB)
    alice.write("film", data)
    cid = await alice.share("film")
    limited = alice.node.transfers.limits.up if side == "up" else bob.node.transfers.limits.down
    match scope:
        case "node":
            limited.set_node(MB)
        case "content":
            limited.set_content(Cid.parse(cid), MB)
        case _:
            limited.set_peers(MB)
    assert_took(await seconds(lambda: bob.get(cid, alice)), len(data), MB)
    assert bob.read("got") == data
    bob.assert_nothing_reserved()


async def test_small_pieces_keep_to_the_limit_too(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    for number in range(400):
        alice.write(f"many/{number}", some_bytes(10_000, number))
    cid = await alice.share("many")
    bob.node.transfers.limits.down.set_node(500_000)
    assert_took(await seconds(lambda: bob.get(cid, alice)), 4 * MB, 500_000)


@pytest.mark.parametrize("side", ["up", "down"])
async def test_a_limit_can_be_changed_and_lifted_while_bytes_flow(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, side: str
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    data = some_bytes(20 * MB)
    alice.write("film", data)
    cid = await alice.share("film")
    limited = alice.node.transfers.limits.up if side == "up" else bob.node.transfers.limits.down
    limited.set_node(MB)
    done: dict[str, int] = {}

    async def change() -> None:
        await trio.sleep(5)
        fetch = next(iter(bob.node.transfers.fetches.values()))[0]
        done["slow"] = fetch.snapshot().done_bytes
        limited.set_node(3 * MB)
        await trio.sleep(2)
        done["faster"] = fetch.snapshot().done_bytes - done["slow"]
        limited.set_node(None)

    world.nursery.start_soon(change)
    took = await seconds(lambda: bob.get(cid, alice))
    assert 3 * MB <= done["slow"] <= 6.3 * MB
    assert 4 * MB <= done["faster"] <= 8 * MB
    assert 7 <= took <= 9  # the rest came at full speed
    assert bob.read("got") == data


async def test_two_fetches_share_a_limit_evenly(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    alice.write("large", some_bytes(4 * MB))
    for number in range(400):
        alice.write(f"small/{number}", some_bytes(10_000, number))
    cids = [await alice.share(name) for name in ("large", "small")]
    bob.node.transfers.limits.down.set_node(MB)
    ended: dict[str, float] = {}
    begun = trio.current_time()

    async def get(cid: str) -> None:
        await bob.node.get(cid, f"/data/{cid}", peers=[alice.addr])
        ended[cid] = trio.current_time() - begun

    async with trio.open_nursery() as nursery:
        for cid in cids:
            nursery.start_soon(get, cid)
    assert min(ended.values()) >= 5  # neither went far ahead
    assert_took(max(ended.values()), 8 * MB, MB)


async def test_a_fetch_that_a_limit_holds_back_says_so_and_is_no_stall(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    alice.write("film", some_bytes(3 * PIECE))
    cid = await alice.share("film")
    bob.node.transfers.limits.down.set_node(50_000)
    kinds: set[str] = set()
    heard: list[str] = []
    bob.node.transfers.remark = heard.append

    async def watch() -> None:
        while True:
            await trio.sleep(1)
            for fetch, _ in bob.node.transfers.fetches.values():
                waiting = fetch.snapshot().waiting
                if waiting is not None:
                    kinds.add(str(waiting.kind))

    world.nursery.start_soon(watch)
    assert_took(await seconds(lambda: bob.get(cid, alice)), 3 * PIECE, 50_000)
    assert "rate limit" in kinds
    assert heard == []


async def test_a_limit_of_one_content_does_not_slow_another(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    alice.write("slow", some_bytes(5 * MB, 1))
    alice.write("fast", some_bytes(5 * MB, 2))
    slow, fast = await alice.share("slow"), await alice.share("fast")
    alice.node.transfers.limits.up.set_content(Cid.parse(slow), 100_000)
    ended: dict[str, float] = {}
    begun = trio.current_time()

    async def get(cid: str) -> None:
        await bob.node.get(cid, f"/data/{cid}", peers=[alice.addr])
        ended[cid] = trio.current_time() - begun

    async with trio.open_nursery() as nursery:
        for cid in (slow, fast):
            nursery.start_soon(get, cid)
    assert ended[fast] < 2
    assert_took(ended[slow], 5 * MB, 100_000)


@pytest.mark.parametrize("unit", [100_000, pytest.param(MB, marks=pytest.mark.long)])
@pytest.mark.parametrize("side", ["up", "down"])
async def test_10_a_second_move_200_in_20_seconds_also_if_it_is_15_and_then_5(
    autojump_clock: object, start: Start, some_bytes: SomeBytes, side: str, unit: int
) -> None:
    """10 MB/s and 200 MB in the long run, a tenth otherwise."""
    alice, bob = [await start(name) for name in ("alice", "bob")]
    alice.write("film", some_bytes(240 * unit))
    cid = await alice.share("film")
    limited = alice.node.transfers.limits.up if side == "up" else bob.node.transfers.limits.down
    limited.set_node(15 * unit)
    passed = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bob.get, cid, alice)
        await trio.sleep(2)  # greeting, index, the first burst
        before = bob.node.host.statistics().bytes_in
        for rate in (15 * unit, 5 * unit):
            limited.set_node(rate)
            await trio.sleep(10)
            passed.append(bob.node.host.statistics().bytes_in - before)
        nursery.cancel_scope.cancel()
    # Small rates cannot be told apart more finely than by a piece.
    assert passed == pytest.approx([150 * unit, 200 * unit], rel=0.05, abs=1.1 * PIECE)


@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("scope", ["node", "content", "peer"])
async def test_far_less_than_a_piece_a_second_still_gets_there(
    autojump_clock: object, start: Start, some_bytes: SomeBytes, side: str, scope: str
) -> None:
    alice, bob = [await start(name) for name in ("alice", "bob")]
    data = some_bytes(4 * PIECE)
    alice.write("film", data)
    alice.write("other", some_bytes(4 * PIECE, 1))
    cid, other = await alice.share("film"), await alice.share("other")
    limited = alice.node.transfers.limits.up if side == "up" else bob.node.transfers.limits.down
    rate = 5000
    match scope:
        case "node":
            limited.set_node(rate)
        case "content":
            limited.set_content(Cid.parse(cid), rate)
        case _:
            limited.set_peers(rate)
    took = await seconds(lambda: bob.get(cid, alice))
    assert 2 * PIECE / rate <= took <= 1.5 * 4 * PIECE / rate
    assert bob.read("got") == data
    if scope == "content":
        assert await seconds(lambda: bob.node.get(other, "/data/other", peers=[alice.addr])) < 2
