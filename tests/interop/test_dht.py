"""One DHT of two js-libp2p servers and two of ours: each side finds what the other announced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from multiaddr import Multiaddr

from shoal.node.environment import real_environment
from shoal.node.find import OWN_PROTOCOL, Dht, DhtConfig
from shoal.node.net.host import Host
from shoal.wire.addresses import without_peer
from shoal.wire.ids import Cid, PeerId
from shoal.wire.keys import PrivateKey

ANY = Multiaddr("/ip4/127.0.0.1/tcp/0")
RAW = 0x55
DEADLINE = 40.0


class Swarm:
    """Two js nodes and two of ours that have met."""

    def __init__(self, js: list[Any], hosts: list[Host], dhts: list[Dht]) -> None:
        self.js = js
        self.hosts = hosts
        self.dhts = dhts


def knows(dht: Dht, js: Any) -> bool:
    return js.peer in {str(row.peer_id) for row in dht.table()}


@asynccontextmanager
async def a_swarm(js_peer: Any) -> AsyncIterator[Swarm]:
    """A chain at first (ours 1, js 1, ours 2, js 2): the rest they find out by themselves."""
    with trio.fail_after(DEADLINE):
        async with (
            js_peer(11, kad=OWN_PROTOCOL) as one,
            js_peer(12, kad=OWN_PROTOCOL) as two,
            trio.open_nursery() as nursery,
        ):
            js = [one, two]
            hosts = [Host(real_environment(), PrivateKey(bytes(31) + bytes([n]))) for n in (1, 2)]
            dhts = [Dht(host.environment, host) for host in hosts]
            for host, dht in zip(hosts, dhts, strict=True):
                await nursery.start(host.run, [ANY])
                await nursery.start(dht.run)
            assert (await dhts[0].bootstrap([Multiaddr(js[0].addrs[0])])).reached == 1
            assert (await dhts[1].bootstrap([Multiaddr(js[0].addrs[0])])).reached == 1
            (addr,) = hosts[1].listen_addrs()
            await js[1].ask("dial", addr=f"{addr}/p2p/{hosts[1].peer_id}")
            await one.until("table", lambda contacts: contacts >= 2)
            await two.until("table", lambda contacts: contacts >= 1)
            await two.until("table", lambda _: knows(dhts[1], two))
            yield Swarm(js, hosts, dhts)
            assert not any(host.faults for host in hosts)
            for host in hosts:
                await host.aclose()
            nursery.cancel_scope.cancel()


async def test_each_side_finds_what_the_other_announced(js_peer: Any) -> None:
    async with a_swarm(js_peer) as swarm:
        ours = Cid.of(RAW, b"announced by us")
        assert await swarm.dhts[0].announce(ours.multihash) == 3
        for peer in swarm.js:
            found = (await peer.ask("providers", cid=str(ours)))["found"]
            (addr,) = swarm.hosts[0].listen_addrs()
            assert found == {str(swarm.hosts[0].peer_id): [str(addr)]}
        theirs = Cid.of(RAW, b"announced by js")
        told = await swarm.js[1].ask("provide", cid=str(theirs))
        assert told["counts"]["PEER_RESPONSE"] > 0
        assert "QUERY_ERROR" not in told["counts"]
        for dht in swarm.dhts:
            search = dht.find_providers(theirs.multihash)
            found = {str(item.peer_id): list(item.addrs) async for item in search}
            assert found == {swarm.js[1].peer: [without_peer(Multiaddr(swarm.js[1].addrs[0]))]}


async def test_each_side_finds_peers_that_it_has_not_met(js_peer: Any) -> None:
    async with a_swarm(js_peer) as swarm:
        last = PeerId.parse(swarm.js[1].peer)
        assert swarm.hosts[0].connection(last) is None
        addrs = await swarm.dhts[0].find_peer(last)
        assert [f"{addr}/p2p/{last}" for addr in addrs] == swarm.js[1].addrs
        first = swarm.hosts[0]
        found = (await swarm.js[1].ask("find", peer=str(first.peer_id)))["found"]
        assert found == {str(first.peer_id): [str(addr) for addr in first.listen_addrs()]}


async def test_a_client_asks_js_and_is_found_through_it(js_peer: Any) -> None:
    async with a_swarm(js_peer) as swarm, trio.open_nursery() as nursery:
        wanted = Cid.of(RAW, b"wanted by a client")
        await swarm.js[1].ask("provide", cid=str(wanted))
        host = Host(real_environment(), PrivateKey(bytes(31) + b"\x03"))
        dht = Dht(host.environment, host, DhtConfig(mode="client"))
        await nursery.start(host.run, [ANY])
        await nursery.start(dht.run)
        assert (await dht.bootstrap([Multiaddr(swarm.js[0].addrs[0])])).reached == 1
        search = dht.find_providers(wanted.multihash)
        assert swarm.js[1].peer in [str(item.peer_id) async for item in search]
        assert await dht.announce(wanted.multihash) == 4
        found = (await swarm.js[0].ask("providers", cid=str(wanted)))["found"]
        assert set(found) == {swarm.js[1].peer, str(host.peer_id)}
        assert not host.faults
        nursery.cancel_scope.cancel()
