"""Which path is taken: no relay for meeting where content is to flow, and a hole when it pays."""

from __future__ import annotations

import pytest
import trio

from shoal.node.nat.punch import AGAIN_SECONDS, AGAIN_WANTED
from shoal.node.net.connection import Connection
from shoal.node.net.errors import Unreachable
from shoal.node.net.paths import Path
from shoal.wire.addresses import host_port, is_relayed, relayed_addr

from .conftest import MakePeer, Peer, join, publics, until
from .test_nat import hidden_pair


async def deaf_pair(make_peer: MakePeer) -> tuple[list[Peer], Peer, Peer]:
    """Return public peers, and two hidden ones that cannot punch: bob has places for meeting."""
    peers = await publics(make_peer)
    bob = await make_peer("bob", reachable=False)
    await join(bob, peers)
    await until(lambda: len(bob.nat.keeper.places()) == 2)
    alice = await make_peer("alice", reachable=False)
    await join(alice, peers)
    alice.host.unhandle("/libp2p/dcutr")
    return peers, bob, alice


async def test_a_relay_for_meeting_is_no_path_for_content(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    _, bob, alice = await deaf_pair(make_peer)
    relayed = [addr for addr in bob.host.told_addrs() if is_relayed(addr)]
    met = await alice.host.connect(bob.id, relayed[:1])
    assert met.limited
    with pytest.raises(Unreachable, match="carries no content"):
        await alice.host.connect(bob.id, relayed, carrying=True)
    assert not met.closed


async def test_a_relay_that_carries_content_is_found_behind_one_that_does_not(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    peers, bob, alice = await deaf_pair(make_peer)
    own = await make_peer("relay", relay="own")
    await bob.host.dial(own.addr)
    await bob.nat.relays.reserve(bob.host.connection(own.id))  # type: ignore[arg-type]
    bob.nat.relays.places.update({own.id: next(iter(bob.nat.relays.places.values()))})
    relayed = [addr for addr in bob.host.told_addrs() if is_relayed(addr)]
    assert (await alice.host.connect(bob.id, relayed[:1])).limited
    good = [*relayed, relayed_addr(own.addr)]
    carrying = await alice.host.connect(bob.id, good, carrying=True)
    assert not carrying.limited
    assert alice.host.connection(bob.id) is carrying
    assert len(peers) == 4


async def test_two_with_places_at_one_relay_reach_each_other_there(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server, bob, _ = await hidden_pair(make_peer)
    carol = await make_peer("carol", reachable=False, relays=(server.addr,))
    await until(lambda: len(carol.nat.keeper.places()) == 1)
    connection = await carol.host.connect(bob.id, [relayed_addr(server.addr)])
    assert connection.path is Path.RELAYED


async def test_content_on_a_relay_makes_the_two_try_again_soon(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    server, bob, alice = await hidden_pair(make_peer)
    alice.host.unhandle("/libp2p/dcutr")  # at first it does not take invitations
    connection = await alice.host.connect(bob.id, [relayed_addr(server.addr)])
    await until(lambda: alice.id in bob.nat.puncher.outcomes)
    assert bob.nat.puncher.outcomes[alice.id].path is None
    failed_at = trio.current_time()
    alice.host.handle("/libp2p/dcutr", alice.nat.puncher._invited)
    await trio.sleep(AGAIN_WANTED + 10)
    assert not _punched(alice, bob)
    theirs = bob.host.connection(alice.id)
    assert theirs is not None
    bob.host.carries(theirs)
    await until(lambda: _punched(alice, bob))
    assert trio.current_time() < failed_at + AGAIN_SECONDS
    await until(lambda: connection.closed)


def _punched(one: Peer, other: Peer) -> bool:
    connection: Connection | None = one.host.connection(other.id)
    return connection is not None and connection.path is Path.PUNCHED


async def test_attempts_after_the_first_use_a_fresh_port_that_is_told(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    _, bob, _ = await hidden_pair(make_peer)
    puncher = bob.nat.puncher
    own = host_port(bob.host.listen_addrs()[0])
    assert own is not None
    first, ports = puncher._ports(1)
    assert ports == {False: own[1]}
    assert host_port(first[0]) == own
    told, ports = puncher._ports(2)
    assert ports[False] != own[1]
    assert host_port(told[0]) == (own[0], ports[False])
    assert puncher._ports(4)[1] == {False: own[1]}  # a new round begins with it
