"""Reaching peers: order, pauses, back-off, wrong keys, both dialling at once, bounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from multiaddr import Multiaddr
from trio.testing import MockClock

from shoal.node.net.bounds import Limits
from shoal.node.net.dialer import DialBook, ranked
from shoal.node.net.errors import TooMany, Unreachable, WrongPeer
from shoal.node.net.host import Host
from shoal.node.net.stream import Stream
from shoal.simulations.network import MemoryTransport
from shoal.simulations.world import World
from shoal.wire.addresses import parse_multiaddr, tcp_addr, with_peer
from shoal.wire.keys import PrivateKey

ECHO = "/test/echo"
RTT = 0.1
MakeHost = Callable[..., Awaitable[Host]]
STRANGER = PrivateKey(bytes([9]) * 32).peer_id


async def test_the_first_address_that_answers_wins(
    autojump_clock: MockClock, world: World, make_host: MakeHost
) -> None:
    """A silent address costs its pause, a refused one only its round trip."""
    alice, bob = await make_host("alice"), await make_host("bob")
    silent = world.network.place("silent")
    silent.reachable = False
    began = trio.current_time()
    addrs = [tcp_addr(silent.ips[0], 4001), bob.listen_addrs()[0]]
    await alice.connect(bob.peer_id, addrs)
    assert trio.current_time() - began == pytest.approx(0.25 + 2 * RTT)
    await alice.connections()[0].aclose()
    alice.dials.clear(addrs)
    refused = bob.listen_addrs()[0].decapsulate_code(6).encapsulate(Multiaddr("/tcp/4002"))
    began = trio.current_time()
    await alice.connect(bob.peer_id, [refused])
    assert trio.current_time() - began == pytest.approx(3 * RTT)


async def test_order_of_addresses(autojump_clock: MockClock, world: World) -> None:
    transport = world.environment("alice").transport
    assert isinstance(transport, MemoryTransport)
    texts = [
        "/ip4/1.2.3.4/tcp/1",
        "/ip6/2a00::1/tcp/1",
        "/ip4/192.168.1.2/tcp/1",
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/1.2.3.4/udp/1/quic-v1",
        "/ip4/1.2.3.4/tcp/1",
    ]
    order = [
        (str(addr), pause)
        for addr, pause in ranked(map(parse_multiaddr, texts), transport.can_dial)
    ]
    assert order == [
        ("/ip4/127.0.0.1/tcp/1", 0.0),
        ("/ip4/192.168.1.2/tcp/1", 0.03),
        ("/ip6/2a00::1/tcp/1", 0.25),
        ("/ip4/1.2.3.4/tcp/1", 0.25),
    ]


async def test_nobody_there_is_told_for_each_address(
    autojump_clock: MockClock, world: World, make_host: MakeHost
) -> None:
    alice = await make_host("alice")
    silent = world.network.place("silent")
    silent.reachable = False
    empty = world.network.place("empty")
    addrs = [tcp_addr(silent.ips[0], 1), tcp_addr(empty.ips[0], 1)]
    with pytest.raises(Unreachable) as raised:
        await alice.connect(STRANGER, addrs)
    text = str(raised.value)
    assert f"{STRANGER} cannot be reached" in text
    assert f"{addrs[0]}: no answer in time" in text
    assert f"{addrs[1]}: Connection refused" in text
    with pytest.raises(Unreachable, match="tried lately, again in"):
        await alice.connect(STRANGER, addrs)
    with pytest.raises(Unreachable, match="no address of it is known"):
        await alice.connect(STRANGER)
    with pytest.raises(Unreachable, match="that is this node itself"):
        await alice.connect(alice.peer_id)
    with pytest.raises(Unreachable, match="this kind of address cannot be dialled"):
        await alice.dial(parse_multiaddr("/ip4/1.2.3.4/udp/1/quic-v1"))
    with pytest.raises(Unreachable, match="does not resolve"):
        await alice.dial(parse_multiaddr("/dns4/nowhere.example/tcp/1"))


async def test_another_peer_than_the_address_says(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    addr = bob.listen_addrs()[0]
    with pytest.raises(WrongPeer) as raised:
        await alice.dial(with_peer(addr, STRANGER))
    assert str(raised.value) == (
        f"{addr} is not {STRANGER}: the peer there is {bob.peer_id}; ask its owner for the right "
        "address"
    )
    alice.peerstore.add(STRANGER, [addr])
    with pytest.raises(Unreachable, match=f"another peer answers there, {bob.peer_id}"):
        await alice.connect(STRANGER, [tcp_addr("127.0.0.1", 1)], force=True)
    assert alice.peerstore.addrs(STRANGER) == []
    assert alice.connections() == bob.connections() == []


async def test_names_that_the_user_gave(
    autojump_clock: MockClock, world: World, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    world.network.names["/dns4/bob.example/tcp/4001"] = [bob.listen_addrs()[0]]
    connection = await alice.dial(parse_multiaddr(f"/dns4/bob.example/tcp/4001/p2p/{bob.peer_id}"))
    assert connection.peer_id == bob.peer_id


async def test_one_connection_however_many_ask(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(alice.connect, bob.peer_id, bob.listen_addrs()[:1])
    assert len(alice.connections()) == 1
    assert alice._reach._dialling == {}


async def test_when_both_dial_at_once_the_smaller_ids_connection_stays(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alice.connect, bob.peer_id, bob.listen_addrs()[:1])
        nursery.start_soon(bob.connect, alice.peer_id, alice.listen_addrs()[:1])
    await trio.sleep(1)
    assert len(alice.connections()) == len(bob.connections()) == 2
    chosen = [alice.connection(bob.peer_id), bob.connection(alice.peer_id)]
    dialler = alice if alice.peer_id < bob.peer_id else bob
    expected = ["out", "in"] if dialler is alice else ["in", "out"]
    assert [c.direction if c is not None else None for c in chosen] == expected
    await trio.sleep(30)
    assert [alice.connections(), bob.connections()] == [[chosen[0]], [chosen[1]]]


async def test_a_spare_connection_with_a_stream_stays(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    first = await alice.dial(bob.listen_addrs()[0])
    streams = [await first.open_stream([ECHO])]
    second = await bob.dial(alice.listen_addrs()[0])
    streams.append(await second.open_stream([ECHO]))
    await trio.sleep(60)
    assert len(alice.connections()) == 2
    for stream in streams:
        await stream.aclose()
    await trio.sleep(60)
    assert len(alice.connections()) == 1


async def test_a_cancelled_dial_leaves_nothing(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    for wait in (0.05, 0.12, 0.19):
        with trio.move_on_after(wait):
            await alice.connect(bob.peer_id, bob.listen_addrs()[:1])
    await trio.sleep(20)
    assert alice.connections() == bob.connections() == []
    assert alice._reach._dialling == {}
    assert not alice.dials._backoff
    await alice.connect(bob.peer_id, bob.listen_addrs()[:1])


async def test_back_off_grows_and_ends(autojump_clock: MockClock) -> None:
    book = DialBook(trio.current_time)
    addr = parse_multiaddr("/ip4/127.0.0.1/tcp/1")
    waits = []
    for _ in range(20):
        book.begin(addr)
        book.end(addr, False)
        waits.append(book.waits(addr))
    assert waits[:4] == [5, 6, 9, 14]
    assert waits[-1] == 300
    await trio.sleep(300)
    assert book.waits(addr) == 0
    book.begin(addr)
    book.end(addr, True)
    book.begin(addr)
    book.end(addr, False)
    assert book.waits(addr) == 5
    book.clear([addr])
    assert book.waits(addr) == 0


async def test_we_are_no_tool_against_others(autojump_clock: MockClock) -> None:
    book = DialBook(trio.current_time)
    ports = [tcp_addr("1.2.3.4", port) for port in range(1, 30)]
    for addr in ports[:4]:
        book.begin(addr)
    with pytest.raises(TooMany, match="under way"):
        book.begin(ports[4])
    for addr in ports[:4]:
        book.end(addr, False)
    for addr in ports[4:10]:
        book.begin(addr)
        book.end(addr, False)
    with pytest.raises(TooMany, match="have failed"):
        book.begin(ports[10])
    book.begin(tcp_addr("1.2.3.5", 1))
    await trio.sleep(61)
    book.begin(ports[10])
    for port in range(1, 30):  # the own network is exempt
        book.begin(tcp_addr("192.168.1.1", port))


async def test_the_least_useful_idle_connection_makes_room(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    bob = await make_host("bob", limits=Limits(connections=3))
    others = [await make_host(f"peer {number}") for number in range(5)]
    held: list[Stream] = []
    for number, host in enumerate(others[:3]):
        connection = await host.dial(bob.listen_addrs()[0])
        if number == 0:
            held.append(await connection.open_stream([ECHO]))
        await trio.sleep(2)
    await others[3].dial(bob.listen_addrs()[0])
    await trio.sleep(2)
    assert bob.connection(others[0].peer_id) is not None  # in use
    assert bob.connection(others[1].peer_id) is None  # the longest idle
    for host in others[2:4]:
        held.append(await host.connections()[0].open_stream([ECHO]))
    await trio.sleep(2)
    await others[4].dial(bob.listen_addrs()[0])
    await trio.sleep(2)
    assert bob.connection(others[4].peer_id) is None
    assert bob.faults["upgrade-TooMany"] == 1
    assert len(bob.connections()) == 3


@pytest.mark.parametrize(("ip", "refused"), [("5.5.5.5", True), ("10.1.1.1", False)])
async def test_connections_with_one_global_ip_are_bounded(
    autojump_clock: MockClock, world: World, make_host: MakeHost, ip: str, refused: bool
) -> None:
    limits = Limits(per_ip=2)
    bob = await make_host("bob", ips=["6.6.6.6", "10.1.1.2"], limits=limits)
    target = bob.listen_addrs()[0 if refused else 1]
    alice = await make_host("alice", ips=[ip])
    environment = alice.environment
    for number in range(3):
        host = Host(environment, PrivateKey(bytes([number + 50]) * 32))
        await world.nursery.start(host.run, [])
        await host.dial(target)
        await trio.sleep(1)
    assert len(bob.connections()) == (2 if refused else 3)
    assert bob.faults["upgrade-TooMany"] == (1 if refused else 0)


async def test_a_closed_host_has_said_goodbye(
    autojump_clock: MockClock, make_host: MakeHost
) -> None:
    alice, bob = await make_host("alice"), await make_host("bob")
    await alice.dial(bob.listen_addrs()[0])
    await trio.sleep(1)
    (theirs,) = bob.connections()
    await alice.aclose()
    await theirs.wait_closed()
    assert "going away" in theirs.reason
    with pytest.raises(Unreachable, match="refused"):
        await bob.dial(alice.listen_addrs()[0])
