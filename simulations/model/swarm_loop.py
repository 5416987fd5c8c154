"""The swarm in steps of a part of a piece's time: serve, share the lines, move bytes, tell.

A line sends one piece after the other, in turn for all that its peer serves, and more at a time
only if receivers are slower than the line (as swarm/uplink.py). What arrives within a step can be
passed on from the next step on, so nothing is ever faster than the lines allow; a line goes on with
the next piece within a step.
"""

from __future__ import annotations

from typing import Final

from .compiled import entry, kernel
from .swarm_edges import assign, ban, depart, draw, pick, rest, seek, send, stop
from .swarm_rates import fill_rates
from .swarm_turns import serve
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

LONGEST_TURN: Final = 20.0
"""Seconds after which a turn is over, whatever it brought (as swarm/slots.py)."""

WORTH: Final = 1.25
"""One piece more at a time is sent if so many times as much goes through (as swarm/uplink.py)."""

LONGEST_STEP: Final = 10.0
"""Seconds."""

LOOK_SECONDS: Final = 15.0
"""How often a peer with few neighbours looks for others (as node/transfer/fetch.py)."""

STUCK_TURNS: Final = 10
"""Steps without any flow or arrival after which nothing will ever flow again."""

ROUNDING: Final = 1e-9
"""Part of a piece that counts as nothing left."""


@kernel
def next_lane(w: World, r: Rules, peer: int, after: int) -> int:
    """Return the flow that a line turns to after a slot; -1 = there is nothing else to send."""
    for step in range(1, r.slots + 1):
        slot = (after + step) % r.slots
        flow = peer * r.slots + slot
        if w.flow.piece[flow] >= 0 and not w.peer.sending[peer] >> slot & 1:
            return flow
    return -1


@kernel
def begin_sending(w: World, r: Rules) -> int:
    """List the flows that are sent; a line that was idle turns to one. Return how many they are."""
    count = 0
    for number in range(w.numbers[PRESENT_COUNT]):
        peer = w.peer.present[number]
        if w.peer.width[peer] == 0:
            if w.peer.free[peer] == w.peer.most[peer] or w.peer.up[peer] <= 0.0:
                continue
            flow = next_lane(w, r, peer, r.slots - 1)
            if flow < 0:
                continue
            send(w, r, flow)
        for slot in range(r.slots):
            if w.peer.sending[peer] >> slot & 1:
                w.flow.listed[count] = peer * r.slots + slot
                count += 1
    return count


@kernel
def room_to(w: World, r: Rules, flow: int) -> float:
    """Return the rate that a flow could have on lines besides its sender's."""
    peers = w.peer.up.shape[0]
    room = w.resource.room[peers + w.flow.target[flow]]
    if r.site > 0.0 and flow // r.slots < r.seeds:
        room = min(room, w.resource.room[2 * peers])
    return float(max(0.0, room))


@kernel
def widen(w: World, r: Rules) -> None:
    """Let lines send one piece more at a time from the next step on, where that is worth it."""
    for number in range(w.numbers[PRESENT_COUNT]):
        peer = w.peer.present[number]
        waiting = w.peer.most[peer] - w.peer.free[peer] - w.peer.width[peer]
        if w.peer.width[peer] == 0 or waiting <= 0:
            continue
        room = w.resource.room[peer]
        if room <= (WORTH - 1.0) * (w.peer.up[peer] - room):
            continue
        flow = next_lane(w, r, peer, r.slots - 1)
        if flow >= 0 and room_to(w, r, flow) > (WORTH - 1.0) * (w.peer.up[peer] - room):
            send(w, r, flow)


@kernel
def others_do(w: World, r: Rules, peer: int) -> bool:
    """Tell whether the flows that a line sends already could nearly fill it."""
    able = 0.0
    for slot in range(r.slots):
        flow = peer * r.slots + slot
        if w.peer.sending[peer] >> slot & 1:
            able += w.flow.rate[flow] + room_to(w, r, flow)
    return able * WORTH >= float(w.peer.up[peer])


@kernel
def hand_on(w: World, r: Rules, flow: int, now: float) -> int:
    """A flow has sent its piece: see whose turn it is, and return what the line sends next.

    Returns:
        A flow with the rate that it has for the rest of the step; -1 = none.
    """
    source = flow // r.slots
    target = w.flow.target[flow]
    at = w.flow.edge[flow]
    rate = w.flow.rate[flow]
    rest(w, r, flow)
    w.flow.piece[flow] = -1
    w.edge.got[source, at] += r.piece_bytes
    piece = -1
    slack = ROUNDING * r.piece_bytes
    shared = w.edge.got[source, at] < w.peer.share[source] - slack
    if shared and now < w.edge.since[source, at] + LONGEST_TURN:
        piece = pick(w, r, source, target)
    if piece >= 0:
        assign(w, r, flow, piece)
    else:
        stop(w, r, flow, now)
        serve(w, r, source, now)
    following = next_lane(w, r, source, flow % r.slots)
    if following < 0 or (w.peer.width[source] > 0 and others_do(w, r, source)):
        return -1
    send(w, r, following)
    if w.flow.target[following] != target:
        sink = w.peer.up.shape[0] + w.flow.target[following]
        rate = min(rate, max(0.0, w.resource.room[sink]))
        w.resource.room[sink] -= rate
    w.flow.rate[following] = rate
    w.flow.handed[following] = w.numbers[STEPS]
    return following if rate > 0.0 else -1


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
            w.peer.free[peer] = w.peer.most[peer]
        w.peer.looks[peer] = now + LOOK_SECONDS * (1 + draw(w, 1 << 20)) / (1 << 20)
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
        if w.flow.handed[flow] == w.numbers[STEPS]:
            continue  # it was ended and begun anew, and had its part already
        source = flow // r.slots
        took = 0.0
        while flow >= 0 and w.flow.rate[flow] > 0.0:
            target = w.flow.target[flow]
            rate = w.flow.rate[flow]
            spent = rate * (length - took)
            is_done = spent >= w.flow.left[flow] - ROUNDING * r.piece_bytes
            if is_done:
                spent = min(spent, w.flow.left[flow])
            w.flow.left[flow] -= spent
            w.peer.up_bytes[source] += spent
            w.peer.down_bytes[target] += spent
            moved += spent
            if not is_done:
                break
            took += spent / rate
            event = w.numbers[EVENTS]
            if event >= w.event.flow.shape[0]:
                raise OverflowError("more pieces in a step than the model has room for")
            w.event.flow[event] = flow
            w.event.peer[event] = target
            w.event.piece[event] = w.flow.piece[flow]
            w.event.time[event] = now + took
            w.numbers[EVENTS] += 1
            flow = hand_on(w, r, flow, now + took)
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


@kernel
def draw_picture(w: World) -> None:
    """Note who knows whom."""
    for peer in range(w.picture.shape[0]):
        for at in range(w.peer.degree[peer]):
            w.picture[peer, at] = w.edge.neighbour[peer, at]


@entry
def simulate(w: World, r: Rules, interval: float) -> float:
    """Run until everybody is done, nothing can flow any more, or the horizon; return the time."""
    peers = w.peer.up.shape[0]
    now = 0.0
    next_peer = 0
    idle = 0
    next_sample = interval
    half = max(1, r.wanted // 2)
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
            if w.peer.looks[peer] <= now:
                if w.peer.degree[peer] < r.neighbours // 2 and w.peer.kind[peer] == LEECHER:
                    seek(w, r, peer, now)
                while w.peer.looks[peer] <= now:
                    w.peer.looks[peer] += LOOK_SECONDS
            if w.peer.free[peer] > 0 and w.peer.stirred[peer] > 0:
                serve(w, r, peer, now)
        count = begin_sending(w, r)
        length = LONGEST_STEP
        if count > 0:
            idle = 0
            total = fill_rates(w, r, count)
            if total > 0.0:
                length = min(LONGEST_STEP, r.piece_bytes * count / total / PARTS)
            widen(w, r)
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
        if half > 0 and w.numbers[DONE] >= half:
            half = 0
            draw_picture(w)
        if now >= next_sample:
            sample(w, r, now)
            if w.numbers[ROWS] == SAMPLES:
                interval *= 2
            while next_sample <= now:
                next_sample += interval
    if w.sums[SINCE] < now:
        sample(w, r, now)
    return now
