"""QUIC in what a node does to be reached: seen from outside, tested, and punched."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from shoal.node.environment import Place
from shoal.node.nat.autonat import AutoNatServer
from shoal.node.nat.nat import Nat, NatSettings
from shoal.node.nat.observed import Observations
from shoal.node.nat.punch_quic import LEAST_PAUSE, MOST_PAUSE, STRAY_BYTES, QuicPunch
from shoal.node.nat.reachability import AddressTests
from shoal.node.net.dialer import ranked
from shoal.node.net.errors import Unreachable
from shoal.node.net.host import Host
from shoal.node.net.paths import Path
from shoal.simulations.link import Link
from shoal.simulations.world import World
from shoal.wire.addresses import (
    is_quic,
    parse_multiaddr,
    quic_addr,
    relayed_addr,
    tcp_addr,
    with_peer,
)

from ..net.quic.conftest import Air, Door
from .conftest import Peer, key_of, until

PORT = 4001

MakeBoth = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def air(world: World) -> Air:
    made = Air()
    world.nursery.start_soon(made.run)
    return made


@pytest.fixture
async def make_both(world: World, air: Air) -> MakeBoth:
    """Start a host with TCP and QUIC at a global address of its own."""
    world.network.default = Link(latency=0.03)
    numbers = itertools.count(1)

    async def make(name: str, *, reachable: bool = True, tcp: bool = True) -> Peer:
        ip = f"45.{next(numbers)}.0.2"
        environment = replace(world.environment(name, [ip]), datagrams=Door(air, ip))
        world.network.places[name].reachable = reachable
        host = Host(environment, key_of(name))
        nat = Nat(environment, host, NatSettings(), lambda: None)
        listen = [tcp_addr(ip, PORT)] if tcp else []
        await world.nursery.start(host.run, [*listen, quic_addr(ip, PORT)])
        await world.nursery.start(nat.run)
        return Peer(host, nat, [])

    return make


def walled(air: Air, *peers: Peer) -> None:
    """Let in only answers: what comes from where the host behind the wall has sent to."""
    hidden = {str(peer.host.listen_addrs()[-1]).split("/")[2] for peer in peers}
    asked: set[tuple[Place, Place]] = set()

    def passes(data: bytes, source: Place, target: Place) -> bool:
        asked.add((source[:2], target[:2]))
        return target[0] not in hidden or (target[:2], source[:2]) in asked

    air.on_send = passes


async def test_a_hole_is_punched_from_both_sides(
    autojump_clock: object, make_both: MakeBoth, air: Air, world: World
) -> None:
    alice, bob = await make_both("alice", tcp=False), await make_both("bob", tcp=False)
    walled(air, alice, bob)
    addr, theirs = bob.host.listen_addrs()[0], alice.host.listen_addrs()[0]
    with pytest.raises(Unreachable):
        await alice.host.dial(with_peer(addr, bob.id))
    chance = world.environment("chance").random.stream("test")
    with bob.host.maker.expecting([theirs], alice.id, initiator=False):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(QuicPunch(bob.host, chance).knock, theirs)
            with trio.fail_after(4):
                await QuicPunch(alice.host, chance).dial(addr, bob.id)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    ours = alice.host.connection(bob.id)
    other = bob.host.connection(alice.id)
    assert ours is not None
    assert other is not None
    assert ours.path is other.path is Path.PUNCHED
    assert (ours.direction, other.direction) == ("out", "in")
    assert ours.transport == "quic"


async def test_what_opens_a_hole_is_small_random_and_not_too_often(
    autojump_clock: object, make_both: MakeBoth, air: Air, world: World
) -> None:
    bob = await make_both("bob")
    seen: list[tuple[float, bytes]] = []

    def note(data: bytes, source: Place, target: Place) -> bool:
        seen.append((trio.current_time(), data))
        return True

    air.on_send = note
    punch = QuicPunch(bob.host, world.environment("chance").random.stream("test"))
    with trio.move_on_after(4):
        await punch.knock(quic_addr("8.8.8.8", 1234))
    await trio.sleep(5)
    assert 4 / MOST_PAUSE <= len(seen) <= 4 / LEAST_PAUSE / 3
    assert {len(data) for _, data in seen} == {STRAY_BYTES}
    assert len({data for _, data in seen}) == len(seen)
    pauses = [b[0] - a[0] for a, b in itertools.pairwise(seen)]
    assert min(pauses) >= LEAST_PAUSE - 1e-9
    assert max(pauses) <= MOST_PAUSE + 1e-9


async def test_a_relay_shows_how_our_udp_port_is_seen(
    autojump_clock: object, make_both: MakeBoth, world: World
) -> None:
    alice, relay = await make_both("alice"), await make_both("relay")
    await (await alice.host.dial(relay.addr)).identified()
    assert not [a for a in alice.nat.punchable() if is_quic(a) and a not in _own(alice)]
    alice.nat.observations.forget()
    relayed: Any = SimpleNamespace(
        remote=relayed_addr(relay.addr, key_of("bob").peer_id), local=alice.addr
    )
    punch = QuicPunch(alice.host, world.environment("chance").random.stream("test"))
    await punch.show(relayed)
    quic = [c for c in alice.host.connections() if c.transport == "quic"]
    assert len(quic) == 1
    assert alice.host.connection(relay.id) is not quic[0]  # TCP stays the one to use
    assert quic_addr("45.1.0.2", PORT) in alice.nat.observations.candidates()
    await punch.show(relayed)  # the one that is there is enough
    assert len([c for c in alice.host.connections() if c.transport == "quic"]) == 1
    await trio.sleep(30)
    assert not [c for c in alice.host.connections() if c.transport == "quic"]  # it was a spare


def _own(peer: Peer) -> list[Any]:
    return peer.host.listen_addrs()


async def test_each_address_is_tested_by_itself(
    autojump_clock: object, make_both: MakeBoth, air: Air
) -> None:
    """Where UDP gets in and TCP does not, that one is told, and the other way round."""
    others = [await make_both(f"other{n}") for n in range(3)]
    open_by_udp = await make_both("open", reachable=False)
    open_by_tcp = await make_both("closed")
    walled(air, open_by_tcp)
    for peer in (open_by_udp, open_by_tcp):
        for other in others:
            await peer.host.dial(other.addr)
    tcp, quic = open_by_udp.host.listen_addrs()
    verdicts = open_by_udp.nat.tests
    await until(lambda: verdicts.verdict(quic) == "public" and verdicts.verdict(tcp) == "private")
    assert open_by_udp.nat.reachability == "public"
    assert quic in open_by_udp.host.told_addrs()
    assert tcp not in open_by_udp.host.told_addrs()
    tcp, quic = open_by_tcp.host.listen_addrs()
    verdicts = open_by_tcp.nat.tests
    await until(lambda: verdicts.verdict(tcp) == "public" and verdicts.verdict(quic) == "private")
    assert quic not in open_by_tcp.host.told_addrs()
    for other in others:
        server = other.nat.server
        assert isinstance(server, AutoNatServer)
        assert len(other.host.quic.endpoints) == 1 if other.host.quic else False  # none is left


async def test_tcp_goes_first_and_quic_where_it_does_not_get_through(
    autojump_clock: object, make_both: MakeBoth, world: World
) -> None:
    alice, bob = await make_both("alice"), await make_both("bob")
    addrs = bob.host.listen_addrs()
    connection = await alice.host.connect(bob.id, reversed(addrs))
    assert connection.transport == "tcp"
    await connection.aclose()
    world.network.places["bob"].reachable = False
    began = trio.current_time()
    connection = await alice.host.connect(bob.id, addrs, force=True)
    assert connection.transport == "quic"
    assert trio.current_time() - began < 1


async def test_where_tcp_gets_through_slowly_quic_is_not_tried(
    autojump_clock: object, make_both: MakeBoth, world: World
) -> None:
    """TCP's handshakes take longer than QUIC's, and are not overtaken for that."""
    alice, bob = await make_both("alice"), await make_both("bob")
    world.network.default = Link(latency=0.2)
    connection = await alice.host.connect(bob.id, bob.host.listen_addrs())
    assert connection.transport == "tcp"
    assert connection.rtt > 0.3
    await trio.sleep(5)
    met = [c for c in bob.host.connections() if c.peer_id == alice.id]  # no tests of addresses
    assert [c.transport for c in met] == ["tcp"]


def test_quic_stands_behind_tcp_of_the_same_scope() -> None:
    addrs = [
        quic_addr("8.8.8.8", 1),
        quic_addr("10.0.0.1", 1),
        tcp_addr("8.8.8.8", 1),
        quic_addr("2a00:1::1", 1),
        tcp_addr("2a00:1::1", 1),
        tcp_addr("10.0.0.1", 1),
    ]
    found = ranked(addrs, lambda addr: True)
    assert [pause for _, pause in found] == [0, 0.5, 0.25, 0.25, 0.5, 0.25]
    order = [str(addr) for addr, _ in found]
    assert order == [
        "/ip4/10.0.0.1/tcp/1",
        "/ip4/10.0.0.1/udp/1/quic-v1",
        "/ip6/2a00:1::1/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip6/2a00:1::1/udp/1/quic-v1",
        "/ip4/8.8.8.8/udp/1/quic-v1",
    ]


def test_an_observer_has_a_voice_for_each_transport() -> None:
    seen = Observations()
    ours = parse_multiaddr("/ip4/9.9.9.9/udp/4071/quic-v1"), tcp_addr("9.9.9.9", 4071)
    for number in range(4):
        for addr in ours:
            remote = quic_addr(f"45.{number}.0.1", 1)
            observer = key_of(f"observer{number}").peer_id
            seen.take(observer, addr, remote=remote, port=4071, outbound=True, now=0.0)
    assert set(seen.confirmed()) == set(ours)
    assert seen.mapping([]) == "endpoint-independent"
    assert seen.mapping(ours) == "none"


def test_an_address_that_nobody_would_test_does_not_hide_that_nobody_gets_in() -> None:
    tests = AddressTests()
    tcp, quic = tcp_addr("9.9.9.9", 4071), quic_addr("9.9.9.9", 4071)
    tests.candidates([tcp, quic], 0.0)
    for group in (b"a", b"b"):
        tests.result(tcp, group, False, 5.0, 2)
        tests.result(quic, group, None, 5.0, 2)
    assert tests.overall() == "private"
    for group in (b"a", b"b"):
        tests.result(quic, group, True, 9.0, 2)
    assert tests.overall() == "public"


@pytest.mark.parametrize("by_tcp", ["alice", "bob"])
async def test_where_both_stand_tcp_is_used_whoever_dialled(
    autojump_clock: object, make_both: MakeBoth, by_tcp: str
) -> None:
    peers = {name: await make_both(name) for name in ("alice", "bob")}
    one, other = peers[by_tcp], peers["bob" if by_tcp == "alice" else "alice"]
    await other.host.maker.dial(one.host.listen_addrs()[1], one.id)
    await one.host.maker.dial(other.host.listen_addrs()[0], other.id)
    await trio.sleep(1)
    for host, peer in ((one.host, other.id), (other.host, one.id)):
        connection = host.connection(peer)
        assert connection is not None
        assert connection.transport == "tcp"
    await trio.sleep(30)
    assert [c.transport for c in one.host.connections()] == ["tcp"]
