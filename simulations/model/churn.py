"""Nodes that come and go, and keep their tables by the rules of the shipped node meanwhile.

Each node does its upkeep every minute (ask the silent) and every refresh period (look for itself,
refresh). Who comes back begins with an empty table and joins through somebody who is there. Nobody
says goodbye. Nodes present at the start have the age that they should have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..churn import Sessions
from ..scenario.model import Churn
from .compiled import Word, below, draw, entry, kernel, leading_zeros, share_of, whole
from .growth import Upkeep, find_ourselves, grow, join, refresh
from .ids import stream
from .living import SILENT_AFTER, Living, ask_silent, forget
from .lookup import Rules
from .network import ALIVE, SILENT, Net, status_of
from .tables import bucket_range, members, nearest_nodes

LENGTH, LENGTH_TOO, AWAY, BOOTSTRAP = 21, 22, 23, 24
"""Purposes of hashes."""

ASK_SILENT_EVERY: Final = 60.0
"""Seconds between two looks for silent contacts (dht.upkeep)."""

BOOTSTRAP_TRIES: Final = 200
"""Nodes tried by one that comes back; if none lives it tries again a minute later."""

LAWS: Final = ("none", "exponential", "weibull", "lognormal")

ROOM_FOR_TRUTH: Final = 4
"""Nodes looked at around a node to find the k that live, in multiples of k."""


class Law(NamedTuple):
    """Session and offline lengths, as compiled code takes them."""

    kind: int
    scale: float
    shape: float
    away: float


def law_of(churn: Churn) -> Law:
    """Return the law of a scenario's churn."""
    scale = churn.median
    if churn.law == "exponential":
        scale = churn.median / math.log(2.0)
    elif churn.law == "weibull":
        scale = churn.median / math.log(2.0) ** (1.0 / churn.shape)
    return Law(LAWS.index(churn.law), scale, churn.shape, churn.offline)


@kernel
def session_length(law: Law, word: Word, other: Word) -> float:
    """Return the length of a session that begins, made of two random words."""
    if law.kind == 0:
        return math.inf
    chance = -math.log(1.0 - share_of(word))
    if law.kind == 1:
        return law.scale * chance
    if law.kind == 2:
        length: float = law.scale * chance ** (1.0 / law.shape)
        return length
    normal = math.sqrt(2.0 * chance) * math.cos(2.0 * math.pi * share_of(other))
    length = law.scale * math.exp(law.shape * normal)
    return length


@kernel
def away_length(law: Law, word: Word) -> float:
    """Return for how long a node that left stays away."""
    return -math.log(1.0 - share_of(word)) * law.away


def time_left(churn: Churn, count: int, seed: int) -> NDArray[np.float64]:
    """Return what is left of sessions under way at a random time; see `simulations.churn`."""
    chance = stream(seed, "time left")
    law = law_of(churn)
    match churn.law:
        case "none":
            return np.full(count, np.inf)
        case "exponential":
            return chance.exponential(law.scale, count)
        case "weibull":
            by_length = chance.gamma(1.0 + 1.0 / law.shape, 1.0, count) ** (1.0 / law.shape)
            return chance.random(count) * law.scale * by_length
        case "lognormal":
            middle = math.log(law.scale) + law.shape * law.shape
            return chance.random(count) * chance.lognormal(middle, law.shape, count)


class Timetable(NamedTuple):
    """When each node turns on or off, when its upkeep is due, and a heap by what is next."""

    turns: NDArray[np.float64]
    ticks: NDArray[np.float64]
    numbers: NDArray[np.int64]
    """How often each node turned, and how often its upkeep was due."""
    heap: NDArray[np.int64]


@kernel
def _due(times: Timetable, node: int) -> Word:
    return min(times.turns[node], times.ticks[node])


@kernel
def _sink(times: Timetable, place: int) -> None:
    """Bring the heap in order again below a place."""
    count = len(times.heap)
    while True:
        first = place
        for child in (2 * place + 1, 2 * place + 2):
            if child < count and _due(times, times.heap[child]) < _due(times, times.heap[first]):
                first = child
        if first == place:
            return
        swapped = times.heap[place]
        times.heap[place] = times.heap[first]
        times.heap[first] = swapped
        place = first


@kernel
def _somebody(living: Living, node: int, number: int) -> int:
    """Return a random node that lives, or -1."""
    for tried in range(BOOTSTRAP_TRIES):
        word = draw(living.net.seed, BOOTSTRAP, node, number * BOOTSTRAP_TRIES + tried)
        other = below(word, len(living.net.ids))
        if other != node and living.net.status[other] == ALIVE:
            return other
    return -1


@kernel
def _come(living: Living, keep: Upkeep, node: int, number: int, now: float) -> None:
    forget(living, node)
    through = _somebody(living, node, number)
    if through >= 0:
        join(living, keep, node, through, now)


@entry
def _live(living: Living, keep: Upkeep, law: Law, times: Timetable, until: float) -> float:
    """Let time pass; return the node-seconds online."""
    seed = living.net.seed
    per_refresh = max(1, whole(np.round(keep.refresh / ASK_SILENT_EVERY)))
    online = 0.0
    for place in range(len(times.heap) // 2, -1, -1):
        _sink(times, place)
    while True:
        node = times.heap[0]
        now = _due(times, node)
        if now >= until:
            return online
        number = times.numbers[node, 0]
        if times.turns[node] <= now:
            times.numbers[node, 0] += 1
            if living.net.status[node] == ALIVE:
                living.net.status[node] = SILENT
                times.turns[node] = now + away_length(law, draw(seed, AWAY, node, number))
            else:
                living.net.status[node] = ALIVE
                one, other = draw(seed, LENGTH, node, number), draw(seed, LENGTH_TOO, node, number)
                stays = session_length(law, one, other)
                times.turns[node] = now + stays
                times.ticks[node] = now + ASK_SILENT_EVERY
                online += min(until, now + stays) - now
                _come(living, keep, node, number, now)
        else:
            times.ticks[node] = now + ASK_SILENT_EVERY
            if living.net.status[node] == ALIVE:
                times.numbers[node, 1] += 1
                keep.counters[0] += ask_silent(living, node, now)
                if np.sum(living.net.counts[node]) == 0:
                    _come(living, keep, node, number, now)
                elif times.numbers[node, 1] % per_refresh == 0:
                    find_ourselves(living, keep, node, now)
                    refresh(living, keep, node, now)
            else:
                times.ticks[node] = times.turns[node]
        _sink(times, 0)


@dataclass(frozen=True, slots=True)
class Lived:
    """A network after some hours of coming and going."""

    living: Living
    requests_per_node_second: float
    """Upkeep and joins."""


def live(
    net: Net,
    churn: Churn,
    online: int,
    hours: float,
    seed: int,
    rules: Rules,
    refresh_every: float,
    *,
    silent_after: float = SILENT_AFTER,
) -> Lived:
    """Grow a network of those online at the start, then let nodes come and go.

    Args:
        net: Ids of all nodes; `total_nodes` says how many these should be.
        churn: Of the sessions.
        online: How many are there at the start.
        hours: For how long.
        seed: Decides who is there, and all times.
        rules: Of lookups.
        refresh_every: Seconds between two refreshes.
        silent_after: Seconds without an answer after which a contact is asked (default: as the
            shipped node).
    """
    total = len(net.ids)
    chance = stream(seed, "online")
    status = np.full(total, SILENT, np.uint8)
    there = np.sort(chance.choice(total, online, replace=False)).astype(np.int64)
    status[there] = ALIVE
    start = 2 * refresh_every
    net = net._replace(status=status, shares=(0.0, 0.0, 0.0, 0.0))
    living, keep = grow(
        net,
        seed,
        rules,
        refresh_every=refresh_every,
        rounds=0,
        members=there,
        silent_after=silent_after,
    )
    grown = int(keep.counters[0])
    turns = start + chance.exponential(churn.offline, total)
    turns[there] = start + time_left(churn, online, seed)
    until = start + hours * 3600.0
    present = float(np.sum(np.minimum(turns[there], until) - start))
    times = Timetable(
        turns,
        start + chance.random(total) * ASK_SILENT_EVERY,
        np.zeros((total, 2), np.int64),
        np.arange(total),
    )
    times.numbers[:, 1] = chance.integers(0, max(1, round(refresh_every / ASK_SILENT_EVERY)), total)
    present += _live(living, keep, law_of(churn), times, until)
    return Lived(living, float(keep.counters[0] - grown) / max(present, 1.0))


def total_nodes(churn: Churn, online: int) -> int:
    """Return how many nodes there are when so many are online in the mean."""
    return online + Sessions(churn).absent(online)


@entry
def _census(
    net: Net, known: NDArray[np.int64], held: NDArray[np.int64], possible: NDArray[np.int64]
) -> None:
    """Look into the tables of all nodes that live; see `Census`."""
    out = np.empty(net.k + 1, np.int64)
    truth = np.empty(ROOM_FOR_TRUTH * net.k, np.int64)
    for node in range(len(net.ids)):
        known[node] = -1
        if status_of(net, node) != ALIVE:
            continue
        for bucket in range(held.shape[1]):
            count = members(net, node, bucket, out, 0)
            held[node, bucket, 0] = count
            for number in range(count):
                held[node, bucket, 1] += status_of(net, out[number]) != ALIVE
            first, end = bucket_range(net, node, bucket)
            for other in range(first, min(end, first + 64 * net.k)):
                possible[node, bucket] += status_of(net, other) == ALIVE
        there = nearest_nodes(net, net.ids[node], len(truth), truth)
        living = 0
        known[node] = 0
        for number in range(there):
            other = truth[number]
            if other == node or status_of(net, other) != ALIVE:
                continue
            bucket = min(leading_zeros(net.ids[node] ^ net.ids[other]), held.shape[1] - 1)
            count = members(net, node, bucket, out, 0)
            for place in range(count):
                if out[place] == other:
                    known[node] += 1
                    break
            living += 1
            if living == net.k:
                break


@dataclass(frozen=True, slots=True)
class Census:
    """What the tables of the nodes that live hold."""

    known: NDArray[np.int64]
    """For each node how many of the k nearest others that live it knows."""
    held: NDArray[np.int64]
    """For each node and bucket its contacts."""
    dead: NDArray[np.int64]
    """Those of them that do not live."""
    possible: NDArray[np.int64]
    """How many that live belong there (counted up to 64 k)."""


def census(net: Net) -> Census:
    """Compare the tables with who is there."""
    buckets = (net.counts if len(net.counts) else net.offsets[:, 1:]).shape[1]
    count = len(net.ids)
    known = np.zeros(count, np.int64)
    held = np.zeros((count, buckets, 2), np.int64)
    possible = np.zeros((count, buckets), np.int64)
    _census(net, known, held, possible)
    lives = known >= 0
    return Census(known[lives], held[lives, :, 0], held[lives, :, 1], possible[lives])
