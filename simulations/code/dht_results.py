"""What a run of the DHT is told by: rows of lookups, their summary, the picture of the network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..scenario.result import Value
from .dht_network import Network


@dataclass(slots=True)
class Lookups:
    """One row for each lookup, announcement and fetch."""

    hops: list[int]
    rpcs: list[int]
    seconds: list[float]
    found: list[int]
    group: list[str]


def summary_of(rows: Lookups, group: str, *, hops: bool = True) -> dict[str, Value]:
    """Return means and percentiles of one kind of lookup."""
    chosen = [at for at, name in enumerate(rows.group) if name == group]
    count = len(chosen)
    times = sorted(rows.seconds[at] for at in chosen)
    found: dict[str, Value] = {
        f"{group}es" if group.endswith("h") else f"{group}s": count,
        f"{group}_success": sum(rows.found[at] for at in chosen) / count,
        f"{group}_rpcs": sum(rows.rpcs[at] for at in chosen) / count,
    }
    if hops:
        found[f"{group}_hops"] = sum(rows.hops[at] for at in chosen) / count
    for percent in (50, 90, 99):
        found[f"{group}_p{percent}"] = times[min(count - 1, math.ceil(count * percent / 100) - 1)]
    return found


def edges_of(network: Network) -> list[tuple[int, int]]:
    """Return who has whom in its table, of those that are there."""
    return [
        (node.number, network.index[contact.peer])
        for node in network.nodes
        if node.online
        for contact in node.table
    ]
