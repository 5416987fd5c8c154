"""AutoNAT and hole punching with js-libp2p, between machines of a small internet of namespaces.

Both refuse private addresses, so on loopback there is nothing to see.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path as File
from typing import Any

import pytest
from multiaddr import Multiaddr

from shoal.node.nat.relay_server import RelayPolicy
from shoal.node.net.paths import Path
from shoal.wire.addresses import parse_multiaddr, relayed_addr, with_peer
from shoal.wire.autonat import DIAL_REQUEST, PROTOCOL_V1
from shoal.wire.ids import PeerId

from ..nat.lab import Lab, Machine, a_lab, missing, run
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


async def path_of(peer: Peer, other: PeerId) -> Path | None:
    connection = peer.host.connection(other)
    return connection.path if connection is not None else None


async def test_js_behind_a_nat_dials_us_directly_after_we_came_by_relay(
    lab: Lab, js_peer: Any
) -> None:
    relay, bob, alice = lab.public("relay"), lab.restricted("bob"), lab.public("alice")
    async with (
        at(relay, 1, relay="own", own=OWN) as server,
        js_at(js_peer, bob, 9, punch=True) as js,
        at(alice, 2) as peer,
    ):
        target = PeerId.parse(js.peer)
        await js.ask("reserve", addr=str(relayed_addr(server.addr)))
        connection = await peer.host.dial(relayed_addr(server.addr, target))
        assert connection.path is Path.RELAYED
        await until(lambda: peer.host.connection(target).path is Path.DIRECT)  # type: ignore[union-attr]
        await connection.wait_closed()  # js ends it at once
        direct = peer.host.connection(target)
        assert direct is not None
        assert await echoes(direct, MUCH)
