"""A scenario: all that decides a run but its seed. Times in seconds, rates in bytes a second.

A tier refuses by name what it cannot express; it never ignores a field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Tier = Literal["code", "code-full", "model", "model-hashed"]
"""code: production rules at message level; code-full: whole nodes with Noise and yamux;
model: arrays, tables stored; model-hashed: tables recomputed from a hash."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One stable round trip for each pair: distance of two coordinates + both access delays."""

    profile: Literal["none", "lan", "world", "king"] = "world"
    median_rtt: float | None = None
    """Scales the profile so that the median pair has this round trip; None = as it is."""
    jitter: float = 0.0
    """Part of the latency by which a message may be later."""


@dataclass(frozen=True, slots=True)
class LinkClass:
    """A kind of access line."""

    name: str
    up: float
    down: float
    share: float = 1.0
    """Part of the nodes that have it; shares are relative to one another."""


@dataclass(frozen=True, slots=True)
class Nat:
    """Shares of the nodes by kind of NAT; the rest can be reached by anybody."""

    endpoint_independent: float = 0.0
    port_restricted: float = 0.0
    symmetric: float = 0.0
    blocked: float = 0.0
    """A firewall that lets nothing in, and no hole punched."""
    mapped: float = 0.0
    """Behind a NAT whose router forwards a port."""


@dataclass(frozen=True, slots=True)
class Churn:
    """Session and offline lengths; nodes present at the start have the age they should have."""

    law: Literal["none", "exponential", "weibull", "lognormal"] = "none"
    median: float = 7200.0
    """Of a session."""
    shape: float = 1.0
    """Weibull's shape, or the log-normal's sigma."""
    offline: float = 7200.0
    """Mean time until a node comes back."""
    crash: float = 1.0
    """Part of the departures without a goodbye."""


@dataclass(frozen=True, slots=True)
class Dht:
    """Rules of the DHT (defaults: those of the shipped node)."""

    k: int = 20
    alpha: int = 10
    beta: int = 3
    paths: int = 1
    """Disjoint paths of a lookup (model only: the shipped node has one)."""
    refresh: float = 600.0
    republish: float = 22 * 3600.0
    record_life: float = 48 * 3600.0
    tables: Literal["grown", "random", "joined"] = "grown"
    """grown: as joins leave them; random: ideal ones; joined: each node really joins."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What nodes do."""

    lookups: int = 0
    """Lookups of random keys in all."""
    contents: int = 0
    """Contents that are announced."""
    fetches: int = 0
    """Fetches of announced contents (records are looked up, providers found)."""
    zipf: float = 1.0
    """Exponent of the popularity of contents."""
    every: float = 0.0
    """Mean seconds between two lookups of a node; 0 = they are spread evenly over the duration."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """One content that leechers fetch from seeds; `pieces` = 0: no swarm."""

    pieces: int = 0
    piece_bytes: int = 1 << 20
    seeds: int = 1
    leechers: int = 0
    neighbours: int = 40
    """Peers that each knows; 0 = all."""
    arrival: float = 0.0
    """Seconds over which leechers arrive, evenly."""
    leave: bool = False
    """Whether leechers leave when they are done."""
    order: Literal["rarest", "random", "sequential"] = "rarest"
    site_bytes: float | None = None
    """Rate of a line that all leechers share towards the seeds; None = there is none."""
    slots: int = 8
    """Peers that each serves at a time at most, on a fast line (default: as the shipped node)."""
    rotate: float = 2.0
    """Seconds of a line that a peer's turn brings it, shared by the slots; a piece at least
    (default: as the shipped node)."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What a part of the nodes does to the others."""

    kind: Literal["sybil", "eclipse", "drop", "lie", "free-ride", "poison"] = "drop"
    share: float = 0.0
    """Part of the nodes."""
    at_key: int = 0
    """Sybils whose ids are nearer to one key than all honest ones."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that breaks, below the seam of the shipped code."""

    kind: Literal[
        "cut", "heal", "reset", "slow", "silent", "crash", "disk-full", "disk-torn", "skew"
    ]
    at: float = 0.0
    share: float = 1.0
    """Part of the nodes that it meets, chosen by the seed."""
    amount: float = 0.0
    """slow: bytes a second; skew: seconds; cut: seconds until it heals (0 = never)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """See the top of the file."""

    name: str = "scenario"
    tier: Tier = "model"
    nodes: int = 1000
    duration: float = 600.0
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    latency: Latency = field(default_factory=Latency)
    links: tuple[LinkClass, ...] = ()
    """None: as fast as the latency lets it be."""
    nat: Nat = field(default_factory=Nat)
    churn: Churn = field(default_factory=Churn)
    dht: Dht = field(default_factory=Dht)
    workload: Workload = field(default_factory=Workload)
    swarm: Swarm = field(default_factory=Swarm)
    attacks: tuple[Attack, ...] = ()
    faults: tuple[Fault, ...] = ()
    metrics: tuple[str, ...] = ()
    """Tables to write; none = all that the tier has."""
