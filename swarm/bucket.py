"""How many bytes may go now: token buckets, and the queue of those who wait for them.

A bucket fills at its rate and holds at most one whole piece and a quarter of a second of its rate:
a piece goes at once or not at all, as nothing else of its stream could go before its end (a choke
behind half a piece at 10 kB/s would come a minute late). So in any t seconds at most
`rate * t + burst` bytes pass. Several buckets may stand in a row (the node's, a content's, a
peer's); the gate lets bytes through when every one has room, in the order in which they were asked
for, so that nobody with large pieces starves behind many with small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..wire.swarm import MAX_PIECE

BURST_SECONDS = 0.25
"""Of its rate that a bucket holds beyond one piece, so that a driver may be late by so much."""

LEAST_RATE = 1000.0
"""Bytes a second of the lowest limit: a piece of 1 MiB takes 17 minutes then."""

SLACK = 1e-3
"""Bytes that rounding may cost; a bucket that lacks less has room."""


class Bucket:
    """A limit of so many bytes a second; None = no limit.

    Args:
        rate: Bytes a second, at least `LEAST_RATE`.
        now: In seconds, as in every method; it never goes back.
    """

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float | None, now: float) -> None:
        self._rate = rate
        self._tokens = float(MAX_PIECE)  # the first piece need not wait
        self._at = now

    @property
    def rate(self) -> float | None:
        """Bytes a second; None = no limit."""
        return self._rate

    @property
    def burst(self) -> float | None:
        """The most that may pass at one moment; None = no limit."""
        return None if self._rate is None else MAX_PIECE + BURST_SECONDS * self._rate

    def set_rate(self, rate: float | None, now: float) -> None:
        """Change the limit; what was filled at the old one stays, as far as it fits."""
        if self._rate is None:
            self._tokens = float(MAX_PIECE)
        else:
            self._fill(now)
        self._rate, self._at = rate, now
        self._fill(now)

    def room(self, now: float) -> float | None:
        """Return how many bytes may go now; None = as many as you like."""
        if self._rate is None:
            return None
        self._fill(now)
        return max(0.0, self._tokens)

    def fits(self, count: int, now: float) -> bool:
        """Return whether `count` bytes may go now."""
        room = self.room(now)
        return room is None or room + SLACK >= count

    def ready_at(self, count: int, now: float) -> float:
        """Return when `count` bytes (a piece at most) may go if nothing else does before."""
        if self._rate is None:
            return now
        self._fill(now)
        return now + max(0.0, (count - self._tokens) / self._rate)

    def take(self, count: int, now: float) -> None:
        """Let bytes pass; taking more than there is room for is paid off later."""
        if self._rate is not None:
            self._fill(now)
            self._tokens -= count

    def give(self, count: int, now: float) -> None:
        """Take back what was let pass and has not gone after all."""
        self.take(-count, now)

    def _fill(self, now: float) -> None:
        if self._rate is not None:
            filled = self._tokens + (now - self._at) * self._rate
            self._tokens = min(filled, MAX_PIECE + BURST_SECONDS * self._rate)
            self._at = now


@dataclass(eq=False, slots=True)
class Ticket:
    """Somebody who waits for bytes.

    Attributes:
        buckets: That must all have room.
        count: Bytes; at most those of a piece.
        granted: They may go; they have been taken from the buckets.
    """

    buckets: tuple[Bucket, ...]
    count: int
    granted: bool = False


class Gate:
    """Lets tickets through in the order in which they came.

    A ticket waits for those before it that lack room in a bucket of its own, and for no others: a
    content with a limit does not hold up one without. Whoever enters keeps the number of tickets
    bounded (one for each link, or fetch).
    """

    def __init__(self) -> None:
        self._waiting: dict[Ticket, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, ticket: Ticket) -> None:
        """Wait behind all others."""
        self._waiting[ticket] = None

    def leave(self, ticket: Ticket, now: float) -> None:
        """Wait no more; what was granted is given back."""
        self._waiting.pop(ticket, None)
        if ticket.granted:
            ticket.granted = False
            give(ticket.buckets, ticket.count, now)

    def grant(self, now: float) -> tuple[list[Ticket], float | None]:
        """Return who may go now, and when to ask again (None: when somebody enters)."""
        granted: list[Ticket] = []
        again: float | None = None
        lacking: set[int] = set()
        for ticket in self._waiting:
            if any(id(bucket) in lacking for bucket in ticket.buckets):
                continue
            short = [bucket for bucket in ticket.buckets if not bucket.fits(ticket.count, now)]
            if short:
                lacking.update(map(id, short))
                ready = max(bucket.ready_at(ticket.count, now) for bucket in short)
                again = ready if again is None else min(again, ready)
                continue
            for bucket in ticket.buckets:
                bucket.take(ticket.count, now)
            ticket.granted = True
            granted.append(ticket)
        for ticket in granted:
            del self._waiting[ticket]
        return granted, again


def give(buckets: Sequence[Bucket], count: int, now: float) -> None:
    """Take back from all of them what has not gone after all."""
    for bucket in buckets:
        bucket.give(count, now)
