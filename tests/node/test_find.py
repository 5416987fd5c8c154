"""Many nodes in one DHT, in virtual time, over a network of memory streams."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from multiaddr import Multiaddr
from trio.testing import MockClock

from shoal.dht.keyspace import K, nearest
from shoal.dht.upkeep import UpkeepConfig
from shoal.node.environment import Environment
from shoal.node.find import Dht, DhtConfig
from shoal.node.find_memory import ShortMemory
from shoal.node.find_walk import NothingFound, Walked
from shoal.node.net.errors import StreamRefused, Unreachable
from shoal.wire.addresses import Scope
from shoal.wire.delimited import DelimitedReader, frame
from shoal.wire.errors import PeerFault
from shoal.wire.ids import PeerId
from shoal.wire.kad import Connectedness, KadMessage, KadPeer, MessageType

KAD = "/shoal/kad/1.0.0"
LATENCY = 0.05
CONTENT = b"\x12\x20" + bytes(32)
Handler = Callable[[Any], Awaitable[None]]


def peer_id(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def address(number: int) -> Multiaddr:
    return Multiaddr(f"/ip4/{1 + number % 99}.{number // 99 + 1}.0.1/tcp/4001")


class FakePeerstore:
    def __init__(self) -> None:
        self.known: dict[PeerId, dict[Multiaddr, None]] = {}

    def add(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        *,
        told_over: Scope | None = None,
        ttl: float | None = None,
    ) -> None:
        self.known.setdefault(peer, {}).update(dict.fromkeys(addrs))

    def addrs(self, peer: PeerId) -> list[Multiaddr]:
        return list(self.known.get(peer, ()))


@dataclass
class FakeConnection:
    peer_id: PeerId
    direction: str
    remote: Multiaddr
    host: FakeHost
    info: Any = None
    scope: Scope = Scope.GLOBAL


class FakeStream:
    """A memory stream with what the DHT wants of a muxed one."""

    def __init__(self, inner: trio.StapledStream[Any, Any], connection: FakeConnection) -> None:
        self.inner = inner
        self.connection = connection
        self.was_reset = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.was_reset:
            raise trio.ClosedResourceError
        return cast(bytes, await self.inner.receive_some(max_bytes))

    async def send_all(self, data: bytes) -> None:
        await trio.sleep(LATENCY)
        if not self.connection.host.alive:
            await trio.sleep_forever()
        await self.inner.send_all(data)

    def reset(self, reason: str = "") -> None:
        self.was_reset = True
        self.inner.send_stream.close()
        self.inner.receive_stream.close()

    async def aclose(self) -> None:
        await self.inner.aclose()


class FakeHost:
    """As much of a host as the DHT uses, joined to others by memory streams."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.peer_id = peer_id(number)
        self.addr = address(number)
        self.peerstore = FakePeerstore()
        self.faults: Counter[str] = Counter()
        self.on_identified: list[Callable[[Any], None]] = []
        self.handlers: dict[str, Handler] = {}
        self.open: dict[PeerId, FakeConnection] = {}
        self.dials = 0
        self.alive = True

    def told_addrs(self) -> list[Multiaddr]:
        return [self.addr]

    def connection(self, peer: PeerId) -> FakeConnection | None:
        return self.open.get(peer)

    def connections(self) -> list[FakeConnection]:
        return list(self.open.values())

    def handle(self, protocol: str, handler: Handler, *, max_inbound: int = 0) -> None:
        self.handlers[protocol] = handler

    def unhandle(self, protocol: str) -> None:
        del self.handlers[protocol]

    async def run_handler(self, handler: Handler, stream: FakeStream) -> None:
        """Run a handler as a connection does: faults are counted and end its stream."""
        try:
            await handler(stream)
            await stream.aclose()
        except PeerFault as fault:
            self.faults[fault.reason] += 1
            stream.reset()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            stream.reset()

    async def dial(self, addr: Multiaddr) -> FakeConnection:
        other = self.world.by_addr.get(addr)
        self.dials += 1
        if other is None or not other.alive:
            await trio.sleep(5)
            raise Unreachable(str(addr), [(str(addr), "nobody answers")])
        return await self._connected(other)

    async def _connected(self, other: FakeHost) -> FakeConnection:
        if other.peer_id not in self.open:
            await trio.sleep(2 * LATENCY)
            ours = FakeConnection(other.peer_id, "out", other.addr, other)
            theirs = FakeConnection(self.peer_id, "in", Multiaddr("/ip4/9.9.9.9/tcp/1"), self)
            theirs.remote = Multiaddr(str(self.addr).replace("/tcp/4001", "/tcp/50000"))
            self.open[other.peer_id] = ours
            other.open[self.peer_id] = theirs
            for host, connection in ((self, ours), (other, theirs)):
                says = connection.host
                connection.info = SimpleNamespace(
                    listen_addrs=says.told_addrs(), protocols=list(says.handlers)
                )
                for tell in host.on_identified:
                    tell(connection)
        return self.open[other.peer_id]

    async def open_stream(
        self, peer: PeerId, protocols: Sequence[str], addrs: Iterable[Multiaddr] = ()
    ) -> FakeStream:
        assert peer != self.peer_id, "a node must not call itself"
        connection = self.open.get(peer)
        if connection is None:
            known = [*addrs, *self.peerstore.addrs(peer)]
            hosts = [self.world.by_addr[a] for a in known if a in self.world.by_addr]
            match = [h for h in hosts if h.peer_id == peer and h.alive]
            if not match:
                await trio.sleep(5)
                raise Unreachable(str(peer), [])
            connection = await self._connected(match[0])
        other = connection.host
        if not other.alive:
            del self.open[peer]
            await trio.sleep(5)
            raise Unreachable(str(peer), [])
        await trio.sleep(LATENCY)
        handler = other.handlers.get(protocols[0])
        if handler is None:
            raise StreamRefused(f"{peer} does not speak {protocols[0]}")
        near, far = trio.testing.memory_stream_pair()
        inbound = FakeStream(far, other.open[self.peer_id])
        self.world.nursery.start_soon(other.run_handler, handler, inbound)
        return FakeStream(near, connection)


@dataclass
class World:
    nursery: trio.Nursery
    by_addr: dict[Multiaddr, FakeHost] = field(default_factory=dict)
    dhts: list[Dht] = field(default_factory=list)
    hosts: list[FakeHost] = field(default_factory=list)
    scopes: dict[PeerId, trio.CancelScope] = field(default_factory=dict)

    def kill(self, hosts: Iterable[FakeHost]) -> None:
        """Let nodes vanish without a word."""
        for host in hosts:
            host.alive = False
            self.scopes[host.peer_id].cancel()

    async def node(
        self,
        number: int,
        *,
        mode: str = "server",
        memory: ShortMemory | None = None,
        config: DhtConfig | None = None,
    ) -> tuple[FakeHost, Dht, trio.CancelScope]:
        host = FakeHost(self, number)
        self.by_addr[host.addr] = host
        dht = Dht(
            environment(number),
            cast(Any, host),
            config or DhtConfig(mode=cast(Any, mode)),
            memory,
        )
        scope = trio.CancelScope()

        async def life(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await dht.run(task_status=task_status)
            host.alive = False

        await self.nursery.start(life)
        self.scopes[host.peer_id] = scope
        self.hosts.append(host)
        self.dhts.append(dht)
        return host, dht, scope

    async def swarm(self, count: int, first: int = 0) -> None:
        """Start nodes that join, one after the other, through a random earlier one."""
        draw = random.Random(count)
        for number in range(first, first + count):
            earlier = list(self.hosts)
            _, dht, _ = await self.node(number)
            if earlier:
                joined = await dht.bootstrap([draw.choice(earlier).addr])
                assert joined.reached == 1
        await trio.sleep(30)


class InlineClock:
    def now(self) -> float:
        return 1.9e9 + trio.current_time()


class SeededRandom:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} {name}")

    def secret(self, count: int) -> bytes:
        return bytes(count)


async def inline(function: Callable[..., Any], *args: Any, limiter: Any = None) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*args)


def environment(seed: int) -> Environment:
    nothing = cast(Any, None)
    return Environment(nothing, InlineClock(), SeededRandom(seed), cast(Any, inline), nothing)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery)
        nursery.cancel_scope.cancel()


async def providers_of(dht: Dht, multihash: bytes) -> dict[PeerId, tuple[Multiaddr, ...]]:
    return {found.peer_id: found.addrs async for found in dht.find_providers(multihash)}


async def test_forty_nodes_join_announce_and_find(autojump_clock: MockClock, world: World) -> None:
    await world.swarm(40)
    announcers = world.dhts[3:6]
    for dht in announcers:
        assert await dht.announce(CONTENT) == 20
    for seeker in (world.dhts[20], world.dhts[39]):
        search = seeker.find_providers(CONTENT)
        found = {item.peer_id: item.addrs async for item in search}
        assert set(found) == {host.peer_id for host in world.hosts[3:6]}
        assert found[world.hosts[3].peer_id] == (world.hosts[3].addr,)
        assert 0 < search.answered <= search.asked < 30
        assert search.found == 3
        assert search.nothing is None
    # The records lie with the peers that really are nearest.
    everyone = [host.peer_id for host in world.hosts]
    near = nearest(everyone, PeerId(CONTENT).key, lambda p: p.key)[:20]
    for host, dht in zip(world.hosts, world.dhts, strict=True):
        if host.peer_id in near and dht not in announcers:
            assert dht.statistics().records == 3


async def test_what_nobody_has_is_not_found_and_the_reason_said(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(10)
    search = world.dhts[1].find_providers(CONTENT)
    assert [item async for item in search] == []
    assert search.nothing is NothingFound.NOBODY_HAD_IT
    assert search.asked >= 3
    _, lonely, _ = await world.node(99)
    search = lonely.find_providers(CONTENT)
    assert [item async for item in search] == []
    assert search.nothing is NothingFound.NO_PEERS_KNOWN
    assert await lonely.announce(CONTENT) == 0


async def test_a_dead_bootstrap_peer_is_named_with_its_reason(
    autojump_clock: MockClock, world: World
) -> None:
    _, dht, _ = await world.node(0)
    joined = await dht.bootstrap([address(77)])
    assert joined.reached == 0
    assert str(address(77)) in joined.failures[0]
    assert "nobody answers" in joined.failures[0]
    # It is tried again when it comes up.
    await world.node(77)
    await trio.sleep(30)
    assert len(dht.table()) == 1


async def test_what_nobody_could_take_is_announced_as_soon_as_there_is_somebody(
    autojump_clock: MockClock, world: World
) -> None:
    _, dht, _ = await world.node(0)
    told: list[int] = []
    dht.on_announced.append(lambda multihash, peers: told.append(peers))
    assert await dht.announce(CONTENT) == 0
    await world.node(1)
    await world.dhts[1].bootstrap([world.hosts[0].addr])
    await trio.sleep(2)
    assert told == [0, 1]


@pytest.mark.parametrize("by_sweep", [False, True])
async def test_a_join_while_a_lookup_runs_is_not_missed_for_announcements(
    autojump_clock: MockClock, world: World, by_sweep: bool
) -> None:
    _, dht, _ = await world.node(0)
    told: list[int] = []
    dht.on_announced.append(lambda multihash, peers: told.append(peers))
    announcer = dht._announcer
    look = announcer._finder.nearest

    async def slowly(key: bytes, width: int = K) -> Walked:
        walked = await look(key, width)  # of the empty table
        if not told:
            await world.dhts[1].bootstrap([world.hosts[0].addr])
            await trio.sleep(2)
            assert dht.table()
        return walked

    announcer._finder = cast(Any, SimpleNamespace(nearest=slowly))
    await world.node(1)
    if by_sweep:
        await dht.announce_soon([CONTENT])
    else:
        await dht.announce(CONTENT)
    await trio.sleep(5)
    assert told == [0, 1]


async def test_a_client_is_found_but_serves_nobody_and_is_in_no_table(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(22)
    host, client, _ = await world.node(50, mode="client")
    await client.bootstrap([world.hosts[0].addr])
    assert KAD not in host.handlers
    await trio.sleep(700)
    assert all(host.peer_id not in [row.peer_id for row in d.table()] for d in world.dhts[:22])
    _, stranger, _ = await world.node(51)
    await stranger.bootstrap([world.hosts[9].addr])
    assert await stranger.find_peer(host.peer_id) == [host.addr]
    assert await client.announce(CONTENT) == 20
    assert await providers_of(stranger, CONTENT) == {host.peer_id: (host.addr,)}


async def test_a_server_is_found_and_who_is_unknown_is_not(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(18)
    assert world.hosts[17].addr in await world.dhts[3].find_peer(world.hosts[17].peer_id)
    found = await world.dhts[3].look_for_peer(peer_id(12345))
    assert found.addrs == ()
    assert found.nothing is NothingFound.NOBODY_HAD_IT
    assert found.asked >= 3


async def test_a_third_dies_and_what_was_announced_is_still_found(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(24)
    await world.dhts[2].announce(CONTENT)
    world.kill(world.hosts[8:16])
    assert set(await providers_of(world.dhts[22], CONTENT)) == {world.hosts[2].peer_id}
    await trio.sleep(1300)
    dead = {host.peer_id for host in world.hosts[8:16]}
    for dht in world.dhts[:8] + world.dhts[16:]:
        assert not dead & {row.peer_id for row in dht.table()}


async def test_when_all_who_took_a_record_are_gone_it_is_renewed(
    autojump_clock: MockClock, world: World
) -> None:
    quiet = DhtConfig(upkeep=UpkeepConfig(refresh=7200, ask_silent=3600, save=7200))
    for number in range(10):
        _, dht, _ = await world.node(number, config=quiet)
        if number:
            await dht.bootstrap([world.hosts[0].addr])
    await world.dhts[1].announce(CONTENT)
    for number in range(10, 20):  # those that took the record go, others come
        _, dht, _ = await world.node(number, config=quiet)
        await dht.bootstrap([world.hosts[1].addr])
    world.kill(world.hosts[2:10])
    told: list[tuple[bytes, int]] = []
    world.dhts[1].on_announced.append(lambda multihash, peers: told.append((multihash, peers)))
    await trio.sleep(3.2 * 3600)
    assert told[-1] == (CONTENT, 11)
    assert len(told) == 3  # hourly, since the network is small
    assert set(await providers_of(world.dhts[15], CONTENT)) == {world.hosts[1].peer_id}


async def test_a_restart_needs_no_bootstrap_peer(autojump_clock: MockClock, world: World) -> None:
    await world.swarm(15)
    memory = ShortMemory()
    _, dht, scope = await world.node(50, memory=memory)
    await dht.bootstrap([world.hosts[4].addr])
    await dht.announce(CONTENT)
    scope.cancel()
    await trio.sleep(1)
    assert memory.peers(KAD)
    world.kill([world.hosts[4]])  # and the first contact is gone for good
    _, again, _ = await world.node(50, memory=memory)
    await trio.sleep(30)
    assert len(again.table()) >= 13
    assert again.statistics().announced == 1
    assert set(await providers_of(world.dhts[1], CONTENT)) == {peer_id(50)}


async def test_a_bare_peer_id_is_enough_for_a_peer_that_is_remembered(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(3)
    memory = ShortMemory()
    _, dht, scope = await world.node(50, memory=memory)
    await dht.bootstrap([world.hosts[1].addr])
    scope.cancel()
    await trio.sleep(1)
    _, again, _ = await world.node(50, memory=memory)
    joined = await again.bootstrap([peer_id(1), peer_id(77)])
    assert joined.reached == 1
    assert str(peer_id(77)) in joined.failures[0]


async def test_provider_records_outlive_a_restart(autojump_clock: MockClock, world: World) -> None:
    await world.swarm(2)
    memory = ShortMemory()
    _, keeper, scope = await world.node(50, memory=memory)
    await keeper.bootstrap([world.hosts[0].addr])
    await world.dhts[0].announce(CONTENT)
    await trio.sleep(1)
    assert keeper.statistics().records == 1
    scope.cancel()
    await trio.sleep(1)
    _, again, _ = await world.node(50, memory=memory)
    assert again.statistics().records == 1


async def test_many_contents_are_announced_for_few_lookups(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(22)
    dht = world.dhts[4]
    many = [b"\x12\x20" + n.to_bytes(32, "little") for n in range(200)]
    before = dht.statistics().sent.get("FIND_NODE", 0)
    await dht.announce_soon(many)
    await trio.sleep(60)
    after = dht.statistics().sent
    assert after["ADD_PROVIDER"] == 200 * 20
    assert after["FIND_NODE"] - before < 200
    for multihash in many[::40]:
        assert set(await providers_of(world.dhts[11], multihash)) == {world.hosts[4].peer_id}
    await dht.withdraw(many[0])
    assert dht.statistics().announced == 199


async def test_a_search_that_nobody_listens_to_ends_by_itself(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(10)
    await world.dhts[2].announce(CONTENT)
    async with world.dhts[5].find_providers(CONTENT) as search:
        assert (await search.__anext__()).peer_id == world.hosts[2].peer_id
    await trio.sleep(1)
    assert search.over


async def test_streams_are_used_again(autojump_clock: MockClock, world: World) -> None:
    await world.swarm(3)
    opened: list[PeerId] = []
    host, dht = world.hosts[0], world.dhts[0]
    real = host.open_stream

    async def counting(
        peer: PeerId, protocols: Sequence[str], addrs: Iterable[Multiaddr] = ()
    ) -> FakeStream:
        opened.append(peer)
        return await real(peer, protocols, addrs)

    host.open_stream = counting  # type: ignore[method-assign]
    for _ in range(5):
        await dht.nearest(CONTENT)
        await trio.sleep(1)
    assert len(opened) <= 2
    await trio.sleep(100)  # by now both sides have closed them
    assert len((await dht.nearest(CONTENT)).nearest) == 2


async def test_turning_client_stops_serving(autojump_clock: MockClock, world: World) -> None:
    await world.swarm(3)
    world.dhts[1].set_mode("client")
    assert KAD not in world.hosts[1].handlers
    world.dhts[1].set_mode("server")
    assert KAD in world.hosts[1].handlers


def raw_node(world: World, number: int, answer: Callable[[KadMessage], bytes | None]) -> FakeHost:
    """A peer that answers whatever `answer` makes of a request; None is silence."""

    async def serve(stream: FakeStream) -> None:
        reader = DelimitedReader(1 << 16)
        while data := await stream.receive_some():
            for request in reader.feed(data):
                made = answer(KadMessage.decode(request))
                if made is not None:
                    await stream.send_all(made)

    host = FakeHost(world, number)
    host.handlers[KAD] = serve
    world.by_addr[host.addr] = host
    return host


def entry(number: int, addr: str | None = None) -> KadPeer:
    where = Multiaddr(addr) if addr else address(number)
    return KadPeer(peer_id(number), (where,), Connectedness.NOT_CONNECTED)


HOSTILE: dict[str, Callable[[KadMessage], bytes | None]] = {
    "thousands": lambda m: frame(
        KadMessage(m.type, m.key, closer=tuple(entry(n) for n in range(1000, 1500))).encode()
    ),
    "itself and us": lambda m: frame(
        KadMessage(m.type, m.key, closer=(entry(66), entry(0))).encode()
    ),
    "bad places": lambda m: frame(
        KadMessage(
            m.type,
            m.key,
            closer=tuple(
                entry(1000 + n, addr)
                for n, addr in enumerate(
                    [
                        "/ip4/127.0.0.1/tcp/22",
                        "/ip4/192.168.0.1/tcp/80",
                        "/ip4/0.0.0.0/tcp/4001",
                        "/ip4/224.0.0.1/tcp/4001",
                        "/ip4/255.255.255.255/tcp/4001",
                    ]
                )
            ),
        ).encode()
    ),
    "another type": lambda m: frame(KadMessage(MessageType.PING, b"").encode()),
    "garbage": lambda m: b"\x05\xff\xff\xff\xff\xff",
    "endless frame": lambda m: b"\xff\xff\xff\x7f" + bytes(1000),
    "silence": lambda m: None,
    "two answers": lambda m: frame(KadMessage(m.type, m.key).encode()) * 2,
}


@pytest.mark.parametrize("way", HOSTILE)
async def test_a_hostile_peer_hinders_no_search(
    autojump_clock: MockClock, world: World, way: str
) -> None:
    await world.swarm(6)
    await world.dhts[1].announce(CONTENT)
    liar = raw_node(world, 66, HOSTILE[way])
    victim, host = world.dhts[0], world.hosts[0]
    host.peerstore.add(liar.peer_id, [liar.addr])
    await victim.bootstrap([liar.addr])
    dials = host.dials
    began = trio.current_time()
    assert set(await providers_of(victim, CONTENT)) == {world.hosts[1].peer_id}
    assert trio.current_time() - began < 30
    assert host.dials == dials
    if way == "bad places":
        assert all(peer_id(1000 + n) not in host.peerstore.known for n in range(5))
    if way in ("another type", "garbage", "endless frame", "two answers"):
        assert host.faults
        assert liar.peer_id not in [row.peer_id for row in victim.table()]
    if way == "silence":
        assert liar.peer_id not in [row.peer_id for row in victim.table()]


async def test_nobody_can_announce_for_another(autojump_clock: MockClock, world: World) -> None:
    await world.swarm(2)
    message = KadMessage(MessageType.ADD_PROVIDER, CONTENT, providers=(entry(7), entry(1)))
    stream = await world.hosts[1].open_stream(peer_id(0), [KAD])
    await stream.send_all(frame(message.encode()))
    await trio.sleep(1)
    assert set(await providers_of(world.dhts[0], CONTENT)) == {peer_id(1)}
    with trio.move_on_after(5) as waited:  # and no answer comes
        await stream.receive_some()
    assert waited.cancelled_caught
    await stream.aclose()


async def test_broken_requests_end_their_stream_and_are_counted(
    autojump_clock: MockClock, world: World
) -> None:
    await world.swarm(2)
    for data in (
        b"\x03\xff\xff\xff",
        b"\xff\xff\xff\xff\x7f",
        frame(KadMessage(MessageType.FIND_NODE, b"").encode()),
    ):
        stream = await world.hosts[1].open_stream(peer_id(0), [KAD])
        await stream.send_all(data)
        assert await stream.receive_some() == b""
        await stream.aclose()
    assert sum(world.hosts[0].faults.values()) == 3
