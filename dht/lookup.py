"""A lookup: whom to ask next on the way to the peers nearest to a key.

A plain object; a driver asks the peers that `next_peers` names and reports with `replied` and
`failed`. The peers heard of are kept sorted by distance. At most `alpha` requests count as in
flight; one that is merely slow gives its place back after a second and counts as failed after
five, yet a late answer is still taken. The lookup ends when the nearest `enough` peers that have
not failed have all answered: beta of them for a search, k when something is to be stored.

It always ends: at most `max_asked` peers are asked, and each answers or fails.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from enum import Enum
from itertools import islice

from ..wire.ids import PeerId
from ..wire.immutable import immutable
from .keyspace import K

ALPHA = 10
"""Requests in flight (kad-dht specification)."""

BETA = 3
"""Nearest peers that must have answered before a search ends (IPFS kad-dht specification)."""


@immutable
class LookupConfig:
    """Widths, patience and bounds of a lookup."""

    k: int = K
    """How many of the nearest are wanted, and taken from one answer."""

    alpha: int = ALPHA
    """Requests in flight that are not slow yet."""

    enough: int = BETA
    """How many of the nearest must have answered: beta, or k to store something."""

    slow_after: float = 1.0
    """Seconds after which a request gives back its place in the width."""

    fail_after: float = 5.0
    """Seconds after which an asked peer counts as failed."""

    max_asked: int = 400
    """Peers asked in all; an honest lookup among 10^9 nodes asks fewer than 100."""

    max_heard: int = 2000
    """Peers remembered; the farthest ones not asked yet are dropped."""


class _State(Enum):
    HEARD = "heard of"
    ASKED = "asked"
    SLOW = "asked, and slow"
    ANSWERED = "answered"
    FAILED = "failed"


_HEARD, _ASKED, _SLOW, _ANSWERED, _FAILED = _State
"""By names of the module's own, which are found faster."""


class _Candidate:
    """A peer on the way."""

    __slots__ = ("asked_at", "peer", "state")

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.state = _HEARD
        self.asked_at = 0.0


class Lookup:
    """One walk towards the key `target` (32 bytes)."""

    def __init__(
        self,
        target: bytes,
        seeds: Iterable[PeerId],
        own: PeerId,
        config: LookupConfig | None = None,
    ) -> None:
        self.config = config or LookupConfig()
        self.target = target
        self._aim = int.from_bytes(target, "big")
        self._own = own
        self._known: dict[PeerId, _Candidate] = {}
        self._sorted: list[_Candidate] = []
        self._distances: list[int] = []
        """Those of `_sorted`."""
        self._open: dict[PeerId, _Candidate] = {}
        self.asked = 0
        """Peers asked so far."""
        self.answered = 0
        """Peers that answered so far."""
        self._hear(seeds)

    @property
    def heard(self) -> int:
        """How many peers are known to the lookup."""
        return len(self._known)

    @property
    def in_flight(self) -> int:
        """How many requests are open and not slow yet."""
        return sum(candidate.state is _ASKED for candidate in self._open.values())

    def next_peers(self, now: float) -> list[PeerId]:
        """Return whom to ask now, nearest first; each counts as asked from `now` on."""
        self._pass_time(now)
        if self.over:
            return []
        room = min(self.config.alpha - self.in_flight, self.config.max_asked - self.asked)
        chosen: list[PeerId] = []
        left = self.config.k
        # A slow peer is probably dead: look already for who would take its place in the result.
        for candidate in self._sorted:
            if len(chosen) >= room or not left:
                break
            state = candidate.state
            if state is _FAILED or state is _SLOW:
                continue
            left -= 1
            if state is _HEARD:
                candidate.state = _ASKED
                candidate.asked_at = now
                self._open[candidate.peer] = candidate
                chosen.append(candidate.peer)
        self.asked += len(chosen)
        return chosen

    def replied(self, peer: PeerId, closer: Iterable[PeerId]) -> None:
        """Take the answer of a peer that was asked; of any other it is ignored.

        An answer that is late is taken; a second one is not.
        """
        candidate = self._known.get(peer)
        if candidate is None or candidate.state is _HEARD or candidate.state is _ANSWERED:
            return
        candidate.state = _ANSWERED
        self._open.pop(peer, None)
        self.answered += 1
        self._hear(islice(closer, self.config.k))

    def failed(self, peer: PeerId) -> None:
        """Take note that a peer that was asked will not answer."""
        candidate = self._open.pop(peer, None)
        if candidate is not None:
            candidate.state = _FAILED

    @property
    def over(self) -> bool:
        """Whether nothing is left to ask or wait for."""
        wanted = min(self.config.enough, self.config.k)
        for candidate in self._sorted:
            if not wanted:
                return True
            if candidate.state is _ANSWERED:
                wanted -= 1
            elif candidate.state is not _FAILED:
                break
        else:
            return True
        if self._open:
            return False
        top = islice((c for c in self._sorted if c.state is not _FAILED), self.config.k)
        return self.asked >= self.config.max_asked or all(c.state is not _HEARD for c in top)

    @property
    def result(self) -> list[PeerId]:
        """The nearest peers that answered, at most k, nearest first."""
        answered = (c.peer for c in self._sorted if c.state is _ANSWERED)
        return list(islice(answered, self.config.k))

    def next_change(self) -> float | None:
        """Return when time alone changes something (a request gets slow or fails), or None."""
        slow, fail = self.config.slow_after, self.config.fail_after
        return min(
            (c.asked_at + (fail if c.state is _SLOW else slow) for c in self._open.values()),
            default=None,
        )

    def _pass_time(self, now: float) -> None:
        failed: list[PeerId] = []
        for candidate in self._open.values():
            if now >= candidate.asked_at + self.config.fail_after:
                candidate.state = _FAILED
                failed.append(candidate.peer)
            elif now >= candidate.asked_at + self.config.slow_after:
                candidate.state = _SLOW
        for peer in failed:
            del self._open[peer]

    def _hear(self, peers: Iterable[PeerId]) -> None:
        known, aim = self._known, self._aim
        for peer in peers:
            if peer in known or peer == self._own:
                continue
            distance = peer.place ^ aim
            known[peer] = candidate = _Candidate(peer)
            at = bisect_left(self._distances, distance)
            self._distances.insert(at, distance)
            self._sorted.insert(at, candidate)
        at = len(self._sorted)
        while len(self._sorted) > self.config.max_heard and at:
            at -= 1
            if self._sorted[at].state is _HEARD:
                del self._distances[at], known[self._sorted.pop(at).peer]
