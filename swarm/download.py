"""What to ask of whom, for one content: the download rules.

A plain object. The driver tells it which peers there are, what they hold, what arrived and what
was verified; it answers with runs of pieces to request or cancel. Every method takes `now` in
seconds. The rules (design: section 5): the rarest pieces first with random ties, the very first
ones at random; a peer's queue starts at two pieces and doubles per answered run up to two seconds
of its rate; a late peer's pieces go to others and it is parked until it delivers; the last pieces
are hedged within a budget of duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from bitarray import bitarray
from bitarray.util import zeros

from ..wire.swarm import MAX_PIECE, MAX_RUN, Range
from .availability import Availability
from .bitfield import PeerBits

RUN_PIECES = 16
"""Pieces in one request at most: a seeder wakes once for so many."""

SMALLEST_PIECE = 4096
"""Pieces count as at least so long, so that queues of tiny ones stay short."""

FIRST_QUEUE = 2
"""Pieces that a new peer is asked for at once."""

QUEUE_SECONDS = 2.0
"""A queue holds about so much of the peer's measured rate."""

MAX_QUEUE_BYTES = 64 << 20
"""Asked of one peer at a time."""

MAX_RUNS = 256
"""Requests under way with one peer: small pieces come in short runs."""

RANDOM_FIRST = 4
"""Pieces fetched at random before the rarest come first, to have something to trade."""

LATE_SECONDS = 2.0
LATE_FACTOR = 4.0
"""A request is late after max(2 s, 4 x the time expected)."""

DUPLICATE_SHARE = 0.05
"""Bytes that hedging may fetch twice, as a share of the content."""

HEDGE_SECONDS = 0.5
"""A piece is hedged if it is expected to take so much longer where it was asked for."""

RATE_MEMORY = 0.8
"""Weight of the past in a peer's rate, each time it is measured anew."""

RATE_SECONDS = 0.25
"""How often it is."""


class Draw(Protocol):
    """The random source that is handed in."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 to `stop - 1`."""
        ...


@dataclass(slots=True)
class Run:
    """A request under way."""

    id: int
    first: int
    count: int
    due: float
    """When it is late, unless bytes arrive."""
    left: set[int]
    """Pieces still to come."""
    late: bool = False
    hedge: bool = False


@dataclass(eq=False, slots=True)
class Source:
    """One peer, as a place to fetch from."""

    name: str
    """For people and totals: its peer id."""
    bits: PeerBits = field(default_factory=PeerBits)
    choked: bool = False
    runs: dict[int, Run] = field(default_factory=dict)
    queue: int = FIRST_QUEUE
    """Pieces that may be asked for at a time."""
    rate: float = 0.0
    """Bytes a second, smoothed; 0 = not known."""
    parked: bool = False
    """It was late and has delivered nothing since."""
    last_end: int = -1
    """Piece behind its last run: going on there keeps disks and caches happy."""
    refused: dict[int, float] = field(default_factory=dict)
    """Pieces that it rejected, and until when they are not asked of it again."""
    window_bytes: int = 0
    window_from: float = 0.0
    received: int = 0
    """Bytes of pieces that arrived, verified or not."""

    @property
    def outstanding(self) -> int:
        """Pieces asked for and not arrived."""
        return sum(len(run.left) for run in self.runs.values() if not run.late)

    def expected(self, count: int) -> float:
        """Return how long `count` more bytes would take, by its rate."""
        return count / self.rate if self.rate else 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send."""

    source: Source
    id: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Drop:
    """A request to cancel."""

    source: Source
    id: int


REFUSED_SECONDS = 10.0
"""How long a piece that a peer rejected is not asked of it again."""


class Download:
    """One content coming in; see the top of the file.

    Args:
        pieces: Number of pieces.
        held: Pieces that are there already (copied); set bits never come back.
        random: For ties.
        in_order: Ask for pieces in their order instead of the rarest first.
        piece_size: Bytes of a typical piece; many small files make it small.
    """

    def __init__(
        self,
        pieces: int,
        held: bitarray,
        random: Draw,
        *,
        in_order: bool = False,
        piece_size: int = MAX_PIECE,
    ) -> None:
        self.pieces = pieces
        self.piece_size = max(SMALLEST_PIECE, min(piece_size, MAX_PIECE))
        self._max_queue = MAX_QUEUE_BYTES // self.piece_size
        self._run = min(MAX_RUN, RUN_PIECES * MAX_PIECE // self.piece_size)
        self.ready = zeros(pieces)
        """Pieces whose place and hash are known; others are not asked for yet."""
        self.held = held.copy()
        """Pieces that are there."""
        self._taken = held.copy()  # there, arrived, or asked for
        self._random = random
        self._in_order = in_order
        self._availability = Availability(pieces)
        self.sources: list[Source] = []
        self._next_id = 1
        self._asked: dict[int, list[tuple[Source, Run]]] = {}
        self._hedged = 0
        self.left = pieces - held.count()
        """Pieces that are not there yet."""

    @property
    def over(self) -> bool:
        """Whether every piece is there."""
        return self.left == 0

    # Peers

    def join(self, source: Source) -> None:
        """Take a peer whose whole bitfield has arrived."""
        source.bits.size_known(self.pieces)
        assert source.bits.bits is not None
        self.sources.append(source)
        if not source.bits.everything:
            self._availability.add(source.bits.bits)

    def leave(self, source: Source) -> None:
        """Forget a peer; what was asked of it goes to others."""
        if source not in self.sources:
            return
        self.sources.remove(source)
        for run in list(source.runs.values()):
            self._end_run(source, run)
        if not source.bits.everything and source.bits.bits is not None:
            self._availability.remove(source.bits.bits)

    def have(self, source: Source, ranges: Iterable[Range]) -> None:
        """Take a peer's Have."""
        if source.bits.everything:
            return
        for first, count in source.bits.change(ranges, True):
            if source in self.sources:
                self._availability.add_range(first, count)

    def not_have(self, source: Source, ranges: Iterable[Range]) -> None:
        """Take a peer's NotHave."""
        everything = source.bits.everything
        changed = source.bits.change(ranges, False)
        if source not in self.sources or not changed:
            return
        if everything and source.bits.bits is not None:
            self._availability.add(source.bits.bits)  # from now on it is counted
            return
        for first, count in changed:
            self._availability.remove_range(first, count)

    def choke(self, source: Source, choked: bool) -> None:
        """Take a peer's Choke or Unchoke; a choke drops what was asked."""
        source.choked = choked
        if choked:
            for run in list(source.runs.values()):
                self._end_run(source, run)

    # Asking

    def asks(self, source: Source, now: float, fits: Callable[[int, int], int]) -> Iterator[Ask]:
        """Yield what to request of a peer now.

        Args:
            source: Whom.
            now: Seconds.
            fits: How many pieces of a run (first, count) there are buffers for; asked just
                before each request is yielded.
        """
        if source.choked or source not in self.sources:
            return
        room = self._room(source)
        outstanding = source.outstanding
        # Topped up at half of the queue, so that requests are long and few.
        if outstanding > room // 2:
            return
        wanted = room - outstanding
        while wanted > 0 and len(source.runs) < MAX_RUNS:
            run = self._pick(source, min(wanted, self._run), now)
            if run is None:
                break
            first, count = run
            count = fits(first, count)
            if not count:
                return
            wanted -= count
            yield self._ask(source, first, count, now)
        if wanted > 0 and not source.parked:
            yield from self._hedge(source, wanted, now, fits)

    def _room(self, source: Source) -> int:
        holders = max(1, sum(not other.choked for other in self.sources))
        fair = max(1, self.left // (2 * holders))
        if source.parked:
            return 1
        return min(source.queue, fair, self._max_queue)

    def _candidates(self, source: Source, now: float) -> bitarray:
        assert source.bits.bits is not None
        candidates = source.bits.bits & ~self._taken
        candidates &= self.ready
        for piece, until in list(source.refused.items()):
            if until <= now:
                del source.refused[piece]
            else:
                candidates[piece] = 0
        return candidates

    def _pick(self, source: Source, most: int, now: float) -> Range | None:
        candidates = self._candidates(source, now)
        if self._in_order:
            first = candidates.find(1)
            return None if first < 0 else (first, _run_length(candidates, first, most))
        started = self.pieces - self.left >= RANDOM_FIRST
        if started:
            candidates = self._availability.rarest(candidates)
        first = source.last_end if started else -1
        if not (0 <= first < self.pieces and candidates[first]):
            start = self._random.randrange(self.pieces)
            start -= start % self._run if self.pieces > 4 * self._run and started else 0
            first = candidates.find(1, start)
            if first < 0:
                first = candidates.find(1)
            if first < 0:
                return None
        return first, _run_length(candidates, first, most if started else 1)

    def _ask(
        self, source: Source, first: int, count: int, now: float, *, hedge: bool = False
    ) -> Ask:
        run = Run(self._next_id, first, count, 0.0, set(range(first, first + count)), hedge=hedge)
        self._next_id = self._next_id % 0xFFFFFFFF + 1
        if not source.runs:
            source.window_from, source.window_bytes = now, 0
        source.runs[run.id] = run
        source.last_end = first + count
        self._taken[first : first + count] = 1
        for piece in run.left:
            self._asked.setdefault(piece, []).append((source, run))
        self._set_due(source, now)
        return Ask(source, run.id, first, count)

    def _hedge(
        self, source: Source, most: int, now: float, fits: Callable[[int, int], int]
    ) -> Iterator[Ask]:
        """Ask again for last pieces that are slow to come elsewhere."""
        assert source.bits.bits is not None
        allowed = int(DUPLICATE_SHARE * self.pieces) - self._hedged
        if allowed <= 0 or not source.rate:
            return
        waiting: list[tuple[float, int]] = []
        for piece, askers in self._asked.items():
            if len(askers) == 1 and source.bits.bits[piece] and askers[0][0] is not source:
                other = askers[0][0]
                waiting.append((other.expected(other.outstanding * self.piece_size), piece))
        waiting.sort(reverse=True)
        ours = source.expected((source.outstanding + 1) * self.piece_size)
        for theirs, piece in waiting[: min(most, allowed)]:
            if theirs < 2 * ours + HEDGE_SECONDS or not fits(piece, 1):
                break
            self._hedged += 1
            yield self._ask(source, piece, 1, now, hedge=True)

    # What arrives

    def expects(self, source: Source, run_id: int, piece: int) -> bool:
        """Return whether a peer may send this piece now."""
        run = source.runs.get(run_id)
        return run is not None and piece in run.left

    def wanted(self, piece: int) -> bool:
        """Return whether a piece that arrives is of use."""
        return not self.held[piece] and piece in self._asked

    def bytes_came(self, source: Source, count: int, now: float) -> None:
        """Count bytes of a piece that is arriving."""
        source.received += count
        source.window_bytes += count
        span = now - source.window_from
        if span >= RATE_SECONDS:
            measured = source.window_bytes / span
            old = source.rate
            source.rate = measured if not old else RATE_MEMORY * old + (1 - RATE_MEMORY) * measured
            source.window_from, source.window_bytes = now, 0
            self._set_due(source, now)

    def arrived(self, source: Source, run_id: int, piece: int, now: float) -> list[Drop]:
        """Take note that all bytes of a piece are here, to be verified; others need not send it.

        Until `verified` or `failed` is told, nobody is asked for it.
        """
        run = source.runs.get(run_id)
        if run is None:
            return []
        run.left.discard(piece)
        source.parked = False
        drops: list[Drop] = []
        for other, their_run in self._asked.pop(piece, []):
            if their_run is not run:
                their_run.left.discard(piece)
                if not their_run.left:
                    other.runs.pop(their_run.id, None)
                drops.append(Drop(other, their_run.id))
        if not run.left:
            del source.runs[run_id]
            self._grow(source, now)
        self._set_due(source, now)
        return drops

    def _grow(self, source: Source, now: float) -> None:
        span = now - source.window_from
        rate = source.rate or (source.window_bytes / span if span > 0 else 0.0)
        enough = max(FIRST_QUEUE, int(rate * QUEUE_SECONDS / self.piece_size)) if rate else 2**31
        source.queue = min(2 * source.queue, enough, self._max_queue)
        source.queue = max(source.queue, FIRST_QUEUE)

    def verified(self, piece: int) -> None:
        """Take note that a piece is right and will be kept."""
        if not self.held[piece]:
            self.held[piece] = 1
            self._taken[piece] = 1
            self.left -= 1
            for source, run in self._asked.pop(piece, []):
                run.left.discard(piece)
                if not run.left:
                    source.runs.pop(run.id, None)

    def failed(self, piece: int) -> None:
        """Take note that a piece was wrong, or could not be kept: it is wanted again."""
        if self.held[piece]:
            self.held[piece] = 0
            self.left += 1
        if piece not in self._asked:
            self._taken[piece] = 0

    def rejected(self, source: Source, run_id: int, now: float) -> None:
        """Take a peer's Reject: the rest of the run goes to others."""
        run = source.runs.get(run_id)
        if run is not None:
            for piece in run.left:
                source.refused[piece] = now + REFUSED_SECONDS
            self._end_run(source, run)

    # Time

    def late(self, now: float) -> list[Drop]:
        """Return the requests that are late now; their pieces go to others."""
        drops: list[Drop] = []
        for source in self.sources:
            for run in list(source.runs.values()):
                if run.due <= now:
                    drops.append(Drop(source, run.id))
                    self._end_run(source, run)
                    source.parked = True
                    source.queue = FIRST_QUEUE
        return drops

    def next_late(self) -> float | None:
        """Return when the next request gets late, or None."""
        return min((run.due for s in self.sources for run in s.runs.values()), default=None)

    def _set_due(self, source: Source, now: float) -> None:
        """Count anew when a peer's requests are late: each after those before it."""
        ahead = 0
        for run in source.runs.values():
            ahead += len(run.left)
            expected = source.expected(ahead * self.piece_size)
            run.due = now + max(LATE_SECONDS, LATE_FACTOR * expected)

    def _end_run(self, source: Source, run: Run) -> None:
        """Take a run off a peer; pieces that nobody else is asked for are free again."""
        source.runs.pop(run.id, None)
        for piece in run.left:
            askers = self._asked.get(piece, [])
            askers = [pair for pair in askers if pair[1] is not run]
            if askers:
                self._asked[piece] = askers
            else:
                self._asked.pop(piece, None)
                self._taken[piece] = self.held[piece]


def _run_length(candidates: bitarray, first: int, most: int) -> int:
    end = candidates.find(0, first, min(first + most, len(candidates)))
    return (min(first + most, len(candidates)) if end < 0 else end) - first


def empty_bits(pieces: int) -> bitarray:
    """Return a bitfield without any piece."""
    return zeros(pieces)
