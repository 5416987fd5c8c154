"""A machine gets another address in mid-transfer: nothing is told, and nobody waits for long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.node.events_reach import Reachability
from shoal.simulations import faults
from shoal.simulations.world import World
from shoal.wire.addresses import host_port, parse_multiaddr

from .conftest import DATA

Start = Callable[..., Awaitable[Any]]
SomeBytes = Callable[..., bytes]
MIB = 1 << 20

NEW_IP = "77.7.7.7"
GRACE_SECONDS = 20.0
"""Virtual: a look at our own addresses every 2 s, a dial, a greeting. A dead peer is only noticed
after a minute by who waits for its pongs."""


async def until(condition: Callable[[], object], seconds: float) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - of anything, in virtual time
            await trio.sleep(0.25)


def done_bytes(machine: Any) -> int:
    fetches = list(machine.node.transfers.fetches.values())
    return fetches[0][0].snapshot().done_bytes if fetches else 0


@pytest.mark.parametrize("mover", ["alice", "bob"])
async def test_the_fetch_goes_on_where_the_machine_is_now(
    autojump_clock: object, world: World, start: Start, some_bytes: SomeBytes, mover: str
) -> None:
    data = some_bytes(24 * MIB)
    hub = await start("hub", dht="server")
    around = {"dht": "server", "bootstrap": (hub.addr,)}
    alice, bob = await start("alice", **around), await start("bob", **around)
    alice.write("film", data)
    shared = await alice.node.share(DATA / "film", announce=True)
    faults.set_access(world.network, "alice", up=1e6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bob.get, shared.cid)
        await until(lambda: done_bytes(bob) > 4 * MIB, 60)
        faults.move(world.network, mover, NEW_IP)
        before = done_bytes(bob)
        moved_at = trio.current_time()
        await until(lambda: done_bytes(bob) > before + 4 * MIB, 4 + GRACE_SECONDS)
    assert trio.current_time() < moved_at + 24 + GRACE_SECONDS
    assert bob.read("got") == data
    ends = [c for c in bob.node.host.connections() if c.peer_id == alice.node.peer_id]
    assert any(NEW_IP in str(c.remote if mover == "alice" else c.local) for c in ends)


async def test_it_is_told_and_what_used_the_old_address_ends(
    autojump_clock: object, world: World, start: Start
) -> None:
    hub = await start("hub")
    bob = await start("bob")
    events: list[Reachability] = []
    original = bob.node.tell

    def tell(event: object) -> None:
        if isinstance(event, Reachability):
            events.append(event)
        original(event)

    bob.node.tell = tell
    old = world.network.places["bob"].ips[0]
    connection = await bob.node.host.dial(parse_multiaddr(hub.addr))
    faults.move(world.network, "bob", NEW_IP)
    await until(lambda: connection.closed, 5)
    assert next(host_port(a) for a in bob.node.host.listen_addrs()) == (NEW_IP, 4071)
    await until(lambda: any(NEW_IP in addr for event in events for addr in event.addrs), 10)
    assert not any(old in addr for addr in events[-1].addrs)
    again = await hub.node.host.dial(parse_multiaddr(bob.addr))
    assert NEW_IP in str(again.remote)
