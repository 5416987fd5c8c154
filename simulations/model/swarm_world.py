"""The arrays of the swarm model: one row for each peer, edge or slot."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Records: TypeAlias = np.recarray[Any, np.dtype[np.void]]
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

PICTURE_PEERS: Final = 2000
"""Up to so many the network is drawn."""

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
    order: int
    """0 rarest first, 1 random, 2 sequential."""
    leave: bool
    site: float
    """Rate of the line between seeds and leechers; 0 = there is none."""
    horizon: float
    wanted: int
    """Peers that are to complete."""
    seeds: int


PEER: Final = np.dtype(
    [
        ("up", "f8"),
        ("down", "f8"),
        ("arrive", "f8"),
        ("done", "f8"),  # when it had every piece; -1 = not yet
        ("share", "f8"),  # bytes that a turn with it brings
        ("looks", "f8"),  # when it next looks whether it knows enough others
        ("up_bytes", "f8"),
        ("down_bytes", "f8"),
        ("wasted", "f8"),
        ("held", "i8"),
        ("asked", "i8"),  # pieces on their way to it
        ("degree", "i8"),
        ("most", "i8"),  # peers that it serves at a time
        ("free", "i8"),  # slots
        ("sending", "i8"),  # the slots that it sends from at this moment, as bits
        ("width", "i8"),  # how many these are
        ("cycle", "i8"),  # turns that it has given: by what the next is given
        ("head", "i8"),  # first flow towards it; `before` and `after` chain them
        ("at", "i8"),  # its place in `present`
        ("present", "i8"),  # a list of its own: the peers that are there, in no order
        ("order", "i8"),  # a list of its own: the peers by arrival
        ("link", "i8"),  # class of its access line
        ("kind", "i8"),
        ("nat", "i8"),
        ("state", "i8"),
        ("stirred", "i8"),  # whether something changed since it last found nobody to serve
    ]
)

EDGE: Final = np.dtype(
    [
        ("neighbour", "i4"),
        ("back", "i4"),  # where this edge stands in the neighbour's row
        ("since", "f8"),  # when this neighbour was last choked or unchoked
        ("given", "f8"),  # bytes that it gave; half are forgotten with each turn given for that
        ("got", "f8"),  # bytes that it got in this turn
        ("slot", "i4"),  # in which it is served; -1 = none
        ("tried", "i4"),  # it was looked at and wants nothing now
    ]
)

FLOW: Final = np.dtype(
    [
        ("left", "f8"),
        ("rate", "f8"),  # 0 unless it is sent from
        ("target", "i8"),  # -1 = the slot is free
        ("piece", "i8"),
        ("edge", "i8"),
        ("before", "i8"),
        ("after", "i8"),
        ("handed", "i8"),  # the last step in which its line turned to it
        ("listed", "i8"),  # a list of its own: the flows of this step
    ]
)

EVENT: Final = np.dtype([("time", "f8"), ("flow", "i8"), ("peer", "i8"), ("piece", "i8")])

RESOURCE: Final = np.dtype([("room", "f8"), ("share", "f8"), ("lowest", "f8"), ("users", "i8")])


class World(NamedTuple):
    """What happens: a peer's row number is its name; seeds come first, poisoners last."""

    peer: Records
    edge: Records
    flow: Records
    """Row: peer x slots + slot."""
    event: Records
    resource: Records
    """Uplinks, then downlinks, then the site line."""
    have: NDArray[np.uint64]
    have8: NDArray[np.uint8]
    """The same memory in bytes."""
    pending: NDArray[np.uint64]
    pending8: NDArray[np.uint8]
    rarity: NDArray[np.int16]
    """Row: peer; column: how many of its neighbours say that they have a piece."""
    copies: Ints
    """Present copies of each piece, seeds included."""
    sent: Ints
    """Row: seed; column: how often it began to send a piece."""
    banned: NDArray[np.uint8]
    """Row: peer; column: poisoner; 1 = never again."""
    ties: Ints
    picture: NDArray[np.int32]
    """Neighbours of each peer when half were done; no rows if nobody draws them."""
    rows: Floats
    """Samples over time: time, least copies, mean copies, done, used, possible."""
    numbers: Ints
    sums: Floats
    bits: NDArray[np.uint8]
    places: Ints
    """For each byte, where its bits are set."""
    counts: Ints


def records(shape: int | tuple[int, int], kind: np.dtype[np.void]) -> Records:
    """Return zeroed records whose fields are read as attributes."""
    return np.zeros(shape, kind).view(np.recarray)


def empty_world(peers: int, rules: Rules, most_neighbours: int, chance: int, liars: int) -> World:
    """Return a world in which nobody is there yet."""
    words = (rules.pieces + 63) // 64
    peer = records(peers, PEER)
    edge = records((peers, most_neighbours), EDGE)
    flow = records(peers * rules.slots, FLOW)
    for empty in (peer.done, peer.head, peer.at, edge.neighbour, edge.slot):
        empty[:] = -1
    for empty in (flow.target, flow.piece, flow.before, flow.after):
        empty[:] = -1
    peer.stirred[:] = 1
    have = np.zeros((peers, words), np.uint64)
    pending = np.zeros((peers, words), np.uint64)
    places = np.zeros((256, 8), np.int64)
    counts = np.zeros(256, np.int64)
    for value in range(256):
        found = [bit for bit in range(8) if value >> bit & 1]
        places[value, : len(found)] = found
        counts[value] = len(found)
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[CHANCE] = chance
    return World(
        peer=peer,
        edge=edge,
        flow=flow,
        event=records(2 * peers * rules.slots + 16, EVENT),
        resource=records(2 * peers + 1, RESOURCE),
        have=have,
        have8=have.view(np.uint8),
        pending=pending,
        pending8=pending.view(np.uint8),
        rarity=np.zeros((peers, rules.pieces), np.int16),
        copies=np.zeros(rules.pieces, np.int64),
        sent=np.zeros((rules.seeds, rules.pieces), np.int64),
        banned=np.zeros((peers, liars), np.uint8),
        ties=np.zeros(rules.pieces, np.int64),
        picture=np.full((peers if peers <= PICTURE_PEERS else 0, most_neighbours), -1, np.int32),
        rows=np.zeros((SAMPLES, 6)),
        numbers=numbers,
        sums=np.zeros(SUMS),
        bits=np.array([1 << bit for bit in range(8)], np.uint8),
        places=places,
        counts=counts,
    )
