"""A swarm at message level: one content, seeds that hold it, leechers that want it."""

from __future__ import annotations

import math
import random
from typing import Final

from ...swarm.picker import Order
from ..randomness import SeededRandom
from ..scenario.model import LinkClass, Scenario
from ..trace import Trace
from .events import Events
from .swarm_lines import Line, Part, Way
from .swarm_peer import Content, Link, Peer

GREETING_TRIPS: Final = 4
"""One-way latencies until both proofs are there on a new connection: three round trips less what
runs together (design: section 3)."""

SAMPLES: Final = 100
"""Rows of the availability table, about."""


class Swarm:
    """See the top of the file."""

    def __init__(self, scenario: Scenario, seed: int, content: Content) -> None:
        self.scenario = scenario
        self.content = content
        self.events = Events()
        self.trace = Trace()
        swarm = scenario.swarm
        root = SeededRandom(seed, "swarm")
        chance = root.stream("lines")
        self.latency = (scenario.latency.median_rtt or 0.1) / 2
        self.seeds = [self._peer(f"s{n}", seed, chance, None) for n in range(swarm.seeds)]
        order = Order.SEQUENTIAL if swarm.order == "sequential" else Order.RAREST
        self.leechers = [self._peer(f"l{n}", seed, chance, order) for n in range(swarm.leechers)]
        self.peers = [*self.seeds, *self.leechers]
        self.classes: dict[str, str]
        self.times: list[float] = []
        self.least: list[int] = []
        self.mean: list[float] = []
        self.done: list[int] = []
        self._meet(root.stream("neighbours"))
        for number, leecher in enumerate(self.leechers):
            at = swarm.arrival * number / max(1, swarm.leechers)
            self.events.at(at, leecher.begin)

    def _peer(self, name: str, seed: int, chance: random.Random, order: Order | None) -> Peer:
        line_class = _draw(self.scenario.links, chance)
        up, down = (line_class.up, line_class.down) if line_class else (None, None)
        line = Line(self.events, up, down)
        return Peer(
            name,
            self.content,
            line,
            self.events,
            SeededRandom(seed, name),
            order,
            self.trace.note,
        )

    def _meet(self, chance: random.Random) -> None:
        """Let each leecher know some others; a link goes both ways."""
        count = self.scenario.swarm.neighbours or len(self.peers)
        met: set[tuple[str, str]] = set()
        arrival = self.scenario.swarm.arrival / max(1, len(self.leechers))
        for number, peer in enumerate(self.leechers):
            others = [other for other in self.peers if other is not peer]
            for other in chance.sample(others, min(len(others), max(1, count // 2))):
                pair = (min(peer.name, other.name), max(peer.name, other.name))
                if pair not in met:
                    met.add(pair)
                    later = max(number, int(other.name[1:]) if other.name[0] == "l" else 0)
                    self._join(peer, other, later * arrival)

    def _join(self, one: Peer, other: Peer, at: float) -> None:
        link, mirror = Link(one, other), Link(other, one)
        link.mirror, mirror.mirror = mirror, link
        for here, there in ((link, mirror), (mirror, link)):
            here.way = self._way(here, there)

        def greeted() -> None:
            one.joined(link)
            other.joined(mirror)

        self.events.at(at + GREETING_TRIPS * self.latency, greeted)

    def _way(self, here: Link, there: Link) -> Way:
        def deliver(parts: list[Part]) -> None:
            there.owner.deliver(there, parts)

        return Way(
            here.owner.line,
            there.owner.line,
            self.latency,
            deliver,
            here.owner.drained,
        )

    def run(self) -> None:
        """Let it all happen."""
        self.events.run(self.scenario.duration, self.over)

    def over(self) -> bool:
        """Whether every leecher has everything."""
        return all(peer.completed_at is not None for peer in self.leechers)


def _draw(links: tuple[LinkClass, ...], chance: random.Random) -> LinkClass | None:
    if not links:
        return None
    return chance.choices(links, [link.share for link in links])[0]


def bound(swarm: Swarm) -> float:
    """Return Kumar & Ross's least time (2006): T = max(F / d, F / u_seed, L F / (u_seed + L u))."""
    size = swarm.content.size
    seeds = sum(peer.line.up or math.inf for peer in swarm.seeds)
    all_up = seeds + sum(peer.line.up or math.inf for peer in swarm.leechers)
    slowest = min(peer.line.down.rate or math.inf for peer in swarm.leechers)
    return max(size / slowest, size / seeds, len(swarm.leechers) * size / all_up)
