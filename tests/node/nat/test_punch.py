"""Holes through two routers: which kinds can be passed, who plays which part, what is refused."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from multiaddr import Multiaddr

from shoal.node.nat.circuit import read_message, send_message
from shoal.node.nat.punch import AGAIN_SECONDS, MAX_DIALS, MAX_DOORS, MAX_INVITATIONS, SYNC_SECONDS
from shoal.node.nat.relay_client import RelayClient
from shoal.node.nat.relay_server import RelayPolicy
from shoal.node.net.connection import Connection
from shoal.node.net.errors import NetError
from shoal.node.net.host import Host
from shoal.node.net.paths import Path
from shoal.node.net.stream import Stream
from shoal.simulations.nat_box import NatBox, Rule
from shoal.simulations.world import World
from shoal.wire.addresses import Scope, is_relayed, relayed_addr, scope_of, tcp_addr
from shoal.wire.dcutr import MAX_MESSAGE, PROTOCOL, PunchMessage, PunchType
from shoal.wire.errors import PeerFault

from .conftest import MakeHost, MakePeer, Peer, echoed, join, publics, until

SAME: Rule = "endpoint-independent"
ANEW: Rule = "endpoint-dependent"
KINDS: dict[str, tuple[Rule, Rule]] = {
    "open": (SAME, SAME),
    "strict": (SAME, ANEW),
    "symmetric": (ANEW, ANEW),
}


def router(world: World, name: str, kind: str) -> NatBox:
    mapping, filtering = KINDS[kind]
    return world.network.box(f"router of {name}", mapping=mapping, filtering=filtering)


async def behind_routers(
    world: World, make_peer: MakePeer, alices: str, bobs: str
) -> tuple[Peer, Peer, Peer]:
    """Return an own relay, alice, and bob who has a place there; both know how they are seen."""
    others = await publics(make_peer)
    server = await make_peer("relay", relay="own", own=RelayPolicy(limit=None))
    bob = await make_peer("bob", behind=router(world, "bob", bobs), relays=(server.addr,))
    alice = await make_peer("alice", behind=router(world, "alice", alices))
    for peer in (bob, alice):
        await join(peer, [*others, server])
    await until(lambda: len(bob.nat.keeper.places()) == 1)
    for peer in (bob, alice):
        await until(lambda peer=peer: peer.nat.reachability != "unknown")  # type: ignore[misc]
    return server, alice, bob


PAIRS = {
    ("open", "strict"): Path.DIRECT,
    ("strict", "open"): Path.DIRECT,
    ("strict", "strict"): Path.PUNCHED,
    ("symmetric", "open"): Path.DIRECT,
    ("open", "symmetric"): Path.DIRECT,
    ("strict", "symmetric"): Path.RELAYED,
    ("symmetric", "strict"): Path.RELAYED,
    ("symmetric", "symmetric"): Path.RELAYED,
}
"""(who dials, who is dialled) and the path that theory gives them."""


@pytest.mark.parametrize(("pair", "path"), PAIRS.items(), ids=lambda value: str(value))
async def test_the_path_is_what_the_routers_allow(
    autojump_clock: object,
    world: World,
    make_peer: MakePeer,
    pair: tuple[str, str],
    path: Path,
) -> None:
    _, alice, bob = await behind_routers(world, make_peer, *pair)
    told = [a for a in bob.host.told_addrs() if is_relayed(a) or scope_of(a) is Scope.GLOBAL]
    await alice.host.connect(bob.id, told)
    if pair[1] != "open":
        await until(lambda: alice.id in bob.nat.puncher.outcomes)
        outcome = bob.nat.puncher.outcomes[alice.id]
        assert outcome.path is (None if path is Path.RELAYED else path)
        if path is Path.RELAYED:
            assert outcome.attempts == 3
            assert outcome.text
    await trio.sleep(1)
    connection = alice.host.connection(bob.id)
    assert connection is not None
    assert connection.path is path
    assert await echoed(connection, b"x" * 100_000) == b"x" * 100_000


async def test_the_kind_of_nat_is_seen_and_told(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    _, alice, bob = await behind_routers(world, make_peer, "strict", "symmetric")
    assert alice.nat.mapping == "endpoint-independent"
    assert bob.nat.mapping == "endpoint-dependent"
    assert alice.nat.reachability == bob.nat.reachability == "private"


async def test_a_kind_of_nat_that_becomes_known_is_a_change(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    """Though nobody tests addresses here, and none of ours is another one."""
    others = [await make_peer(f"public{number}", serve=False) for number in range(3)]
    hidden = await make_peer("hidden", behind=router(world, "hidden", "symmetric"), serve=False)
    await join(hidden, others)
    await until(lambda: hidden.nat.mapping == "endpoint-dependent")
    await trio.sleep(5)
    assert hidden.changes
    assert {state for state, _ in hidden.changes} == {"unknown"}


async def test_who_was_invited_is_the_client_of_the_punched_connection(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    server, alice, bob = await behind_routers(world, make_peer, "strict", "strict")
    await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    await until(lambda: path_of(alice, bob) is Path.PUNCHED)
    await until(lambda: path_of(bob, alice) is Path.PUNCHED)
    hers, his = alice.host.connection(bob.id), bob.host.connection(alice.id)
    assert hers is not None
    assert his is not None
    assert (hers.direction, his.direction) == ("out", "in")
    # They are the two ends of one connection, at the addresses that the world sees.
    assert str(hers.remote).startswith(f"/ip4/{world.network.places['router of bob'].ips[0]}/")
    assert hers.handshake_hash == his.handshake_hash


def path_of(one: Peer, other: Peer) -> Path | None:
    connection = one.host.connection(other.id)
    return None if connection is None else connection.path


async def test_a_hole_that_closes_is_made_again(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    server, alice, bob = await behind_routers(world, make_peer, "strict", "strict")
    relayed = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    stream = await relayed.open_stream(["/test/echo"])  # keeps the relayed connection
    await until(lambda: path_of(alice, bob) is Path.PUNCHED)
    await until(lambda: path_of(bob, alice) is Path.PUNCHED)
    hole = alice.host.connection(bob.id)
    assert hole is not None
    hole.close("gone")
    await until(lambda: path_of(alice, bob) is Path.RELAYED)
    await until(lambda: path_of(alice, bob) is Path.PUNCHED, AGAIN_SECONDS)
    assert not relayed.closed
    await stream.aclose()


# Those who do not mean it


class Rogue:
    """A host that was dialled over a relay, or dialled, and says whatever it likes of holes."""

    def __init__(self, host: Host, addrs: list[Multiaddr]) -> None:
        self.host = host
        self.addrs = addrs
        self.invited = 0
        self.refused = 0
        cast(Any, host.environment.transport).place.reachable = False
        host.handle(PROTOCOL, self.answer)

    async def answer(self, stream: Stream) -> None:
        """Take an invitation, with made-up addresses."""
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, PunchMessage(PunchType.CONNECT, tuple(self.addrs)).encode())
        await read_message(stream, MAX_MESSAGE)
        self.invited += 1

    async def invite(self, connection: Connection) -> None:
        """Invite with made-up addresses."""
        try:
            async with await connection.open_stream([PROTOCOL]) as stream:
                said = PunchMessage(PunchType.CONNECT, tuple(self.addrs))
                await send_message(stream, said.encode())
                await read_message(stream, MAX_MESSAGE)
                await send_message(stream, PunchMessage(PunchType.SYNC).encode())
                await read_message(stream, MAX_MESSAGE)
        except (PeerFault, trio.BrokenResourceError, NetError):
            self.refused += 1


class Doors:
    """Places at which somebody knocks."""

    def __init__(self, world: World, count: int) -> None:
        self.ips = [f"31.{number}.0.1" for number in range(count)]
        self.knocks: list[str] = []
        for number, ip in enumerate(self.ips):
            place = world.network.place(f"door {number}", [ip])
            place.listeners[ip, 80] = cast(Any, self.Bell(self.knocks, ip))

    class Bell:
        def __init__(self, knocks: list[str], ip: str) -> None:
            self._knocks = knocks
            self._ip = ip

        @property
        def full(self) -> bool:
            self._knocks.append(self._ip)
            return True


async def relayed_pair(
    make_peer: MakePeer, make_host: MakeHost, addrs: list[Multiaddr]
) -> tuple[Peer, Peer, Rogue]:
    """Return a relay, a hidden host with a place there, and a rogue."""
    server = await make_peer("relay", relay="own", own=RelayPolicy(limit=None))
    bob = await make_peer("bob", reachable=False, relays=(server.addr,))
    await until(lambda: len(bob.nat.keeper.places()) == 1)
    rogue = Rogue(await make_host("rogue"), addrs)
    await rogue.host.dial(server.addr)
    return server, bob, rogue


async def test_made_up_addresses_make_us_knock_at_few_doors(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    doors = Doors(world, 16)
    addrs = [tcp_addr(ip, 80) for ip in doors.ips]
    server, bob, rogue = await relayed_pair(make_peer, make_host, addrs)
    circuits = await dial_over(rogue.host, server, bob)
    await until(lambda: rogue.host.peer_id in bob.nat.puncher.outcomes)
    assert rogue.invited == 3
    assert len(set(doors.knocks)) == MAX_DIALS
    assert len(doors.knocks) <= 3 * MAX_DIALS
    assert bob.nat.puncher.outcomes[rogue.host.peer_id].path is None
    assert not circuits.closed


async def dial_over(host: Host, server: Peer, target: Peer) -> Connection:
    """Dial over a relay as one who has no relay client of its own."""
    RelayClient(host)
    return await host.connect(target.id, [relayed_addr(server.addr)])


async def invited_by_rogue(
    make_peer: MakePeer, make_host: MakeHost, addrs: list[Multiaddr]
) -> tuple[Peer, Rogue, Connection]:
    """Return a host that dialled a rogue over a relay, the rogue, and its end of the connection."""
    server = await make_peer("relay", relay="own", own=RelayPolicy(limit=None))
    rogue = Rogue(await make_host("rogue"), addrs)
    client = RelayClient(rogue.host)
    place, _ = await client.reserve(await rogue.host.dial(server.addr))
    client.places[server.id] = place
    alice = await make_peer("alice", reachable=False)
    await alice.host.connect(rogue.host.peer_id, [relayed_addr(server.addr)])
    await until(lambda: rogue.host.connection(alice.id) is not None)
    connection = rogue.host.connection(alice.id)
    assert connection is not None
    return alice, rogue, connection


async def test_we_never_knock_at_doors_of_our_own_network(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    inner = world.network.place("printer", ["192.168.1.9"])
    knocks: list[str] = []
    inner.listeners["192.168.1.9", 80] = cast(Any, Doors.Bell(knocks, "192.168.1.9"))
    own = [tcp_addr(ip, 80) for ip in ("192.168.1.9", "127.0.0.1", "10.0.0.1")]
    server, bob, rogue = await relayed_pair(make_peer, make_host, own)
    world.network.places["bob"].listeners["127.0.0.1", 80] = cast(Any, Doors.Bell(knocks, "lo"))
    await dial_over(rogue.host, server, bob)
    await until(lambda: rogue.host.peer_id in bob.nat.puncher.outcomes)
    assert "does not know" in bob.nat.puncher.outcomes[rogue.host.peer_id].text
    assert not knocks


async def test_many_made_up_peers_together_get_few_doors_opened(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    doors = Doors(world, 80)
    server, bob, _ = await relayed_pair(make_peer, make_host, [])
    started = trio.current_time()
    for number in range(16):
        addrs = [tcp_addr(ip, 80) for ip in doors.ips[4 * number :][:4]]
        rogue = Rogue(await make_host(f"rogue {number}"), addrs)
        await rogue.host.dial(server.addr)
        await dial_over(rogue.host, server, bob)
    await until(lambda: len(bob.nat.puncher.outcomes) >= 10)
    assert trio.current_time() - started < 60
    assert len(doors.knocks) <= MAX_DOORS
    assert bob.host.faults["punch-doors"] > 0


async def test_invitations_without_end_are_refused_and_counted(
    autojump_clock: object, world: World, make_peer: MakePeer, make_host: MakeHost
) -> None:
    doors = Doors(world, 4)
    addrs = [tcp_addr(ip, 80) for ip in doors.ips]
    alice, rogue, connection = await invited_by_rogue(make_peer, make_host, addrs)
    before = trio.current_time()
    for _ in range(20):
        await rogue.invite(connection)
    assert trio.current_time() - before < 60
    assert alice.host.faults["punch-too-often"] == 20 - MAX_INVITATIONS
    assert len(doors.knocks) <= MAX_INVITATIONS * MAX_DIALS


async def test_nobody_is_invited_over_a_direct_connection(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    alice = await make_peer("alice")
    rogue = Rogue(await make_host("rogue"), [tcp_addr("31.1.0.1", 80)])
    await rogue.invite(await rogue.host.dial(alice.addr))
    assert alice.host.faults["punch-order"] == 1


async def test_one_that_never_gives_the_sign_is_not_waited_for(
    autojump_clock: object, make_peer: MakePeer, make_host: MakeHost
) -> None:
    _, _, connection = await invited_by_rogue(make_peer, make_host, [])
    stream = await connection.open_stream([PROTOCOL])
    said = PunchMessage(PunchType.CONNECT, (tcp_addr("31.1.0.1", 80),))
    await send_message(stream, said.encode())
    await read_message(stream, MAX_MESSAGE)
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        await read_message(stream, MAX_MESSAGE)
    assert trio.current_time() - started < 2 * SYNC_SECONDS
