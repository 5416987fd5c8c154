"""How much to ask of a peer at a time, and when what it was asked for is late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from ..wire.swarm import MAX_PIECE
from .source import FIRST_QUEUE, LATE_SECONDS, SLOWEST_RATE, Run, Source

SMALLEST_PIECE: Final = 4096
"""Pieces count as at least so long, so that queues of tiny ones stay short."""

QUEUE_SECONDS: Final = 2.0
"""A queue holds about so much of the peer's measured rate."""

MAX_QUEUE_BYTES: Final = 64 << 20
"""Asked of one peer at a time."""

SLOW_SECONDS: Final = 1.0
"""Of a peer that takes longer for a piece only one is asked at a time, the next just before that is
over: what waits with it longer could have come from another meanwhile, who may have it by then."""

LATE_FACTOR: Final = 4.0
"""A request is late after max(2 s, 4 x the time expected)."""

REPLAN_SECONDS: Final = 5.0
"""When nothing flows, a peer that has sent nothing for so long is taken for silent."""


class Budget(Protocol):
    """Bytes of memory for what is on its way; shared by all fetches of a node."""

    @property
    def room(self) -> int:
        """Bytes that may still be reserved."""
        ...

    def reserve(self, count: int) -> None:
        """Take bytes."""

    def release(self, count: int) -> None:
        """Give bytes back."""


class Queue:
    """The rules of queues for pieces of one size.

    Args:
        piece_size: Bytes of a typical piece; many small files make it small.
    """

    def __init__(self, piece_size: int) -> None:
        self.piece_size = max(SMALLEST_PIECE, min(piece_size, MAX_PIECE))
        self.longest = MAX_QUEUE_BYTES // self.piece_size
        """Pieces."""
        self.usual = 0.0
        """Bytes a second that peers reach, by those that are known; 0 = none is."""

    def room(self, source: Source, holders: int, left: int, now: float) -> int:
        """Return how many pieces may be asked of a peer at a time.

        Args:
            source: Who.
            holders: Peers that answer.
            left: Pieces that are still to come.
            now: Seconds.
        """
        if source.parked:
            return 1 if not holders or now >= source.probe_at else 0
        fair = max(1, left // (2 * max(1, holders)))
        # Memory is for all: each leaves room for the others, and for the next that comes.
        share = max(1, self.longest // (holders + 1))
        return min(source.queue, fair, share)

    def grow(self, source: Source, now: float) -> None:
        """Let a peer's queue grow: it has answered a run."""
        span = now - source.window_from
        rate = source.rate or (source.window_bytes / span if span > 0 else 0.0)
        doubled = min(2 * source.queue, self.longest)
        enough = int(rate * QUEUE_SECONDS / self.piece_size) if rate else doubled
        slow = 0 < rate * SLOW_SECONDS < self.piece_size
        source.queue = max(1 if slow else FIRST_QUEUE, min(doubled, enough))

    def due(self, source: Source, ahead: int, now: float) -> float:
        """Return when a request is late that is over when `ahead` pieces have come."""
        count = ahead * self.piece_size
        expected = source.expected(count)
        if not source.rate and self.usual:
            expected = count / max(self.usual, SLOWEST_RATE)
        return now + max(LATE_SECONDS, LATE_FACTOR * expected)

    def learn(self, sources: Sequence[Source]) -> None:
        """Look how fast peers are."""
        rates = sorted(source.rate for source in sources if source.rate)
        self.usual = rates[len(rates) // 2] if rates else 0.0

    def set_due(self, source: Source, now: float) -> None:
        """Count anew when a peer's requests are late: each after those before it."""
        source.due_from = now
        ahead = 0
        for run in source.runs.values():
            ahead += len(run.left)
            run.due = self.due(source, ahead, now)


def late_runs(
    sources: Sequence[Source], piece_size: int, now: float
) -> Iterator[tuple[Source, list[Run]]]:
    """Yield the peers that are late, each with the runs that others could send.

    A peer that has stopped sending while others go on is late with all of them.
    """
    flowing = [other.window_from for other in sources if other.rate and other.live]
    latest = max(flowing, default=0.0)
    for source in sources:
        silent = (
            bool(source.rate) and source.window_from <= now - source.patience(piece_size) < latest
        )
        late = [run for run in source.runs.values() if silent or run.due <= now]
        late = [run for run in late if _others_hold(sources, source, run)]
        if late:
            yield source, late


def silent_runs(sources: Sequence[Source], now: float) -> Iterator[tuple[Source, list[Run]]]:
    """Yield the peers that send nothing, with all that they were asked for.

    The one piece that a parked peer is asked for stays with it: it may be its only holder.
    """
    for source in sources:
        silent = source.runs and source.window_from <= now - REPLAN_SECONDS
        if silent and not (source.parked and source.outstanding == 1):
            yield source, list(source.runs.values())


def _others_hold(sources: Sequence[Source], source: Source, run: Run) -> bool:
    for other in sources:
        if other is not source and other.live and any(map(other.bits.has, run.left)):
            return True
    return False
