"""A lookup: whom to ask next on the way to the peers nearest to a key.

A plain object; a driver asks the peers that `next_peers` names and reports with `replied` and
`failed`. The peers heard of are kept sorted by distance. At most `alpha` requests count as in
flight; one that is merely slow gives its place back after a second and counts as failed after
five, yet a late answer is still taken. The lookup ends when the nearest `enough` peers that have
not failed have all answered: beta of them for a search, k when something is to be stored.

It always ends: at most `max_asked` peers are asked, and each answers or fails.
"""

from __future__ import annotations

from bisect import insort
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


class _Candidate:
    """A peer on the way, ordered by its distance from the target."""

    __slots__ = ("asked_at", "distance", "peer", "state")

    def __init__(self, peer: PeerId, distance: int) -> None:
        self.peer = peer
        self.distance = distance
        self.state = _State.HEARD
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
        return sum(candidate.state is _State.ASKED for candidate in self._open.values())

    def next_peers(self, now: float) -> list[PeerId]:
        """Return whom to ask now, nearest first; each counts as asked from `now` on."""
        self._pass_time(now)
        if self.over:
            return []
        room = min(self.config.alpha - self.in_flight, self.config.max_asked - self.asked)
        chosen: list[PeerId] = []
        # A slow peer is probably dead: look already for who would take its place in the result.
        for candidate in self._top(self.config.k, _State.FAILED, _State.SLOW):
            if len(chosen) >= room:
                break
            if candidate.state is _State.HEARD:
                candidate.state = _State.ASKED
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
        if candidate is None or candidate.state in (_State.HEARD, _State.ANSWERED):
            return
        candidate.state = _State.ANSWERED
        self._open.pop(peer, None)
        self.answered += 1
        self._hear(islice(closer, self.config.k))

    def failed(self, peer: PeerId) -> None:
        """Take note that a peer that was asked will not answer."""
        candidate = self._open.pop(peer, None)
        if candidate is not None:
            candidate.state = _State.FAILED

    @property
    def over(self) -> bool:
        """Whether nothing is left to ask or wait for."""
        top = list(self._top(self.config.k, _State.FAILED))
        if all(c.state is _State.ANSWERED for c in top[: self.config.enough]):
            return True
        if self._open:
            return False
        return self.asked >= self.config.max_asked or all(c.state is not _State.HEARD for c in top)

    @property
    def result(self) -> list[PeerId]:
        """The nearest peers that answered, at most k, nearest first."""
        answered = (c.peer for c in self._sorted if c.state is _State.ANSWERED)
        return list(islice(answered, self.config.k))

    def next_change(self) -> float | None:
        """Return when time alone changes something (a request gets slow or fails), or None."""
        return min((self._due(candidate) for candidate in self._open.values()), default=None)

    def _due(self, candidate: _Candidate) -> float:
        slow = candidate.state is _State.SLOW
        return candidate.asked_at + (self.config.fail_after if slow else self.config.slow_after)

    def _pass_time(self, now: float) -> None:
        for candidate in list(self._open.values()):
            if now >= candidate.asked_at + self.config.fail_after:
                candidate.state = _State.FAILED
                del self._open[candidate.peer]
            elif now >= candidate.asked_at + self.config.slow_after:
                candidate.state = _State.SLOW

    def _top(self, count: int, *without: _State) -> Iterable[_Candidate]:
        """Yield the nearest `count` that are in none of these states."""
        return islice((c for c in self._sorted if c.state not in without), count)

    def _hear(self, peers: Iterable[PeerId]) -> None:
        for peer in peers:
            if peer == self._own or peer in self._known:
                continue
            candidate = _Candidate(peer, int.from_bytes(peer.key, "big") ^ self._aim)
            self._known[peer] = candidate
            insort(self._sorted, candidate, key=lambda c: c.distance)
        at = len(self._sorted)
        while len(self._sorted) > self.config.max_heard and at:
            at -= 1
            if self._sorted[at].state is _State.HEARD:
                del self._known[self._sorted.pop(at).peer]
