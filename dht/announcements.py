"""Which of our contents are to be announced when, and how to announce many for little.

A record lives 48 h at those who took it and is renewed after 22 h (kad-dht specification). Many
contents are announced by sweep: they are taken in the order of their keys, one wide lookup finds
all peers of a region of the key space, and every content of that region is handed to its nearest
peers without another lookup.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from ..wire.ids import PeerId
from ..wire.immutable import immutable
from .keyspace import KEY_BITS, Draw, K, common_prefix, distance, key_of, nearest

SWEEP_WIDTH = 2 * K
"""Peers that a region's lookup looks for: twice those that take a record, so that whole regions
lie inside what was seen."""


@immutable
class AnnounceConfig:
    """When contents are announced."""

    every: float = 22 * 3600.0
    """Seconds between two announcements (kad-dht specification)."""

    jitter: float = 3600.0
    """The next one comes up to this much earlier, so that many do not fall together."""

    retry: float = 300.0
    """Seconds until the next try when nobody or too few took it (go)."""

    small: float = 3600.0
    """Seconds until the next one in a network of fewer than k peers, where a few that leave may
    take all records with them."""

    taken_by: float = 0.2
    """Share of the wanted peers that makes an announcement count as done (go)."""

    limit: int = 1_000_000
    """Contents in the schedule."""


class Announcements:
    """The contents that we announce, and when each is due (Unix time)."""

    def __init__(self, config: AnnounceConfig | None = None) -> None:
        self.config = config or AnnounceConfig()
        self.joins = 0
        """How often we joined: an announcement begun before may have missed those met since."""
        self._untaken: set[bytes] = set()  # part of the schedule, so bounded as that is
        self._due: dict[bytes, float] = {}
        self._queue: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, multihash: bytes) -> bool:
        return multihash in self._due

    def set(self, multihash: bytes, due: float, now: float) -> bool:
        """Schedule a content; False when the schedule is full.

        A time farther off than one period (a clock that was wrong) counts as one period.
        """
        if multihash not in self._due and len(self._due) >= self.config.limit:
            return False
        due = min(due, now + self.config.every)
        self._due[multihash] = due
        heapq.heappush(self._queue, (due, multihash))
        if len(self._queue) > 2 * len(self._due) + 64:  # mostly entries that were moved
            self._queue = [(due, multihash) for multihash, due in self._due.items()]
            heapq.heapify(self._queue)
        return True

    def drop(self, multihash: bytes) -> None:
        """Announce a content no more."""
        self._due.pop(multihash, None)
        self._untaken.discard(multihash)

    def joined(self, now: float) -> None:
        """Make due what found nobody to take it: now there is somebody."""
        self.joins += 1
        for multihash in sorted(self._untaken):
            if multihash in self:
                self.set(multihash, now, now)
        self._untaken.clear()

    def due(self, now: float) -> list[bytes]:
        """Return the contents that are due, in the order of their keys."""
        found: set[bytes] = set()
        while self._queue and self._queue[0][0] <= now:
            due, multihash = heapq.heappop(self._queue)
            if self._due.get(multihash) == due:
                found.add(multihash)
        for multihash in found:
            heapq.heappush(self._queue, (self._due[multihash], multihash))
        return sorted(found, key=key_of)

    def next_due(self) -> float | None:
        """Return when the next content is due, or None."""
        while self._queue and self._due.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def done(self, multihash: bytes, taken: int, wanted: int, now: float, draw: Draw) -> float:
        """Take note of an announcement that `taken` of `wanted` peers took.

        Returns:
            When the next one is due.
        """
        if not taken or taken < wanted * self.config.taken_by:
            due = now + self.config.retry
        elif wanted < K:
            due = now + self.config.small
        else:
            due = now + self.config.every - draw.uniform(0.0, self.config.jitter)
        if multihash in self._due:
            self.set(multihash, due, now)
        return due

    def outcome(
        self, multihash: bytes, taken: int, wanted: int, joins: int, now: float, draw: Draw
    ) -> float | None:
        """Take note of how a try went; return when the next is due, or None if none is wanted.

        Args:
            multihash: What was announced.
            taken: How many peers took it.
            wanted: How many should have.
            joins: What `joins` was when it was begun.
            now: Unix time.
            draw: Spreads the next tries.
        """
        if multihash not in self._due:
            return None
        due = self.done(multihash, taken, wanted, now, draw)
        if not taken and joins != self.joins:
            # Somebody came while we looked: the lookup began without them.
            self.set(multihash, due := now, now)
        elif not taken:  # nobody was found, or nobody of those found could be told
            self._untaken.add(multihash)
        return due


class Sweep:
    """Many contents in the order of their keys: one lookup for each region of the key space."""

    def __init__(self, multihashes: Iterable[bytes]) -> None:
        self._left = list(multihashes)

    def next_lookup(self) -> tuple[bytes, int] | None:
        """Return what to look up next, and how wide; None at the end."""
        if not self._left:
            return None
        return self._left[0], K if len(self._left) == 1 else SWEEP_WIDTH

    def found(self, nearest: Sequence[PeerId]) -> list[bytes]:
        """Take what the lookup found; return the contents whose takers are among them."""
        first, width = self._left[0], K if len(self._left) == 1 else SWEEP_WIDTH
        target = key_of(first)
        region, self._left = split_region(self._left, target, covered_bits(target, nearest, width))
        return region


def covered_bits(target: bytes, found: Sequence[PeerId], wanted: int, k: int = K) -> int:
    """Return the largest region around `target` whose every key we can serve from `found`.

    A region is the set of keys that share that many leading bits with the target. A lookup that
    found the `wanted` nearest peers has seen all peers up to the distance of its farthest, and so
    every peer of a region that lies within this distance; with at least k peers in it, the
    k nearest of each of its keys are among them.

    The answer is how many bits a region's keys share: 256 stands for the target alone, 0 for all
    keys (fewer peers than wanted were found: that is the whole network).

    Args:
        target: The key that was looked up.
        found: The peers that were found.
        wanted: How many the lookup was to find.
        k: How many peers take a record.
    """
    if len(found) < wanted:
        return 0
    seen = max(distance(peer.key, target) for peer in found)
    region = KEY_BITS + 1 - (seen + 1).bit_length()  # the largest with 2^(256 - bits) <= seen + 1
    in_region = sum(common_prefix(peer.key, target) >= region for peer in found)
    return region if in_region >= k else KEY_BITS


def split_region(
    keys: Iterable[bytes], target: bytes, bits: int
) -> tuple[list[bytes], list[bytes]]:
    """Split multihashes into those whose key lies in the target's region, and the others."""
    inside: list[bytes] = []
    outside: list[bytes] = []
    for multihash in keys:
        (inside if common_prefix(key_of(multihash), target) >= bits else outside).append(multihash)
    return inside, outside


def takers(multihash: bytes, found: Iterable[PeerId], k: int = K) -> list[PeerId]:
    """Return the k peers nearest to a content."""
    return nearest(found, key_of(multihash), lambda peer: peer.key)[:k]
