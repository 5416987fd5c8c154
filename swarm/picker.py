"""Which pieces to ask of a peer: by deadline, then priority, then rarity or order.

Rarest first with random ties, the very first pieces at random, runs kept contiguous where rarity is
equal. A piece with a deadline goes to whoever brings it in time, or soonest.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from bitarray import bitarray

from ..wire.swarm import CHUNK_BITS, Range
from .chunk import Chunk
from .source import LATE_SECONDS, Source
from .window import Window

RANDOM_FIRST: Final = 4
"""Pieces fetched at random before the rarest come first, to have something to trade."""

MAX_DEADLINES: Final = 256
"""Ranges with a deadline at a time."""


class Order(StrEnum):
    """What comes first where priorities are equal."""

    RAREST = "rarest"
    SEQUENTIAL = "sequential"


class Draw(Protocol):
    """The random source that is handed in."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 to `stop - 1`."""
        ...


@dataclass(order=True, slots=True)
class Deadline:
    """Pieces [first, end) are wanted by `at`."""

    at: float
    first: int
    end: int


class Picker:
    """See the top of the file.

    Args:
        window: What may be picked.
        random: For ties.
        run: Pieces in one request at most.
        piece_size: Bytes of a typical piece.
        order: See `Order`.
    """

    def __init__(
        self, window: Window, random: Draw, run: int, piece_size: int, order: Order
    ) -> None:
        self._window = window
        self._random = random
        self._run = run
        self._piece_size = piece_size
        self.order = order
        self.deadlines: list[Deadline] = []

    def set_deadline(self, first: int, count: int, at: float) -> None:
        """See `Download.deadline`."""
        self.prune()
        self.deadlines = [d for d in self.deadlines if (d.first, d.end) != (first, first + count)]
        if len(self.deadlines) >= MAX_DEADLINES:
            raise ValueError(f"more than {MAX_DEADLINES} ranges with a deadline")
        insort(self.deadlines, Deadline(at, first, first + count))

    def prune(self) -> bool:
        """Forget deadlines of pieces that are all there; return whether there were any."""
        before = len(self.deadlines)
        self.deadlines = [d for d in self.deadlines if self._window.missing(d.first, d.end).any()]
        return len(self.deadlines) != before

    def urgent_chunks(self) -> list[int]:
        """Return the chunks with deadlines, the earliest first."""
        return list(
            dict.fromkeys(
                number
                for d in self.deadlines
                for number in range(d.first // CHUNK_BITS, (d.end - 1) // CHUNK_BITS + 1)
            )
        )

    def pick(self, source: Source, most: int, now: float) -> Range | None:
        """Return the run that should be asked of a peer next."""
        for piece in [p for p, until in source.refused.items() if until <= now]:
            del source.refused[piece]
        offers = [
            (chunk, bits)
            for chunk in self._window.chunks.values()
            if (bits := chunk.offered(source)) is not None
        ]
        if not offers:
            return None
        most = min(most, self._run)
        for deadline in self.deadlines:
            found = self._pick_due(source, deadline, offers, most, now)
            if found is not None:
                return found
        priorities = self._window.priorities
        levels = priorities.levels
        for level in levels[:-1]:
            masked = [
                (chunk, bits & priorities.mask(level, chunk.first, chunk.end))
                for chunk, bits in offers
            ]
            masked = [(chunk, bits) for chunk, bits in masked if bits.any()]
            if masked:
                return self._choose(source, masked, most)
        return self._choose(source, offers, most)

    def _pick_due(
        self,
        source: Source,
        deadline: Deadline,
        offers: list[tuple[Chunk, bitarray]],
        most: int,
        now: float,
    ) -> Range | None:
        for chunk, bits in offers:
            low = max(deadline.first, chunk.first) - chunk.first
            high = min(deadline.end, chunk.end) - chunk.first
            at = bits.find(1, low, high) if low < high else -1
            if at < 0:
                continue
            count = run_length(bits, at, min(most, high - at))
            while count > 1 and now + self._seconds(source, count) > deadline.at:
                count //= 2
            in_time = now + self._seconds(source, count) <= deadline.at
            if in_time or not self._quicker(source, chunk.first + at):
                return chunk.first + at, count
        return None

    def _seconds(self, source: Source, count: int) -> float:
        """Return in how long a peer should bring `count` more pieces."""
        if not source.rate:
            return LATE_SECONDS
        return source.expected((source.outstanding + count) * self._piece_size)

    def _quicker(self, source: Source, piece: int) -> bool:
        """Return whether another peer should bring a piece sooner."""
        ours = self._seconds(source, 1)
        return any(
            other is not source
            and other.live
            and bool(other.rate)
            and self._seconds(other, 1) < ours
            and other.bits.has(piece)
            for other in self._window.sources
        )

    def _choose(self, source: Source, offers: list[tuple[Chunk, bitarray]], most: int) -> Range:
        if self.order is Order.SEQUENTIAL:
            chunk, bits = min(offers, key=lambda offer: offer[0].first)
            return _run(chunk, bits, bits.find(1), most)
        started = self._window.have >= RANDOM_FIRST
        if not started:
            chunk, bits = offers[self._random.randrange(len(offers))]
            return _run(chunk, bits, self._anywhere(bits, 1), 1)
        least: int | None = None
        rarest: list[tuple[Chunk, bitarray]] = []
        for chunk, bits in offers:
            holders, fewest = chunk.rarity.fewest(bits)
            holders += chunk.full
            if least is None or holders < least:
                least, rarest = holders, []
            if holders == least:
                rarest.append((chunk, fewest))
        goes_on = source.last_end
        for chunk, bits in rarest:
            if chunk.first <= goes_on < chunk.end and bits[goes_on - chunk.first]:
                return _run(chunk, bits, goes_on - chunk.first, most)
        chunk, bits = rarest[self._random.randrange(len(rarest)) if len(rarest) > 1 else 0]
        return _run(chunk, bits, self._anywhere(bits, self._run), most)

    def _anywhere(self, bits: bitarray, align: int) -> int:
        """Return a set bit from a random place on."""
        start = self._random.randrange(len(bits))
        start -= start % align if len(bits) > 4 * align else 0
        at = bits.find(1, start)
        return at if at >= 0 else bits.find(1)


def run_length(bits: bitarray, first: int, most: int) -> int:
    """Return how many bits are set in a row, `most` at most."""
    end = bits.find(0, first, min(first + most, len(bits)))
    return (min(first + most, len(bits)) if end < 0 else end) - first


def _run(chunk: Chunk, bits: bitarray, at: int, most: int) -> Range:
    return chunk.first + at, run_length(bits, at, most)
