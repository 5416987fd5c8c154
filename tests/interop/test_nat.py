"""AutoNAT and hole punching with js-libp2p, between machines of a small internet of namespaces.

Both refuse private addresses, so on loopback there is nothing to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path as File
from typing import Any

import pytest
import trio
from multiaddr import Multiaddr
from natlab.lab import Lab, Machine, a_lab, missing, run

from shoal.node.nat.relay_server import RelayPolicy
from shoal.node.net.connection import Connection
from shoal.node.net.paths import Path
from shoal.wire.addresses import parse_multiaddr, relayed_addr, with_peer
from shoal.wire.autonat import DIAL_REQUEST, PROTOCOL_V1
from shoal.wire.ids import PeerId

from .conftest import JsPeer
from .peers import Peer, echoes, ours, until
from .spaces import environment_in

pytestmark = [pytest.mark.processes, pytest.mark.skipif(bool(missing()), reason=missing())]

PORT = 4001
EVERYWHERE = Multiaddr(f"/ip4/0.0.0.0/tcp/{PORT}")
OWN = RelayPolicy(limit=None)
MUCH = 1 << 20


@pytest.fixture
def lab(tmp_path: File) -> Iterator[Lab]:
    with a_lab(tmp_path) as built:
        yield built


def addr_of(machine: Machine) -> Multiaddr:
    return parse_multiaddr(f"/ip4/{machine.address}/tcp/{PORT}")


def at(machine: Machine, number: int, **settings: Any) -> AbstractAsyncContextManager[Peer]:
    """A host of ours on a machine."""
    addr, environment = addr_of(machine), environment_in(machine.space)
    return ours(number, environment=environment, listen=addr, **settings)


def js_at(
    js_peer: Any, machine: Machine, number: int, **settings: Any
) -> AbstractAsyncContextManager[JsPeer]:
    """A js-libp2p node on a machine."""
    listen = [str(addr_of(machine))]
    started = js_peer(number, within=machine.command(), listen=listen, **settings)
    assert isinstance(started, AbstractAsyncContextManager)
    return started


# AutoNAT


def closed(lab: Lab, name: str) -> Machine:
    """A machine that refuses at once whoever comes from outside."""
    machine = lab.firewalled(name)
    rule = "add rule inet filter input meta l4proto tcp reject with tcp reset"
    run(*machine.command("nft", "-f", "-"), stdin=rule)
    return machine


async def test_a_js_server_tells_us_whether_we_can_be_reached(lab: Lab, js_peer: Any) -> None:
    server, open_one, closed_one = lab.public("server"), lab.public("open"), closed(lab, "closed")
    async with (
        js_at(js_peer, server, 9, autonat=2) as js,
        at(open_one, 1, serve=False) as reached,
        at(closed_one, 2, serve=False) as hidden,
    ):
        for peer, expected in ((reached, True), (hidden, False)):
            addr = peer.host.listen_addrs()[0]
            connection = await peer.host.dial(with_peer(addr_of(server), PeerId.parse(js.peer)))
            await connection.identified()
            assert connection.speaks(DIAL_REQUEST)
            assert await peer.nat.client.test(connection, [addr]) == (addr, expected)


async def test_a_js_server_of_version_1_gives_no_false_verdict(lab: Lab, js_peer: Any) -> None:
    # It takes the connection on which it was asked for the one that it dialled, and closes it.
    server, open_one = lab.public("server"), lab.public("open")
    async with (
        js_at(js_peer, server, 9, autonat=1) as js,
        at(open_one, 1, serve=False) as peer,
    ):
        connection = await peer.host.dial(with_peer(addr_of(server), PeerId.parse(js.peer)))
        await connection.identified()
        assert connection.speaks(PROTOCOL_V1)
        assert await peer.nat.client.test_whole(connection, peer.host.listen_addrs()) is None
        await connection.wait_closed()


@pytest.mark.parametrize("version", [1, 2])
async def test_our_server_tells_js_whether_it_can_be_reached(
    lab: Lab, js_peer: Any, version: int
) -> None:
    server, open_one, closed_one = lab.public("server"), lab.public("open"), closed(lab, "closed")
    async with (
        at(server, 1) as peer,
        js_at(js_peer, open_one, 8, autonat=version) as reached,
        js_at(js_peer, closed_one, 9, autonat=version) as hidden,
    ):
        autonat = peer.nat.server
        assert autonat is not None
        addr = str(addr_of(open_one))
        assert await reached.ask("verdicts") == {addr: False}
        await reached.ask("dial", addr=str(peer.addr))
        await reached.until("verdicts", lambda told: told == {addr: True})
        assert autonat.dials == 1
        await hidden.ask("dial", addr=str(peer.addr))
        refused = {str(addr_of(closed_one)): {"success": 0, "failure": 1}}
        await hidden.until("tested", lambda told: told == refused)
        assert autonat.dials == 2
        assert not autonat.refused["address"]


# Hole punching


def filtering_by_address(lab: Lab, name: str) -> Machine:
    """A NAT that lets in whoever the machine behind it has sent something to, from any port."""
    machine = lab.restricted(name)
    assert machine.box is not None
    rules = f"""
      table inet filter {{
        set asked {{ type ipv4_addr; flags dynamic; }}
        chain asking {{ type filter hook forward priority -10;
          iifname "lanbr" add @asked {{ ip daddr }}
        }}
        chain prerouting {{
          iifname "wan" ip saddr @asked dnat ip to {machine.address}
        }}
      }}"""
    run("ip", "netns", "exec", machine.box.space, "nft", "-f", "-", stdin=rules)
    return machine


def outside(machine: Machine) -> str:
    """Where the world would see the listening port of a machine behind a NAT: js is told that it
    is its own address, since it does not learn it."""
    assert machine.box is not None
    return f"/ip4/{machine.box.wan}/tcp/{PORT}"


async def test_js_behind_a_nat_dials_us_after_we_came_by_relay(lab: Lab, js_peer: Any) -> None:
    relay, bob, alice = lab.public("relay"), lab.restricted("bob"), lab.public("alice")
    async with (
        at(relay, 1, relay="own", own=OWN) as server,
        js_at(js_peer, bob, 9, punch=True) as js,
        at(alice, 2) as peer,
    ):
        await js.ask("reserve", addr=str(relayed_addr(server.addr)))
        relayed, direct = await better_than_relayed(peer, js, relayed_addr(server.addr))
        assert direct.path is Path.DIRECT
        await relayed.wait_closed()  # js ends it at once
        assert await echoes(direct, MUCH)


async def test_we_behind_a_nat_dial_js_after_it_came_by_relay(lab: Lab, js_peer: Any) -> None:
    relay, bob, alice = lab.public("relay"), lab.restricted("bob"), lab.public("alice")
    announce = [str(addr_of(alice))]
    async with (
        at(relay, 1, relay="own", own=OWN) as server,
        at(bob, 2, relays=(server.addr,)) as peer,
        js_at(js_peer, alice, 9, punch=True, announce=announce) as js,
    ):
        direct = await better_after_js_came(peer, js, server)
        assert direct.path is Path.DIRECT
        assert peer.nat.puncher.outcomes[direct.peer_id].attempts == 0


async def test_two_nats_that_filter_by_port_stay_relayed(lab: Lab, js_peer: Any) -> None:
    # js dials from another port than it listens on, and does not learn where it is seen.
    relay, bob, alice = lab.public("relay"), lab.restricted("bob"), lab.restricted("alice")
    async with (
        at(relay, 1, relay="own", own=OWN) as server,
        at(bob, 2, relays=(server.addr,)) as peer,
        js_at(js_peer, alice, 9, punch=True) as js,
    ):
        await until(peer.nat.keeper.places)
        await js.ask("dial", addr=str(relayed_addr(server.addr, peer.host.peer_id)))
        other = PeerId.parse(js.peer)
        await until(lambda: other in peer.nat.puncher.outcomes)
        assert peer.nat.puncher.outcomes[other].path is None
        connection = peer.host.connection(other)
        assert connection is not None
        assert connection.path is Path.RELAYED
        assert await echoes(connection, MUCH)


async def test_a_hole_is_punched_for_js_when_it_came_by_relay(lab: Lab, js_peer: Any) -> None:
    relay, bob = lab.public("relay"), filtering_by_address(lab, "bob")
    alice = lab.restricted("alice")
    async with (
        at(relay, 1, relay="own", own=OWN) as server,
        at(bob, 2, relays=(server.addr,)) as peer,
        js_at(js_peer, alice, 9, punch=True, announce=[outside(alice)]) as js,
    ):
        direct = await better_after_js_came(peer, js, server)
        outcome = peer.nat.puncher.outcomes[direct.peer_id]
        assert (outcome.path, outcome.attempts) == (Path.PUNCHED, 1)
        assert direct.direction == "in"


async def test_a_hole_is_punched_for_js_when_we_came_by_relay(lab: Lab, js_peer: Any) -> None:
    relay, bob = lab.public("relay"), lab.restricted("bob")
    alice = filtering_by_address(lab, "alice")
    async with (
        at(relay, 1, relay="own", own=OWN) as server,
        js_at(js_peer, bob, 9, punch=True, announce=[outside(bob)]) as js,
        at(alice, 2) as peer,
    ):
        await peer.host.dial(server.addr)  # which tells us how we are seen
        await js.ask("reserve", addr=str(relayed_addr(server.addr)))
        _, direct = await better_than_relayed(peer, js, relayed_addr(server.addr))
        assert direct.path is Path.PUNCHED
        assert direct.direction == "in"  # the specification wants js to be the server of its dial
        assert await echoes(direct, MUCH)


async def test_two_of_ours_meet_at_a_js_relay_and_punch(lab: Lab, js_peer: Any) -> None:
    relay, bob, alice = lab.public("relay"), lab.restricted("bob"), lab.restricted("alice")
    async with js_at(js_peer, relay, 9, relay="limited") as js:
        place = with_peer(addr_of(relay), PeerId.parse(js.peer))
        async with at(bob, 1, relays=(place,)) as one, at(alice, 2) as two:
            await until(one.nat.keeper.places)
            relayed = await two.host.dial(relayed_addr(place, one.host.peer_id))
            assert relayed.limited
            direct = await better(two, one.host.peer_id)
            assert direct.path is Path.PUNCHED
            assert await echoes(direct, MUCH)


async def better_than_relayed(
    peer: Peer, js: JsPeer, place: Multiaddr
) -> tuple[Connection, Connection]:
    """Reach js over a relay; return that connection, and the better one that comes of it."""
    target = PeerId.parse(js.peer)
    relayed = await peer.host.dial(with_peer(place, target))
    assert relayed.path is Path.RELAYED
    return relayed, await better(peer, target)


async def better_after_js_came(peer: Peer, js: JsPeer, server: Peer) -> Connection:
    """Be reached over a relay; return the better connection that comes of it, tried out."""
    await until(peer.nat.keeper.places)
    await js.ask("dial", addr=str(relayed_addr(server.addr, peer.host.peer_id)))
    other = PeerId.parse(js.peer)
    direct = await better(peer, other)
    await until(lambda: other in peer.nat.puncher.outcomes)
    assert await echoes(direct, MUCH)
    return direct


async def better(peer: Peer, other: PeerId) -> Connection:
    while True:
        connection = peer.host.connection(other)
        if connection is not None and connection.path < Path.RELAYED:
            return connection
        await trio.sleep(0.02)
