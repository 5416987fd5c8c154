"""Relays and those who use them: what is given, what is refused, what is counted."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio

from shoal.node.nat import relay_server
from shoal.node.nat.circuit import CircuitStream, read_message, send_message
from shoal.node.nat.relay_client import MAX_CIRCUITS_IN, RelayClient, RelayRefused
from shoal.node.nat.relay_server import (
    MAX_ASKS,
    MAX_ASKS_PER_IP,
    MAX_CIRCUITS_PER_PEER,
    MAX_PLACES_PER_GROUP,
    MAX_PLACES_PER_IP,
    PLACE_SECONDS,
    RENDEZVOUS,
    RelayPolicy,
)
from shoal.node.net.connection import MAX_UNREAD, Connection
from shoal.node.net.errors import NetError
from shoal.node.net.host import Host
from shoal.node.net.paths import Path
from shoal.node.net.stream import Stream
from shoal.simulations.world import World
from shoal.wire import varint
from shoal.wire.addresses import host_port, is_relayed, relayed_addr, tcp_addr, with_peer
from shoal.wire.circuit import (
    HOP,
    MAX_MESSAGE,
    STOP,
    HopMessage,
    HopType,
    Limit,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from shoal.wire.errors import PeerFault

from .conftest import ECHO, MakeHost, MakePeer, Peer, echoed, key_of, until

OWN = RelayPolicy(limit=None)


async def relay(make_peer: MakePeer, policy: RelayPolicy = OWN, name: str = "relay") -> Peer:
    peer = await make_peer(name, relay="own", own=policy)
    assert peer.nat.relay is not None
    return peer


async def ask(connection: Connection, message: HopMessage) -> HopMessage:
    """Ask a relay as one who keeps to no rule; return its answer."""
    stream = await connection.open_stream([HOP], lazy=True)
    await send_message(stream, message.encode())
    return HopMessage.decode(await read_message(stream, MAX_MESSAGE))


def refused(server: Peer) -> dict[str, int]:
    assert server.nat.relay is not None
    return server.nat.relay.statistics().refused


def places(server: Peer) -> int:
    assert server.nat.relay is not None
    return server.nat.relay.statistics().places


RESERVE = HopMessage(HopType.RESERVE)


# Places


async def test_a_place_comes_with_addresses_a_voucher_and_its_limit(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer, RelayPolicy())
    host = await make_host("bob")
    answer = await ask(await host.dial(server.addr), RESERVE)
    now = host.environment.clock.now()
    given = answer.reservation
    assert answer.status == Status.OK
    assert answer.limit == RENDEZVOUS == Limit(120, 128 << 10)
    assert given is not None
    assert abs(given.expires - now - PLACE_SECONDS) < 2
    assert server.addr in given.addrs
    assert not any("127.0.0.1" in str(addr) for addr in given.addrs)
    assert given.voucher is not None
    voucher = Voucher.open(given.voucher, relay=server.id, peer=host.peer_id, now=now)
    assert voucher.expires == given.expires


async def test_a_place_ends_with_its_time_or_its_connection(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer)
    one, two = await make_host("one"), await make_host("two")
    await ask(await one.dial(server.addr), RESERVE)
    connection = await two.dial(server.addr)
    await ask(connection, RESERVE)
    assert places(server) == 2
    await connection.aclose()
    await until(lambda: places(server) == 1, 5)
    await trio.sleep(PLACE_SECONDS + 1)
    assert places(server) == 0
    caller = await make_host("caller")
    asked = HopMessage(HopType.CONNECT, one.peer_id)
    assert (await ask(await caller.dial(server.addr), asked)).status == Status.NO_RESERVATION


async def test_many_peers_of_one_ip_get_few_places(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    server = await relay(make_peer)
    statuses = [(await reserve_at(world, server, "31.1.0.1", n)).status for n in range(12)]
    assert statuses.count(Status.OK) == MAX_PLACES_PER_IP
    assert statuses[MAX_PLACES_PER_IP:] == [Status.RESERVATION_REFUSED] * 4
    # Nor do those of one network.
    for number in range(2, 10):
        for peer in range(5):
            await reserve_at(world, server, f"31.1.0.{number}", 100 * number + peer)
    assert places(server) == MAX_PLACES_PER_GROUP
    assert refused(server)["places-full"] == 4 + 8 * 5 - (MAX_PLACES_PER_GROUP - MAX_PLACES_PER_IP)


async def reserve_at(world: World, server: Peer, ip: str, number: int) -> HopMessage:
    """Reserve as another peer, at an IP that several may have."""
    return await ask(await connected_from(world, server, ip, number), RESERVE)


async def connected_from(world: World, server: Peer, ip: str, number: int) -> Connection:
    name = f"peer {number} of {ip}"
    place = world.network.places.get(ip) or world.network.place(ip, [ip])
    environment = world.environment(place.name)
    host = Host(environment, key_of(name))
    await world.nursery.start(host.run)
    return await host.dial(server.addr)


async def test_members_are_not_counted_by_their_ip(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    names = [f"peer {number} of 31.1.0.1" for number in range(12)]
    members = frozenset(key_of(name).peer_id for name in names)
    server = await relay(make_peer, RelayPolicy(limit=None, members=members))
    for number in range(12):
        assert (await reserve_at(world, server, "31.1.0.1", number)).status == Status.OK
    answer = await reserve_at(world, server, "31.1.0.1", 12)
    assert answer.status == Status.PERMISSION_DENIED
    assert refused(server)["no-member"] == 1


async def test_all_places_together_are_bounded(
    autojump_clock: object,
    world: World,
    make_peer: MakePeer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_server, "MAX_PLACES", 3)
    server = await relay(make_peer)
    for number in range(5):
        await reserve_at(world, server, f"3{number}.1.0.1", number)
    assert places(server) == 3
    assert refused(server)["places-full"] == 2


async def test_asking_without_end_is_refused_and_counted(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer)
    connection = await (await make_host("eager")).dial(server.addr)
    statuses = [(await ask(connection, RESERVE)).status for _ in range(MAX_ASKS + 5)]
    assert statuses == [Status.OK] * MAX_ASKS + [Status.RESERVATION_REFUSED] * 5
    assert refused(server)["asks-too-often"] == 5
    await trio.sleep(61)
    assert (await ask(connection, RESERVE)).status == Status.OK
    # New names from the same IP do not help.
    for number in range(MAX_ASKS_PER_IP // 2 + 5):
        connection = await connected_from(world, server, "31.1.0.1", number)
        await ask(connection, RESERVE)
        await ask(connection, RESERVE)
    assert refused(server)["asks-too-often"] == 5 + 10


async def test_what_is_no_request_gets_the_status_that_says_so(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer)
    connection = await (await make_host("odd")).dial(server.addr)
    answer = await ask(connection, HopMessage(HopType.STATUS, status=Status.OK))
    assert answer.status == Status.UNEXPECTED_MESSAGE
    stream = await connection.open_stream([HOP], lazy=True)
    await send_message(stream, b"\xff\xff\xff")
    answer = HopMessage.decode(await read_message(stream, MAX_MESSAGE))
    assert answer.status == Status.MALFORMED_MESSAGE
    assert server.host.faults["relay"] == 1


async def test_endless_and_oversized_messages_end_their_stream(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer)
    connection = await (await make_host("odd")).dial(server.addr)
    for said in (varint.encode(MAX_MESSAGE + 1), b"\xff\xff\xff\xff\xff"):
        stream = await connection.open_stream([HOP], lazy=True)
        await stream.send_all(said)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert server.host.faults["frame-too-long"] == 2
    # One that begins and says no more is waited for 10 s.
    started = trio.current_time()
    stream = await connection.open_stream([HOP], lazy=True)
    await stream.send_all(varint.encode(100) + b"x")
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert 9 < trio.current_time() - started < 11


# Our side of a place


@dataclass
class FalseRelay:
    """A relay that says whatever a test wants."""

    host: Host
    answer: HopMessage
    asked: list[HopMessage] = field(default_factory=list)

    async def hop(self, stream: Stream) -> None:
        self.asked.append(HopMessage.decode(await read_message(stream, MAX_MESSAGE)))
        await send_message(stream, self.answer.encode())


async def false_relay(
    make_host: MakeHost, reservation: Reservation | None, status: int = Status.OK
) -> tuple[FalseRelay, RelayClient, Connection]:
    """Return it, and a client that is connected with it."""
    false = FalseRelay(
        await make_host("relay"), HopMessage(HopType.STATUS, None, reservation, None, status)
    )
    false.host.handle(HOP, false.hop)
    bob = await make_host("bob")
    connection = await bob.dial(with_peer(false.host.listen_addrs()[0], false.host.peer_id))
    return false, RelayClient(bob), connection


async def connection_of(host: Host, name: str) -> Connection:
    """Return a host's connection with a peer that has dialled it."""
    await until(lambda: host.connection(key_of(name).peer_id) is not None, 5)
    connection = host.connection(key_of(name).peer_id)
    assert connection is not None
    return connection


def voucher(signer: str, relay: str, peer: str, expires: int) -> bytes:
    sealed = Voucher(key_of(relay).peer_id, key_of(peer).peer_id, expires)
    return sealed.seal(key_of(signer))


@pytest.mark.parametrize(
    ("signer", "named", "peer", "seconds"),
    [("eve", "relay", "bob", 3600), ("eve", "eve", "bob", 3600), ("relay", "relay", "eve", 3600)],
    ids=["forged", "of another relay", "for another peer"],
)
async def test_a_false_voucher_is_no_place(
    autojump_clock: object,
    make_host: MakeHost,
    signer: str,
    named: str,
    peer: str,
    seconds: int,
) -> None:
    false, client, connection = await false_relay(make_host, None)
    expires = int(false.host.environment.clock.now()) + seconds
    sealed = voucher(signer, named, peer, expires)
    false.answer = HopMessage(
        HopType.STATUS, reservation=Reservation(expires, (), sealed), status=Status.OK
    )
    with pytest.raises(PeerFault, match="relay-voucher"):
        await client.reserve(connection)


async def test_a_place_that_is_over_is_none(autojump_clock: object, make_host: MakeHost) -> None:
    false, client, connection = await false_relay(make_host, None)
    with pytest.raises(PeerFault, match="relay-reservation"):
        await client.reserve(connection)
    past = int(false.host.environment.clock.now()) - 5
    false.answer = HopMessage(HopType.STATUS, reservation=Reservation(past), status=Status.OK)
    with pytest.raises(PeerFault, match="relay-reservation"):
        await client.reserve(connection)


async def test_a_relay_binds_us_for_a_day_at_most_and_only_at_addresses_of_its_own(
    autojump_clock: object, make_host: MakeHost
) -> None:
    false, client, connection = await false_relay(make_host, None)
    now = int(false.host.environment.clock.now())
    here = host_port(connection.remote)
    assert here is not None
    told = (
        tcp_addr("192.168.1.1", 80),
        tcp_addr("31.1.0.1", 80),
        with_peer(tcp_addr(here[0], 80), key_of("eve").peer_id),
        *(tcp_addr(here[0], port) for port in range(1, 13)),
    )
    false.answer = HopMessage(
        HopType.STATUS, reservation=Reservation(now + 10**9, told), status=Status.OK
    )
    given, carries = await client.reserve(connection)
    assert given.expires <= now + 24 * 3600 + 1
    assert carries
    assert len(given.addrs) == 4
    assert given.addrs[0] == with_peer(connection.remote, false.host.peer_id)
    assert all(str(addr).startswith(f"/ip4/{here[0]}/") for addr in given.addrs)
    assert all(str(addr).endswith(str(false.host.peer_id)) for addr in given.addrs)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.PERMISSION_DENIED, "a member"),
        (Status.RESERVATION_REFUSED, "no place free"),
        (777, "status 777"),
    ],
    ids=str,
)
async def test_a_refusal_is_told_in_words(
    autojump_clock: object, make_host: MakeHost, status: int, words: str
) -> None:
    _, client, connection = await false_relay(make_host, None, status)
    with pytest.raises(RelayRefused, match=words):
        await client.reserve(connection)


async def test_circuits_that_we_have_no_place_for_are_refused_and_counted(
    autojump_clock: object, make_host: MakeHost
) -> None:
    false, client, _ = await false_relay(make_host, None)
    back = await connection_of(false.host, "bob")
    for _ in range(3):
        stream = await back.open_stream([STOP], lazy=True)
        asked = StopMessage(StopType.CONNECT, key_of("eve").peer_id)
        await send_message(stream, asked.encode())
        answer = StopMessage.decode(await read_message(stream, MAX_MESSAGE))
        assert answer.status == Status.PERMISSION_DENIED
    host = client._host
    assert host.faults["relay-unasked"] == 3
    assert not back.closed


async def test_who_comes_over_a_relay_must_be_who_was_named(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    """A relay cannot pass one peer for another."""
    false, client, connection = await false_relay(make_host, None)
    client.places[false.host.peer_id] = Reservation(1 << 40)
    back = await connection_of(false.host, "bob")
    stream = await back.open_stream([STOP], lazy=True)
    asked = StopMessage(StopType.CONNECT, key_of("alice").peer_id)
    await send_message(stream, asked.encode())
    answer = StopMessage.decode(await read_message(stream, MAX_MESSAGE))
    assert answer.status == Status.OK
    circuit = CircuitStream(stream, limited=False)
    await false.host.maker.admit(circuit, key_of("bob").peer_id, initiator=True)
    await trio.sleep(1)
    assert client._host.connections() == [connection]
    assert client._host.faults["noise-wrong-peer"] == 1


async def test_circuits_without_end_are_bounded_at_their_target(
    autojump_clock: object, make_host: MakeHost
) -> None:
    """Each waits for a handshake, and only so many do at a time."""
    false, client, _ = await false_relay(make_host, None)
    client.places[false.host.peer_id] = Reservation(1 << 40)
    back = await connection_of(false.host, "bob")
    taken, reset = 0, 0
    for number in range(MAX_CIRCUITS_IN + 10):
        stream = await back.open_stream([STOP], lazy=True)
        asked = StopMessage(StopType.CONNECT, key_of(f"eve {number}").peer_id)
        await send_message(stream, asked.encode())
        try:
            await read_message(stream, MAX_MESSAGE)
            taken += 1
        except trio.BrokenResourceError:
            reset += 1
    assert (taken, reset) == (MAX_CIRCUITS_IN, 10)
    host = client._host
    assert host.faults["streams-of-protocol"] == 10
    await trio.sleep(60)
    assert len(host.connections()) == 1


# Circuits


async def placed(make_peer: MakePeer, server: Peer, name: str = "bob") -> Peer:
    peer = await make_peer(name, reachable=False, relays=(server.addr,))
    await until(lambda: len(peer.nat.keeper.places()) == 1)
    peer.host.unhandle("/libp2p/dcutr")
    return peer


async def test_circuits_of_one_peer_are_bounded(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer)
    bob = await placed(make_peer, server)
    eve = await make_host("eve")
    connection = await eve.dial(server.addr)
    asked = HopMessage(HopType.CONNECT, bob.id)
    statuses = [(await ask(connection, asked)).status for _ in range(MAX_CIRCUITS_PER_PEER + 3)]
    assert statuses.count(Status.OK) == MAX_CIRCUITS_PER_PEER
    assert statuses[-1] == Status.RESOURCE_LIMIT_EXCEEDED
    assert refused(server)["circuits-of-peer"] == 3
    # bob waits for handshakes that do not come, and then no longer.
    assert server.nat.relay is not None
    await until(lambda: not server.nat.relay.statistics().circuits, 30)  # type: ignore[union-attr]
    assert (await ask(connection, asked)).status == Status.OK


async def test_two_with_places_at_one_relay_reach_each_other(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    """What they tell are the same addresses, but for the peer."""
    server = await relay(make_peer)
    bob, alice = await placed(make_peer, server), await placed(make_peer, server, "alice")
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    assert await echoed(connection, b"hello") == b"hello"


async def test_circuits_that_wait_for_their_peer_count(
    autojump_clock: object,
    make_peer: MakePeer,
    make_host: MakeHost,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_server, "MAX_CIRCUITS", 4)
    server = await relay(make_peer)
    deaf = await make_host("deaf")

    async def never(stream: Stream) -> None:
        await trio.sleep_forever()

    deaf.handle(STOP, never)
    await ask(await deaf.dial(server.addr), RESERVE)
    found: list[int | None] = []
    async with trio.open_nursery() as nursery:

        async def call(number: int) -> None:
            host = await make_host(f"caller {number}")
            asked = HopMessage(HopType.CONNECT, deaf.peer_id)
            found.append((await ask(await host.dial(server.addr), asked)).status)

        for number in range(6):
            nursery.start_soon(call, number)
    assert found == [Status.RESOURCE_LIMIT_EXCEEDED] * 2 + [Status.CONNECTION_FAILED] * 4
    assert refused(server) == {"circuits-full": 2, "peer-did-not-answer": 4}


async def test_nothing_is_asked_over_a_relay(autojump_clock: object, make_peer: MakePeer) -> None:
    """Neither a place nor a circuit: else relays could be chained to a loop."""
    first = await relay(make_peer)
    second = await make_peer("second", reachable=False, relay="own", own=OWN, relays=(first.addr,))
    await until(lambda: len(second.nat.keeper.places()) == 1)
    bob = await placed(make_peer, first)
    alice = await make_peer("alice", reachable=False)
    connection = await alice.host.connect(second.id, [relayed_addr(first.addr)])
    assert connection.path is Path.RELAYED
    for message in RESERVE, HopMessage(HopType.CONNECT, bob.id):
        assert (await ask(connection, message)).status == Status.PERMISSION_DENIED
    assert refused(second)["over-a-relay"] == 2
    # And one that is itself reached over a relay only is no relay for us.
    chained = relayed_addr(with_peer(second.host.listen_addrs()[0], second.id))
    with pytest.raises(NetError):
        await alice.host.connect(bob.id, [chained])


async def test_a_limit_is_exact_in_both_directions(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    server = await relay(make_peer, RelayPolicy())
    deaf, got = await make_host("deaf"), bytearray()

    async def take(stream: Stream) -> None:
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, StopMessage(StopType.STATUS, status=Status.OK).encode())
        while data := await stream.receive_some():
            got.extend(data)

    deaf.handle(STOP, take)
    await ask(await deaf.dial(server.addr), RESERVE)
    host = await make_host("caller")
    stream = await (await host.dial(server.addr)).open_stream([HOP], lazy=True)
    await send_message(stream, HopMessage(HopType.CONNECT, deaf.peer_id).encode())
    answer = HopMessage.decode(await read_message(stream, MAX_MESSAGE))
    assert answer.limit == RENDEZVOUS
    await stream.send_all(b"x" * (90 << 10))
    await trio.sleep(5)
    assert len(got) == 90 << 10
    assert not stream.is_reset
    stream.queue(b"y" * (90 << 10))
    await until(lambda: stream.is_reset, 5)
    assert server.nat.relay is not None
    assert server.nat.relay.statistics().bytes == 128 << 10


async def test_a_limit_of_time_holds(autojump_clock: object, make_peer: MakePeer) -> None:
    server = await relay(make_peer, RelayPolicy(limit=Limit(120, 1 << 30)))
    bob = await placed(make_peer, server)
    alice = await make_peer("alice", reachable=False)
    started = trio.current_time()
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    await connection.open_stream([ECHO])
    await connection.wait_closed()
    assert 119 < trio.current_time() - started < 125


async def test_a_quota_is_for_a_day_and_refuses_with_its_reason(
    autojump_clock: object, make_peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_server, "DAY_SECONDS", 600.0)  # days are long to simulate
    server = await relay(make_peer, RelayPolicy(limit=None, quota=500_000))
    bob = await placed(make_peer, server)
    alice = await make_peer("alice", reachable=False)
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    with pytest.raises((NetError, trio.BrokenResourceError)):
        await echoed(connection, b"z" * 600_000)
    await until(lambda: connection.closed, 5)
    with pytest.raises(NetError, match="bytes of the day"):
        await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    assert server.nat.relay is not None
    assert server.nat.relay.left_today == 0
    assert server.nat.relay.statistics().bytes <= 500_000
    await trio.sleep(600)
    again = await alice.host.connect(bob.id, [relayed_addr(server.addr)], force=True)
    assert await echoed(again, b"z" * 100_000) == b"z" * 100_000


async def test_what_waits_for_slow_readers_does_not_break_an_honest_sender(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    """All that waits at the relay came over one connection, more than one may hold unread."""
    server = await relay(make_peer)
    targets = [await make_host(f"target {number}") for number in range(3)]

    async def read_nothing(stream: Stream) -> None:
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, StopMessage(StopType.STATUS, status=Status.OK).encode())
        await trio.sleep_forever()

    for target in targets:
        target.handle(STOP, read_nothing)
        await ask(await target.dial(server.addr), RESERVE)
    connection = await (await make_host("sender")).dial(server.addr)
    streams: list[Stream] = []
    for number in range(12):
        stream = await connection.open_stream([HOP], lazy=True)
        asked = HopMessage(HopType.CONNECT, targets[number % 3].peer_id)
        await send_message(stream, asked.encode())
        answer = HopMessage.decode(await read_message(stream, MAX_MESSAGE))
        assert answer.status == Status.OK
        stream.queue(bytes(1 << 20))
        streams.append(stream)
    await trio.sleep(20)
    there = server.host.connection(key_of("sender").peer_id)
    assert there is not None
    assert there.session.unread > MAX_UNREAD
    assert server.host.faults["unread-memory"] == 0
    assert not any(stream.is_reset for stream in streams)


# Keeping places


async def test_a_relay_that_is_none_any_more_is_left_at_once(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server = await relay(make_peer)
    bob = await placed(make_peer, server)
    server.nat.settings = type(server.nat.settings)(relay="off")
    server.nat._serve_as_relay(public=True)
    await until(lambda: not bob.nat.keeper.places(), 10)
    assert not any(map(is_relayed, bob.host.told_addrs()))


async def test_a_relay_that_refused_is_asked_less_and_less(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    others = [await make_peer(f"public{number}", relay="off") for number in range(3)]
    full = FalseRelay(
        await make_host("full"), HopMessage(HopType.STATUS, status=Status.RESERVATION_REFUSED)
    )
    full.host.handle(HOP, full.hop)
    bob = await make_peer("bob", reachable=False)
    for other in others:
        await bob.host.dial(other.addr)
    await bob.host.dial(with_peer(full.host.listen_addrs()[0], full.host.peer_id))
    await until(lambda: bool(full.asked))
    await trio.sleep(1000)
    assert 3 <= len(full.asked) <= 5  # then after 1, 2, 4, 8 and 16 minutes
    assert "no place free" in bob.nat.keeper.failures()[full.host.peer_id]
