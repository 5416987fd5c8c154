"""The ladder: what each rung says of hosts of several kinds, and what it advises."""

from __future__ import annotations

from collections import Counter

from shoal.node.events_reach import Rung
from shoal.node.nat.doctor import Facts, climb
from shoal.node.nat.relay_server import RelayPolicy
from shoal.simulations.world import World
from shoal.wire.addresses import relayed_addr
from shoal.wire.dcutr import PROTOCOL

from .conftest import MakePeer, Peer, join, publics, until

NAMES = [
    "interfaces",
    "local network",
    "QUIC",
    "peers",
    "port mapping",
    "observed addresses",
    "reachability",
    "NAT",
    "relays",
    "hole punching",
]


def examine(peer: Peer) -> dict[str, Rung]:
    host = peer.host
    paths = Counter(connection.path for connection in host.connections())
    rungs = climb(Facts(host.listen_addrs(), peer.nat, None, None, paths, 7))
    assert [rung.name for rung in rungs] == NAMES
    for rung in rungs:
        assert rung.verdict == "ok" or rung.next_step or rung.verdict == "unknown", rung
    return {rung.name: rung for rung in rungs}


async def test_who_is_alone_is_told_to_name_a_node(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    rungs = examine(await make_peer("alone"))
    assert rungs["interfaces"].verdict == "ok"
    assert rungs["peers"].verdict == "fail"
    assert "--bootstrap" in (rungs["peers"].next_step or "")
    assert rungs["reachability"].verdict == "unknown"
    assert rungs["relays"].verdict == "warn"


async def test_who_can_be_reached_needs_nothing(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer, 5)
    await join(peers[1], peers[2:])
    await until(lambda: peers[1].nat.reachability == "public")
    await until(lambda: peers[1].nat.observations.confirmed())
    rungs = examine(peers[1])
    found = {name: rungs[name].verdict for name in NAMES[5:]}
    assert set(found.values()) == {"ok"}, found
    assert "there is none" in rungs["NAT"].text
    assert "none are needed" in rungs["relays"].text
    assert "can be reached" in rungs["reachability"].text


async def test_a_symmetric_nat_is_named_and_an_own_relay_advised(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer, 4)
    for peer in peers[1:]:
        await join(peer, [other for other in peers if other is not peer])
    await until(lambda: all(peer.nat.relay is not None for peer in peers))
    kind = "endpoint-dependent"
    hidden = await make_peer("hidden", behind=world.network.box("box", mapping=kind))  # type: ignore[arg-type]
    await join(hidden, peers)
    await until(lambda: len(hidden.nat.keeper.places()) == 2)
    await until(lambda: hidden.nat.reachability == "private")
    rungs = examine(hidden)
    assert rungs["reachability"].verdict == "warn"
    assert "anew for each peer" in rungs["NAT"].text
    assert "--relay" in (rungs["NAT"].next_step or "")
    assert rungs["relays"].text == "places at 2 relays; none of them carries content"
    assert "--via" in (rungs["relays"].next_step or "")
    assert rungs["hole punching"].verdict == "unknown"


async def test_a_failed_hole_matters_only_where_no_relay_carries_content(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server = await make_peer("relay", relay="own", own=RelayPolicy(limit=None, quota=10**9))
    bob = await make_peer("bob", reachable=False, relays=(server.addr,))
    await until(lambda: len(bob.nat.keeper.places()) == 1)
    alice = await make_peer("alice", reachable=False)
    alice.host.unhandle(PROTOCOL)
    await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    await until(lambda: bob.nat.puncher.outcomes)
    rungs = examine(bob)
    assert rungs["hole punching"].verdict == "ok"
    assert "failed with 1 peer" in rungs["hole punching"].text
    assert "a relay carries content instead" in rungs["hole punching"].text
    assert rungs["relays"].text == "a place at one relay, which carries content"
    own = examine(server)["relays"]
    assert own.verdict == "ok"
    assert "a relay that carries content: " in own.text
    assert "1.0 GB left today" in own.text


async def test_why_a_named_relay_gives_no_place_is_told(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    members = frozenset({(await make_peer("friend")).id})
    policy = RelayPolicy(limit=None, members=members)
    server = await make_peer("relay", relay="own", own=policy)
    bob = await make_peer("bob", reachable=False, relays=(server.addr,))
    await until(lambda: bob.nat.keeper.failures())
    rung = examine(bob)["relays"]
    assert rung.verdict == "warn"
    assert "its owner has to name this node a member" in rung.text
