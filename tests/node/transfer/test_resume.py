"""Fetches that are stopped at any point and go on: nothing is lost, nothing is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from shoal.node.errors import ShoalError
from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.ids import Cid

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20
RATE = 1e6
DATA = Path("/data")


async def album(world: World, start: Start, some_bytes: SomeBytes) -> tuple[Any, Any, str, Any]:
    files = {f"{number}": some_bytes(200_000 * number, number) for number in range(8)}
    alice, bob = await start("alice"), await start("bob")
    for name, data in files.items():
        alice.write(f"album/{name}", data)
    cid = await alice.share("album")
    faults.set_access(world.network, "alice", up=RATE)
    return alice, bob, cid, files


@pytest.mark.parametrize("seed", range(6))
async def test_a_fetch_stopped_at_random_points_ends_right(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, seed: int
) -> None:
    random = Random(seed)
    alice, bob, cid, files = await album(world, start, some_bytes)
    total = sum(map(len, files.values()))
    for _ in range(4):
        with trio.move_on_after(random.uniform(0, 2.5)):
            await bob.get(cid, alice)
        bob.assert_nothing_reserved()
        assert not bob.node.transfers.fetches
        if random.random() < 0.4:
            await bob.stop()
            await bob.start()

    complete = await bob.get(cid, alice)

    assert bob.tree("got") == files
    assert complete.bytes == total
    # At most what was asked for and not arrived when it was stopped was sent again.
    assert alice.node.host.statistics().bytes_out < total + 4 * 4 * RATE
    bob.assert_nothing_reserved()


@pytest.mark.parametrize("seed", range(4))
async def test_after_a_power_cut_nothing_that_is_claimed_is_missing(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, seed: int
) -> None:
    random = Random(seed)
    alice, bob, cid, files = await album(world, start, some_bytes)
    for _ in range(3):
        with trio.move_on_after(random.uniform(0.5, 3)):
            await bob.get(cid, alice)
        # Stopping claims what has arrived; then the cut takes what was not synced, or half of it.
        bob.die()
        await bob.stop()
        bob.disk.crash(random if random.random() < 0.5 else None)
        faults.rejoin(world.network, "bob")
        await bob.start()

    await bob.get(cid, alice)

    assert bob.tree("got") == files


async def test_a_fetch_goes_on_by_itself_when_its_node_starts_again(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob, cid, files = await album(world, start, some_bytes)

    async def get() -> None:
        with pytest.raises(ShoalError):
            await bob.get(cid, alice)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(3)
        await bob.stop()
    await bob.start()
    await bob.node.host.dial(alice.node.host.listen_addrs()[0])
    await trio.sleep(60)

    assert bob.tree("got") == files


async def test_a_resumed_fetch_that_cannot_go_on_says_so(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob, cid, _ = await album(world, start, some_bytes)
    async with trio.open_nursery() as nursery:

        async def get() -> None:
            with pytest.raises(ShoalError):
                await bob.get(cid, alice)

        nursery.start_soon(get)
        await trio.sleep(3)
        await bob.stop()
    bob.disk.capacity = bob.disk.used() + 9
    await bob.start()
    await trio.sleep(5)

    assert any("make room" in problem for problem in bob.node.problems)


async def test_a_fetch_that_is_stopped_before_it_began_does_not_begin(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", some_bytes(MIB))
    cid = await alice.share("film")
    store = bob.node.store
    path = bob.write("x", b"").parent / "got"
    copy = store.begin_fetch(Cid.parse(cid), path, 0.0)

    fetch = await bob.node.transfers.fetch(copy)
    await bob.node.stop_fetch(copy.id)

    assert fetch.done.is_set()
    assert not bob.node.transfers.fetches
    assert await bob.node.transfers.fetch(copy) is not fetch  # and one that begins now is new


async def test_a_finished_fetch_is_not_fetched_again_and_serves(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob, cid, files = await album(world, start, some_bytes)
    carol = await start("carol")
    await bob.get(cid, alice)
    sent = alice.node.host.statistics().bytes_out

    again = await bob.get(cid, alice)
    await alice.stop()
    await carol.get(cid, bob)

    assert again.sources == ()
    assert alice.node.host.statistics().bytes_out - sent < 5000
    assert carol.tree("got") == files


async def test_a_wider_choice_takes_a_running_fetch_over(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    alice, bob, cid, files = await album(world, start, some_bytes)
    ends: dict[str, int] = {}

    async def get(*only: str) -> None:
        complete = await bob.node.get(cid, DATA / "got", peers=[alice.addr], only=only)
        ends[" ".join(only)] = complete.bytes

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, "7")
        await trio.sleep(0.2)
        (fetch,) = (fetch for fetch, _ in bob.node.transfers.fetches.values())
        while not fetch.done_bytes:  # noqa: ASYNC110 (virtual time)
            await trio.sleep(0.05)
        assert fetch.done_bytes < len(files["7"])
        nursery.start_soon(get, "5", "6")
        await trio.sleep(0.5)
        nursery.start_soon(get, "6")  # nothing new: it follows
    # Whoever asked for less waits for what was added, and is told of all of it.
    assert ends == dict.fromkeys(("7", "5 6", "6"), sum(len(files[name]) for name in "567"))
    assert bob.tree("got") == {name: files[name] for name in "567"}
    bob.assert_nothing_reserved()
