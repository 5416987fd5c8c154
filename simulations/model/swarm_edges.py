"""Who knows whom, which piece goes next, and how a flow begins and ends."""

from __future__ import annotations

from typing import Final

from .compiled import kernel
from .swarm_world import (
    BANS,
    CHANCE,
    GONE,
    HEDGES,
    POISONER,
    PRESENT_COUNT,
    SEED,
    Rules,
    World,
)

RANDOM_FIRST: Final = 4
"""Pieces fetched at random before the rarest come first (as swarm/picker.py)."""

HEDGE_GAIN: Final = 2.0
HEDGE_SECONDS: Final = 0.5
"""A last piece changes its sender if its time left is more than so many times what the new one
needs, and so much (as swarm/endgame.py)."""

TRIES: Final = 4
"""Strangers tried for each neighbour that is sought; some cannot be reached."""

OPEN, INDEPENDENT, RESTRICTED, SYMMETRIC, BLOCKED = range(5)
"""Kinds of NAT; OPEN also stands for a mapped port."""


@kernel
def draw(w: World, below: int) -> int:
    """Return a random number below `below` (PCG-RXS-M-XS 32; products stay below 2^63)."""
    state = w.numbers[CHANCE]
    w.numbers[CHANCE] = (state * 747796405 + 2891336453) & 0xFFFFFFFF
    word = (((state >> ((state >> 28) + 4)) ^ state) * 277803737) & 0xFFFFFFFF
    return int(((word >> 22) ^ word) % below)


@kernel
def can_meet(one: int, other: int) -> bool:
    """Tell whether two kinds of NAT let a direct connection through, by dialling or punching."""
    if one == OPEN or other == OPEN:
        return True
    if one == BLOCKED or other == BLOCKED:
        return False
    if one == SYMMETRIC or other == SYMMETRIC:
        return one == INDEPENDENT or other == INDEPENDENT
    return True


@kernel
def count_bits(w: World, peer: int, of: int, step: int) -> None:
    """Add `step` to the peer's rarity of every piece that `of` says it has."""
    for byte in range(w.have8.shape[1]):
        value = w.have8[of, byte]
        for place in range(w.counts[value]):
            w.rarity[peer, 8 * byte + w.places[value, place]] += step


@kernel
def connect(w: World, one: int, other: int, now: float) -> bool:
    """Make two peers neighbours, if both have room and can meet and are none yet."""
    most = w.edge.neighbour.shape[1]
    if one == other or w.peer.degree[one] >= most or w.peer.degree[other] >= most:
        return False
    if not can_meet(w.peer.nat[one], w.peer.nat[other]):
        return False
    honest = w.peer.up.shape[0] - w.banned.shape[1]
    if one >= honest and (other >= honest or w.banned[other, one - honest]):
        return False
    if other >= honest and w.banned[one, other - honest]:
        return False
    for at in range(w.peer.degree[one]):
        if w.edge.neighbour[one, at] == other:
            return False
    a = w.peer.degree[one]
    b = w.peer.degree[other]
    w.edge.neighbour[one, a] = other
    w.edge.neighbour[other, b] = one
    w.edge.back[one, a] = b
    w.edge.back[other, b] = a
    for peer, at in ((one, a), (other, b)):
        w.edge.since[peer, at] = now
        w.edge.given[peer, at] = 0.0
        w.edge.slot[peer, at] = -1
        w.edge.got[peer, at] = 0.0
        w.peer.stirred[peer] = 1
        w.peer.degree[peer] += 1
    count_bits(w, one, other, 1)
    count_bits(w, other, one, 1)
    return True


@kernel
def seek(w: World, r: Rules, peer: int, now: float) -> None:
    """Connect a peer with present ones at random until it has enough neighbours."""
    count = w.numbers[PRESENT_COUNT]
    wanted = min(r.neighbours, count - 1)
    if wanted == count - 1:
        for at in range(count):
            connect(w, peer, w.peer.present[at], now)
        return
    for _ in range(TRIES * wanted):
        if w.peer.degree[peer] >= wanted:
            return
        connect(w, peer, w.peer.present[draw(w, count)], now)


@kernel
def forget_entry(w: World, r: Rules, peer: int, at: int) -> None:
    """Take an edge out of a peer's row; the last one takes its place."""
    last = w.peer.degree[peer] - 1
    if at != last:
        other = w.edge.neighbour[peer, last]
        w.edge.neighbour[peer, at] = other
        w.edge.back[peer, at] = w.edge.back[peer, last]
        w.edge.back[other, w.edge.back[peer, last]] = at
        w.edge.since[peer, at] = w.edge.since[peer, last]
        w.edge.given[peer, at] = w.edge.given[peer, last]
        w.edge.slot[peer, at] = w.edge.slot[peer, last]
        w.edge.got[peer, at] = w.edge.got[peer, last]
        w.edge.tried[peer, at] = w.edge.tried[peer, last]
        if w.edge.slot[peer, at] >= 0:
            w.flow.edge[peer * r.slots + w.edge.slot[peer, at]] = at
    w.edge.neighbour[peer, last] = -1
    w.edge.slot[peer, last] = -1
    w.peer.degree[peer] = last


@kernel
def disconnect(w: World, r: Rules, peer: int, at: int, now: float) -> None:
    """End an edge and the flows over it."""
    other = w.edge.neighbour[peer, at]
    if w.edge.slot[peer, at] >= 0:
        stop(w, r, peer * r.slots + w.edge.slot[peer, at], now)
    back = w.edge.back[peer, at]
    if w.edge.slot[other, back] >= 0:
        stop(w, r, other * r.slots + w.edge.slot[other, back], now)
    count_bits(w, peer, other, -1)
    count_bits(w, other, peer, -1)
    forget_entry(w, r, peer, at)
    forget_entry(w, r, other, back)


@kernel
def depart(w: World, r: Rules, peer: int, now: float) -> None:
    """Take a peer out of the swarm."""
    while w.peer.degree[peer] > 0:
        disconnect(w, r, peer, w.peer.degree[peer] - 1, now)
    w.peer.state[peer] = GONE
    last = w.peer.present[w.numbers[PRESENT_COUNT] - 1]
    w.peer.present[w.peer.at[peer]] = last
    w.peer.at[last] = w.peer.at[peer]
    w.numbers[PRESENT_COUNT] -= 1
    for byte in range(w.have8.shape[1]):
        value = w.have8[peer, byte]
        for place in range(w.counts[value]):
            w.copies[8 * byte + w.places[value, place]] -= 1


@kernel
def send(w: World, r: Rules, flow: int) -> None:
    """Send from a slot from now on; its rate is for others to say."""
    source = flow // r.slots
    w.peer.sending[source] |= 1 << flow % r.slots
    w.peer.width[source] += 1
    w.flow.rate[flow] = 0.0


@kernel
def rest(w: World, r: Rules, flow: int) -> None:
    """Send no more from a slot for now."""
    source = flow // r.slots
    bit = 1 << flow % r.slots
    if w.peer.sending[source] & bit:
        w.peer.sending[source] -= bit
        w.peer.width[source] -= 1
    w.flow.rate[flow] = 0.0


@kernel
def stop(w: World, r: Rules, flow: int, now: float) -> None:
    """End a flow; a piece under way is to be fetched again."""
    source = flow // r.slots
    target = w.flow.target[flow]
    piece = w.flow.piece[flow]
    if piece >= 0:
        w.peer.wasted[target] += r.piece_bytes - w.flow.left[flow]
        w.pending8[target, piece >> 3] &= ~w.bits[piece & 7]
        w.peer.asked[target] -= 1
        for at in range(w.peer.degree[target]):
            w.peer.stirred[w.edge.neighbour[target, at]] = 1
    if w.flow.before[flow] >= 0:
        w.flow.after[w.flow.before[flow]] = w.flow.after[flow]
    else:
        w.peer.head[target] = w.flow.after[flow]
    if w.flow.after[flow] >= 0:
        w.flow.before[w.flow.after[flow]] = w.flow.before[flow]
    w.edge.slot[source, w.flow.edge[flow]] = -1
    w.edge.since[source, w.flow.edge[flow]] = now
    rest(w, r, flow)
    w.flow.target[flow] = -1
    w.flow.piece[flow] = -1
    w.peer.free[source] += 1
    w.peer.stirred[source] = 1


@kernel
def pick(w: World, r: Rules, source: int, target: int) -> int:
    """Return the piece that `target` should get from `source` next; -1 = none."""
    ties = 0
    best = 1 << 62
    seeding = w.peer.kind[source] == SEED and r.order == 0
    at_random = r.order == 1 or (r.order == 0 and w.peer.held[target] < RANDOM_FIRST)
    for word in range(w.have.shape[1]):
        if w.have[source, word] & ~(w.have[target, word] | w.pending[target, word]) == 0:
            continue
        for byte in range(8 * word, 8 * word + 8):
            value = w.have8[source, byte] & ~(w.have8[target, byte] | w.pending8[target, byte])
            value &= 255
            for place in range(w.counts[value]):
                piece = 8 * byte + w.places[value, place]
                if r.order == 2:
                    return int(piece)
                key = 0 if at_random else int(w.rarity[target, piece])
                if seeding:
                    # As swarm/offers.py: what this seed has sent least comes first.
                    key += int(w.sent[source, piece]) << 20
                if key < best:
                    best = key
                    ties = 0
                if key == best:
                    w.ties[ties] = piece
                    ties += 1
    return int(w.ties[draw(w, ties)]) if ties > 0 else -1


@kernel
def seconds_left(w: World, r: Rules, flow: int) -> float:
    """Return in how long a flow brings its piece, as far as can be told."""
    if w.flow.rate[flow] > 0.0:
        return float(w.flow.left[flow] / w.flow.rate[flow])
    source = flow // r.slots
    ahead = w.peer.most[source] - w.peer.free[source]
    return float(max(1, ahead) * r.piece_bytes / w.peer.up[source])


@kernel
def take_over(w: World, r: Rules, source: int, target: int, now: float) -> int:
    """Return a last piece whose sender is so slow that `source` should send it; -1 = none."""
    if w.peer.held[target] + w.peer.asked[target] < r.pieces or w.peer.up[source] <= 0.0:
        return -1
    # A line that both senders share would be no faster for the new one.
    sharers = 0
    flow = w.peer.head[target]
    while flow >= 0:
        sharers += w.flow.rate[flow] > 0.0
        flow = w.flow.after[flow]
    fair = w.peer.down[target] / max(1, sharers)
    ahead = 1 + w.peer.most[source] - w.peer.free[source]
    own = max(ahead * r.piece_bytes / w.peer.up[source], r.piece_bytes / fair)
    slowest = -1
    longest = HEDGE_GAIN * own + HEDGE_SECONDS
    flow = w.peer.head[target]
    while flow >= 0:
        piece = w.flow.piece[flow]
        other = flow // r.slots
        by_site = r.site > 0.0 and source < r.seeds and other < r.seeds
        if other != source and not by_site and piece >= 0:
            takes = seconds_left(w, r, flow)
            if takes > longest and w.have8[source, piece >> 3] & w.bits[piece & 7]:
                longest = takes
                slowest = flow
        flow = w.flow.after[flow]
    if slowest < 0:
        return -1
    piece = w.flow.piece[slowest]
    stop(w, r, slowest, now)
    w.numbers[HEDGES] += 1
    return int(piece)


@kernel
def assign(w: World, r: Rules, flow: int, piece: int) -> None:
    """Let a flow carry a piece from its start."""
    target = w.flow.target[flow]
    source = flow // r.slots
    w.flow.piece[flow] = piece
    w.flow.left[flow] = r.piece_bytes
    w.pending8[target, piece >> 3] |= w.bits[piece & 7]
    w.peer.asked[target] += 1
    if w.peer.kind[source] == SEED:
        w.sent[source, piece] += 1


@kernel
def begin(w: World, r: Rules, source: int, at: int, now: float) -> bool:
    """Serve a neighbour in a free slot, if there is something for it."""
    target = w.edge.neighbour[source, at]
    if w.peer.held[target] == r.pieces or w.peer.kind[target] == POISONER:
        return False
    piece = pick(w, r, source, target)
    if piece < 0:
        piece = take_over(w, r, source, target, now)
    if piece < 0:
        return False
    slot = 0
    while w.flow.target[source * r.slots + slot] >= 0:
        slot += 1
    flow = source * r.slots + slot
    w.flow.target[flow] = target
    w.flow.edge[flow] = at
    w.flow.rate[flow] = 0.0
    w.edge.slot[source, at] = slot
    w.edge.since[source, at] = now
    w.edge.got[source, at] = 0.0
    w.peer.free[source] -= 1
    w.flow.before[flow] = -1
    w.flow.after[flow] = w.peer.head[target]
    if w.peer.head[target] >= 0:
        w.flow.before[w.peer.head[target]] = flow
    w.peer.head[target] = flow
    assign(w, r, flow, piece)
    return True


@kernel
def ban(w: World, r: Rules, peer: int, liar: int, now: float) -> None:
    """A peer got a wrong piece: it never speaks with its sender again."""
    w.banned[peer, liar - (w.peer.up.shape[0] - w.banned.shape[1])] = 1
    for at in range(w.peer.degree[peer]):
        if w.edge.neighbour[peer, at] == liar:
            disconnect(w, r, peer, at, now)
            w.numbers[BANS] += 1
            return
