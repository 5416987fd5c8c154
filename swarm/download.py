"""What to ask of whom, for one content: the download rules.

A plain object. The driver tells it which peers there are, what they hold, what arrived and what
was verified; it answers with runs of pieces to request or cancel. Every method takes `now` in
seconds. The rules (design: section 5): the rarest pieces first with random ties, the very first
ones at random (`picker.py`, in the moving window of `window.py`); a peer's queue starts at two
pieces and doubles per answered run up to two seconds of its rate (`queue.py`); a late peer's pieces
go to others and it is parked until it delivers; the last pieces are hedged within a budget of
duplicates (`endgame.py`). Every request reserves the bytes that it may bring.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import accumulate
from typing import Final

from bitarray import bitarray
from bitarray.util import intervals

from ..wire.swarm import CHUNK_BITS, MAX_PIECE, MAX_RUN, Bitfield, Range
from .endgame import Endgame
from .picker import Draw, Order, Picker
from .priorities import NORMAL, PriorityRange
from .questions import Questions
from .queue import Budget, Queue, late_runs, silent_runs
from .source import Ask, AskChunk, Drop, Run, Source
from .window import Window

RUN_PIECES: Final = 16
"""Pieces of 1 MiB in one request at most: a seeder wakes once for so many."""

MAX_RUNS: Final = 256
"""Requests under way with one peer: small pieces come in short runs."""

PIECES_AT_ONCE: Final = 2048
"""Pieces that one call asks for at most: small ones are many, and their driver has other work."""

REFUSED_SECONDS: Final = 10.0
"""How long a piece that a peer rejected is not asked of it again."""

MAX_REJECTS: Final = 8
"""Requests in a row that a peer may reject before it is left alone for a while."""

TICK_SECONDS: Final = 0.25
"""How often drivers are to call `late`, and ask everybody for more."""

DUE_SECONDS: Final = 1 / 64
"""How often it is counted anew at most when the requests of a peer that sends are late."""

LOOK_SECONDS: Final = 1.0
"""How often the window is looked over for chunks that nobody has."""


class Download:
    """One content coming in; see the top of the file.

    Args:
        pieces: Number of pieces.
        held: Pieces that are there already (copied).
        random: For ties, and for where the window begins.
        length: Returns how many bytes a piece may bring.
        budget: What requests reserve from.
        order: What comes first where priorities are equal.
        piece_size: Bytes of a typical piece; many small files make it small.
        lengths: The same as `length` for several pieces (first, count) at once.

    Attributes:
        sources: The peers.
        held: Pieces that are there; not to be changed.
    """

    def __init__(
        self,
        pieces: int,
        held: bitarray,
        random: Draw,
        length: Callable[[int], int],
        budget: Budget,
        *,
        order: Order = Order.RAREST,
        piece_size: int = MAX_PIECE,
        lengths: Callable[[int, int], list[int]] | None = None,
    ) -> None:
        self.pieces = pieces
        self._queue = Queue(piece_size)
        self.piece_size = self._queue.piece_size
        self._lengths = lengths or (
            lambda first, count: [length(piece) for piece in range(first, first + count)]
        )
        self._budget = budget
        chunks = -(-pieces // CHUNK_BITS)
        start = random.randrange(chunks) if chunks > 1 else 0
        self._window = Window(pieces, held, start, ascending=order is Order.SEQUENTIAL)
        self.sources = self._window.sources
        self.held = self._window.held
        self._run = min(MAX_RUN, RUN_PIECES * MAX_PIECE // self.piece_size)
        self._picker = Picker(self._window, random, self._run, self.piece_size, order)
        self._questions = Questions(self._window)
        self._endgame = Endgame(self.piece_size)
        self._next_id = 1
        self._asked: dict[int, list[tuple[Source, Run]]] = {}
        self._unverified: set[int] = set()  # arrived; bounded by the driver's buffers
        self._looked_at = 0.0

    @property
    def left(self) -> int:
        """Wanted pieces that are not there yet."""
        return self._window.left

    @property
    def wanted(self) -> bitarray:
        """Pieces that are wanted; not to be changed."""
        return self._window.priorities.wanted

    @property
    def over(self) -> bool:
        """Whether every wanted piece is there."""
        return self._window.left == 0

    @property
    def all_came(self) -> bool:
        """Whether every wanted piece is there, or has arrived and is being verified."""
        return self._window.left <= len(self._unverified)

    # What is wanted

    def prioritise(self, ranges: Iterable[PriorityRange]) -> list[Drop]:
        """Change the priority of ranges of pieces: 0 = not wanted, higher first, at most 7.

        Returns:
            Requests to cancel: none of their pieces is wanted any more.

        Raises:
            ValueError: A range or priority that cannot be.
        """
        self._window.prioritise(ranges)
        drops: list[Drop] = []
        for source in self.sources:
            for run in list(source.runs.values()):
                if not any(self.wanted[piece] for piece in run.left):
                    drops.append(Drop(source, run.id))
                    self._end_run(source, run)
        return drops

    def want(self, wanted: bitarray) -> list[Drop]:
        """Want exactly these pieces, all alike; see `prioritise`."""
        return self.prioritise(
            (first, end - first, NORMAL if value else 0) for value, first, end in intervals(wanted)
        )

    def set_order(self, order: Order) -> None:
        """Change what comes first where priorities are equal."""
        self._picker.order = order
        self._window.ascending = order is Order.SEQUENTIAL
        self._window.rebuild()

    def deadline(self, first: int, count: int, at: float) -> None:
        """Have pieces by a time (a second call for the same range changes it).

        They come before all others, the earliest first, from whoever brings them in time or
        soonest. Pieces that are not wanted do not come for that.

        Raises:
            ValueError: The range leaves the content, or there are too many with a deadline.
        """
        if not (first >= 0 and count > 0 and first + count <= self.pieces):
            raise ValueError(f"pieces {first} + {count} of {self.pieces}")
        self._picker.set_deadline(first, count, at)
        self._window.bring(self._picker.urgent_chunks())

    def know(self, first: int, count: int) -> None:
        """Let pieces be asked for: their place and hash are known."""
        self._window.set_ready(first, count)

    def forget(self, first: int, count: int) -> None:
        """Ask for pieces no more until they are known again."""
        self._window.set_ready(first, count, False)

    def missing(self, first: int, count: int) -> bitarray:
        """Return which pieces of a range are wanted and not there."""
        return self._window.missing(first, first + count)

    def under_way(self, first: int, count: int) -> bool:
        """Return whether some pieces of a range are asked for, or arrived and not verified."""
        end = first + count
        return bool((self._window.taken[first:end] & ~self.held[first:end]).any())

    def next_block(self, size: int, loaded: Container[int], seen: Container[int]) -> int | None:
        """Return which block of `size` pieces should be known next; see `Window.next_block`."""
        return self._window.next_block(size, loaded, seen)

    def reachable(self, first: int, count: int) -> bool:
        """Return whether somebody has missing pieces of a range within one chunk."""
        chunk = self._window.chunks.get(first // CHUNK_BITS)
        if chunk is None:
            return False
        low = first - chunk.first
        return bool(self._window.reachable(chunk)[low : low + count].any())

    # Peers

    def join(self, source: Source) -> None:
        """Take a peer whose whole bitfield has arrived.

        Raises:
            PeerFault: The bitfield does not fit the content.
        """
        self._window.join(source)

    def leave(self, source: Source) -> None:
        """Forget a peer; what was asked of it goes to others."""
        if source not in self.sources:
            return
        for run in list(source.runs.values()):
            self._end_run(source, run)
        self._window.leave(source)

    def close(self) -> None:
        """Forget all peers; every reserved byte is given back."""
        for source in list(self.sources):
            self.leave(source)

    def have(self, source: Source, ranges: Iterable[Range]) -> None:
        """Take a peer's Have."""
        self._change(source, list(ranges), True)

    def not_have(self, source: Source, ranges: Iterable[Range]) -> None:
        """Take a peer's NotHave."""
        self._change(source, list(ranges), False)

    def _change(self, source: Source, ranges: list[Range], held: bool) -> None:
        if source not in self.sources:
            source.bits.change(ranges, held)
        elif ranges and not (held and source.bits.everything):
            first = min(first for first, _ in ranges)
            end = max(first + count for first, count in ranges)
            self._window.change(source, first, end, lambda: source.bits.change(ranges, held))

    def told_again(self, source: Source, frame: Bitfield) -> None:
        """Take a chunk of a peer's bitfield that it was asked for again.

        Raises:
            PeerFault: It was not, or the chunk does not fit.
        """
        self._questions.answered(source, frame)

    def unknown_chunks(self, now: float) -> list[AskChunk]:
        """Return for which chunks of their bitfields peers are to be asked again."""
        return self._questions.to_ask(now)

    def choke(self, source: Source, choked: bool) -> None:
        """Take a peer's Choke or Unchoke.

        What was asked for before stays asked for until it is rejected, which follows at once: a
        request that crossed a choke and the unchoke behind it is answered (as with BitTorrent's
        fast extension, BEP 6).
        """
        source.choked = choked

    # Asking

    def asks(self, source: Source, now: float) -> Iterator[Ask]:
        """Yield what to request of a peer now; what is yielded is reserved and must be sent."""
        if source.choked or now < source.paused_until or source not in self.sources:
            return
        outstanding = source.outstanding - source.nearly
        if outstanding > source.queue // 2:
            return
        holders = sum(other.live for other in self.sources)
        room = self._queue.room(source, holders, self.left, now)
        # Topped up at half of the queue, so that requests are long and few.
        if outstanding > room // 2:
            return
        wanted = min(room - outstanding, PIECES_AT_ONCE)
        while wanted > 0 and len(source.runs) < MAX_RUNS:
            picked = self._picker.pick(source, wanted, now)
            if picked is None:
                break
            lengths = self._fitting(*picked)
            if not lengths:
                return
            wanted -= len(lengths)
            yield self._ask(source, picked[0], lengths, now)
        if wanted > 0 and not source.parked and not self._window.any_open:
            for piece in self._endgame.pick(source, self._asked, wanted, self.wanted.count):
                lengths = self._fitting(piece, 1)
                if not lengths:
                    return
                self._endgame.hedged()
                yield self._ask(source, piece, lengths, now)

    def _fitting(self, first: int, count: int) -> list[int]:
        """Return the lengths of those first pieces of a run for which there is memory."""
        room = self._budget.room
        lengths = self._lengths(first, count)
        if sum(lengths) <= room:
            return lengths
        return lengths[: bisect_right(list(accumulate(lengths)), room)]

    def _ask(self, source: Source, first: int, lengths: list[int], now: float) -> Ask:
        end = first + len(lengths)
        run = Run(self._next_id, dict(zip(range(first, end), lengths, strict=True)))
        self._next_id = self._next_id % 0xFFFFFFFF + 1
        self._budget.reserve(sum(lengths))
        if not source.runs:
            source.window_from, source.window_bytes = now, 0
        ahead = source.outstanding + len(lengths)
        run.due = self._queue.due(source, ahead, now)
        source.runs[run.id] = run
        source.outstanding = ahead
        source.last_end = end
        self._window.take(first, end)
        for piece in run.left:
            self._asked.setdefault(piece, []).append((source, run))
        if source.parked:
            source.probe_at = now + source.probe_pause
        return Ask(source, run.id, first, len(lengths))

    # What arrives

    def begins(self, source: Source, run_id: int, piece: int, count: int = 1) -> bool:
        """Return whether some of the pieces that begin to arrive were asked for and are awaited.

        Their reservation is given back: the driver counts the buffer from now on.
        """
        run = source.runs.get(run_id)
        if run is None:
            return False
        awaited = [one for one in range(piece, piece + count) if one in run.left]
        source.arriving = sum(run.left[one] for one in awaited)
        self._budget.release(source.arriving)
        for one in awaited:
            run.left[one] = 0
        return bool(awaited)

    def useful(self, piece: int, count: int = 1) -> list[int]:
        """Return which pieces are neither there nor being verified; ask before `arrived`."""
        pieces = range(piece, piece + count)
        if not self._unverified.isdisjoint(pieces) or self.held.find(1, piece, piece + count) >= 0:
            return [one for one in pieces if not self.held[one] and one not in self._unverified]
        return list(pieces)

    def bytes_came(self, source: Source, count: int, now: float) -> None:
        """Count bytes of a piece that is arriving."""
        if source.measure(count, now):
            self._queue.set_due(source, now)

    def arrived(
        self, source: Source, run_id: int, piece: int, now: float, count: int = 1
    ) -> list[Drop]:
        """Take note that all bytes of pieces (of one request) are here, to be verified.

        Until `verified` or `failed` is told, nobody is asked for them.

        Returns:
            Requests of others that are of no more use.
        """
        source.delivered()
        source.arriving = 0
        drops: list[Drop] = []
        for one in range(piece, piece + count):
            if not self.held[one]:
                self._unverified.add(one)
            for other, run in self._asked.pop(one, ()):
                self._strike(other, run, one)
                if run.left:
                    continue
                other.runs.pop(run.id, None)
                if other is source and run.id == run_id:
                    self._queue.grow(source, now)
                else:
                    drops.append(Drop(other, run.id))
        self._window.take(piece, piece + count)
        if now >= source.due_from + DUE_SECONDS:  # not anew for each of many small pieces
            self._queue.set_due(source, now)
        return drops

    def verified(self, piece: int, count: int = 1) -> None:
        """Take note that pieces (of one chunk) are right and will be kept."""
        pieces = range(piece, piece + count)
        self._unverified.difference_update(pieces)
        self._window.hold(piece, piece + count)
        for one in pieces:
            for source, run in self._asked.pop(one, ()):
                self._strike(source, run, one)
                if not run.left:
                    source.runs.pop(run.id, None)

    def failed(self, piece: int) -> None:
        """Take note that a piece was wrong, or could not be kept: it is wanted again."""
        self._unverified.discard(piece)
        self._window.lose(piece)
        if piece not in self._asked:
            self._window.free(piece)

    def rejected(self, source: Source, run_id: int, now: float) -> None:
        """Take a peer's Reject: the rest of the run goes to others."""
        run = source.runs.get(run_id)
        if run is None:
            return
        if source.choked:
            self._end_run(source, run)
            return
        first = next(iter(run.left))
        for piece in run.left:
            source.refused[piece] = now + REFUSED_SECONDS
        self._end_run(source, run)
        if source.bits.assumes(first):
            self._change(source, [(first, 1)], False)
        source.rejects += 1
        if source.rejects >= MAX_REJECTS:
            source.paused_until = now + REFUSED_SECONDS

    # Time

    def late(self, now: float) -> list[Drop]:
        """Return the requests that are late now; their pieces go to others.

        To be called a few times a second. What nobody else could send is waited for.
        """
        if now >= self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            if self._picker.prune():
                self._window.bring(self._picker.urgent_chunks())
            self._window.look_around()
            self._queue.learn(self.sources)
        return self._take_back(late_runs(self.sources, self.piece_size, now), now)

    def replan(self, now: float) -> list[Drop]:
        """Nothing has come for long: take back what silent peers were asked for, ask all again.

        Returns:
            Requests to cancel.
        """
        drops = self._take_back(silent_runs(self.sources, now), now)
        for source in self.sources:
            source.ask_again(now)
        return drops

    def _take_back(self, runs_of: Iterable[tuple[Source, list[Run]]], now: float) -> list[Drop]:
        drops: list[Drop] = []
        for source, runs in runs_of:
            for run in runs:
                drops.append(Drop(source, run.id))
                self._end_run(source, run)
            source.park(now)
        return drops

    def _strike(self, source: Source, run: Run, piece: int) -> None:
        """Take a piece off a run, and give back what is reserved for it."""
        reserved = run.left.pop(piece, None)
        if reserved is not None:
            source.outstanding -= 1
            if reserved:  # else it was given back when the piece began
                self._budget.release(reserved)

    def _end_run(self, source: Source, run: Run) -> None:
        """Take a run off a peer; pieces that nobody else is asked for are free again."""
        source.runs.pop(run.id, None)
        for piece in list(run.left):
            self._strike(source, run, piece)
            askers = [pair for pair in self._asked.get(piece, []) if pair[1] is not run]
            if askers:
                self._asked[piece] = askers
            else:
                self._asked.pop(piece, None)
                self._window.free(piece)
