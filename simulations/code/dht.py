"""The code tier for the DHT: thousands of nodes with the shipped rules, at message level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...dht.announcements import AnnounceConfig
from ...dht.keyspace import key_of
from ...dht.lookup import LookupConfig
from ...dht.providers import ProviderConfig
from ...dht.table import TableConfig
from ...dht.upkeep import UpkeepConfig
from ...dht.walks import WALK_DEADLINE
from ...wire.addresses import tcp_addr
from ..churn import Sessions
from ..garbage import rare_collections
from ..latency import geography
from ..network import global_addresses
from ..randomness import SeededRandom
from ..scenario.model import Scenario
from ..scenario.result import EDGES, LOOKUPS, RECORDS, TRAFFIC, Column, Result, Value
from ..snapshot import BadSnapshot, Snapshot, peer_id
from .dht_faults import Faults
from .dht_network import DONE, OFFLINE, ONLINE, Network
from .dht_node import Node, Rules
from .dht_results import Lookups, edges_of, summary_of
from .dht_tables import KeyOrder, any_of, fill_from, fill_randomly
from .dht_walk import Walk, hops_of

PORT: Final = 4071
JOIN_EVERY: Final = 0.05
"""Seconds between two nodes that join, when all of them really do."""

SETTLE: Final = 30.0
"""Seconds from the last of them until the workload begins."""

THROUGH: Final = 3
"""Nodes that a newcomer is told to join through."""

SAMPLES: Final = 20
"""Rows of the tables that follow time."""

ANNOUNCE_PART: Final = 0.1
"""Part of the duration over which the contents are announced; they are fetched after it."""

MAX_DRAWN: Final = 2000
"""Nodes up to which the network's picture is kept."""


class DhtRun:
    """A network under a workload. It can be stopped and written down between two events.

    Args:
        scenario: What to run; `support.check` has let it pass.
        seed: Of everything.
        snapshot: Tables of the servers that are there at the start, if not made here.
        trips: See `Network`.
        learn: See `Rules`.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        snapshot: Snapshot | None = None,
        *,
        trips: float | None = None,
        learn: bool = True,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        source = SeededRandom(seed, "dht")
        self._draw = source.stream("workload")
        self._fates = source.stream("churn")
        sessions = Sessions(scenario.churn)
        self._sessions = sessions
        absent = sessions.absent(scenario.nodes)
        total = scenario.nodes + absent
        places = geography(scenario.latency, total, seed)
        jitter = scenario.latency.jitter
        self.network = Network(places, jitter, source.stream("jitter"), trips)
        self.lookups = Lookups([], [], [], [], [])
        self.records: dict[str, list[float]] = {"time": [], "alive": [], "holders": []}
        self.traffic: dict[str, list[float]] = {"time": [], "rpcs": [], "bytes": [], "online": []}
        self._contents: list[tuple[bytes, int]] = []
        self._weights: list[float] = []
        self._counted = (0, 0)
        self._open = 0
        self.started = 0.0
        """When the workload begins."""
        self._make_nodes(rules_of(scenario, learn), total)
        servers = [node for node in self.nodes[: scenario.nodes] if node.serves]
        self.online = KeyOrder([])
        """Servers that are there."""
        if scenario.dht.tables == "joined":
            self._join_all()
        else:
            self.online = KeyOrder(servers)
            self._fill(snapshot)
        self._plan_churn()
        self._plan_work()
        self._faults = Faults(self)
        self._faults.plan()
        for sample in range(1, SAMPLES + 1):
            at = self.started + scenario.duration * sample / SAMPLES
            self.network.time.at(at, self._sample)

    @property
    def nodes(self) -> list[Node]:
        """All nodes: servers that are there at the start, then clients, then who is away."""
        return self.network.nodes

    @property
    def end(self) -> float:
        """When the run is over."""
        return self.started + self.scenario.duration

    def run(self, until: float | None = None) -> None:
        """Let time pass, to a moment or to the end.

        What is under way at the end may end, else slow lookups would be left out.
        """
        if until is not None and until < self.end:
            self.network.time.run(until)
            return
        self.network.time.run(self.end)
        last = self.end
        while self._open > 0 and last < self.end + WALK_DEADLINE:
            last += 1.0
            self.network.time.run(last)

    # Making the network

    def _make_nodes(self, rules: Rules, total: int) -> None:
        behind = _behind_nat(self.scenario)
        count = self.scenario.nodes
        servers = servers_of(self.scenario)
        addresses = global_addresses()
        for number in range(total):
            here = number < count
            serves = number < servers if here else self._draw.random() >= behind
            peer = peer_id(self.seed, number)
            addr = tcp_addr(next(addresses), PORT)
            name = f"{self.seed}/node {number}"
            node = Node(self.network, number, peer, addr, serves, rules, name, self)
            self.network.nodes.append(node)
            self.network.index[peer] = number

    def _fill(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None and (
            (snapshot.seed, len(snapshot)) != (self.seed, servers_of(self.scenario))
        ):
            raise BadSnapshot(
                f"a snapshot of {len(snapshot)} nodes of seed {snapshot.seed} does not fit "
                f"{servers_of(self.scenario)} servers of seed {self.seed}"
            )
        for node in self.nodes[: self.scenario.nodes]:
            if snapshot is not None and node.serves:
                fill_from(node, snapshot, self.nodes)
            else:
                fill_randomly(node, self.online, self.nodes)
            node.warm()
            self.network.note(ONLINE, node.number)

    def _join_all(self) -> None:
        for node in self.nodes[: self.scenario.nodes]:
            self.network.time.at(node.number * JOIN_EVERY, self._join, node)
        self.started = self.scenario.nodes * JOIN_EVERY + SETTLE

    def _join(self, node: Node) -> None:
        if node.online:
            return
        there = [self.nodes[number] for number in self.online.numbers()]
        through = [other.peer for other in any_of(there, self._fates, THROUGH)]
        self._turn_on(node, through)

    # Churn

    def _plan_churn(self) -> None:
        if self.scenario.churn.law == "none":
            return
        for node in self.nodes:
            if node.number < self.scenario.nodes:
                left = self._sessions.left(self._fates)
                self.network.time.at(self.started + left, self._leave, node, node.session)
            else:
                self._plan_return(node, self.started)

    def _plan_return(self, node: Node, now: float) -> None:
        self.network.time.at(now + self._sessions.away(self._fates), self._return, node)

    def _return(self, node: Node) -> None:
        if not node.online:
            self._join(node)
            length = self._sessions.new(self._fates)
            self.network.time.after(length, self._leave, node, node.session)

    def _leave(self, node: Node, session: int) -> None:
        if node.online and (session == node.session or not session):
            self.turn_off(node, goodbye=self._fates.random() >= self.scenario.churn.crash)
            self._plan_return(node, self.network.time.now)

    def _turn_on(self, node: Node, through: Sequence[object]) -> None:
        if node.serves:
            self.online.add(node)
        self.network.note(ONLINE, node.number)
        node.start(through)  # type: ignore[arg-type]

    def turn_off(self, node: Node, *, goodbye: bool) -> None:
        """Let a node go."""
        if node.serves:
            self.online.remove(node)
        self.network.note(OFFLINE, node.number, int(goodbye))
        node.stop(goodbye=goodbye)

    # Workload

    def _plan_work(self) -> None:
        work, duration = self.scenario.workload, self.scenario.duration
        time, draw = self.network.time, self._draw
        for at in sorted(draw.random() * duration for _ in range(work.lookups)):
            time.at(self.started + at, self._look, None)
        if work.every:
            for node in self.nodes:
                time.at(self.started + draw.expovariate(1.0 / work.every), self._look_again, node)
        ready = duration * ANNOUNCE_PART
        for number in range(work.contents):
            time.at(self.started + ready * number / work.contents, self._announce, number)
        for at in sorted(draw.random() for _ in range(work.fetches if work.contents else 0)):
            time.at(self.started + ready + (duration - ready) * at, self._fetch)

    def _anyone(self) -> Node | None:
        """Return a node that is there."""
        for _ in range(100):
            node = self._draw.choice(self.nodes)
            if node.online and not node.silent:
                return node
        return None

    def _look(self, node: Node | None) -> None:
        node = node or self._anyone()
        if node is not None and node.online and self._is_in_time():
            self._open += 1
            node.look(b"\x12\x20" + self._draw.randbytes(32), self._looked)

    def _look_again(self, node: Node) -> None:
        self._look(node)
        wait = self._draw.expovariate(1.0 / self.scenario.workload.every)
        self.network.time.after(wait, self._look_again, node)

    def _looked(self, walk: Walk) -> None:
        result = walk.lookup.result
        nearest = self.online.nearest(walk.lookup.target, 2)
        own = walk.node.number
        wanted = next((number for number in nearest if number != own), None)
        number = self.network.index[result[0]] if result else None
        self._note(walk, "lookup", self.network.time.now - walk.began_at, number == wanted)

    def _announce(self, number: int) -> None:
        node = self._anyone()
        if node is not None:
            multihash = b"\x12\x20" + self._draw.randbytes(32)
            self._contents.append((multihash, node.number))
            self._weights.append((number + 1) ** -self.scenario.workload.zipf)
            node.announce(multihash)

    def announced(self, node: Node, began_at: float, hops: int, rpcs: int, taken: int) -> None:
        """Take note of an announcement that is through."""
        self._add("announce", hops, rpcs, self.network.time.now - began_at, taken > 0)
        self.network.note(DONE, node.number, taken)

    def _fetch(self) -> None:
        node = self._anyone()
        if node is not None and self._contents:
            self._open += 1
            ((multihash, _),) = self._draw.choices(self._contents, self._weights)
            node.find_providers(multihash, self._fetched)

    def _fetched(self, walk: Walk) -> None:
        at = walk.first_found
        seconds = (self.network.time.now if at is None else at) - walk.began_at
        self._note(walk, "fetch", seconds, at is not None)

    def _is_in_time(self) -> bool:
        return self.network.time.now <= self.end

    def _note(self, walk: Walk, group: str, seconds: float, found: bool) -> None:
        self._open -= 1
        self._add(group, hops_of(walk), walk.rpcs, seconds, found)
        self.network.note(DONE, walk.node.number, walk.rpcs, int(found))

    def _add(self, group: str, hops: int, rpcs: int, seconds: float, found: bool) -> None:
        rows = self.lookups
        rows.hops.append(hops)
        rows.rpcs.append(rpcs)
        rows.seconds.append(round(seconds, 3))
        rows.found.append(int(found))
        rows.group.append(group)

    # What came of it

    def _sample(self) -> None:
        time = self.network.time.now - self.started
        counters = self.network.counters
        rpcs, size = counters.requests, counters.bytes
        self.traffic["time"].append(time)
        self.traffic["rpcs"].append(rpcs - self._counted[0])
        self.traffic["bytes"].append(size - self._counted[1])
        self.traffic["online"].append(sum(node.online for node in self.nodes))
        self._counted = (rpcs, size)
        if not self._contents:
            return
        alive, held = 0, 0
        for multihash, announcer in self._contents:
            peer = self.nodes[announcer].peer
            nearest = self.online.nearest(key_of(multihash), self.scenario.dht.k)
            holders = sum(
                any(
                    provider.peer_id == peer
                    for provider in self.nodes[number].providers.get(
                        multihash, 1, self.nodes[number].unix, self._draw
                    )
                )
                for number in nearest
            )
            held += holders
            alive += holders > 0
        self.records["time"].append(time)
        self.records["alive"].append(alive / len(self._contents))
        self.records["holders"].append(held / len(self._contents))

    def result(self) -> Result:
        """Return what a run that is over gave."""
        rows = self.lookups
        tables: dict[str, dict[str, Column]] = {
            LOOKUPS: {
                "hops": rows.hops,
                "rpcs": rows.rpcs,
                "seconds": rows.seconds,
                "found": rows.found,
                "group": rows.group,
            },
            TRAFFIC: dict(self.traffic),
        }
        if self.records["time"]:
            tables[RECORDS] = dict(self.records)
        if self.scenario.nodes <= MAX_DRAWN:
            edges = edges_of(self.network)
            tables[EDGES] = {"source": [a for a, _ in edges], "target": [b for _, b in edges]}
        wanted = self.scenario.metrics
        kept = {name: table for name, table in tables.items() if not wanted or name in wanted}
        return Result(self.scenario, self.seed, self.digest, self._summary(), kept)

    @property
    def digest(self) -> str:
        """Of everything that happened so far."""
        return self.network.digest.hex

    def _summary(self) -> dict[str, Value]:
        counters = self.network.counters
        online = [node for node in self.nodes if node.online]
        contacts = sum(len(node.table) for node in online)
        summary: dict[str, Value] = {
            "nodes": self.scenario.nodes,
            "online": len(online),
            "events": self.network.digest.count,
            "rpcs": counters.requests,
            "rpcs_failed": counters.failures,
            "bytes": counters.bytes,
            "contacts_mean": contacts / len(online) if online else None,
            "contents": len(self._contents),
        }
        if self.records["alive"]:
            summary["records_alive"] = self.records["alive"][-1]
            summary["record_holders"] = self.records["holders"][-1]
        for group in sorted(set(self.lookups.group)):
            summary.update(summary_of(self.lookups, group))
        return summary


def _behind_nat(scenario: Scenario) -> float:
    """Return the part of the nodes that others cannot reach: they are clients of the DHT."""
    nat = scenario.nat
    return nat.endpoint_independent + nat.port_restricted + nat.symmetric + nat.blocked


def servers_of(scenario: Scenario) -> int:
    """Return how many servers are there at the start: the first nodes, those of a snapshot."""
    return scenario.nodes - round(_behind_nat(scenario) * scenario.nodes)


def rules_of(scenario: Scenario, learn: bool = True) -> Rules:
    """Return the settings of the shipped rules that a scenario asks for."""
    dht = scenario.dht
    life = dht.record_life
    plain, announce = ProviderConfig(), AnnounceConfig()
    return Rules(
        TableConfig(k=dht.k),
        LookupConfig(k=dht.k, alpha=dht.alpha, enough=dht.beta),
        UpkeepConfig(refresh=dht.refresh),
        ProviderConfig(record_life=life, addrs_life=min(plain.addrs_life, life)),
        AnnounceConfig(
            every=dht.republish,
            jitter=min(announce.jitter, dht.republish * announce.jitter / announce.every),
            small=min(announce.small, dht.republish),
            retry=min(announce.retry, dht.republish),
        ),
        learn,
    )


def run(scenario: Scenario, seed: int, snapshot: Snapshot | None = None) -> Result:
    """Run a scenario without a swarm in the tier "code"."""
    with rare_collections():
        made = DhtRun(scenario, seed, snapshot)
        made.run()
        return made.result()
