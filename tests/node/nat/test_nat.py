"""Whole hosts: who cannot be reached finds out, gets places at relays, is reached, is punched."""

from __future__ import annotations

import pytest
import trio

from shoal.node.nat.relay_server import RelayPolicy
from shoal.node.net.errors import NetError
from shoal.node.net.paths import Path
from shoal.simulations.world import World
from shoal.wire.addresses import is_relayed, relayed_addr

from .conftest import MakePeer, Peer, echoed, join, publics, until


async def test_a_host_that_can_be_reached_knows_it_and_becomes_a_relay_for_meeting(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer)
    one = peers[1]
    await join(one, peers[2:])
    await until(lambda: one.nat.reachability == "public")
    await until(lambda: one.nat.relay is not None)
    assert one.nat.relay is not None
    assert one.nat.relay.policy.limit is not None
    assert one.nat.mapping == "none"
    assert not one.nat.keeper.places()


async def test_a_host_that_cannot_be_reached_tells_places_at_two_relays(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer)
    hidden = await make_peer("hidden", reachable=False)
    await join(hidden, peers)
    await until(lambda: hidden.nat.reachability == "private")
    await until(lambda: len(hidden.nat.keeper.places()) == 2)
    told = hidden.host.told_addrs()
    assert sum(map(is_relayed, told)) == 2
    assert not any(str(addr) in map(str, told) for addr in hidden.host.listen_addrs()[:1])
    assert hidden.changes[-1][0] == "private"


async def hidden_pair(make_peer: MakePeer, **relay: object) -> tuple[Peer, Peer, Peer]:
    """Return an own relay, a hidden host with a place there, and another hidden host."""
    policy = RelayPolicy(limit=None, **relay)  # type: ignore[arg-type]
    server = await make_peer("relay", relay="own", own=policy)
    bob = await make_peer("bob", reachable=False, relays=(server.addr,))
    await until(lambda: len(bob.nat.keeper.places()) == 1)
    alice = await make_peer("alice", reachable=False)
    return server, bob, alice


async def test_who_is_hidden_is_reached_through_its_relay_and_then_directly(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server, bob, alice = await hidden_pair(make_peer)
    await alice.host.dial(server.addr)  # and learns how it is seen
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    assert connection.path is Path.RELAYED
    assert not connection.limited
    assert await echoed(connection, b"x" * 300_000) == b"x" * 300_000
    await until(lambda: alice.host.connection(bob.id).path is Path.PUNCHED)  # type: ignore[union-attr]
    await until(lambda: bob.host.connection(alice.id).path is Path.PUNCHED)  # type: ignore[union-attr]
    direct = alice.host.connection(bob.id)
    assert direct is not None
    assert await echoed(direct, b"y" * 100_000) == b"y" * 100_000
    # The relayed connection ends when nothing uses it any more.
    await until(lambda: connection.closed)
    assert bob.nat.puncher.outcomes[alice.id].path is Path.PUNCHED


async def test_a_rendezvous_relay_lets_through_enough_to_punch_and_no_more(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer)
    bob = await make_peer("bob", reachable=False)
    await join(bob, peers)
    await until(lambda: len(bob.nat.keeper.places()) == 2)
    relayed = next(addr for addr in bob.host.told_addrs() if is_relayed(addr))
    alice = await make_peer("alice", reachable=False)
    await join(alice, peers)
    connection = await alice.host.connect(bob.id, [relayed])
    assert connection.limited
    await until(lambda: alice.host.connection(bob.id).path is Path.PUNCHED)  # type: ignore[union-attr]


async def test_a_limit_ends_a_circuit(autojump_clock: object, make_peer: MakePeer) -> None:
    peers = await publics(make_peer)
    bob = await make_peer("bob", reachable=False)
    await join(bob, peers)
    await until(lambda: len(bob.nat.keeper.places()) == 2)
    relayed = next(addr for addr in bob.host.told_addrs() if is_relayed(addr))
    stranger = await make_peer("stranger", reachable=False, serve=False)
    stranger.host.unhandle("/libp2p/dcutr")
    connection = await stranger.host.connect(bob.id, [relayed])
    with pytest.raises((NetError, trio.BrokenResourceError)):
        await echoed(connection, b"z" * 200_000)
    await until(lambda: connection.closed, 5.0)


async def test_members_only(autojump_clock: object, make_peer: MakePeer) -> None:
    from .conftest import key_of

    members = frozenset({key_of("bob").peer_id})
    server, bob, alice = await hidden_pair(make_peer, members=members)
    stranger = await make_peer("stranger", reachable=False, relays=(server.addr,))
    await until(lambda: server.id in stranger.nat.keeper.failures())
    assert "does not serve us" in stranger.nat.keeper.failures()[server.id]
    assert server.nat.relay is not None
    assert server.nat.relay.statistics().refused["no-member"] >= 1
    # Anybody may reach a member.
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    assert await echoed(connection, b"hello") == b"hello"


async def test_a_quota_holds(autojump_clock: object, make_peer: MakePeer) -> None:
    server, bob, alice = await hidden_pair(make_peer, quota=200_000)
    for peer in (bob, alice):
        peer.host.unhandle("/libp2p/dcutr")
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    with pytest.raises((NetError, trio.BrokenResourceError)):
        await echoed(connection, b"z" * 300_000)
    assert server.nat.relay is not None
    statistics = server.nat.relay.statistics()
    assert statistics.bytes <= 200_000
    assert statistics.refused["quota"] >= 1


async def test_relays_are_not_chained(autojump_clock: object, make_peer: MakePeer) -> None:
    server, bob, alice = await hidden_pair(make_peer)
    await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    looped = relayed_addr(server.addr, bob.id)
    with pytest.raises(NetError):
        await alice.host.connect(server.id, [looped], better=Path.DIRECT)


async def test_a_place_is_found_again_when_its_relay_is_gone(
    autojump_clock: object, world: World, make_peer: MakePeer
) -> None:
    peers = await publics(make_peer, 5)
    bob = await make_peer("bob", reachable=False)
    await join(bob, peers)
    await until(lambda: len(bob.nat.keeper.places()) == 2)
    first = bob.nat.keeper.places()[0].relay
    gone = next(peer for peer in peers if peer.id == first)
    await gone.host.aclose()
    await until(
        lambda: (
            len(bob.nat.keeper.places()) == 2
            and first not in [place.relay for place in bob.nat.keeper.places()]
        )
    )


async def test_a_reservation_is_renewed(autojump_clock: object, make_peer: MakePeer) -> None:
    server, bob, alice = await hidden_pair(make_peer)
    before = bob.nat.keeper.places()[0].expires
    await trio.sleep(2 * 3600)
    assert bob.nat.keeper.places()[0].expires > before + 3600
    assert server.nat.relay is not None
    assert server.nat.relay.statistics().places == 1
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    assert await echoed(connection, b"hello") == b"hello"
