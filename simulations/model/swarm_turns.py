"""Whom a peer serves: turns, as in `swarm/slots.py`."""

from __future__ import annotations

from typing import Final

from .compiled import kernel
from .swarm_edges import begin
from .swarm_world import POISONER, Rules, World

BY_NEED: Final = 2
"""Turns are given to whoever waited longest, to who gave most, by need, to who gave most, and so on
(as swarm/slots.py): what the third of each four goes by."""


@kernel
def wants(w: World, r: Rules, source: int, target: int) -> bool:
    """Tell whether `source` has a piece that `target` lacks."""
    if w.peer.held[target] == r.pieces or w.peer.kind[target] == POISONER:
        return False
    for word in range(w.have.shape[1]):  # noqa: SIM110
        if w.have[source, word] & ~w.have[target, word] != 0:
            return True
    return False


@kernel
def useful(w: World, r: Rules, source: int, target: int) -> bool:
    """Tell whether `source` may have something to send to `target` now."""
    if w.peer.held[target] + w.peer.asked[target] == r.pieces:
        return wants(w, r, source, target)
    if w.peer.kind[target] == POISONER:
        return False
    for word in range(w.have.shape[1]):
        if w.have[source, word] & ~(w.have[target, word] | w.pending[target, word]) != 0:
            return True
    return False


@kernel
def next_turn(w: World, peer: int) -> int:
    """Return the neighbour whose turn with a peer is next, of those not tried yet; -1 = none."""
    best = -1
    by = w.peer.cycle[peer] & 3
    if by & 1:
        most = 0.0
        for at in range(w.peer.degree[peer]):
            given = w.edge.given[peer, at]
            if given > most and w.edge.slot[peer, at] < 0 and w.edge.tried[peer, at] == 0:
                best = at
                most = given
        if best >= 0:
            return best
    fewest = 0
    for at in range(w.peer.degree[peer]):
        if w.edge.slot[peer, at] >= 0 or w.edge.tried[peer, at] > 0:
            continue
        held = w.peer.held[w.edge.neighbour[peer, at]] if by == BY_NEED else 0
        if (
            best < 0
            or held < fewest
            or (held == fewest and w.edge.since[peer, at] < w.edge.since[peer, best])
        ):
            best = at
            fewest = held
    return best


@kernel
def serve(w: World, r: Rules, peer: int, now: float) -> None:
    """Give the free slots to those whose turn is next and who lack something."""
    for at in range(w.peer.degree[peer]):
        w.edge.tried[peer, at] = 0
    while w.peer.free[peer] > 0:
        at = next_turn(w, peer)
        if at < 0:
            w.peer.stirred[peer] = 0
            return
        w.edge.tried[peer, at] = 1
        other = w.edge.neighbour[peer, at]
        if useful(w, r, peer, other) and begin(w, r, peer, at, now):
            if w.peer.cycle[peer] & 1:
                w.edge.given[peer, at] /= 2
            w.peer.cycle[peer] += 1
