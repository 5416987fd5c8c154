"""Transfers that lose their path half-way: a router restarts, an address changes, a relay is left.

All between two homes behind routers that let in only answers, with a relay of the sharer's owner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest
import trio
from natlab.lab import Machine
from natlab.town import Got, Host, Town, can_be_found, get, share, until, write_file

pytestmark = pytest.mark.processes

FILE_BYTES = 64 << 20
RATE = "SHOAL_UP_LIMIT=6MB"
"""Eleven seconds for the file: there is a middle in which things happen."""

STARTED_BYTES = 8 << 20
FOUND_SECONDS = 90.0

numbers = count()


@dataclass
class Pair:
    """Who gets and who shares."""

    getter: Host
    sharer: Host
    town: Town

    async def transfer(self, happens: Callable[[], Awaitable[None]]) -> Got:
        """Move a file; something happens when a part of it is there."""
        name = f"file{next(numbers)}"
        file = self.town.folder / name
        digest = await trio.to_thread.run_sync(partial(write_file, file, FILE_BYTES))
        cid = await share(self.sharer, file)
        got: Got | None = None

        async def fetch() -> None:
            nonlocal got
            got = await get(self.getter, cid, self.town.folder / f"got-{name}", town=self.town)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            await until("a part is there", partial(self._has_begun, cid), FOUND_SECONDS)
            await happens()
        assert got is not None
        assert got.sha256 == digest
        return got

    async def _has_begun(self, cid: str) -> bool:
        rows = await self.getter.ask(lambda client: client.status())
        done = [row.done_bytes for row in rows if getattr(row, "cid", None) == cid]
        return bool(done) and done[0] >= STARTED_BYTES

    async def path(self) -> str:
        """Return the best path between the two."""
        rows = await self.getter.connections(self.sharer.peer_id)
        return str(rows[0].path) if rows else "none"

    async def is_path(self, path: str) -> bool:
        """Return whether it is this one."""
        return await self.path() == path


def home(town: Town, name: str, *words: str, env: tuple[str, ...] = ()) -> Host:
    """Start a node behind a home router and wait until it can be found."""
    machine = town.lab.restricted(name)
    host = town.start(machine, "restricted", *town.join, *words, env=env)
    return host


@pytest.fixture(scope="module")
def pair(town: Town) -> Pair:
    assert town.relay is not None
    via = ("--via", town.relay.address)
    sharer = home(town, "sharer", *via, env=(RATE,))
    getter = home(town, "getter")

    async def ready() -> None:
        assert town.relay is not None
        await until("the sharer can be found", partial(can_be_found, sharer, town.relay.peer_id))
        await until("the getter knows its NAT", partial(can_be_found, getter))

    trio.run(ready)
    return Pair(getter, sharer, town)


async def test_the_router_restarts(pair: Pair) -> None:
    async def restart() -> None:
        for host in (pair.getter, pair.sharer):
            assert host.machine.box is not None
            await trio.to_thread.run_sync(host.machine.box.restart)

    got = await pair.transfer(restart)
    print(f"both routers restarted: {got.complete['seconds']:.0f} s")


async def test_the_getters_address_changes(pair: Pair) -> None:
    async def move() -> None:
        await trio.to_thread.run_sync(_move, pair.getter.machine)

    got = await pair.transfer(move)
    print(f"the getter moved: {got.complete['seconds']:.0f} s")


@pytest.mark.long
async def test_the_sharers_address_changes(pair: Pair) -> None:
    async def move() -> None:
        await trio.to_thread.run_sync(_move, pair.sharer.machine)

    got = await pair.transfer(move)
    print(f"the sharer moved: {got.complete['seconds']:.0f} s")


def _move(machine: Machine) -> None:
    network, _, last = machine.address.rpartition(".")
    machine.change_address(f"{network}.{int(last) + 50}/24")


async def test_a_hole_is_punched_by_quic_where_tcp_is_dropped(town: Town) -> None:
    """Two homes between which no TCP passes at all: they meet at a relay, and go on over UDP."""
    assert town.relay is not None
    getter, sharer = town.lab.restricted("udp-getter"), town.lab.restricted("udp-sharer")
    assert getter.box is not None
    assert sharer.box is not None
    getter.box.drop_tcp_with(sharer.box.wan)
    sharer.box.drop_tcp_with(getter.box.wan)
    words = (*town.join, "--via", town.relay.address)
    await town.starts(
        partial(town.start, sharer, "restricted", *words, env=(RATE,)),
        partial(town.start, getter, "restricted", *town.join),
    )
    hosts = {host.name: host for host in town.hosts}
    pair = Pair(hosts["udp-getter"], hosts["udp-sharer"], town)
    await until("the sharer can be found", partial(can_be_found, pair.sharer, town.relay.peer_id))
    await until("the getter knows its NAT", partial(can_be_found, pair.getter))

    async def punched() -> None:
        await until("a hole is punched", partial(pair.is_path, "punched"))

    got = await pair.transfer(punched)
    best = (await pair.getter.connections(pair.sharer.peer_id))[0]
    assert best.path == "punched"
    assert best.addr.endswith("/quic-v1"), best.addr
    assert got.complete["wasted_bytes"] == 0
    print(f"a hole by QUIC: {got.complete['seconds']:.0f} s")
