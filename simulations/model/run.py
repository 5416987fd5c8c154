"""Runs a scenario in the model: tiers "model" and "model-hashed"."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..scenario.model import Scenario
from ..scenario.reading import BadScenario
from ..scenario.result import EDGES, LOOKUPS, RECORDS, Column, Result, Value
from ..scenario.support import check
from ..shelf import Arrays, Shelf
from . import swarm
from .attack import aimed_at, attacked_ids, evil_share, what_evil_does
from .churn import live, total_nodes
from .growth import grow
from .ids import random_ids, stream
from .living import stored
from .lookup import Rules
from .network import ALIVE, EVIL, SILENT, Behaviour, Net, all_status, make_net, with_attackers
from .records import follow_records
from .runs import Walks, draw_starts, draw_targets, look_up
from .tables import with_random_tables

MAX_PICTURE = 2000
"""Nodes of a network that is drawn."""

MAX_GROWN = 200_000
"""Nodes whose tables are grown: some ten minutes of a core."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Lookups of one kind."""

    name: str
    walks: Walks


def run(scenario: Scenario, seed: int, shelf: Shelf | None = None) -> Result:
    """Run a scenario with one seed.

    Args:
        scenario: What to run.
        seed: Of everything.
        shelf: Where tables are kept for other runs that begin with the same ones.

    Raises:
        BadScenario: The tier cannot express it; the sentence names what.
    """
    check(scenario)
    if scenario.swarm.pieces > 0:
        return swarm.run(scenario, seed)
    net, upkeep = _network(scenario, seed, shelf)
    groups = [] if _only_records(scenario) else _lookups(scenario, seed, net)
    summary: dict[str, Value] = {"nodes": scenario.nodes, "servers": _servers(scenario)}
    summary["contacts"] = _mean_contacts(net)
    if upkeep is not None:
        summary["upkeep_requests_per_node_second"] = upkeep
    tables: dict[str, Mapping[str, Column]] = {}
    if groups:
        tables[LOOKUPS] = _lookup_table(groups)
    for group in groups:
        summary |= _in_short(group)
    work = scenario.workload
    if work.contents and scenario.churn.law != "none":
        records = follow_records(net, scenario, draw_targets(work.contents, seed), seed)
        tables[RECORDS] = {
            "time": records.time,
            "alive": records.alive,
            "holders": records.holders,
        }
        summary["records_found"] = float(records.alive.mean())
        summary["records_found_least"] = float(records.alive.min())
        summary["records_found_by_beta"] = float(records.by_beta.mean())
    if scenario.nodes <= MAX_PICTURE and len(net.base):
        tables[EDGES] = _edges(net)
    if scenario.metrics:
        tables = {name: table for name, table in tables.items() if name in scenario.metrics}
    return Result(scenario, seed, _digest(net, groups, summary, tables), summary, tables)


def rules_of(scenario: Scenario) -> Rules:
    """Return the rules of a scenario's searches."""
    dht = scenario.dht
    return Rules(
        k=dht.k,
        alpha=dht.alpha,
        enough=dht.beta,
        paths=dht.paths,
        jitter=float(scenario.latency.jitter),
        evil_does=what_evil_does(scenario),
    )


def _servers(scenario: Scenario) -> int:
    """Return how many nodes serve: those behind a NAT that nobody gets through are clients."""
    nat = scenario.nat
    clients = nat.endpoint_independent + nat.port_restricted + nat.symmetric + nat.blocked
    servers = round(scenario.nodes * (1.0 - clients))
    if servers < 2:
        raise BadScenario("nat: no node that can be reached is left to serve the DHT")
    return servers


def tables_key(scenario: Scenario) -> str:
    """Return all of a scenario that its tables depend on, as text; "" if none are stored."""
    if scenario.tier == "model-hashed" or scenario.swarm.pieces or _only_records(scenario):
        return ""
    dht, churn = scenario.dht, scenario.churn
    facts: list[object] = [_servers(scenario), sum(attack.at_key for attack in scenario.attacks)]
    facts += [dht.tables, dht.k]
    if dht.tables == "grown":
        facts += [dht.alpha, dht.beta, dht.paths, dht.refresh]
    if churn.law != "none":
        facts += [churn, scenario.duration]
    return repr(facts)


def _only_records(scenario: Scenario) -> bool:
    """Return whether nothing is asked for but how records fare: that needs no tables."""
    return set(scenario.metrics) == {RECORDS}


def _network(scenario: Scenario, seed: int, shelf: Shelf | None) -> tuple[Net, float | None]:
    """Make the network; with churn also what upkeep cost."""
    dht, churn = scenario.dht, scenario.churn
    online = _servers(scenario)
    total = online if churn.law == "none" else total_nodes(churn, online)
    if dht.tables == "grown" and total > MAX_GROWN and not _only_records(scenario):
        raise BadScenario(
            f'nodes: at most {MAX_GROWN} tables are grown; say dht.tables = "random" (their '
            "lookups take some 15 % fewer hops)"
        )
    ids, sybils = attacked_ids(scenario, random_ids(total, seed), seed)
    evil = evil_share(scenario)
    if churn.law != "none":
        if dht.tables != "grown":
            raise BadScenario('churn: tables change only when dht.tables = "grown"')
        if evil or len(sybils):
            raise BadScenario("attacks: the model has no attackers among nodes that come and go")
    net = make_net(ids, seed, dht.k, scenario.latency, Behaviour(evil=evil))
    if scenario.tier == "model-hashed" or _only_records(scenario):
        return net, None
    if evil or len(sybils):
        status = all_status(net)
        status[np.searchsorted(ids, sybils)] = EVIL
        net = with_attackers(net._replace(status=status))

    def make() -> Arrays:
        return _tables(scenario, seed, net, online)

    found = make() if shelf is None else shelf.get(f"{seed} {tables_key(scenario)}", make)
    net = net._replace(base=found["base"], offsets=found["offsets"], contacts=found["contacts"])
    if churn.law == "none":
        return net, None
    return net._replace(status=found["status"]), float(found["upkeep"][0])


def _tables(scenario: Scenario, seed: int, net: Net, online: int) -> Arrays:
    """Make the tables; they depend on nothing but the seed and `tables_key`."""
    dht, churn = scenario.dht, scenario.churn
    if dht.tables == "random":
        return _stored_part(with_random_tables(net))
    # Attackers behave while the network grows, to be known by as many as they can.
    still = net._replace(spread=(0.0, 0.0, 0.0, 0.0), status=np.full(len(net.ids), ALIVE, np.uint8))
    rules = rules_of(scenario)._replace(jitter=0.0)
    if churn.law == "none":
        return _stored_part(stored(grow(still, seed, rules, refresh_every=dht.refresh)[0]))
    hours = scenario.duration / 3600.0
    lived = live(still, churn, online, hours, seed, rules, dht.refresh)
    kept = stored(lived.living)
    upkeep = np.array([lived.requests_per_node_second])
    return {**_stored_part(kept), "status": kept.status, "upkeep": upkeep}


def _stored_part(net: Net) -> dict[str, NDArray[Any]]:
    return {"base": net.base, "offsets": net.offsets, "contacts": net.contacts}


def _lookups(scenario: Scenario, seed: int, net: Net) -> list[_Group]:
    work, rules = scenario.workload, rules_of(scenario)
    groups: list[_Group] = []
    count = work.lookups
    if work.every > 0:
        count += round(scenario.nodes * scenario.duration / work.every)
    if count:
        starts = draw_starts(net, count, seed)
        targets = aimed_at(scenario, draw_targets(count, seed), seed)
        groups.append(_Group("lookup", look_up(net, rules, starts, targets)))
    if work.contents:
        targets = aimed_at(scenario, draw_targets(work.contents, seed), seed)
        starts = draw_starts(net, work.contents, seed + 1)
        wide = rules._replace(enough=rules.k)
        announced = look_up(net, wide, starts, targets, keep_results=True)
        groups.append(_Group("announce", announced))
        if work.fetches:
            chance = stream(seed, "popularity")
            weights = np.arange(1, work.contents + 1, dtype=np.float64) ** -work.zipf
            chosen = chance.choice(work.contents, work.fetches, p=weights / weights.sum())
            starts = draw_starts(net, work.fetches, seed + 2)
            holders = _honest(net, announced.results)[chosen]
            groups.append(
                _Group("fetch", look_up(net, rules, starts, targets[chosen], holders=holders))
            )
    elif work.fetches:
        raise BadScenario("workload.fetches: nothing is announced; set workload.contents, too")
    return groups


def _honest(net: Net, holders: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the holders without attackers, who took the record and say nothing of it."""
    if not len(net.status):
        return holders
    return np.where((holders >= 0) & (net.status[holders] != EVIL), holders, -1)


def _mean_contacts(net: Net) -> float | None:
    return float(len(net.contacts) / len(net.ids)) if len(net.base) else None


def _lookup_table(groups: list[_Group]) -> dict[str, Column]:
    return {
        "hops": np.concatenate([g.walks.column("hops") for g in groups]),
        "rpcs": np.concatenate([g.walks.column("rpcs") for g in groups]),
        "seconds": np.concatenate([g.walks.seconds for g in groups]),
        "found": np.concatenate([g.walks.column("found") for g in groups]),
        "group": np.repeat([g.name for g in groups], [len(g.walks.seconds) for g in groups]),
    }


def _edges(net: Net) -> dict[str, Column]:
    """Return who knows whom of those that are there, by their places among these."""
    sources = np.repeat(np.arange(len(net.ids)), np.diff(net.base))
    targets = net.contacts
    if len(net.status):
        there = net.status != SILENT
        place = np.cumsum(there) - 1
        both = there[sources] & there[targets]
        sources, targets = place[sources[both]], place[targets[both]]
    return {"source": sources, "target": targets}


def _in_short(group: _Group) -> dict[str, Value]:
    walks, name = group.walks, group.name
    plural = {"fetch": "fetches"}.get(name, f"{name}s")
    seconds = np.percentile(walks.seconds, [50, 90, 99])
    return {
        plural: len(walks.seconds),
        f"{name}_hops": float(walks.column("hops").mean()),
        f"{name}_rpcs": float(walks.column("rpcs").mean()),
        f"{name}_found": float(walks.column("found").mean()),
        f"{name}_seconds_p50": float(seconds[0]),
        f"{name}_seconds_p90": float(seconds[1]),
        f"{name}_seconds_p99": float(seconds[2]),
    }


def _digest(
    net: Net,
    groups: list[_Group],
    summary: Mapping[str, Value],
    tables: Mapping[str, Mapping[str, Column]],
) -> str:
    """Hash all that came out: numbers as they are in memory, in a fixed order."""
    found = hashlib.sha256()
    found.update(np.ascontiguousarray(net.ids[:: max(1, len(net.ids) // 10_000)]).tobytes())
    found.update(np.ascontiguousarray(net.contacts).data)  # a copy would be as large again
    for group in groups:
        found.update(group.name.encode())
        found.update(np.ascontiguousarray(group.walks.rows).tobytes())
        found.update(np.ascontiguousarray(group.walks.seconds).tobytes())
    for name in sorted(summary):
        value = summary[name]
        found.update(f"{name}={value!r}\n".encode() if not _is_nan(value) else b"nan")
    for name in sorted(tables):
        for column in sorted(tables[name]):
            found.update(f"{name}.{column}".encode())
            found.update(np.ascontiguousarray(tables[name][column]).tobytes())
    return found.hexdigest()


def _is_nan(value: Value) -> bool:
    return isinstance(value, float) and math.isnan(value)
