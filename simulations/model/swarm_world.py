"""The arrays of the swarm model: one row for each peer, edge or slot."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

SEED: Final = 0
LEECHER: Final = 1
FREE_RIDER: Final = 2
POISONER: Final = 3

ABSENT: Final = 0
PRESENT: Final = 1
GONE: Final = 2

SAMPLES: Final = 512
"""Rows of the tables over time; beyond, every second goes and the interval doubles."""

NUMBERS: Final = 8
CHANCE, PRESENT_COUNT, DONE, EVENTS, ROWS, STEPS, HEDGES, BANS = range(NUMBERS)
"""Places in `numbers`: state of the random source, and counts."""

SUMS: Final = 3
"""Places in `sums`: bytes sent and sendable since the last sample, and its time."""
SENT, SENDABLE, SINCE = range(SUMS)


class Rules(NamedTuple):
    """What does not change during a run."""

    pieces: int
    piece_bytes: float
    neighbours: int
    slots: int
    rotate: float
    order: int
    """0 rarest first, 1 random, 2 sequential."""
    leave: bool
    site: float
    """Rate of the line between seeds and leechers; 0 = there is none."""
    horizon: float
    wanted: int
    """Peers that are to complete."""
    seeds: int


class World(NamedTuple):
    """What happens: a peer's row number is its name, and seeds come first."""

    up: Floats
    down: Floats
    kind: NDArray[np.int8]
    link: Ints
    """Class of the access line."""
    nat: NDArray[np.int8]
    arrive: Floats
    order: Ints
    """Peers by arrival."""

    state: NDArray[np.int8]
    done: Floats
    """When it had every piece; -1 = not yet."""
    have: NDArray[np.uint64]
    have8: NDArray[np.uint8]
    """The same memory in bytes."""
    pending: NDArray[np.uint64]
    pending8: NDArray[np.uint8]
    held: Ints
    asked: Ints
    """Pieces on their way to it."""
    rarity: NDArray[np.int16]
    """Row: peer; column: how many of its neighbours say that they have a piece."""
    banned: NDArray[np.uint8]
    """Row: peer; column: poisoner (they are the last rows); 1 = never again."""
    copies: Ints
    """Present copies of each piece, seeds included."""
    sent: Ints
    """Row: seed; column: how often it began to send a piece."""
    present: Ints
    """The peers that are there, in no order; `at` tells where each stands."""
    at: Ints
    stirred: NDArray[np.int8]
    """Whether something changed since the peer last found nobody to serve."""
    turn: Floats
    """When it next decides whom to serve."""
    free: Ints
    """Free slots."""

    neighbour: Ints
    back: Ints
    """Where this edge stands in the neighbour's row."""
    degree: Ints
    since: Floats
    """When this neighbour was last choked or unchoked."""
    given: Floats
    """Bytes that it gave since the last decision."""
    slot: Ints
    """Slot in which it is served; -1 = none."""
    chosen: NDArray[np.int8]

    target: Ints
    """Of the flow in each slot (row: peer x slots + slot); -1 = free."""
    piece: Ints
    edge: Ints
    left: Floats
    rate: Floats
    ending: NDArray[np.int8]
    """The flow ends with the piece under way."""
    before: Ints
    after: Ints
    head: Ints
    """First flow towards each peer; `before` and `after` chain them."""

    up_bytes: Floats
    down_bytes: Floats
    wasted: Floats

    event_flow: Ints
    event_peer: Ints
    event_piece: Ints
    event_time: Floats
    flows: Ints
    """The flows of this step."""
    room: Floats
    """Of each resource: uplinks, then downlinks, then the site line."""
    users: Ints
    share: Floats
    lowest: Floats
    ties: Ints
    rank: Floats
    rows: Floats
    """Samples over time: time, least copies, mean copies, done, used, possible."""
    numbers: NDArray[np.int64]
    sums: Floats
    bits: NDArray[np.uint8]
    places: NDArray[np.int64]
    """For each byte, where its bits are set."""
    counts: NDArray[np.int64]


def empty_world(peers: int, rules: Rules, most_neighbours: int, chance: int, liars: int) -> World:
    """Return a world in which nobody is there yet; the last `liars` rows are poisoners."""
    words = (rules.pieces + 63) // 64
    flows = peers * rules.slots
    have = np.zeros((peers, words), np.uint64)
    pending = np.zeros((peers, words), np.uint64)
    edges = (peers, most_neighbours)
    places = np.zeros((256, 8), np.int64)
    counts = np.zeros(256, np.int64)
    for value in range(256):
        found = [bit for bit in range(8) if value >> bit & 1]
        places[value, : len(found)] = found
        counts[value] = len(found)
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[CHANCE] = chance
    return World(
        up=np.zeros(peers),
        down=np.zeros(peers),
        kind=np.zeros(peers, np.int8),
        link=np.zeros(peers, np.int64),
        nat=np.zeros(peers, np.int8),
        arrive=np.zeros(peers),
        order=np.zeros(peers, np.int64),
        state=np.zeros(peers, np.int8),
        done=np.full(peers, -1.0),
        have=have,
        have8=have.view(np.uint8),
        pending=pending,
        pending8=pending.view(np.uint8),
        held=np.zeros(peers, np.int64),
        asked=np.zeros(peers, np.int64),
        rarity=np.zeros((peers, rules.pieces), np.int16),
        banned=np.zeros((peers, liars), np.uint8),
        copies=np.zeros(rules.pieces, np.int64),
        sent=np.zeros((max(1, rules.seeds), rules.pieces), np.int64),
        present=np.zeros(peers, np.int64),
        at=np.full(peers, -1, np.int64),
        stirred=np.ones(peers, np.int8),
        turn=np.zeros(peers),
        free=np.zeros(peers, np.int64),
        neighbour=np.full(edges, -1, np.int64),
        back=np.zeros(edges, np.int64),
        degree=np.zeros(peers, np.int64),
        since=np.zeros(edges),
        given=np.zeros(edges),
        slot=np.full(edges, -1, np.int64),
        chosen=np.zeros(edges, np.int8),
        target=np.full(flows, -1, np.int64),
        piece=np.full(flows, -1, np.int64),
        edge=np.zeros(flows, np.int64),
        left=np.zeros(flows),
        rate=np.zeros(flows),
        ending=np.zeros(flows, np.int8),
        before=np.full(flows, -1, np.int64),
        after=np.full(flows, -1, np.int64),
        head=np.full(peers, -1, np.int64),
        up_bytes=np.zeros(peers),
        down_bytes=np.zeros(peers),
        wasted=np.zeros(peers),
        event_flow=np.zeros(2 * flows + 16, np.int64),
        event_peer=np.zeros(2 * flows + 16, np.int64),
        event_piece=np.zeros(2 * flows + 16, np.int64),
        event_time=np.zeros(2 * flows + 16),
        flows=np.zeros(flows, np.int64),
        room=np.zeros(2 * peers + 1),
        users=np.zeros(2 * peers + 1, np.int64),
        share=np.zeros(2 * peers + 1),
        lowest=np.zeros(2 * peers + 1),
        ties=np.zeros(max(rules.pieces, most_neighbours), np.int64),
        rank=np.zeros(most_neighbours),
        rows=np.zeros((SAMPLES, 6)),
        numbers=numbers,
        sums=np.zeros(SUMS),
        bits=np.array([1 << bit for bit in range(8)], np.uint8),
        places=places,
        counts=counts,
    )
