"""The full-stack tier: whole nodes with Noise and yamux over memory streams, a few hundred of them.

Everything above the sockets is the shipped node. Nodes join one after the other through an earlier
one; then lookups, announcements and fetches are spread over the duration. A lookup here asks until
the k nearest have answered (that is what the node offers), and its hops are not told: the column
holds 0.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import trio

from ...dht.keyspace import distance, key_of
from ...node.errors import ShoalError
from ..faults import cut, heal, reset, set_access, silence
from ..latency import geography
from ..link import Link
from ..network import Place
from ..randomness import SeededRandom
from ..scenario.model import Fault, Scenario
from ..scenario.result import EDGES, LOOKUPS, Column, Result, Value
from ..world import World
from ..world import run as run_world
from .dht_results import Lookups, summary_of
from .machine import DATA, Machine

JOIN_EVERY: Final = 1.0
"""Seconds between two nodes that join."""

SETTLE: Final = 10.0
"""Seconds from the last of them until the workload begins."""

THROUGH: Final = 3
"""Nodes that a newcomer is told to join through."""

CONTENT_BYTES: Final = 1 << 16
"""Size of each content."""

PATIENCE: Final = 60.0
"""Seconds without a byte after which a fetch is given up."""

ANNOUNCE_PART: Final = 0.1
"""Part of the duration over which contents are shared; they are fetched after it."""


class FullRun:
    """A world of whole nodes under a workload."""

    def __init__(self, scenario: Scenario, seed: int, world: World) -> None:
        self.scenario = scenario
        self.seed = seed
        self.world = world
        self.rows = Lookups([], [], [], [], [])
        self._draw = SeededRandom(seed, "full").stream("workload")
        self._places = geography(scenario.latency, scenario.nodes, seed)
        self._number = {f"n{number}": number for number in range(scenario.nodes)}
        world.network.link_of = self._link
        self.machines: list[Machine] = []
        self._contents: list[tuple[str, Machine]] = []
        self._weights: list[float] = []
        self._fetched = 0

    def _link(self, source: Place, target: Place) -> Link:
        trip = self._places.round_trip(self._number[source.name], self._number[target.name])
        return Link(trip / 2)

    async def run(self) -> None:
        """Start everybody, then work and break things for the duration."""
        await self._start()
        async with trio.open_nursery() as nursery:
            begin = trio.current_time()
            for at, job in self._jobs():
                await trio.sleep_until(begin + at)
                nursery.start_soon(job)
            await trio.sleep_until(begin + self.scenario.duration)

    async def _start(self) -> None:
        links = self.scenario.links
        behind = round(self.scenario.nat.port_restricted * self.scenario.nodes)
        for name, number in self._number.items():
            machine = Machine(self.world, name)
            through = self._draw.sample(self.machines, min(THROUGH, len(self.machines)))
            await machine.start([other.addr for other in through if other.addr])
            place = self.world.network.places[name]
            # Those who can be reached come first: somebody must be there to join through.
            place.reachable = number < self.scenario.nodes - behind
            if links:
                (link,) = self._draw.choices(links, [link.share for link in links])
                set_access(self.world.network, name, up=link.up, down=link.down)
            self.machines.append(machine)
            await trio.sleep(JOIN_EVERY)
        await trio.sleep(SETTLE)

    def _jobs(self) -> list[tuple[float, _Job]]:
        """Return what is to be done when, in order."""
        work, duration, draw = self.scenario.workload, self.scenario.duration, self._draw
        jobs: list[tuple[float, _Job]] = [
            (draw.random() * duration, _Job(self, "look")) for _ in range(work.lookups)
        ]
        ready = duration * ANNOUNCE_PART
        for number in range(work.contents):
            jobs.append((ready * number / work.contents, _Job(self, "share", number)))
        for number in range(work.fetches if work.contents else 0):
            jobs.append((draw.uniform(ready, duration), _Job(self, "fetch", number)))
        if work.every:
            for _ in range(round(duration / work.every * self.scenario.nodes)):
                jobs.append((draw.random() * duration, _Job(self, "look")))
        for number, fault in enumerate(self.scenario.faults):
            jobs.append((fault.at, _Job(self, "break", number)))
        return sorted(jobs, key=lambda job: job[0])

    def _anyone(self) -> Machine:
        return self._draw.choice([machine for machine in self.machines if machine.alive])

    async def look(self) -> None:
        """Look up a random key from a random node."""
        machine = self._anyone()
        key = b"\x12\x20" + self._draw.randbytes(32)
        began = trio.current_time()
        walked = await machine.node.dht.nearest(key)
        peers = [m.node.peer_id for m in self.machines if m.alive and m is not machine]
        target = key_of(key)
        nearest = min(peers, key=lambda peer: distance(peer.key, target), default=None)
        found = bool(walked.nearest) and walked.nearest[0] == nearest
        self._add("lookup", walked.asked, began, found)

    async def share(self, number: int) -> None:
        """Let a random node share a content."""
        machine = self._anyone()
        data = random.Random(f"{self.seed}/content {number}").randbytes(CONTENT_BYTES)
        began = trio.current_time()
        shared = await machine.node.share(machine.write(f"content {number}", data))
        self._contents.append((shared.cid, machine))
        self._weights.append((number + 1) ** -self.scenario.workload.zipf)
        self._add("share", 0, began, True)

    async def fetch(self, number: int) -> None:
        """Let a random node fetch a content, found through the DHT alone."""
        machine = self._anyone()
        if not self._contents:
            return
        ((cid, _),) = self._draw.choices(self._contents, self._weights)
        began = trio.current_time()
        before = _requests(machine)
        try:
            await machine.node.get(cid, DATA / f"got {number}", timeout=PATIENCE)
            found = True
        except ShoalError:
            found = False
        self._add("fetch", _requests(machine) - before, began, found)

    def _add(self, group: str, rpcs: int, began: float, found: bool) -> None:
        rows = self.rows
        rows.hops.append(0)
        rows.rpcs.append(rpcs)
        rows.seconds.append(round(trio.current_time() - began, 6))
        rows.found.append(int(found))
        rows.group.append(group)
        self.world.network.note("done", group, rpcs, found)

    # Faults

    async def break_it(self, number: int) -> None:
        """Let a fault happen."""
        fault = self.scenario.faults[number]
        draw = random.Random(f"{self.seed}/fault {number}")
        count = round(fault.share * len(self.machines))
        met = draw.sample(self.machines, count)
        await self._apply(fault, met, draw)

    async def _apply(self, fault: Fault, met: Sequence[Machine], draw: random.Random) -> None:
        network = self.world.network
        names = {machine.name for machine in met}
        others = [name for name in self._number if name not in names]
        match fault.kind:
            case "cut":
                for machine in met:
                    for other in others:
                        cut(network, machine.name, other)
                if fault.amount:
                    await trio.sleep(fault.amount)
                    self._heal()
            case "heal":
                self._heal()
            case "reset":
                for machine in met:
                    for other in self._number:
                        if other != machine.name:
                            reset(network, machine.name, other)
            case "slow":
                rate = max(1.0, fault.amount)
                for machine in met:
                    set_access(network, machine.name, up=rate, down=rate)
            case "silent":
                for machine in met:
                    silence(network, machine.name)
                if fault.amount:
                    await trio.sleep(fault.amount)
                    self._heal()
            case "crash":
                for machine in met:
                    machine.crash()
            case "skew":
                for machine in met:
                    machine.clock.skew += fault.amount
            case "disk-full":
                for machine in met:
                    machine.disk.capacity = machine.disk.used()
            case "disk-torn":
                for machine in met:
                    await machine.cut_power(draw)

    def _heal(self) -> None:
        dead = {machine.name for machine in self.machines if not machine.alive}
        names = [name for name in self._number if name not in dead]
        for at, one in enumerate(names):
            for other in names[at + 1 :]:
                heal(self.world.network, one, other)

    # What came of it

    def result(self) -> Result:
        """Return what the run gave."""
        rows = self.rows
        alive = [machine for machine in self.machines if machine.alive]
        sizes = [len(machine.node.dht.table()) for machine in alive]
        network = self.world.network
        summary: dict[str, Value] = {
            "nodes": self.scenario.nodes,
            "online": len(alive),
            "events": network.trace.count,
            "bytes": network.bytes,
            "rpcs": sum(map(_requests, alive)),
            "contacts_mean": sum(sizes) / len(sizes) if sizes else None,
            "contents": len(self._contents),
        }
        for group in sorted(set(rows.group)):
            summary.update(summary_of(rows, group, hops=False))
        tables: dict[str, dict[str, Column]] = {
            LOOKUPS: {
                "hops": rows.hops,
                "rpcs": rows.rpcs,
                "seconds": rows.seconds,
                "found": rows.found,
                "group": rows.group,
            },
            EDGES: self._edges(alive),
        }
        wanted = self.scenario.metrics
        kept = {name: table for name, table in tables.items() if not wanted or name in wanted}
        return Result(self.scenario, self.seed, network.trace.digest, summary, kept)

    def _edges(self, alive: Sequence[Machine]) -> dict[str, Column]:
        index = {machine.node.peer_id: at for at, machine in enumerate(self.machines)}
        pairs = [
            (index[machine.node.peer_id], index[row.peer_id])
            for machine in alive
            for row in machine.node.dht.table()
            if row.peer_id in index
        ]
        return {"source": [one for one, _ in pairs], "target": [other for _, other in pairs]}


class _Job:
    """Something to be done at its time."""

    def __init__(self, run: FullRun, what: str, number: int = 0) -> None:
        self._run = run
        self._what = what
        self._number = number

    async def __call__(self) -> None:
        match self._what:
            case "look":
                await self._run.look()
            case "share":
                await self._run.share(self._number)
            case "fetch":
                await self._run.fetch(self._number)
            case _:
                await self._run.break_it(self._number)


def _requests(machine: Machine) -> int:
    return sum(machine.node.dht.statistics().sent.values())


def run(scenario: Scenario, seed: int) -> Result:
    """Run a scenario in the tier "code-full"."""

    async def inside(world: World) -> Result:
        made = FullRun(scenario, seed, world)
        await made.run()
        return made.result()

    return run_world(inside, seed)
