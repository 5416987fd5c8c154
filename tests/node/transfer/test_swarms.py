"""Swarms of honest nodes: seeders that die, partial holders, changed files, repeated blocks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.node.errors import NotFound
from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.ids import Cid

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20


def given(complete: Any, machine: Any) -> int:
    """Return how many bytes came from a machine."""
    name = str(machine.node.peer_id)
    return sum(source.bytes for source in complete.sources if source.peer_id == name)


async def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (nothing tells us)
            await trio.sleep(0.05)


def pieces_of(machine: Any, cid: str) -> int:
    """Return how many pieces a running fetch has."""
    swarm = machine.node.transfers.swarms.get(Cid.parse(cid))
    if swarm is None or swarm.fetch is None or swarm.fetch.engine is None:
        return 0
    return int(swarm.fetch.snapshot().pieces_done)


async def test_a_seeder_that_dies_in_the_middle_is_made_up_for(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(16 * MIB)
    alice, carol, bob = [await start(name) for name in ("alice", "carol", "bob")]
    for seeder in (alice, carol):
        seeder.write("film", data)
        cid = await seeder.share("film")
        faults.set_access(world.network, seeder.name, up=1.5e6)

    async def kill() -> None:
        await until(lambda: pieces_of(bob, cid) >= 6)
        carol.die()

    world.nursery.start_soon(kill)
    complete = await bob.get(cid, alice, carol)

    assert bob.read("got") == data
    assert given(complete, alice) + given(complete, carol) == len(data)
    assert 0 < given(complete, carol) < given(complete, alice)
    assert complete.seconds < 40
    assert complete.banned == ()
    bob.assert_nothing_reserved()


async def test_a_seeder_that_falls_silent_costs_seconds_and_no_more(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(16 * MIB)
    alice, carol, bob = [await start(name) for name in ("alice", "carol", "bob")]
    for seeder in (alice, carol):
        seeder.write("film", data)
        cid = await seeder.share("film")
        faults.set_access(world.network, seeder.name, up=1.5e6)

    async def silence() -> None:
        await until(lambda: pieces_of(bob, cid) >= 6)
        faults.silence(world.network, "carol")

    world.nursery.start_soon(silence)
    complete = await bob.get(cid, alice, carol)

    assert bob.read("got") == data
    assert complete.seconds < 40
    bob.assert_nothing_reserved()


async def test_a_fetch_waits_for_the_only_seeder_to_come_back(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(12 * MIB)
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=1.5e6)

    async def leave_and_return() -> None:
        await until(lambda: pieces_of(bob, cid) >= 4)
        await alice.stop()
        await trio.sleep(100)
        await alice.start()

    world.nursery.start_soon(leave_and_return)
    complete = await bob.get(cid, alice)

    assert bob.read("got") == data
    assert given(complete, alice) == len(data)
    assert complete.seconds < 150


async def test_what_nobody_holds_is_waited_for_and_said(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(12 * MIB)
    alice, bob = await start("alice"), await start("bob")
    alice.write("film", data)
    cid = await alice.share("film")
    faults.set_access(world.network, "alice", up=1.5e6)

    async def leave() -> None:
        await until(lambda: pieces_of(bob, cid) >= 4)
        alice.die()

    world.nursery.start_soon(leave)
    with pytest.raises(NotFound, match="nothing new"):
        await bob.get(cid, alice, patience=100)
    world.nursery.start_soon(bob.node.stop_fetch, 1)
    await trio.sleep(1)
    bob.assert_nothing_reserved()


async def test_those_who_fetch_serve_each_other(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    files = {f"{number}": some_bytes(40_000, number) for number in range(100)}
    size = 100 * 40_000
    alice = await start("alice")
    others = [await start(f"bob{number}") for number in range(4)]
    for name, data in files.items():
        alice.write(f"album/{name}", data)
    cid = await alice.share("album")
    faults.set_access(world.network, "alice", up=250e3)
    done: list[Any] = []

    async def get(machine: Any) -> None:
        done.append(await machine.get(cid, alice, *(o for o in others if o is not machine)))

    async with trio.open_nursery() as nursery:
        for machine in others:
            nursery.start_soon(get, machine)

    for machine in others:
        assert machine.tree("got") == files
        machine.assert_nothing_reserved()
    # Not four copies have gone out of the first seeder.
    assert sum(given(complete, alice) for complete in done) < 2 * size
    assert max(complete.seconds for complete in done) < 2.2 * size / 250e3
    for complete in done:
        assert sum(source.bytes for source in complete.sources) == size
        assert complete.wasted_bytes <= 0.05 * size


@pytest.mark.parametrize("change", ["rewritten", "shorter", "removed"])
async def test_a_file_that_changes_while_it_is_served_is_never_served_wrong(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, change: str
) -> None:
    files = {f"album/{number}": some_bytes(3 * MIB, number) for number in range(4)}
    alice, carol, bob = [await start(name) for name in ("alice", "carol", "bob")]
    for seeder in (alice, carol):
        for name, data in files.items():
            seeder.write(name, data)
        cid = await seeder.share("album")
    faults.set_access(world.network, "alice", up=1.5e6)
    faults.set_access(world.network, "carol", up=1.5e6)

    async def spoil() -> None:
        await until(lambda: pieces_of(bob, cid) >= 2)
        folder = alice.disk.folder(alice.write("x", b"").parent / "album")
        for name in folder.names():
            match change:
                case "rewritten":
                    folder.open(name).pwrite(bytes(3 * MIB), 0)
                case "shorter":
                    folder.open(name).truncate(5)
                case _:
                    folder.open(name).truncate(0)
                    folder.remove(name)

    world.nursery.start_soon(spoil)
    complete = await bob.get(cid, alice, carol)

    assert bob.tree("got") == {name.split("/")[1]: data for name, data in files.items()}
    assert complete.banned == ()
    assert given(complete, carol) > given(complete, alice)
    assert any("changed or removed" in text for text in alice.node.problems)
    assert not set(bob.node.host.faults) & {"swarm-piece-hash", "swarm-unasked"}
    bob.assert_nothing_reserved()


async def test_repeated_blocks_are_fetched_once(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    block = some_bytes(MIB)
    data = bytes(40 * MIB) + block + bytes(3 * MIB) + block + bytes(5)
    alice, bob = await start("alice"), await start("bob")
    alice.write("image", data)
    cid = await alice.share("image")

    complete = await bob.get(cid, alice)

    assert bob.read("got") == data
    assert given(complete, alice) == 2 * MIB + 5
    assert complete.bytes == len(data)
    bob.assert_nothing_reserved()


async def test_what_another_copy_holds_is_not_fetched(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    old = {f"{number}": some_bytes(2 * MIB + number, number) for number in range(3)}
    new = old | {"3": some_bytes(MIB, 3)}
    alice, bob = await start("alice"), await start("bob")
    for name, data in old.items():
        bob.write(f"mine/{name}", data)
    for name, data in new.items():
        alice.write(f"album/{name}", data)
    await bob.share("mine")
    cid = await alice.share("album")

    complete = await bob.get(cid, alice)

    assert bob.tree("got") == new
    assert given(complete, alice) == MIB
    assert complete.bytes == sum(map(len, new.values()))


async def test_a_copy_that_has_rotted_is_not_copied_from(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(4 * MIB)
    alice, bob = await start("alice"), await start("bob")
    for machine in (alice, bob):
        machine.write("film", data)
    await bob.share("film")
    alice.write("box/film", data)
    cid = await alice.share("box")
    bob.rot("film", 2 * MIB + 9)

    complete = await bob.get(cid, alice)

    assert bob.tree("got") == {"film": data}
    assert given(complete, alice) == MIB


async def test_contents_without_bytes(autojump_clock: object, start: Start) -> None:
    alice, bob = await start("alice"), await start("bob")
    alice.disk.folder(alice.write("tree/a/empty", b"").parent / "deeper" / "deepest", 0o700)
    top = alice.disk.folder(alice.write("tree/none", b"").parent)
    top.make_link("inside", "a/empty")
    top.make_link("outside", "/etc/passwd")
    cid = await alice.share("tree")

    complete = await bob.get(cid, alice)

    assert bob.tree("got") == {
        "a": None,
        "a/empty": b"",
        "a/deeper": None,
        "a/deeper/deepest": None,
        "none": b"",
        "inside": "a/empty",
    }
    assert complete.skipped_links == ("outside",)
    assert complete.bytes == 0
    assert complete.sources == ()


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1])
async def test_single_files_of_any_size(
    autojump_clock: object, start: Start, some_bytes: SomeBytes, size: int
) -> None:
    alice, bob = await start("alice"), await start("bob")
    alice.write("file", some_bytes(size))
    cid = await alice.share("file")

    complete = await bob.get(cid, alice)

    assert bob.read("got") == some_bytes(size)
    assert complete.bytes == size
    assert sum(source.bytes for source in complete.sources) == size
    bob.assert_nothing_reserved()
