"""Never stuck, never silent: every wait of a fetch has its reason, and each comes to an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from multiaddr import Multiaddr

from shoal.node.errors import NotFound
from shoal.node.events import Notice, Progress
from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.ids import Cid
from shoal.wire.keys import PrivateKey
from shoal.wire.swarm import (
    Bitfield,
    BitfieldKind,
    Choke,
    IndexNode,
    IndexRequest,
    Piece,
    Request,
    Unchoke,
)

Start = Callable[..., Awaitable[Any]]
MakePuppet = Callable[[str], Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20
ALL = Bitfield(BitfieldKind.ALL)


async def state(machine: Any) -> Progress | None:
    """Return what `status` says of the machine's first unfinished fetch."""
    shots = [shot for shot in await machine.node.status() if isinstance(shot, Progress)]
    return shots[0] if shots else None


async def becomes(machine: Any, kind: str | None, seconds: float = 60) -> str:
    """Wait until a fetch waits for this; return the sentence. None: it flows, or is over."""
    with trio.fail_after(seconds):
        while True:
            shot = await state(machine)
            if (shot.waiting_kind if shot is not None else None) == kind:
                return (shot.waiting if shot is not None else None) or ""
            await trio.sleep(0.05)


@asynccontextmanager
async def fetching(machine: Any, cid: str, *peers: Any, size: int) -> AsyncIterator[None]:
    """Fetch within this block, to its end."""
    done = trio.Event()

    async def get() -> None:
        complete = await machine.get(cid, *peers, patience=None)
        assert complete.bytes == size
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        yield
        with trio.fail_after(600):
            await done.wait()
    assert await state(machine) is None
    machine.assert_nothing_reserved()


async def a_share(start: Start, data: bytes, name: str = "alice") -> tuple[Any, str]:
    machine = await start(name)
    machine.write("film", data)
    return machine, await machine.share("film")


async def serve(wire: Any, data: bytes) -> None:
    """Serve as one should."""
    while True:
        body, _ = await wire.receive()
        if isinstance(body, IndexRequest):
            for cid in body.cids:
                await wire.send(IndexNode(cid), data=wire.nodes[cid])
        elif isinstance(body, Request):
            for index in range(body.first, body.first + body.count):
                piece = data[index * MIB : (index + 1) * MIB]
                await wire.send(Piece(body.id, index, len(piece)), data=piece)


# Finding


async def test_searching_then_no_provider_until_somebody_announces(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    hub = await start("hub", dht="server")
    alice = await start("alice", bootstrap=(hub.addr,))
    bob = await start("bob", bootstrap=(hub.addr,))
    data = some_bytes(2 * MIB)
    alice.write("film", data)
    await trio.sleep(5)
    shared = await alice.node.share("/data/film", hash_only=True)
    faults.cut(world.network, "bob", "hub")

    async with fetching(bob, shared.cid, size=len(data)):
        await becomes(bob, "searching", 2)
        faults.heal(world.network, "bob", "hub")
        text = await becomes(bob, "no provider")
        assert "(1 nodes asked)" in text
        await alice.node.share("/data/film")
        await becomes(bob, None, 20)


async def test_dialling_then_unreachable_until_the_peer_is_back(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(2 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    faults.cut(world.network, "alice", "bob")

    async with fetching(bob, cid, alice, size=len(data)):
        assert "1 peer" in await becomes(bob, "dialling", 1)
        assert "cannot be reached" in await becomes(bob, "unreachable", 6)
        faults.heal(world.network, "alice", "bob")
        await becomes(bob, None, 20)


async def test_connecting_to_one_that_never_says_who_it_is(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(2 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    mute = world.environment("mute")
    await mute.transport.listen(Multiaddr("/ip4/0.0.0.0/tcp/9"))
    ip = world.network.places["mute"].ips[0]
    key = PrivateKey(bytes(32))

    class Mute:
        addr = f"/ip4/{ip}/tcp/9/p2p/{key.peer_id}"

    async with fetching(bob, cid, Mute, size=len(data)):
        await becomes(bob, "connecting", 1)
        await becomes(bob, "unreachable", 12)
        (_, seeker) = next(iter(bob.node.transfers.fetches.values()))
        seeker.add([Multiaddr(alice.addr)])
        await becomes(bob, None, 5)


async def test_greeting_one_that_takes_its_time(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    data = some_bytes(3 * MIB)
    alice, cid = await a_share(start, data)
    bob, slow = await start("bob"), await puppet("slow")
    root = Cid.parse(cid)
    index = alice.node.store.node(root)

    async def greet_late(wire: Any) -> None:
        wire.nodes = {root: index}
        await wire.send(ALL)
        await serve(wire, data)

    slow.behave(root, greet_late, delay=4)

    async with fetching(bob, cid, slow, size=len(data)):
        await becomes(bob, "greeting", 2)
        await becomes(bob, None, 5)


# Having peers


async def test_index_then_choked_then_flowing(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    data = some_bytes(3 * MIB)
    alice, cid = await a_share(start, data)
    bob, mallory = await start("bob"), await puppet("mallory")
    root = Cid.parse(cid)
    index = alice.node.store.node(root)
    steps = [trio.Event(), trio.Event()]

    async def by_steps(wire: Any) -> None:
        wire.nodes = {root: index}
        await wire.send(ALL)
        while not isinstance((await wire.receive())[0], IndexRequest):
            pass
        await steps[0].wait()
        await wire.send(Choke(), IndexNode(root), data=index)
        await steps[1].wait()
        await wire.send(Unchoke())
        await serve(wire, data)

    mallory.behave(root, by_steps)

    async with fetching(bob, cid, mallory, size=len(data)):
        await becomes(bob, "index")
        steps[0].set()
        text = await becomes(bob, "choked")
        assert text == "all 1 peers are busy with others"
        await trio.sleep(11)
        assert "looking for others" in await becomes(bob, "choked")
        steps[1].set()
        await becomes(bob, None, 5)


async def test_a_seeder_that_falls_silent_is_waiting_then_slow_then_flows_again(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(12 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    faults.set_access(world.network, "alice", up=1.5e6)

    async with fetching(bob, cid, alice, size=len(data)):
        await trio.sleep(3)
        faults.silence(world.network, "alice")
        await becomes(bob, "waiting", 5)
        said = "1 of 1 peers have stopped sending; asking again and looking for others"
        assert await becomes(bob, "slow", 10) == said
        shot = await state(bob)
        assert shot is not None
        assert shot.waiting_seconds is not None
        assert 9 < shot.waiting_seconds < 15
        faults.rejoin(world.network, "alice")
        await becomes(bob, None, 5)


async def test_no_holder_until_somebody_has_the_rest(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    data = some_bytes(8 * MIB)
    alice, cid = await a_share(start, data)
    bob, half = await start("bob"), await puppet("half")
    root = Cid.parse(cid)
    index = alice.node.store.node(root)

    async def by_half(wire: Any) -> None:
        wire.nodes = {root: index}
        await wire.send(Bitfield(BitfieldKind.RAW, 0, b"\xf0"))
        await serve(wire, data)

    half.behave(root, by_half)

    async with fetching(bob, cid, half, size=len(data)):
        await becomes(bob, "no holder")
        (_, seeker) = next(iter(bob.node.transfers.fetches.values()))
        seeker.add([Multiaddr(alice.addr)])
        await becomes(bob, None, 5)


async def test_a_wrong_piece_of_the_only_peer_is_said_until_another_comes(
    autojump_clock: object, start: Start, puppet: MakePuppet, some_bytes: SomeBytes
) -> None:
    data = some_bytes(3 * MIB)
    alice, cid = await a_share(start, data)
    bob, liar = await start("bob"), await puppet("liar")
    root = Cid.parse(cid)
    index = alice.node.store.node(root)

    async def lie(wire: Any) -> None:
        wire.nodes = {root: index}
        await wire.send(ALL)
        await serve(wire, bytes(len(data)))

    liar.behave(root, lie)

    async with fetching(bob, cid, liar, size=len(data)):
        text = await becomes(bob, "hash mismatch")
        assert text.startswith(f"{liar.peer_id} sent wrong bytes")
        assert bob.node.host.faults["swarm-piece-hash"] == 1
        (_, seeker) = next(iter(bob.node.transfers.fetches.values()))
        seeker.add([Multiaddr(alice.addr)])
        await becomes(bob, None, 5)


# The own machine


@pytest.mark.parametrize(
    ("operation", "kind"),
    [("pwrite", "disk slow"), ("fdatasync", "syncing"), ("create", "preparing")],
)
async def test_a_slow_disk_is_said(
    autojump_clock: object,
    world: World,
    start: Start,
    some_bytes: SomeBytes,
    operation: str,
    kind: str,
) -> None:
    data = some_bytes(12 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    bob.node.transfers.pool._limit = 4 * MIB

    def slowly(name: str, file: str) -> None:
        if name == operation:
            bob.disk.delay = max(bob.disk.delay, 8.0)

    bob.disk.on_operation = slowly
    async with fetching(bob, cid, alice, size=len(data)):
        await becomes(bob, kind)
        bob.disk.on_operation = None
        await becomes(bob, None, 60)


async def test_the_second_fetch_of_a_content_is_behind_and_a_paused_one_paused(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(12 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    faults.set_access(world.network, "alice", up=1.5e6)

    async def second() -> None:
        with suppress(NotFound):  # it is paused
            await bob.node.get(cid, Path("/data/other"), peers=[alice.addr])

    async with trio.open_nursery() as nursery, fetching(bob, cid, alice, size=len(data)):
        await trio.sleep(2)
        nursery.start_soon(second)
        await trio.sleep(1)
        kinds = [getattr(shot, "waiting_kind", "") for shot in await bob.node.status()]
        assert kinds == ["", None, "behind"]
        await bob.node.pause(cid, Path("/data/other"))
        kinds = [getattr(shot, "waiting_kind", "") for shot in await bob.node.status()]
        assert kinds == ["", None, "paused"]
        await bob.node.resume(cid, Path("/data/other"))
        nursery.cancel_scope.cancel()


# What is done about it


async def test_when_one_of_three_falls_silent_the_others_take_over_and_bytes_keep_coming(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(24 * MIB)
    seeders = []
    for name in ("alice", "carol", "dave"):
        seeder, cid = await a_share(start, data, name)
        faults.set_access(world.network, name, up=1e6)
        seeders.append(seeder)
    bob = await start("bob")

    started = trio.current_time()
    async with fetching(bob, cid, *seeders, size=len(data)):
        await trio.sleep(4)
        faults.silence(world.network, "carol")
        while (shot := await state(bob)) is not None:
            assert shot.waiting_kind in (None, "syncing"), shot
            await trio.sleep(0.25)
    # 12 MB came in the first 4 s, the rest over two lines.
    assert trio.current_time() - started < 4 + (len(data) - 12e6) / 2e6 + 3


async def test_when_the_only_seeder_falls_silent_another_that_announces_takes_over(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    hub = await start("hub", dht="server")
    alice, carol, bob = [
        await start(name, bootstrap=(hub.addr,)) for name in ("alice", "carol", "bob")
    ]
    data = some_bytes(12 * MIB)
    for machine in (alice, carol):
        machine.write("film", data)
    cid = (await alice.node.share("/data/film")).cid
    faults.set_access(world.network, "alice", up=1.5e6)

    await trio.sleep(2)

    async with fetching(bob, cid, size=len(data)):
        await trio.sleep(3)
        faults.silence(world.network, "alice")
        await becomes(bob, "slow", 20)
        await carol.node.share("/data/film")
        await becomes(bob, None, 18)  # it is sought every 15 s


async def test_a_search_before_the_node_has_joined_is_made_again_at_once(
    autojump_clock: object, start: Start, some_bytes: SomeBytes
) -> None:
    hub = await start("hub", dht="server")
    alice = await start("alice", bootstrap=(hub.addr,))
    data = some_bytes(2 * MIB)
    alice.write("film", data)
    cid = (await alice.node.share("/data/film")).cid
    await trio.sleep(5)

    bob = await start("bob", bootstrap=(hub.addr,))
    complete = await bob.get(cid)

    assert complete.bytes == len(data)
    assert complete.seconds < 5


@pytest.mark.parametrize("moves", [False, True])
async def test_a_provider_that_comes_back_is_used_again_whatever_its_back_off(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, moves: bool
) -> None:
    hub = await start("hub", dht="server")
    alice, bob = [await start(name, bootstrap=(hub.addr,)) for name in ("alice", "bob")]
    data = some_bytes(12 * MIB)
    alice.write("film", data)
    cid = (await alice.node.share("/data/film")).cid
    faults.set_access(world.network, "alice", up=1.5e6)
    await trio.sleep(2)

    async with fetching(bob, cid, size=len(data)):
        await trio.sleep(4)
        await alice.stop()
        await becomes(bob, "unreachable", 60)
        await trio.sleep(1000)
        dials = bob.node.host.dials
        assert any(dials.waits(addr) for addr in list(dials._backoff))
        if moves:
            alice.settings["listen"] = ("/ip4/0.0.0.0/tcp/999",)
        await alice.start()
        await becomes(bob, None, 20)


async def test_a_stall_is_told_once_and_again_only_after_something_came(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(12 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    faults.set_access(world.network, "alice", up=1.5e6)
    said: list[str] = []

    async def listen() -> None:
        async for event in bob.node.events():
            if isinstance(event, Notice):
                said.append(event.message)

    world.nursery.start_soon(listen)
    async with fetching(bob, cid, alice, size=len(data)):
        for times in (1, 2):
            await trio.sleep(2)
            faults.silence(world.network, "alice")
            await trio.sleep(45)
            assert len(said) == times, said
            assert "has got nothing for 10 s" in said[-1]
            faults.rejoin(world.network, "alice")
            await becomes(bob, None, 60)
    status = (await bob.node.status())[0]
    assert status.problems == ()  # it is over


async def test_a_dead_connection_is_found_out_soon_after_the_bytes_stop(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    data = some_bytes(12 * MIB)
    alice, cid = await a_share(start, data)
    bob = await start("bob")
    faults.set_access(world.network, "alice", up=1.5e6)

    async with fetching(bob, cid, alice, size=len(data)):
        await trio.sleep(3)
        (old,) = bob.node.host.connections()
        faults.silence(world.network, "alice")
        await trio.sleep(36)
        assert old.closed
        faults.rejoin(world.network, "alice")
