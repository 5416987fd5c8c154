"""A swarm at message level: one content, seeds that hold it, leechers that want it."""

from __future__ import annotations

import hashlib
import math
import random
from statistics import median
from typing import Final

from ...swarm.picker import Order
from ..randomness import SeededRandom
from ..scenario.model import LinkClass, Nat, Scenario
from ..scenario.result import AVAILABILITY, COMPLETIONS, Result
from ..trace import Trace
from .events import Events
from .swarm_lines import Line, Part, Way
from .swarm_peer import Content, Link, Peer

GREETING_TRIPS: Final = 4
"""One-way latencies until both proofs are there on a new connection: three round trips less what
runs together (design: section 3)."""

SAMPLES: Final = 100
"""Rows of the availability table within the bound, at most."""

SAMPLED_PIECES: Final = 4096
"""With more pieces the table has one row only."""


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
        self.classes: dict[str, str] = {}
        self.latency = (scenario.latency.median_rtt or 0.1) / 2
        self.seeds = [self._peer(f"s{n}", seed, chance, None) for n in range(swarm.seeds)]
        order = Order.SEQUENTIAL if swarm.order == "sequential" else Order.RAREST
        self.leechers = [self._peer(f"l{n}", seed, chance, order) for n in range(swarm.leechers)]
        self.peers = [*self.seeds, *self.leechers]
        self.times: list[float] = []
        self.least: list[int] = []
        self.mean: list[float] = []
        self.done: list[int] = []
        self._meet(root.stream("neighbours"))
        for number, leecher in enumerate(self.leechers):
            at = swarm.arrival * number / max(1, swarm.leechers)
            self.events.at(at, leecher.begin)
            leecher.leaves = swarm.leave

    def _peer(self, name: str, seed: int, chance: random.Random, order: Order | None) -> Peer:
        line_class = _draw(self.scenario.links, chance)
        up, down = (line_class.up, line_class.down) if line_class else (None, None)
        line = Line(self.events, up, down)
        self.classes[name] = line_class.name if line_class else ""
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
            if not (one.departed or other.departed):
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
        if self.content.pieces <= SAMPLED_PIECES:
            self.events.at(0.0, self._sample)
        self.events.run(self.scenario.duration, self.over)
        self._look()

    def _sample(self) -> None:
        self._look()
        self.events.after(max(1.0, bound(self) / SAMPLES), self._sample)

    def _look(self) -> None:
        """Note how rare pieces are."""
        copies = [0] * self.content.pieces
        for peer in self.peers:
            for piece in peer.held.search(1):
                copies[piece] += 1
        self.times.append(self.events.now)
        self.least.append(min(copies))
        self.mean.append(sum(copies) / len(copies))
        self.done.append(sum(peer.completed_at is not None for peer in self.leechers))

    def over(self) -> bool:
        """Whether every leecher has everything."""
        return all(peer.completed_at is not None for peer in self.leechers)


def _draw(links: tuple[LinkClass, ...], chance: random.Random) -> LinkClass | None:
    if not links:
        return None
    return chance.choices(links, [link.share for link in links])[0]


def content_of(scenario: Scenario, seed: int, *, real: bool = False) -> Content:
    """Return what is fetched; `real`: with bytes, of which each piece is hashed as it comes."""
    swarm = scenario.swarm
    if not real:
        return Content(swarm.pieces, swarm.piece_bytes)
    chance = SeededRandom(seed, "content").stream("bytes")
    data = tuple(chance.randbytes(swarm.piece_bytes) for _ in range(swarm.pieces))
    digests = tuple(hashlib.sha256(piece).digest() for piece in data)
    return Content(swarm.pieces, swarm.piece_bytes, data, digests)


def refuse(scenario: Scenario) -> None:
    """Refuse what this tier does not express.

    Raises:
        ValueError: With the name of what it is.
    """
    for name, given in (
        ("churn", scenario.churn.law != "none"),
        ("nat", scenario.nat != Nat()),
        ("attacks", bool(scenario.attacks)),
        ("faults", bool(scenario.faults)),
        ("swarm.order", scenario.swarm.order == "random"),
        ("swarm.site_bytes", scenario.swarm.site_bytes is not None),
        ("latency.jitter", scenario.latency.jitter != 0),
    ):
        if given:
            raise ValueError(f"the swarm of tier code does not express {name}")


def check(swarm: Swarm) -> None:
    """Check what must hold in every run.

    Raises:
        AssertionError: A piece came from nowhere, or bytes did.
    """
    piece = swarm.content.piece_bytes
    for peer in swarm.leechers:
        if (peer.held & ~peer.brought).any():
            raise AssertionError(f"{peer.name} holds a piece that no message brought")
        if peer.received != peer.brought.count() * piece + peer.wasted:
            raise AssertionError(f"{peer.name} received bytes that are not accounted for")
    if sum(peer.received for peer in swarm.peers) > sum(peer.line.sent for peer in swarm.peers):
        raise AssertionError("more was received than sent")
    last = max((peer.completed_at or 0.0 for peer in swarm.leechers), default=0.0)
    if swarm.over() and swarm.leechers and last < bound(swarm):
        raise AssertionError(f"faster than the bound: {last} s instead of {bound(swarm)} s")


def run(scenario: Scenario, seed: int, *, real: bool = False) -> Result:
    """Run a scenario's swarm."""
    refuse(scenario)
    swarm = Swarm(scenario, seed, content_of(scenario, seed, real=real))
    swarm.run()
    check(swarm)
    leechers = swarm.leechers
    completed = [peer.completed_at for peer in leechers if peer.completed_at is not None]
    seconds = max(completed) if completed and len(completed) == len(leechers) else None
    least = bound(swarm)
    return Result(
        scenario,
        seed,
        swarm.trace.digest,
        {
            "leechers": len(leechers),
            "done": len(completed),
            "seconds": seconds,
            "median_seconds": median(completed) if completed else None,
            "bound": least,
            "ratio": seconds / least if seconds is not None and least else None,
            "wasted_bytes": sum(peer.wasted for peer in swarm.peers),
            "seed_bytes": sum(peer.line.sent for peer in swarm.seeds),
        },
        {
            COMPLETIONS: {
                "node": [peer.name for peer in leechers],
                "link": [swarm.classes[peer.name] for peer in leechers],
                "arrived": [peer.arrived_at for peer in leechers],
                "completed": [
                    math.nan if peer.completed_at is None else peer.completed_at
                    for peer in leechers
                ],
                "up_bytes": [peer.line.sent for peer in leechers],
                "down_bytes": [peer.received for peer in leechers],
            },
            AVAILABILITY: {
                "time": swarm.times,
                "least": swarm.least,
                "mean": swarm.mean,
                "done": swarm.done,
            },
        },
    )


def bound(swarm: Swarm) -> float:
    """Return Kumar & Ross's least time (2006): T = max(F / d, F / u_seed, L F / (u_seed + L u))."""
    size = swarm.content.size
    seeds = sum(peer.line.up or math.inf for peer in swarm.seeds)
    all_up = seeds + sum(peer.line.up or math.inf for peer in swarm.leechers)
    slowest = min(peer.line.down.rate or math.inf for peer in swarm.leechers)
    return max(size / slowest, size / seeds, len(swarm.leechers) * size / all_up)
