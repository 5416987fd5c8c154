"""Relays with js-libp2p, each side as the relay, as the one behind it, and as the one who comes."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import trio

from shoal.node.nat.relay_server import RENDEZVOUS, RelayPolicy
from shoal.node.net.errors import NetError
from shoal.node.net.paths import Path
from shoal.wire.addresses import parse_multiaddr, relayed_addr
from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

from .peers import DEADLINE, echoes, ours, until

LITTLE = 60_000
"""Bytes that fit into the least limit there is: 128 KiB for both directions together (js)."""

MUCH = 1 << 20

Limit = Literal["limited", "unlimited"]
each_limit = pytest.mark.parametrize("limit", ["limited", "unlimited"])


def policy(limit: Limit) -> RelayPolicy:
    return RelayPolicy(limit=RENDEZVOUS if limit == "limited" else None)


@each_limit
async def test_js_is_reached_through_our_relay(js_peer: Any, limit: Limit) -> None:
    async with (
        ours(1, relay="own", own=policy(limit)) as relay,
        js_peer(2) as js,
        ours(3) as alice,
        js_peer(4) as other,
    ):
        place = relayed_addr(relay.addr)
        told = await js.ask("reserve", addr=str(place))
        assert f"{place}/p2p/{js.peer}" in told
        assert relay.nat.relay is not None
        assert relay.nat.relay.statistics().places == 1
        behind = relayed_addr(relay.addr, PeerId.parse(js.peer))
        connection = await alice.host.dial(behind)
        assert str(connection.peer_id) == js.peer
        assert connection.path is Path.RELAYED
        assert connection.limited == (limit == "limited")
        info = await connection.identified()
        assert info.agent_version is not None
        assert info.agent_version.startswith("js-libp2p/")
        assert 0 < await alice.host.ping(connection.peer_id) < DEADLINE
        assert await echoes(connection, LITTLE if connection.limited else MUCH)
        # And as js sees it.
        us = str(alice.host.peer_id)
        (path,) = await js.ask("paths", peer=us)
        assert path == {
            "addr": str(relayed_addr(relay.addr, alice.host.peer_id)),
            "direction": "inbound",
            "limited": connection.limited,
        }
        if not connection.limited:  # else js looks for another way to ping us
            assert await js.ask("ping", peer=us) >= 0
        assert await js.ask("echoes", peer=us, count=1, bytes=20_000) == 1
        # js reaches js through it, too.
        await other.ask("dial", addr=str(behind))
        assert await other.ask("echoes", peer=js.peer, count=1, bytes=20_000) == 1
        assert relay.nat.relay.statistics().circuits == 2
        await js.ask("hangup", peer=str(relay.host.peer_id))
        await connection.wait_closed()
        statistics = relay.nat.relay
        await until(lambda: statistics.statistics().circuits == 0)
        assert relay.nat.relay.statistics().places == 0


@each_limit
async def test_we_are_reached_through_a_js_relay(js_peer: Any, limit: Limit) -> None:
    async with js_peer(1, relay=limit) as relay, js_peer(4) as other:
        place = parse_multiaddr(relay.addrs[0])
        async with ours(2, relays=(place,)) as bob, ours(3) as alice:
            await until(bob.nat.keeper.places)
            (state,) = bob.nat.keeper.places()
            assert (str(state.relay), state.carries) == (relay.peer, limit == "unlimited")
            behind = relayed_addr(place, bob.host.peer_id)
            assert relayed_addr(place) in bob.host.told_addrs()
            connection = await alice.host.dial(behind)
            assert connection.peer_id == bob.host.peer_id
            assert connection.path is Path.RELAYED
            assert connection.limited == (limit == "limited")
            assert await echoes(connection, LITTLE // 2 if connection.limited else MUCH)
            assert 0 < await alice.host.ping(connection.peer_id) < DEADLINE
            us = str(bob.host.peer_id)
            await other.ask("dial", addr=str(behind))
            (path,) = await other.ask("paths", peer=us)
            assert path["limited"] == connection.limited
            assert await other.ask("echoes", peer=us, count=1, bytes=20_000) == 1
            told = await other.until("identity", lambda told: told["agent"], peer=us)
            assert str(behind) in told["addrs"]


async def test_what_a_limit_does_not_let_through_ends_the_circuit(js_peer: Any) -> None:
    async with (
        ours(1, relay="own", own=policy("limited")) as relay,
        js_peer(2) as js,
        ours(3) as alice,
    ):
        await js.ask("reserve", addr=str(relayed_addr(relay.addr)))
        connection = await alice.host.dial(relayed_addr(relay.addr, PeerId.parse(js.peer)))
        with pytest.raises((trio.BrokenResourceError, NetError, ExceptionGroup)):
            await echoes(connection, MUCH)
        await connection.wait_closed()
        assert await js.until("paths", lambda paths: not paths, peer=str(alice.host.peer_id)) == []


async def test_a_relay_of_ours_refuses_js(js_peer: Any) -> None:
    nobody = RelayPolicy(limit=None, members=frozenset({PrivateKey(bytes(32)).peer_id}))
    async with ours(1, relay="own", own=nobody) as relay, js_peer(2) as js, ours(3) as alice:
        refused = await js.error_of("reserve", addr=str(relayed_addr(relay.addr)))
        assert "PERMISSION_DENIED" in refused
        target = str(relayed_addr(relay.addr, alice.host.peer_id))
        assert "NO_RESERVATION" in await js.error_of("dial", addr=target)
        assert relay.nat.relay is not None
        assert relay.nat.relay.statistics().refused == {"no-member": 1, "no-place": 1}


async def test_a_js_relay_refuses_us(js_peer: Any) -> None:
    async with js_peer(1, relay="limited") as relay, js_peer(2) as js, ours(3) as alice:
        behind = relayed_addr(parse_multiaddr(relay.addrs[0]), PeerId.parse(js.peer))
        with pytest.raises(NetError, match="the peer has no place there"):
            await alice.host.dial(behind)


async def test_a_hole_is_not_punched_without_public_addresses(js_peer: Any) -> None:
    async with (
        ours(1, relay="own", own=policy("unlimited")) as relay,
        ours(3, relays=(relay.addr,)) as bob,
        js_peer(2, punch=True) as js,
    ):
        await until(bob.nat.keeper.places)
        await js.ask("dial", addr=str(relayed_addr(relay.addr, bob.host.peer_id)))
        peer = PeerId.parse(js.peer)
        await until(lambda: peer in bob.nat.puncher.outcomes)
        assert bob.nat.puncher.outcomes[peer].path is None
        connection = bob.host.connection(peer)
        assert connection is not None
        assert connection.path is Path.RELAYED
        assert await echoes(connection, MUCH)
