"""Provider records while nodes come and go: whether they are found, and how many keep them.

Lookups are taken to find the nearest that are online (experiments 6 and 12 say how nearly),
so only nodes near a content matter. The k nearest online take each announcement; a record lives for
its life, also while its holder is away, but one younger than an hour is lost in a crash (the
shipped node writes records down once an hour). The announcer stays online.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..scenario.model import Scenario
from .churn import AWAY, LENGTH, LENGTH_TOO, Law, away_length, law_of, session_length, time_left
from .compiled import draw, entry, share_of
from .ids import stream
from .network import Net
from .tables import nearest_nodes

CRASHED, EARLIER = 31, 32
"""Purposes of hashes."""

NEAR: Final = 8
"""Nodes around a content that may ever be among its k nearest online, in multiples of k. With a
third of the nodes online on average 2.7 k of them are."""

STEP: Final = 600.0
"""Seconds between two looks at the records."""

SAVED_AFTER: Final = 3600.0
"""Seconds between two savings of records (node.find_upkeep)."""

ANNOUNCED_EARLIER: Final = 3600.0
"""Seconds by which an announcement may come earlier (dht.announcements)."""


@dataclass(frozen=True, slots=True)
class Records:
    """How records fared, at regular times."""

    time: NDArray[np.float64]
    alive: NDArray[np.float64]
    """Part of the contents for which one of the k nearest online has a record."""
    by_beta: NDArray[np.float64]
    """Part for which one of the beta nearest has: those that a search is sure to ask."""
    holders: NDArray[np.float64]
    """Mean number of records among the k nearest online."""


@entry
def _records(
    net: Net,
    law: Law,
    targets: NDArray[np.uint64],
    status: NDArray[np.bool_],
    turns: NDArray[np.float64],
    numbers: tuple[int, int],
    periods: tuple[float, float, float],
    found: NDArray[np.float64],
) -> int:
    """Follow each content; `found` gets sums over the contents. Return how often too few were near.

    Args:
        net: Ids of all nodes, online or not.
        law: Of the sessions.
        targets: Keys of the contents.
        status: Who is online at the start.
        turns: When each node changes that for the first time.
        numbers: k and beta.
        periods: Republish, life of a record, part of departures that are crashes.
        found: For each look: alive, alive by beta, holders.
    """
    k, beta = numbers
    republish, life, crash = periods
    near = np.empty(NEAR * k, np.int64)
    held = np.empty(NEAR * k)
    online = np.empty(NEAR * k, np.bool_)
    turn = np.empty(NEAR * k)
    turned = np.empty(NEAR * k, np.int64)
    short = 0
    seed = net.seed
    for content in range(len(targets)):
        count = nearest_nodes(net, targets[content], NEAR * k, near)
        for place in range(count):
            held[place] = -np.inf
            online[place] = status[near[place]]
            turn[place] = turns[near[place]]
            turned[place] = 0
        announce_at = 0.0
        announced = 0
        for look in range(found.shape[0]):
            now = look * STEP
            for place in range(count):
                node = near[place]
                while turn[place] <= now:
                    number = turned[place]
                    turned[place] += 1
                    if online[place]:
                        if (
                            turn[place] - held[place] < SAVED_AFTER
                            and share_of(draw(seed, CRASHED, node, number)) < crash
                        ):
                            held[place] = -np.inf
                        turn[place] += away_length(law, draw(seed, AWAY, node, number))
                    else:
                        one = draw(seed, LENGTH, node, number)
                        turn[place] += session_length(
                            law, one, draw(seed, LENGTH_TOO, node, number)
                        )
                    online[place] = not online[place]
            if now >= announce_at:
                taken = 0
                for place in range(count):
                    if taken < k and online[place]:
                        held[place] = now
                        taken += 1
                announced += 1
                early = share_of(draw(seed, EARLIER, content, announced)) * ANNOUNCED_EARLIER
                announce_at = now + max(STEP, republish - early)
            seen = 0
            holders = 0
            first = k
            for place in range(count):
                if seen == k:
                    break
                if online[place]:
                    if now - held[place] <= life:
                        holders += 1
                        first = min(first, seen)
                    seen += 1
            short += seen < k and count == NEAR * k
            found[look, 0] += holders > 0
            found[look, 1] += first < beta
            found[look, 2] += holders
    return short


def follow_records(net: Net, scenario: Scenario, targets: NDArray[np.uint64], seed: int) -> Records:
    """Follow the records of contents for the duration of a scenario."""
    churn = scenario.churn
    total, online = len(net.ids), min(scenario.nodes, len(net.ids))
    chance = stream(seed, "records")
    status = np.zeros(total, np.bool_)
    there = chance.choice(total, online, replace=False)
    status[there] = True
    turns = chance.exponential(churn.offline, total)
    turns[there] = time_left(churn, online, seed)
    looks = max(1, int(scenario.duration // STEP) + 1)
    found = np.zeros((looks, 3))
    dht = scenario.dht
    short = _records(
        net,
        law_of(churn),
        targets,
        status,
        turns,
        (dht.k, dht.beta),
        (float(dht.republish), float(dht.record_life), float(churn.crash)),
        found,
    )
    if short > looks * len(targets) // 1000:
        raise ValueError("churn: nodes are away for so long that too few near a content are online")
    parts = (found / len(targets)).astype(np.float64).T
    time = np.arange(looks, dtype=np.float64) * STEP
    return Records(time, parts[0], parts[1], parts[2])
