"""How peers find to each other for one content: one stream for two, and again after a break."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.ids import Cid, PeerId

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20


async def halves(start: Start, some_bytes: SomeBytes) -> tuple[Any, Any, str, dict[str, bytes]]:
    """Return two machines that each hold another half of a content, and neither all of it."""
    files = {f"{number}": some_bytes(50_000, number) for number in range(20)}
    whole, *two = [await start(name) for name in ("whole", "left", "right")]
    for number, name in enumerate(files):
        whole.write(f"album/{name}", files[name])
        two[number % 2].write(f"mine/{name}", files[name])
    cid = await whole.share("album")
    for machine in two:
        await machine.share("mine")
    index = [(node, whole.node.store.node(node)) for node in [Cid.parse(cid)]]
    for machine in two:
        machine.node.store.add_nodes(index)
    await whole.stop()
    return two[0], two[1], cid, files


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
async def test_two_who_open_streams_at_once_keep_one_and_lose_nothing(
    autojump_clock: object, start: Start, some_bytes: SomeBytes, delay: float
) -> None:
    left, right, cid, files = await halves(start, some_bytes)
    await left.node.host.dial(right.node.host.listen_addrs()[0])
    await trio.sleep(1)
    done = []

    async def get(machine: Any, other: Any) -> None:
        done.append(await machine.get(cid, other))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, left, right)
        await trio.sleep(delay)
        nursery.start_soon(get, right, left)

    for machine in (left, right):
        assert machine.tree("got") == files
        assert machine.links(cid) == 1
        machine.assert_nothing_reserved()
        assert not machine.node.host.faults
    for complete in done:
        assert complete.seconds < 12
        assert sum(source.bytes for source in complete.sources) == 10 * 50_000
    streams = [
        link.stream.direction
        for machine in (left, right)
        for link in machine.node.transfers.swarms[Cid.parse(cid)].links.values()
    ]
    assert sorted(streams) == ["in", "out"]


async def test_a_peer_that_only_dialled_us_is_fetched_from_again_after_a_break(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    """Who shares behind a router dials out; the link breaks, the connection stays."""
    data = some_bytes(8 * MIB)
    alice, bob, helper = [await start(name) for name in ("alice", "bob", "helper")]
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=1e6)
    world.network.places["alice"].reachable = False
    await alice.node.host.dial(bob.node.host.listen_addrs()[0])

    async def break_link() -> None:
        await trio.sleep(4)
        links = bob.node.transfers.swarms[Cid.parse(cid)].links
        assert list(links) == [PeerId.parse(str(alice.node.peer_id))]
        for link in list(links.values()):
            link.reset("a test")

    world.nursery.start_soon(break_link)
    complete = await bob.get(cid, helper)

    assert bob.read("got") == data
    assert complete.seconds < 45


async def test_who_comes_to_hold_a_content_later_is_found_among_the_connected(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(MIB)
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", data)
    cid = (await alice.node.share("/data/film", hash_only=True)).cid
    await bob.node.host.dial(alice.node.host.listen_addrs()[0])
    got: list[Any] = []

    async def get() -> None:
        got.append(await bob.get(cid))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        await trio.sleep(30)
        assert not got
        await alice.share("film")

    assert bob.read("got") == data
    assert got[0].seconds < 50


async def test_a_second_copy_of_a_content_waits_for_the_first_and_copies_it(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(4 * MIB)
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=40e3)  # it takes longer than a first answer may
    done: list[Any] = []

    async def get(destination: str) -> None:
        done.append(await bob.node.get(cid, destination, peers=[alice.addr]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, "/data/one")
        await trio.sleep(1)
        nursery.start_soon(get, "/data/two")

    assert bob.read("one") == bob.read("two") == data
    assert sum(source.bytes for complete in done for source in complete.sources) == len(data)
    bob.assert_nothing_reserved()
