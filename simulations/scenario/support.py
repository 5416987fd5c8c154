"""What a tier cannot express is refused by name, never ignored.

One row for each thing: the tiers that lack it, when a scenario asks for it, and the sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from .model import Dht, Scenario, Tier
from .reading import BadScenario

MAX_FULL_NODES: Final = 500
"""Whole nodes in one process: their handshakes alone take a minute of a core."""

MAX_CODE_NODES: Final = 20_000
"""Nodes at message level: a table takes some 100 kB."""

MAX_STORED_NODES: Final = 10_000_000
"""Nodes of the model whose tables are stored: 1.4 kB each."""

CODE: Final[tuple[Tier, ...]] = ("code", "code-full")
FULL: Final[tuple[Tier, ...]] = ("code-full",)
MESSAGES: Final[tuple[Tier, ...]] = ("code",)
MODEL: Final[tuple[Tier, ...]] = ("model", "model-hashed")
HASHED: Final[tuple[Tier, ...]] = ("model-hashed",)
STORED: Final[tuple[Tier, ...]] = ("model",)


class NotExpressible(BadScenario):
    """A scenario asks its tier for what that tier does not have."""


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that some tiers lack."""

    tiers: tuple[Tier, ...]
    key: str
    asked: Callable[[Scenario], bool]
    why: str


def _has_dht_work(scenario: Scenario) -> bool:
    work = scenario.workload
    return bool(work.lookups or work.contents or work.fetches or work.every)


def _fault(*kinds: str) -> Callable[[Scenario], bool]:
    return lambda scenario: any(fault.kind in kinds for fault in scenario.faults)


GAPS: Final = (
    Gap(CODE, "dht.paths", lambda s: s.dht.paths != 1, "the shipped node has one path"),
    Gap(CODE, "attacks", lambda s: bool(s.attacks), "the shipped code has no attackers"),
    Gap(
        MESSAGES,
        "nodes",
        lambda s: s.nodes > MAX_CODE_NODES,
        f"at message level at most {MAX_CODE_NODES} fit into memory",
    ),
    Gap(
        MESSAGES,
        "links",
        lambda s: bool(s.links) and not s.swarm.pieces,
        "the messages of the DHT have no size at message level",
    ),
    Gap(
        MESSAGES,
        "workload",
        lambda s: bool(s.swarm.pieces) and _has_dht_work(s),
        "a run at message level is either of the DHT or of a swarm (swarm.pieces = 0)",
    ),
    Gap(
        MESSAGES,
        "faults.kind",
        _fault("reset"),
        "there are no streams to reset at message level",
    ),
    Gap(
        MESSAGES,
        "faults.kind",
        _fault("disk-full", "disk-torn"),
        "there are no disks at message level",
    ),
    Gap(
        FULL,
        "nodes",
        lambda s: s.nodes > MAX_FULL_NODES,
        f"at most {MAX_FULL_NODES} whole nodes run in one process",
    ),
    Gap(FULL, "churn.law", lambda s: s.churn.law != "none", "use faults of the kind crash"),
    Gap(
        FULL,
        "dht.tables",
        lambda s: s.dht.tables != "joined",
        'whole nodes really join: say dht.tables = "joined"',
    ),
    Gap(
        FULL,
        "dht",
        lambda s: s.dht != replace(Dht(), tables=s.dht.tables, paths=s.dht.paths),
        "whole nodes have the widths and periods of the shipped node",
    ),
    Gap(
        FULL,
        "latency.jitter",
        lambda s: s.latency.jitter > 0.0,
        "between whole nodes a pair's latency does not vary",
    ),
    Gap(
        FULL,
        "nat",
        lambda s: any((s.nat.endpoint_independent, s.nat.symmetric, s.nat.blocked, s.nat.mapped)),
        "the network of whole nodes has firewalls alone (nat.port_restricted)",
    ),
    Gap(FULL, "swarm", lambda s: bool(s.swarm.pieces), "whole nodes fetch by workload.fetches"),
    Gap(MODEL, "faults", lambda s: bool(s.faults), "the model has no faults"),
    Gap(
        MODEL,
        "dht.tables",
        lambda s: s.dht.tables == "joined",
        "in the model nobody joins one by one: grown tables are as joins leave them",
    ),
    Gap(
        STORED,
        "nodes",
        lambda s: s.nodes > MAX_STORED_NODES,
        f"stored tables of more than {MAX_STORED_NODES} nodes do not fit: use model-hashed",
    ),
    Gap(
        HASHED,
        "dht.tables",
        lambda s: s.dht.tables != "random",
        'tables from a hash are ideal ones: say dht.tables = "random"',
    ),
    Gap(HASHED, "churn.law", lambda s: s.churn.law != "none", "its tables never change"),
    Gap(
        HASHED,
        "workload",
        lambda s: bool(s.workload.contents or s.workload.fetches),
        "nodes keep no records when tables come from a hash",
    ),
    Gap(HASHED, "swarm", lambda s: bool(s.swarm.pieces), "a swarm has no tables: use model"),
)


def gaps(scenario: Scenario) -> list[str]:
    """Return a sentence for each thing that the scenario's tier cannot express."""
    return [
        f"the tier {scenario.tier} cannot express {gap.key}: {gap.why}"
        for gap in GAPS
        if scenario.tier in gap.tiers and gap.asked(scenario)
    ]


def check(scenario: Scenario) -> None:
    """Refuse a scenario that its tier cannot express.

    Raises:
        NotExpressible: The first thing that is missing.
    """
    for sentence in gaps(scenario):
        raise NotExpressible(sentence)
