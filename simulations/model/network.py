"""A network as arrays: ids, tables, where nodes lie, and how each behaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..scenario.model import Latency
from .compiled import Word, draw, entry, kernel, share_of
from .ids import check_sorted, directory_of

STATUS, PLACE, TABLE, JITTER = 1, 2, 3, 4
"""Purposes of hashes, so that no two depend on one another."""

ALIVE, SILENT, REFUSES, HANGS, EVIL = 0, 1, 2, 3, 4
"""How a node behaves: answers; never answers; refuses a connection at once; keeps a caller waiting
for the longest time-out; is an attacker."""

SAMPLED_PAIRS: Final = 100_001
"""Pairs from which the median round trip of a profile is taken, to scale it."""


class Net(NamedTuple):
    """All arrays of a network, as compiled code takes them; empty arrays mean "from a hash"."""

    ids: NDArray[np.uint64]
    directory: NDArray[np.uint32]
    shift: Word
    seed: Word
    k: int
    base: NDArray[np.int64]
    """Where the contacts of each node begin."""
    offsets: NDArray[np.uint16]
    """Where each bucket of a node begins, from there on; one column more than buckets."""
    contacts: NDArray[np.int32]
    counts: NDArray[np.uint8]
    """For tables that change: contacts in each bucket of a node, with room for k in each; `base`
    and `offsets` are empty then."""
    place: NDArray[np.float64]
    """For each node two coordinates and its access delay, in seconds of round trip."""
    spread: tuple[float, float, float, float]
    """Width, height, mean access delay and constant part of the round trip."""
    status: NDArray[np.uint8]
    shares: tuple[float, float, float, float]
    """Parts of the nodes that are silent, refuse, hang, are evil; used if `status` is empty."""
    evil: NDArray[np.int64]
    """Numbers of the attackers, rising, for those that name each other."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Parts of the nodes that do not answer as they should."""

    silent: float = 0.0
    refuses: float = 0.0
    hangs: float = 0.0
    evil: float = 0.0


PROFILES: Final = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "lan": (0.0002, 0.0002, 0.00005, 0.0001),
    "world": (0.22, 0.10, 0.015, 0.004),
    "king": (0.22, 0.10, 0.02, 0.004),
}
"""Width and height of a plane of coordinates, mean access delay, constant part; round trips in
seconds. world: half the equator in fibre takes 0.2 s there and back. king: scaled to the median of
the King data, 0.156 s (Li et al. 2005), unless the scenario names another."""

KING_MEDIAN: Final = 0.156


def spread_of(latency: Latency) -> tuple[float, float, float, float]:
    """Return the numbers of a latency profile, scaled to the median that is asked for."""
    spread = PROFILES[latency.profile]
    wanted = latency.median_rtt
    if wanted is None and latency.profile == "king":
        wanted = KING_MEDIAN
    if wanted is None:
        return spread
    if latency.profile == "none":
        return (0.0, 0.0, 0.0, wanted)
    sample = sample_round_trips(np.array(spread), np.uint64(0), SAMPLED_PAIRS)
    scale = wanted / float(np.median(sample))
    return (spread[0] * scale, spread[1] * scale, spread[2] * scale, spread[3] * scale)


@kernel
def place_of(seed: Word, node: int, spread: tuple[float, float, float, float]) -> tuple[Word, ...]:
    """Return two coordinates and the access delay of a node, from a hash."""
    x = share_of(draw(seed, PLACE, node, 0)) * spread[0]
    y = share_of(draw(seed, PLACE, node, 1)) * spread[1]
    access = -math.log(1.0 - share_of(draw(seed, PLACE, node, 2))) * spread[2]
    return x, y, access


@kernel
def round_trip(net: Net, one: int, other: int) -> float:
    """Return the round trip of a pair: distance, both access delays and the constant part."""
    if len(net.place) > 0:
        dx = float(net.place[one, 0]) - float(net.place[other, 0])
        dy = float(net.place[one, 1]) - float(net.place[other, 1])
        delays = float(net.place[one, 2]) + float(net.place[other, 2])
    else:
        x1, y1, a1 = place_of(net.seed, one, net.spread)
        x2, y2, a2 = place_of(net.seed, other, net.spread)
        dx, dy, delays = x1 - x2, y1 - y2, a1 + a2
    return math.sqrt(dx * dx + dy * dy) + delays + net.spread[3]


@entry
def sample_round_trips(spread: NDArray[np.float64], seed: Word, pairs: int) -> NDArray[np.float64]:
    """Return the round trips of pairs of made-up nodes."""
    found = np.empty(pairs)
    four = (spread[0], spread[1], spread[2], spread[3])
    for pair in range(pairs):
        x1, y1, a1 = place_of(seed, 2 * pair, four)
        x2, y2, a2 = place_of(seed, 2 * pair + 1, four)
        dx, dy = x1 - x2, y1 - y2
        found[pair] = math.sqrt(dx * dx + dy * dy) + a1 + a2 + four[3]
    return found


@kernel
def status_of(net: Net, node: int) -> int:
    """Return how a node behaves."""
    if len(net.status) > 0:
        return int(net.status[node])
    silent, refuses, hangs, evil = net.shares
    if silent + refuses + hangs + evil <= 0.0:
        return ALIVE
    drawn = share_of(draw(net.seed, STATUS, node, 0))
    if drawn < silent:
        return SILENT
    drawn -= silent
    if drawn < refuses:
        return REFUSES
    drawn -= refuses
    if drawn < hangs:
        return HANGS
    drawn -= hangs
    return EVIL if drawn < evil else ALIVE


@entry
def all_status(net: Net) -> NDArray[np.uint8]:
    """Return how each node behaves, as an array."""
    found = np.empty(len(net.ids), np.uint8)
    for node in range(len(net.ids)):
        found[node] = status_of(net, node)
    return found


def make_net(
    ids: NDArray[np.uint64],
    seed: int,
    k: int,
    latency: Latency | None = None,
    behaviour: Behaviour | None = None,
) -> Net:
    """Make a network whose tables come from a hash; `tables` can store them.

    Raises:
        ValueError: The ids are not sorted, or not different.
    """
    check_sorted(ids)
    directory, shift = directory_of(ids)
    how = behaviour or Behaviour()
    return Net(
        ids,
        directory,
        shift,
        np.uint64(seed),
        k,
        np.empty(0, np.int64),
        np.empty((0, 0), np.uint16),
        np.empty(0, np.int32),
        np.empty((0, 0), np.uint8),
        np.empty((0, 3), np.float64),
        spread_of(latency or Latency()),
        np.empty(0, np.uint8),
        (how.silent, how.refuses, how.hangs, how.evil),
        np.empty(0, np.int64),
    )


def with_attackers(net: Net) -> Net:
    """Return the network with its behaviour as an array and its attackers listed."""
    status = net.status if len(net.status) else all_status(net)
    return net._replace(status=status, evil=np.flatnonzero(status == EVIL).astype(np.int64))
