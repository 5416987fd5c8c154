"""Simpler ways through the tables, in which published results were measured.

Greedy routes to a node, one or several that share none, and the waves of ProbeLab's hop count.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .compiled import Word, entry, kernel, leading_zeros
from .lookup import MAX_PATHS
from .network import EVIL, Net, status_of
from .tables import SCRATCH, closest_contacts, members, nearest_nodes

MAX_STEPS: Final = 64
"""Steps of a route: each shares at least one more bit with its goal."""

FIRST_ASKED: Final = 10
"""Peers of the first wave in ProbeLab's hop count (RFM19.1)."""

MAX_WAVE: Final = 20_000
"""Peers of one wave; each names at most k."""

DEAD, AT_GOAL = -1, -2
"""Where a route is when it is over."""


@kernel
def _next(
    net: Net, here: int, goal: int, used: NDArray[np.int64], count: int, out: NDArray[np.int64]
) -> int:
    """Return the nearest contact that no route has used and that is nearer than `here`, or DEAD."""
    target = net.ids[goal]
    there = closest_contacts(net, here, target, net.k, -1, out)
    best = DEAD
    least = net.ids[here] ^ target
    for number in range(there):
        node = out[number]
        far = net.ids[node] ^ target
        if far >= least:
            continue
        is_used = False
        for other in range(count):
            if used[other] == node:
                is_used = True
                break
        if not is_used:
            best = node
            least = far
    return best


@entry
def routes(
    net: Net, starts: NDArray[np.int64], goals: NDArray[np.int64], paths: int
) -> NDArray[np.int64]:
    """Return for each start and goal the hops of the first of `paths` routes to arrive, or 0.

    All routes take a step in turn. None enters a node that another has entered, except the goal; an
    attacker that is entered ends its route.
    """
    found = np.zeros(len(starts), np.int64)
    out = np.empty(SCRATCH * net.k + net.k, np.int64)
    used = np.empty(MAX_PATHS * MAX_STEPS, np.int64)
    here = np.empty(paths, np.int64)
    for number in range(len(starts)):
        goal = goals[number]
        here[:] = starts[number]
        count = 0
        for step in range(1, MAX_STEPS):
            for path in range(paths):
                if here[path] == DEAD:
                    continue
                node = _next(net, here[path], goal, used, count, out)
                if node == goal:
                    found[number] = step
                    break
                if node != DEAD:
                    used[count] = node
                    count += 1
                    if status_of(net, node) == EVIL:
                        node = DEAD
                here[path] = node
            if found[number] or np.all(here == DEAD):
                break
    return found


@kernel
def _is_among(node: int, list_of: NDArray[np.int64], count: int) -> bool:
    found = False
    for number in range(count):
        found = found or list_of[number] == node
    return found


@kernel
def _covering_bucket(net: Net, node: int, target: Word, out: NDArray[np.int64], at: int) -> int:
    """Write the contacts of the bucket that covers a target."""
    bits = min(leading_zeros(net.ids[node] ^ target), 63)
    return members(net, node, bits, out, at)


@entry
def wave_hops(
    net: Net, starts: NDArray[np.int64], targets: NDArray[np.uint64], replicas: int
) -> NDArray[np.int64]:
    """Count hops as ProbeLab did (RFM19.1); -1 where the waves run dry.

    The first wave are the 10 nearest contacts of the starter's bucket that covers the key, each
    later one the contacts of that bucket of every peer asked. A lookup took as many hops as waves
    until one of the `replicas` nearest nodes was to be asked, 0 if the starter is one of them.
    """
    found = np.full(len(starts), -1, np.int64)
    truth = np.empty(replicas, np.int64)
    wave = np.empty(MAX_WAVE, np.int64)
    later = np.empty(MAX_WAVE, np.int64)
    for number in range(len(starts)):
        target = targets[number]
        nearest_nodes(net, target, replicas, truth)
        if _is_among(starts[number], truth, replicas):
            found[number] = 0
            continue
        count = _covering_bucket(net, starts[number], target, wave, 0)
        far = np.empty(count, np.uint64)
        for place in range(count):
            far[place] = net.ids[wave[place]] ^ target
        order = np.argsort(far)
        later[:count] = wave[:count][order]
        count = min(count, FIRST_ASKED)
        wave[:count] = later[:count]
        for hop in range(1, MAX_STEPS):
            for place in range(count):
                if _is_among(wave[place], truth, replicas):
                    found[number] = hop
                    break
            if found[number] >= 0 or count == 0:
                break
            heard = 0
            for place in range(count):
                if heard + net.k > MAX_WAVE:
                    break  # more than enough peers: all lie around the key
                heard += _covering_bucket(net, wave[place], target, later, heard)
            wave[:heard] = later[:heard]
            count = heard
    return found
