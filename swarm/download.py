"""What to ask of whom, for one content: the download rules.

A plain object. The driver tells it which peers there are, what they hold, what arrived and what
was verified; it answers with runs of pieces to request or cancel. Every method takes `now` in
seconds. The rules (design: section 5): the rarest pieces first with random ties, the very first
ones at random; a peer's queue starts at two pieces and doubles per answered run up to two seconds
of its rate; a late peer's pieces go to others and it is parked until it delivers; the last pieces
are hedged within a budget of duplicates. Every request reserves the bytes that it may bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bitarray import bitarray
from bitarray.util import zeros

from ..wire.swarm import MAX_PIECE, MAX_RUN, Range
from .availability import Availability
from .source import FIRST_QUEUE, Ask, Drop, Run, Source

RUN_PIECES = 16
"""Pieces of 1 MiB in one request at most: a seeder wakes once for so many."""

SMALLEST_PIECE = 4096
"""Pieces count as at least so long, so that queues of tiny ones stay short."""

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

REPLAN_SECONDS = 5.0
"""When nothing flows, a peer that has sent nothing for so long is taken for silent."""

DUPLICATE_SHARE = 0.05
"""Pieces that hedging may fetch twice, as a share of the content; one at least."""

HEDGE_WITHIN = 64
"""Only so many last pieces are hedged."""

HEDGE_SECONDS = 0.5
"""A piece is hedged if it is expected to take so much longer where it was asked for."""

REFUSED_SECONDS = 10.0
"""How long a piece that a peer rejected is not asked of it again."""

MAX_REJECTS = 8
"""Requests in a row that a peer may reject before it is left alone for a while."""


class Draw(Protocol):
    """The random source that is handed in."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 to `stop - 1`."""
        ...


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


class Download:
    """One content coming in; see the top of the file.

    Args:
        pieces: Number of pieces.
        held: Pieces that are there already (copied).
        random: For ties.
        length: Returns how many bytes a piece may bring.
        budget: What requests reserve from.
        in_order: Ask for pieces in their order instead of the rarest first.
        piece_size: Bytes of a typical piece; many small files make it small.
    """

    def __init__(
        self,
        pieces: int,
        held: bitarray,
        random: Draw,
        length: Callable[[int], int],
        budget: Budget,
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
        self._length = length
        self._budget = budget
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
        """Take a peer whose whole bitfield has arrived.

        Raises:
            PeerFault: The bitfield does not fit the content.
        """
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

    def close(self) -> None:
        """Forget all peers; every reserved byte is given back."""
        for source in list(self.sources):
            self.leave(source)

    def have(self, source: Source, ranges: Iterable[Range]) -> None:
        """Take a peer's Have."""
        if source.bits.everything:
            return
        changed = source.bits.change(ranges, True)
        if source in self.sources:
            self._availability.add_ranges(changed)

    def not_have(self, source: Source, ranges: Iterable[Range]) -> None:
        """Take a peer's NotHave."""
        everything = source.bits.everything
        changed = source.bits.change(ranges, False)
        if source not in self.sources or not changed:
            return
        if everything and source.bits.bits is not None:
            self._availability.add(source.bits.bits)  # from now on it is counted
        else:
            self._availability.remove_ranges(changed)

    def choke(self, source: Source, choked: bool) -> None:
        """Take a peer's Choke or Unchoke; a choke drops what was asked."""
        source.choked = choked
        if choked:
            for run in list(source.runs.values()):
                self._end_run(source, run)

    # Asking

    def asks(self, source: Source, now: float) -> Iterator[Ask]:
        """Yield what to request of a peer now; what is yielded is reserved and must be sent."""
        if source.choked or source not in self.sources or now < source.paused_until:
            return
        room = self._queue_room(source, now)
        outstanding = source.outstanding
        # Topped up at half of the queue, so that requests are long and few.
        if outstanding > room // 2:
            return
        wanted = room - outstanding
        while wanted > 0 and len(source.runs) < MAX_RUNS:
            picked = self._pick(source, min(wanted, self._run), now)
            if picked is None:
                break
            lengths = self._fitting(*picked)
            if not lengths:
                return
            wanted -= len(lengths)
            yield self._ask(source, picked[0], lengths, now)
        if wanted > 0 and not source.parked:
            yield from self._hedge(source, wanted, now)

    def _queue_room(self, source: Source, now: float) -> int:
        """Return how many pieces may be asked of a peer at a time."""
        holders = sum(other.live for other in self.sources)
        if source.parked:
            return 1 if not holders or now >= source.probe_at else 0
        fair = max(1, self.left // (2 * max(1, holders)))
        # Memory is for all: each leaves room for the others, and for the next that comes.
        share = max(1, self._max_queue // (holders + 1))
        return min(source.queue, fair, share)

    def _fitting(self, first: int, count: int) -> list[int]:
        """Return the lengths of those first pieces of a run for which there is memory."""
        room = self._budget.room
        lengths: list[int] = []
        for piece in range(first, first + count):
            length = self._length(piece)
            room -= length
            if room < 0:
                break
            lengths.append(length)
        return lengths

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

    def _ask(self, source: Source, first: int, lengths: list[int], now: float) -> Ask:
        end = first + len(lengths)
        run = Run(self._next_id, dict(zip(range(first, end), lengths, strict=True)))
        self._next_id = self._next_id % 0xFFFFFFFF + 1
        self._budget.reserve(sum(lengths))
        if not source.runs:
            source.window_from, source.window_bytes = now, 0
        ahead = source.outstanding + len(lengths)
        run.due = self._due(source, ahead, now)
        source.runs[run.id] = run
        source.last_end = end
        self._taken[first:end] = 1
        for piece in run.left:
            self._asked.setdefault(piece, []).append((source, run))
        if source.parked:
            source.probe_at = now + source.probe_pause
        return Ask(source, run.id, first, len(lengths))

    def _hedge(self, source: Source, most: int, now: float) -> Iterator[Ask]:
        """Ask again for last pieces that are slow to come elsewhere."""
        assert source.bits.bits is not None
        allowed = max(1, int(DUPLICATE_SHARE * self.pieces)) - self._hedged
        if allowed <= 0 or len(self._asked) > HEDGE_WITHIN:
            return
        if not source.rate:
            most = 1 - source.outstanding  # of a peer that we do not know yet
        waiting: list[tuple[float, int]] = []
        for piece, askers in self._asked.items():
            if len(askers) == 1 and source.bits.bits[piece] and piece not in source.refused:
                other = askers[0][0]
                if other is not source:
                    slow = other.expected(other.outstanding * self.piece_size)
                    known = other.rate and other.live
                    waiting.append((slow if known else LATE_SECONDS, piece))
        waiting.sort(reverse=True)
        ours = source.expected((source.outstanding + 1) * self.piece_size)
        for theirs, piece in waiting[: max(0, min(most, allowed))]:
            lengths = self._fitting(piece, 1)
            if theirs < 2 * ours + HEDGE_SECONDS or not lengths:
                break
            self._hedged += 1
            yield self._ask(source, piece, lengths, now)

    # What arrives

    def begins(self, source: Source, run_id: int, piece: int) -> bool:
        """Return whether a piece that begins to arrive was asked for and is awaited.

        If so its reservation is given back: the driver counts the buffer from now on.
        """
        run = source.runs.get(run_id)
        if run is None or piece not in run.left:
            return False
        self._budget.release(run.left[piece])
        run.left[piece] = 0
        return True

    def bytes_came(self, source: Source, count: int, now: float) -> None:
        """Count bytes of a piece that is arriving."""
        if source.measure(count, now):
            self._set_due(source, now)

    def arrived(self, source: Source, run_id: int, piece: int, now: float) -> list[Drop]:
        """Take note that all bytes of a piece are here, to be verified.

        Until `verified` or `failed` is told, nobody is asked for it.

        Returns:
            Requests of others that are of no more use.
        """
        source.delivered()
        drops: list[Drop] = []
        for other, run in self._asked.pop(piece, []):
            self._strike(run, piece)
            if run.left:
                continue
            other.runs.pop(run.id, None)
            if other is source and run.id == run_id:
                self._grow(source, now)
            else:
                drops.append(Drop(other, run.id))
        self._taken[piece] = 1
        self._set_due(source, now)
        return drops

    def _grow(self, source: Source, now: float) -> None:
        span = now - source.window_from
        rate = source.rate or (source.window_bytes / span if span > 0 else 0.0)
        doubled = min(2 * source.queue, self._max_queue)
        enough = int(rate * QUEUE_SECONDS / self.piece_size) if rate else doubled
        source.queue = max(FIRST_QUEUE, min(doubled, enough))

    def verified(self, piece: int) -> None:
        """Take note that a piece is right and will be kept."""
        if not self.held[piece]:
            self.held[piece] = 1
            self._taken[piece] = 1
            self.left -= 1
            for source, run in self._asked.pop(piece, []):
                self._strike(run, piece)
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
        if run is None:
            return
        for piece in run.left:
            source.refused[piece] = now + REFUSED_SECONDS
        self._end_run(source, run)
        source.rejects += 1
        if source.rejects >= MAX_REJECTS:
            source.paused_until = now + REFUSED_SECONDS

    # Time

    def late(self, now: float) -> list[Drop]:
        """Return the requests that are late now; their pieces go to others.

        What nobody else could send is waited for.
        """
        drops: list[Drop] = []
        for source in self.sources:
            silent = self._silent(source, now)
            late = [run for run in source.runs.values() if silent or run.due <= now]
            late = [run for run in late if self._others_hold(source, run)]
            for run in late:
                drops.append(Drop(source, run.id))
                self._end_run(source, run)
            if late:
                source.park(now)
        return drops

    def _silent(self, source: Source, now: float) -> bool:
        """Return whether a peer has stopped sending while others go on."""
        since = now - source.patience
        if not source.rate or source.window_from > since:
            return False
        return any(
            other.rate and other.live and other.window_from > since for other in self.sources
        )

    def replan(self, now: float) -> list[Drop]:
        """Nothing has come for long: take back what silent peers were asked for, ask all again.

        The one piece that a parked peer is asked for stays with it: it may be its only holder.

        Returns:
            Requests to cancel.
        """
        drops: list[Drop] = []
        for source in self.sources:
            silent = source.runs and source.window_from <= now - REPLAN_SECONDS
            if silent and not (source.parked and source.outstanding == 1):
                drops += [Drop(source, run_id) for run_id in source.runs]
                for run in list(source.runs.values()):
                    self._end_run(source, run)
                source.park(now)
            source.ask_again(now)
        return drops

    def _others_hold(self, source: Source, run: Run) -> bool:
        for other in self.sources:
            if other is not source and other.live and other.bits.bits is not None:
                bits = other.bits.bits
                if any(bits[piece] for piece in run.left):
                    return True
        return False

    def _due(self, source: Source, ahead: int, now: float) -> float:
        """Return when a request is late that is over when `ahead` pieces have come."""
        return now + max(LATE_SECONDS, LATE_FACTOR * source.expected(ahead * self.piece_size))

    def _set_due(self, source: Source, now: float) -> None:
        """Count anew when a peer's requests are late: each after those before it."""
        ahead = 0
        for run in source.runs.values():
            ahead += len(run.left)
            run.due = self._due(source, ahead, now)

    def _strike(self, run: Run, piece: int) -> None:
        """Take a piece off a run, and give back what is reserved for it."""
        self._budget.release(run.left.pop(piece, 0))

    def _end_run(self, source: Source, run: Run) -> None:
        """Take a run off a peer; pieces that nobody else is asked for are free again."""
        source.runs.pop(run.id, None)
        for piece in list(run.left):
            self._strike(run, piece)
            askers = [pair for pair in self._asked.get(piece, []) if pair[1] is not run]
            if askers:
                self._asked[piece] = askers
            else:
                self._asked.pop(piece, None)
                self._taken[piece] = self.held[piece]


def _run_length(candidates: bitarray, first: int, most: int) -> int:
    end = candidates.find(0, first, min(first + most, len(candidates)))
    return (min(first + most, len(candidates)) if end < 0 else end) - first
