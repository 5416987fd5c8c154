"""The swarm in steps of a part of a piece's time: decide, share the lines, move bytes, tell.

What arrives within a step can be passed on from the next step on, so nothing is ever faster than
the lines allow; a line never idles within a step while its flow has another piece to carry.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .compiled import entry, kernel
from .swarm_edges import assign, ban, begin, depart, draw, pick, seek, stop
from .swarm_rates import fill_rates
from .swarm_world import (
    DONE,
    EVENTS,
    LEECHER,
    POISONER,
    PRESENT,
    PRESENT_COUNT,
    ROWS,
    SAMPLES,
    SENDABLE,
    SENT,
    SINCE,
    STEPS,
    Rules,
    World,
)

PARTS: Final = 8.0
"""Steps in which the mean flow carries one piece."""

TURN_SECONDS: Final = 20.0
"""How long a peer that gives nothing is served at least (as swarm/slots.py)."""

GIVERS: Final = 2
"""One slot in so many is for those who give most (as swarm/slots.py: 4 of 8)."""

STUCK_TURNS: Final = 10
"""Decisions without any flow or arrival after which nothing will ever flow again."""

ROUNDING: Final = 1e-9
"""Part of a piece that counts as nothing left."""


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
def decide(w: World, r: Rules, peer: int, now: float) -> None:
    """Choose whom a peer serves until its next turn, as swarm/slots.py does.

    One who waited longest, those who gave most, then by need: who has its turn still, then who
    holds least. Whoever is not chosen any more gets the piece under way and no other.
    """
    interested = 0
    for at in range(w.peer.degree[peer]):
        w.edge.chosen[peer, at] = 0
        w.rank[at] = np.inf
        if wants(w, r, peer, w.edge.neighbour[peer, at]):
            w.rank[at] = 0.0
            interested += 1
    left = r.slots
    if interested > r.slots:
        longest = -1
        for at in range(w.peer.degree[peer]):
            waits = w.rank[at] == 0.0 and w.edge.slot[peer, at] < 0
            if waits and (longest < 0 or w.edge.since[peer, at] < w.edge.since[peer, longest]):
                longest = at
        if longest >= 0:
            w.edge.chosen[peer, longest] = 1
            w.rank[longest] = np.inf
            left -= 1
        for _ in range(r.slots // GIVERS):
            best = -1
            most = 0.0
            for at in range(w.peer.degree[peer]):
                if w.rank[at] == 0.0 and w.edge.given[peer, at] > most:
                    best = at
                    most = w.edge.given[peer, at]
            if best < 0 or left == 0:
                break
            w.edge.chosen[peer, best] = 1
            w.rank[best] = np.inf
            left -= 1
        for at in range(w.peer.degree[peer]):
            if w.rank[at] == 0.0:
                served = w.edge.slot[peer, at] >= 0
                turn = served and now < w.edge.since[peer, at] + TURN_SECONDS
                waited = 0.0 if served else min(1.0, (now - w.edge.since[peer, at]) / 1e9)
                late = 0.0 if turn else 1.0 + w.peer.held[w.edge.neighbour[peer, at]]
                w.rank[at] = late - waited
    while left > 0:
        best = -1
        for at in range(w.peer.degree[peer]):
            if w.rank[at] < np.inf and (best < 0 or w.rank[at] < w.rank[best]):
                best = at
        if best < 0:
            break
        w.edge.chosen[peer, best] = 1
        w.rank[best] = np.inf
        left -= 1
    for at in range(w.peer.degree[peer]):
        w.edge.given[peer, at] = 0.0
        if w.edge.slot[peer, at] >= 0:
            w.flow.ending[peer * r.slots + w.edge.slot[peer, at]] = 1 - w.edge.chosen[peer, at]
    w.peer.stirred[peer] = 1


@kernel
def serve(w: World, r: Rules, peer: int, now: float) -> None:
    """Fill the free slots: chosen neighbours first, then who has waited longest."""
    for at in range(w.peer.degree[peer]):
        w.rank[at] = -1.0
        if w.edge.slot[peer, at] < 0 and useful(w, r, peer, w.edge.neighbour[peer, at]):
            w.rank[at] = w.edge.since[peer, at] - 1e15 * w.edge.chosen[peer, at]
    while w.peer.free[peer] > 0:
        best = -1
        for at in range(w.peer.degree[peer]):
            open_to = w.rank[at] != -1.0
            if open_to and (best < 0 or w.rank[at] < w.rank[best]):
                best = at
        if best < 0:
            w.peer.stirred[peer] = 0
            return
        w.rank[best] = -1.0
        begin(w, r, peer, best, now)


@kernel
def arrive(w: World, r: Rules, next_peer: int, now: float) -> int:
    """Let everybody in who has arrived by now; return whose turn is next."""
    first = w.numbers[PRESENT_COUNT]
    peers = w.peer.up.shape[0]
    while next_peer < peers and w.peer.arrive[w.peer.order[next_peer]] <= now:
        peer = w.peer.order[next_peer]
        w.peer.state[peer] = PRESENT
        w.peer.at[peer] = w.numbers[PRESENT_COUNT]
        w.peer.present[w.peer.at[peer]] = peer
        w.numbers[PRESENT_COUNT] += 1
        if w.peer.up[peer] > 0.0:
            w.peer.free[peer] = r.slots
        w.peer.turn[peer] = now + r.rotate * (1 + draw(w, 1 << 20)) / (1 << 20)
        next_peer += 1
    for at in range(first, w.numbers[PRESENT_COUNT]):
        seek(w, r, w.peer.present[at], now)
    return next_peer


@kernel
def move(w: World, r: Rules, count: int, now: float, length: float) -> float:
    """Move bytes for one step; note the finished pieces. Return the bytes moved."""
    moved = 0.0
    for at in range(count):
        flow = w.flow.listed[at]
        source = flow // r.slots
        target = w.flow.target[flow]
        budget = w.flow.rate[flow] * length
        spent = 0.0
        while True:
            if budget - spent < w.flow.left[flow] - ROUNDING * r.piece_bytes:
                w.flow.left[flow] -= budget - spent
                spent = budget
                break
            spent = min(budget, spent + w.flow.left[flow])
            event = w.numbers[EVENTS]
            if event >= w.event.flow.shape[0]:
                raise OverflowError("more pieces in a step than the model has room for")
            w.event.flow[event] = flow
            w.event.peer[event] = target
            w.event.piece[event] = w.flow.piece[flow]
            w.event.time[event] = now + spent / w.flow.rate[flow]
            w.numbers[EVENTS] += 1
            w.flow.piece[flow] = -1
            if w.flow.ending[flow] == 0:
                piece = pick(w, r, source, target)
                if piece >= 0:
                    assign(w, r, flow, piece)
                    continue
            break
        w.peer.up_bytes[source] += spent
        w.peer.down_bytes[target] += spent
        moved += spent
    return moved


@kernel
def tell(w: World, r: Rules, now: float) -> None:
    """Let the pieces count that arrived in the step that is over."""
    for event in range(w.numbers[EVENTS]):
        flow = w.event.flow[event]
        source = flow // r.slots
        peer = w.event.peer[event]
        piece = w.event.piece[event]
        w.pending8[peer, piece >> 3] &= ~w.bits[piece & 7]
        w.peer.asked[peer] -= 1
        if w.peer.kind[source] == POISONER:
            w.peer.wasted[peer] += r.piece_bytes
            ban(w, r, peer, source, now)
            continue
        w.have8[peer, piece >> 3] |= w.bits[piece & 7]
        w.peer.held[peer] += 1
        w.copies[piece] += 1
        w.peer.stirred[peer] = 1
        for at in range(w.peer.degree[peer]):
            other = w.edge.neighbour[peer, at]
            w.rarity[other, piece] += 1
            if other == source:
                w.edge.given[peer, at] += r.piece_bytes
        if w.peer.held[peer] + w.peer.asked[peer] == r.pieces:
            for at in range(w.peer.degree[peer]):
                w.peer.stirred[w.edge.neighbour[peer, at]] = 1
        if w.peer.held[peer] == r.pieces:
            w.peer.done[peer] = w.event.time[event]
            w.numbers[DONE] += 1
    for event in range(w.numbers[EVENTS]):
        flow = w.event.flow[event]
        if w.flow.target[flow] >= 0 and w.flow.piece[flow] < 0:
            stop(w, r, flow, now)
    for event in range(w.numbers[EVENTS]):
        peer = w.event.peer[event]
        if r.leave and w.peer.held[peer] == r.pieces and w.peer.state[peer] == PRESENT:
            depart(w, r, peer, now)
    w.numbers[EVENTS] = 0


@kernel
def sample(w: World, r: Rules, now: float) -> None:
    """Write a row of the tables over time."""
    if w.numbers[ROWS] == SAMPLES:
        for row in range(SAMPLES // 2):
            for column in range(4):
                w.rows[row, column] = w.rows[2 * row + 1, column]
            for column in range(4, 6):
                w.rows[row, column] = (w.rows[2 * row, column] + w.rows[2 * row + 1, column]) / 2
        w.numbers[ROWS] = SAMPLES // 2
    row = w.numbers[ROWS]
    took = now - w.sums[SINCE]
    w.rows[row, 0] = now
    least = w.copies[0]
    total = 0
    for piece in range(r.pieces):
        least = min(least, w.copies[piece])
        total += w.copies[piece]
    w.rows[row, 1] = least
    w.rows[row, 2] = total / r.pieces
    w.rows[row, 3] = w.numbers[DONE]
    w.rows[row, 4] = w.sums[SENT] / took if took > 0.0 else 0.0
    w.rows[row, 5] = w.sums[SENDABLE] / took if took > 0.0 else 0.0
    w.numbers[ROWS] += 1
    w.sums[SENT] = 0.0
    w.sums[SENDABLE] = 0.0
    w.sums[SINCE] = now


@entry
def simulate(w: World, r: Rules, interval: float) -> float:
    """Run until everybody is done, nothing can flow any more, or the horizon; return the time."""
    peers = w.peer.up.shape[0]
    now = 0.0
    next_peer = 0
    idle = 0
    next_sample = interval
    sample(w, r, now)
    while w.numbers[DONE] < r.wanted and now < r.horizon:
        w.numbers[STEPS] += 1
        next_peer = arrive(w, r, next_peer, now)
        start = draw(w, peers)
        sendable = 0.0
        for offset in range(peers):
            peer = (start + offset) % peers
            if w.peer.state[peer] != PRESENT:
                continue
            sendable += w.peer.up[peer]
            if w.peer.turn[peer] <= now:
                if w.peer.degree[peer] < r.neighbours // 2 and w.peer.kind[peer] == LEECHER:
                    seek(w, r, peer, now)
                decide(w, r, peer, now)
                while w.peer.turn[peer] <= now:
                    w.peer.turn[peer] += r.rotate
            if w.peer.free[peer] > 0 and w.peer.stirred[peer] > 0:
                serve(w, r, peer, now)
        count = 0
        for flow in range(w.flow.target.shape[0]):
            if w.flow.target[flow] >= 0:
                w.flow.listed[count] = flow
                count += 1
        length = r.rotate
        if count > 0:
            idle = 0
            total = fill_rates(w, r, count)
            if total > 0.0:
                length = min(r.rotate, r.piece_bytes * count / total / PARTS)
        else:
            idle += 1
        if next_peer < peers:
            wait = w.peer.arrive[w.peer.order[next_peer]] - now
            if count == 0:
                length = max(wait, 0.0)
                idle = 0
        elif idle > STUCK_TURNS:
            break
        length = min(length, r.horizon - now)
        w.sums[SENT] += move(w, r, count, now, length)
        w.sums[SENDABLE] += sendable * length
        now += length
        tell(w, r, now)
        if now >= next_sample:
            sample(w, r, now)
            if w.numbers[ROWS] == SAMPLES:
                interval *= 2
            while next_sample <= now:
                next_sample += interval
    if w.sums[SINCE] < now:
        sample(w, r, now)
    return now
