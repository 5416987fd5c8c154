"""Do the tiers agree? The same lookups over the same tables, by the shipped code and by the model.

Grown tables, latencies, who looks for what and which nodes are dead are the same for both; tables
stay as they are, and every request takes one round trip. Means and percentiles are compared;
within the bands a model counts as one of the code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..dht.keyspace import key_of
from ..dht.walks import WALK_DEADLINE
from .code.dht import DhtRun
from .code.dht_walk import Walk, hops_of
from .garbage import rare_collections
from .latency import Geography
from .randomness import SeededRandom
from .scenario.model import Dht, Latency, Scenario
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .model.lookup import Rules

HOPS_BAND: Final = 0.05
RPCS_BAND: Final = 0.10
LATENCY_BAND: Final = 0.10
"""Parts by which the model may be off."""

SUCCESS_BAND: Final = 0.01
"""Points by which the shares of lookups that find the nearest living node may differ."""

APART: Final = 0.05
"""Seconds between two lookups of the code tier; they share nothing but time."""


@dataclass(frozen=True, slots=True)
class Questions:
    """Lookups to be done in both tiers."""

    starts: tuple[int, ...]
    keys: tuple[bytes, ...]
    """What is asked for; the target is what it hashes to."""
    dead: frozenset[int]
    """Nodes that never answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tier gave, one entry for each lookup."""

    hops: Sequence[float]
    rpcs: Sequence[float]
    found: Sequence[float]
    seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Row:
    """One number, by both tiers."""

    name: str
    code: float
    model: float
    band: str
    agrees: bool

    def line(self) -> str:
        """Say it in one line."""
        verdict = "agrees" if self.agrees else "DIFFERS"
        return f"{self.name}: code {self.code:.4g}, model {self.model:.4g}, {self.band}: {verdict}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the tiers agree on one network."""

    nodes: int
    lookups: int
    dead: float
    seed: int
    rows: tuple[Row, ...]

    @property
    def agrees(self) -> bool:
        """Whether all numbers do."""
        return all(row.agrees for row in self.rows)


def questions(nodes: int, lookups: int, seed: int, dead: float = 0.0) -> Questions:
    """Draw lookups of random keys by random living nodes."""
    draw = SeededRandom(seed, "agree").stream("questions")
    gone = frozenset(draw.sample(range(nodes), round(dead * nodes)))
    living = [node for node in range(nodes) if node not in gone]
    starts = tuple(draw.choice(living) for _ in range(lookups))
    return Questions(starts, tuple(b"\x12\x20" + draw.randbytes(32) for _ in starts), gone)


class _CodeLookups:
    """The lookups in the code tier."""

    def __init__(self, scenario: Scenario, seed: int, asked: Questions, tables: Snapshot) -> None:
        self._run = DhtRun(scenario, seed, tables, trips=1.0, learn=False)
        self._rows: list[tuple[int, int, bool, float]] = []
        for number in sorted(asked.dead):
            self._run.nodes[number].silent = True
            self._run.online.remove(self._run.nodes[number])
        for number, start in enumerate(asked.starts):
            key = asked.keys[number]
            self._run.network.time.at(
                number * APART, self._run.nodes[start].look, key, self._looked
            )

    def _looked(self, walk: Walk) -> None:
        result = walk.lookup.result
        nearest = self._run.online.nearest(walk.lookup.target, 2)
        wanted = next(number for number in nearest if number != walk.node.number)
        is_found = bool(result) and self._run.network.index[result[0]] == wanted
        took = self._run.network.time.now - walk.began_at
        self._rows.append((hops_of(walk), walk.rpcs, is_found, took))

    @property
    def places(self) -> Geography:
        return self._run.network.places

    def outcome(self) -> Outcome:
        self._run.run()
        self._run.network.time.run(self._run.end + WALK_DEADLINE)
        hops, rpcs, found, seconds = zip(*self._rows, strict=True)
        return Outcome(hops, rpcs, [float(is_found) for is_found in found], seconds)


def by_code(scenario: Scenario, seed: int, asked: Questions, tables: Snapshot) -> Outcome:
    """Do the lookups with the shipped rules at message level."""
    return _CodeLookups(scenario, seed, asked, tables).outcome()


def by_model(asked: Questions, tables: Snapshot, rules: Rules, places: Geography) -> Outcome:
    """Do the lookups in the model."""
    import numpy as np

    from .model.ids import prefixes
    from .model.network import SILENT
    from .model.runs import look_up
    from .model.warm import net_of

    net, number_of = net_of(tables, rules.k, places)
    status = np.zeros(len(tables), np.uint8)
    status[number_of[list(asked.dead)]] = SILENT
    targets = np.frombuffer(b"".join(map(key_of, asked.keys)), np.uint8).reshape(-1, 32)
    starts = number_of[np.array(asked.starts)]
    done = look_up(net._replace(status=status), rules, starts, prefixes(targets))
    return Outcome(
        done.column("hops").tolist(),
        done.column("rpcs").tolist(),
        done.column("found").tolist(),
        done.seconds.tolist(),
    )


def compare(code: Outcome, model: Outcome) -> tuple[Row, ...]:
    """Hold the outcomes of both tiers against the bands."""
    rows = [
        _relative("hops", _mean(code.hops), _mean(model.hops), HOPS_BAND),
        _relative("rpcs", _mean(code.rpcs), _mean(model.rpcs), RPCS_BAND),
    ]
    ours, theirs = _mean(code.found), _mean(model.found)
    near = abs(ours - theirs) <= SUCCESS_BAND
    rows.append(Row("success", ours, theirs, f"within {SUCCESS_BAND:g}", near))
    for percent in (50, 90, 99):
        pair = (_percentile(code.seconds, percent), _percentile(model.seconds, percent))
        rows.append(_relative(f"latency {percent} %", *pair, LATENCY_BAND))
    return tuple(rows)


def agree(
    nodes: int = 1000,
    lookups: int = 1000,
    seed: int = 1,
    *,
    dead: float = 0.0,
    dht: Dht | None = None,
    latency: Latency | None = None,
) -> Agreement:
    """Run the same lookups in both tiers and compare them.

    Args:
        nodes: Of the network, whose tables are grown by joins.
        lookups: How many.
        seed: Of everything.
        dead: Part of the nodes that never answer.
        dht: Widths.
        latency: Of the pairs.
    """
    from .model.lookup import Rules
    from .model.warm import snapshot

    dht = dht or Dht()
    tables = snapshot(nodes, seed, dht.k)
    scenario = Scenario(
        name="agree",
        tier="code",
        nodes=nodes,
        duration=lookups * APART,
        latency=latency or Latency(),
        dht=dht,
    )
    asked = questions(nodes, lookups, seed, dead)
    rules = Rules(k=dht.k, alpha=dht.alpha, enough=dht.beta)
    with rare_collections():
        code = _CodeLookups(scenario, seed, asked, tables)
        model = by_model(asked, tables, rules, code.places)
        return Agreement(nodes, lookups, dead, seed, compare(code.outcome(), model))


def _relative(name: str, code: float, model: float, band: float) -> Row:
    off = abs(model - code) <= band * abs(code)
    return Row(name, code, model, f"within {band:.0%}", off)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
