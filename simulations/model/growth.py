"""Networks grown by joins: each node meets one that is there, looks for itself, fills its buckets.

So tables are as joins leave them: early nodes know many, old contacts stay, near ones are known
best. Lookups take no time here (an upkeep's seconds are nothing beside its minutes), but follow the
same rules and cost the same requests.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...dht.upkeep import EARLY
from .compiled import Word, below, draw, entry, kernel, whole
from .ids import stream
from .living import (
    MAX_PREFIX_BITS,
    SILENT_AFTER,
    SUB_PREFIX_BITS,
    Living,
    answered,
    ask_silent,
    empty_tables,
    failed,
    own_depth,
)
from .lookup import (
    ANSWERED,
    ASKED,
    CODE,
    COLUMNS,
    FAILED,
    RPCS,
    SLOW,
    Rules,
    Space,
    make_space,
    walk,
)
from .network import ALIVE, Net

TARGET, THROUGH = 11, 12
"""Purposes of the hashes that choose where a refresh looks, and through whom a node joins."""

GROWTH_HEARD: Final = 128
"""Peers remembered in a lookup of upkeep; of those beyond, nobody is learnt."""

STALE: Final = 1.0 - EARLY
"""Part of a period after which a bucket gets its look."""

_ONE = np.uint64(1)


class Upkeep(NamedTuple):
    """How a node keeps its table, and arrays to work in."""

    rules: Rules
    """Of a search; one for ourselves waits for k answers."""
    refresh: float
    """Seconds between two refreshes."""
    space: Space
    row: NDArray[np.int64]
    result: NDArray[np.int64]
    nobody: NDArray[np.int64]
    counters: NDArray[np.int64]
    """Requests sent, lookups made, lookups that went past a bound."""


@kernel
def _look(living: Living, keep: Upkeep, node: int, target: Word, now: float, is_own: bool) -> None:
    """Look for a key; both sides of each answer learn of one another."""
    net, space = living.net, keep.space
    rules = keep.rules
    enough = rules.k if is_own else rules.enough
    walk(net, rules, enough, space, node, target, keep.nobody, keep.row, keep.result)
    keep.counters[0] += keep.row[RPCS]
    keep.counters[1] += 1
    if keep.row[CODE] != 0:
        keep.counters[2] += 1
    count = space.tally[0, 0]
    for place in range(count):
        slot = space.order[0, place]
        peer = space.who[0, slot]
        state = space.state[0, slot]
        if state == ANSWERED or (state in (ASKED, SLOW) and net.status[peer] == ALIVE):
            keep.counters[0] += answered(living, node, peer, now, not is_own)
            keep.counters[0] += answered(living, peer, node, now, False)
        elif state == FAILED:
            failed(living, node, peer, now)


@kernel
def find_ourselves(living: Living, keep: Upkeep, node: int, now: float) -> None:
    """Look for our own key."""
    _look(living, keep, node, living.net.ids[node], now, True)


@kernel
def _look_below(living: Living, keep: Upkeep, node: int, stem: Word, bits: int, now: float) -> None:
    """Look for a random key that begins with the `bits` leading bits of `stem`."""
    low = np.uint64(64 - bits)
    drawn = draw(living.net.seed, TARGET, node, keep.counters[1])
    _look(living, keep, node, ((stem >> low) << low) | (drawn >> np.uint64(bits)), now, False)


@kernel
def refresh(living: Living, keep: Upkeep, node: int, now: float) -> None:
    """Look into each bucket that was not looked into for a while, as `dht.upkeep.refresh_plan`."""
    net = living.net
    share = net.k >> SUB_PREFIX_BITS
    for bucket in range(min(own_depth(living, node), MAX_PREFIX_BITS)):
        if now - np.float64(living.looked[node, bucket]) < STALE * keep.refresh:
            continue
        living.looked[node, bucket] = now
        depth = bucket + 1
        stem = net.ids[node] ^ (_ONE << np.uint64(63 - bucket))
        bits = depth + SUB_PREFIX_BITS
        if whole(net.counts[node, bucket]) >= net.k or bits > MAX_PREFIX_BITS:
            _look_below(living, keep, node, stem, depth, now)
            continue
        clean = (stem >> np.uint64(64 - depth)) << np.uint64(64 - depth)
        first = (node * net.counts.shape[1] + bucket) * net.k
        held = (0, 0, 0, 0)
        for place in range(first, first + whole(net.counts[node, bucket])):
            part = (net.ids[net.contacts[place]] >> np.uint64(64 - bits)) & np.uint64(3)
            held = (
                held[0] + (part == np.uint64(0)),
                held[1] + (part == np.uint64(1)),
                held[2] + (part == np.uint64(2)),
                held[3] + (part == np.uint64(3)),
            )
        for quarter in range(4):
            if held[quarter] < share:
                below_it = clean | (np.uint64(quarter) << np.uint64(64 - bits))
                _look_below(living, keep, node, below_it, bits, now)


@kernel
def join(living: Living, keep: Upkeep, node: int, through: int, now: float) -> None:
    """Meet a node that is there, look for ourselves, fill the buckets."""
    keep.counters[0] += 1 + answered(living, node, through, now, False)
    answered(living, through, node, now, False)
    find_ourselves(living, keep, node, now)
    refresh(living, keep, node, now)


@entry
def _grow(living: Living, keep: Upkeep, order: NDArray[np.int64], gap: float) -> None:
    """Let nodes join one after the other, each through a random earlier one."""
    for number in range(1, len(order)):
        word = draw(living.net.seed, THROUGH, order[number], 0)
        join(living, keep, order[number], order[below(word, number)], number * gap)


@entry
def _upkeep(living: Living, keep: Upkeep, now: float) -> None:
    """Let every node that lives do one round of its upkeep."""
    for node in range(len(living.net.ids)):
        if living.net.status[node] == ALIVE:
            keep.counters[0] += ask_silent(living, node, now)
            find_ourselves(living, keep, node, now)
            refresh(living, keep, node, now)


def make_upkeep(k: int, rules: Rules, refresh_every: float) -> Upkeep:
    """Make what upkeep needs."""
    kept = rules._replace(k=k, max_heard=GROWTH_HEARD, paths=1)
    return Upkeep(
        kept,
        refresh_every,
        make_space(k, 1, GROWTH_HEARD),
        np.zeros(len(COLUMNS), np.int64),
        np.zeros(k, np.int64),
        np.empty(0, np.int64),
        np.zeros(3, np.int64),
    )


def grow(
    net: Net,
    seed: int,
    rules: Rules | None = None,
    *,
    refresh_every: float = 600.0,
    rounds: int = 1,
    members: NDArray[np.int64] | None = None,
    silent_after: float = SILENT_AFTER,
) -> tuple[Living, Upkeep]:
    """Grow the tables of a network.

    Args:
        net: Its ids, its k; the nodes join in random order.
        seed: Decides the order.
        rules: Of lookups; those of the shipped node unless given.
        refresh_every: Seconds between two looks into a bucket.
        rounds: Rounds of upkeep of all nodes when everybody has joined.
        members: Who joins; all unless given.
        silent_after: Seconds without an answer after which a contact is asked.
    """
    living = empty_tables(net, silent_after)
    keep = make_upkeep(net.k, rules or Rules(), refresh_every)
    who = np.arange(len(net.ids), dtype=np.int64) if members is None else members
    order = stream(seed, "joins").permutation(who)
    # All joins within one period, so that rounds of upkeep are those after it.
    _grow(living, keep, order, refresh_every / (len(order) + 1))
    for number in range(rounds):
        _upkeep(living, keep, (number + 2) * refresh_every)
    return living, keep
