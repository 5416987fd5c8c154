"""Transfers take the best path there is, and change it without losing a piece."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.node.errors import NotFound
from shoal.node.events import Complete
from shoal.node.events_reach import Reachability
from shoal.node.nat.relay_server import RENDEZVOUS
from shoal.node.net.paths import Path
from shoal.simulations.nat_box import NatBox, Rule
from shoal.simulations.world import World
from shoal.wire.addresses import is_relayed, parse_multiaddr, tcp_addr
from shoal.wire.ids import PeerId

from .conftest import DATA

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20
STRICT: tuple[Rule, Rule] = ("endpoint-independent", "endpoint-dependent")
SYMMETRIC: tuple[Rule, Rule] = ("endpoint-dependent", "endpoint-dependent")
PUBLICS = 4


async def until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - of anything, in virtual time
            await trio.sleep(0.25)


def router(world: World, name: str, rules: tuple[Rule, Rule], rate: float | None = None) -> NatBox:
    """Put a place behind a router of its own, before a node starts there."""
    box = world.network.box(f"router of {name}", mapping=rules[0], filtering=rules[1])
    place = world.network.place(name, behind=box)
    place.up.rate = rate
    return box


class Net:
    """Some nodes that everybody reaches, and an own relay."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.publics: list[Any] = []

    async def open(self, **relay: Any) -> None:
        for number in range(PUBLICS):
            machine = await self._start(f"public{number}", relay="off")
            self.publics.append(machine)
        self.relay = await self._start("relay", relay="own", **relay)

    async def join(self, machine: Any) -> None:
        """Connect with all of them, and wait until it is known how others see it."""
        for other in [*self.publics, self.relay]:
            await machine.node.host.dial(parse_multiaddr(other.addr))
        await until(lambda: machine.node.nat.reachability != "unknown")

    def way_to(self, machine: Any) -> str:
        """Return the address of a machine over the relay."""
        return f"{self.relay.addr}/p2p-circuit/p2p/{machine.node.peer_id}"

    @property
    def forwarded(self) -> int:
        """Bytes that the relay has forwarded."""
        return int(self.relay.node.nat.relay.statistics().bytes)


async def seeding(
    world: World, start: Start, net: Net, data: bytes, rules: tuple[Rule, Rule], rate: float
) -> tuple[Any, str]:
    """Return a seed behind a router that has a place at the relay, and what it shares."""
    router(world, "bob", rules, rate)
    bob = await start("bob", via=(net.relay.addr,))
    await net.join(bob)
    await until(lambda: bob.node.nat.keeper.places())
    bob.write("film", data)
    return bob, await bob.share("film")


async def fetching(
    world: World, start: Start, net: Net, rules: tuple[Rule, Rule], **settings: Any
) -> Any:
    router(world, "alice", rules)
    alice = await start("alice", **settings)
    await net.join(alice)
    return alice


def path(one: Any, other: Any) -> Path | None:
    connection = one.node.host.connection(other.node.peer_id)
    return None if connection is None else connection.path


def link_path(one: Any) -> Path | None:
    """The path of the stream on which the one content of a machine is moved."""
    for swarm in one.node.transfers.swarms.values():
        for link in swarm.links.values():
            return link.connection.path  # type: ignore[no-any-return]
    return None


async def test_an_own_relay_carries_all_where_no_hole_can_be_punched(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    net, data = Net(start), some_bytes(3 * MIB)
    await net.open()
    bob, cid = await seeding(world, start, net, data, SYMMETRIC, 4e6)
    alice = await fetching(world, start, net, STRICT)
    done = await alice.node.get(cid, DATA / "got", peers=[net.way_to(bob)])
    assert alice.read("got") == data
    assert path(alice, bob) is Path.RELAYED
    assert net.forwarded > len(data)
    assert done.wasted_bytes == 0


async def test_a_transfer_moves_to_the_hole_and_back_when_it_closes(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    net, data = Net(start), some_bytes(16 * MIB)
    await net.open()
    bob, cid = await seeding(world, start, net, data, STRICT, 4e5)
    alice = await fetching(world, start, net, STRICT)
    seen: list[Path | None] = []
    done: list[Complete] = []
    async with trio.open_nursery() as nursery:

        async def get() -> None:
            done.append(await alice.node.get(cid, DATA / "got", peers=[net.way_to(bob)]))

        nursery.start_soon(get)
        await until(lambda: link_path(alice) is Path.PUNCHED, 30)
        seen.append(Path.PUNCHED)
        carried = net.forwarded
        await trio.sleep(5)
        assert net.forwarded - carried < MIB  # nothing but what was under way
        # The router is started again: the hole is gone, and so is the way to the relay.
        box = world.network.places["bob"].behind
        assert box is not None
        box.restart()
        await until(lambda: link_path(alice) is not None, 60)
        await until(lambda: link_path(alice) is Path.PUNCHED, 200)
    assert alice.read("got") == data
    [complete] = done
    assert complete.wasted_bytes <= 4 * MIB
    assert complete.seconds < 120
    # Far less than the content went over the relay.
    assert net.forwarded < len(data) // 2


async def test_where_a_hole_closes_and_none_can_be_punched_the_relay_goes_on(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    net, data = Net(start), some_bytes(10 * MIB)
    await net.open()
    bob, cid = await seeding(world, start, net, data, STRICT, 5e5)
    alice = await fetching(world, start, net, STRICT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get_film, alice, cid, net.way_to(bob))
        await until(lambda: link_path(alice) is Path.PUNCHED, 30)
        box = world.network.places["bob"].behind
        assert box is not None
        box.mapping = "endpoint-dependent"
        box.restart()
        await until(lambda: link_path(alice) is Path.RELAYED, 60)
    assert alice.read("got") == data


async def get_film(machine: Any, cid: str, *peers: str) -> None:
    await machine.node.get(cid, DATA / "got", peers=list(peers))


async def test_a_relay_for_meeting_never_carries_pieces(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    publics = [await start(f"public{number}") for number in range(PUBLICS)]
    for one in publics:
        for other in publics:
            if one is not other:
                await one.node.host.dial(parse_multiaddr(other.addr))
    await until(lambda: all(one.node.nat.relay is not None for one in publics))
    machines = []
    for name in "bob", "alice":
        router(world, name, SYMMETRIC)
        machine = await start(name)
        for other in publics:
            await machine.node.host.dial(parse_multiaddr(other.addr))
        await until(lambda m=machine: len(m.node.nat.keeper.places()) == 2)  # type: ignore[misc]
        machines.append(machine)
    bob, alice = machines
    bob.write("film", some_bytes(2 * MIB))
    cid = await bob.share("film")
    relayed = [a for a in bob.node.addrs() if is_relayed(parse_multiaddr(a))]
    assert len(relayed) == 2
    with pytest.raises(NotFound, match="carries no content"):
        await alice.node.get(cid, DATA / "got", peers=relayed, timeout=60)
    assert path(alice, bob) is Path.RELAYED
    for relay in publics:
        statistics = relay.node.nat.relay.statistics()
        assert statistics.bytes < 2 * (RENDEZVOUS.bytes_each_way or 0)
    assert not alice.node.transfers.swarms or link_path(alice) is None


async def test_but_over_it_a_hole_is_punched_and_that_carries_them(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    publics = [await start(f"public{number}") for number in range(PUBLICS)]
    for one in publics[1:]:
        await one.node.host.dial(parse_multiaddr(publics[0].addr))
        await publics[0].node.host.dial(parse_multiaddr(one.addr))
    for name in "bob", "alice":
        router(world, name, STRICT)
    bob, alice = await start("bob"), await start("alice")
    for machine in bob, alice:
        for other in publics:
            await machine.node.host.dial(parse_multiaddr(other.addr))
    await until(lambda: len(bob.node.nat.keeper.places()) == 2)
    data = some_bytes(2 * MIB)
    bob.write("film", data)
    cid = await bob.share("film")
    relayed = [a for a in bob.node.addrs() if is_relayed(parse_multiaddr(a))]
    await alice.node.get(cid, DATA / "got", peers=relayed)
    assert alice.read("got") == data
    assert path(alice, bob) is Path.PUNCHED


async def test_a_quota_that_is_used_up_is_said_and_the_fetch_goes_on_when_there_is_more(
    autojump_clock: object,
    world: World,
    start: Start,
    some_bytes: SomeBytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from shoal.node.nat import relay_server

    monkeypatch.setattr(relay_server, "DAY_SECONDS", 300.0)  # days are long to simulate
    net, data = Net(start), some_bytes(6 * MIB)
    await net.open(relay_quota="4MiB")
    bob, cid = await seeding(world, start, net, data, SYMMETRIC, 4e6)
    alice = await fetching(world, start, net, STRICT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get_film, alice, cid, net.way_to(bob))

        def waiting() -> str:
            fetches = list(alice.node.transfers.fetches.values())
            reason = fetches[0][0].snapshot().waiting if fetches else None
            return reason.text if reason is not None else ""

        await until(lambda: "bytes of the day" in waiting(), 200)
        assert net.forwarded <= 4 * MIB
        assert str(net.relay.node.peer_id) in waiting()
    assert alice.read("got") == data
    assert net.forwarded > len(data)


async def test_a_neighbour_replaces_a_worse_path_in_mid_transfer(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes
) -> None:
    """Two behind one router meet over a relay first: a router rarely lets them meet outside."""
    net, data = Net(start), some_bytes(10 * MIB)
    await net.open()
    bob, cid = await seeding(world, start, net, data, STRICT, 5e5)
    box = world.network.places["bob"].behind
    world.network.place("alice", behind=box)
    alice = await start("alice")
    await net.join(alice)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(get_film, alice, cid, net.way_to(bob))
        await until(lambda: link_path(alice) is Path.RELAYED, 30)
        await trio.sleep(3)
        # mDNS tells of the neighbour.
        near = tcp_addr(world.network.places["bob"].ips[0], 4071)
        alice.node.reaching.found(PeerId.parse(str(bob.node.peer_id)), [near])
        await until(lambda: link_path(alice) is Path.LAN, 30)
    assert alice.read("got") == data
    assert net.forwarded < len(data) // 2


async def test_the_mode_of_the_dht_follows_and_every_change_is_an_event(
    autojump_clock: object, world: World, start: Start
) -> None:
    net = Net(start)
    await net.open()
    events: list[Reachability] = []
    bob = await start("bob", dht="auto", via=(net.relay.addr,))
    original = bob.node.tell

    def tell(event: object) -> None:
        if isinstance(event, Reachability):
            events.append(event)
        original(event)

    bob.node.tell = tell
    for other in net.publics:
        await bob.node.host.dial(parse_multiaddr(other.addr))
    await until(lambda: bob.node.nat.reachability == "public")
    assert bob.node.dht.statistics().mode == "server"
    world.network.places["bob"].reachable = False
    await until(lambda: bob.node.nat.reachability == "private", 3600)
    assert bob.node.dht.statistics().mode == "client"
    await until(lambda: bob.node.nat.keeper.places())
    states = [event.state for event in events]
    turns = [s for n, s in enumerate(states) if n == 0 or states[n - 1] != s]
    assert turns == ["unknown", "public", "private"]
    assert all(event.nat in ("none", "unknown") for event in events)
    assert any(event.relays == (str(net.relay.node.peer_id),) for event in events)
