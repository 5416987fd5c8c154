"""The pieces of one download, and the window of chunks in which they are picked.

Four bits for every piece of the content: known, there, taken, wanted. All else (what may be asked
for now, which peer holds what, how rare it is) exists only for 16 chunks of 64 Ki pieces; a chunk
that is complete leaves, and the next comes in: by deadline, then priority, then rarity or order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from itertools import islice
from typing import Final

from bitarray import bitarray
from bitarray.util import zeros

from ..wire.swarm import CHUNK_BITS
from .chunk import Chunk
from .priorities import Priorities, PriorityRange
from .source import Source

WINDOW_CHUNKS: Final = 16
"""Design: 1 Mi pieces, of which bits are held for every peer."""

RARE_AMONG: Final = 32
"""Of so many chunks that may come next, the one that fewest peers hold does."""

LOOK_AMONG: Final = 64
"""So many chunks outside are looked at when one is sought that somebody has."""


class Window:
    """See the top of the file.

    Args:
        pieces: Number of pieces of the content.
        held: Those that are there.
        start: The chunk at which the window begins, unless something is urgent.

    Attributes:
        ready: Pieces whose place and hash are known.
        held: Pieces that are there.
        taken: Pieces that are there, arrived, or asked for.
        left: Wanted pieces that are not there.
        chunks: The window, by number.
        urgent: Chunks that come before all others (deadlines), most urgent first.
        ascending: The next chunk is the next in order, and the window begins at 0.
    """

    def __init__(self, pieces: int, held: bitarray, start: int, *, ascending: bool) -> None:
        self.pieces = pieces
        self.ready = zeros(pieces)
        self.held = held.copy()
        self.taken = held.copy()
        self.priorities = Priorities(pieces)
        self.left = pieces - held.count()
        self.have = pieces - self.left
        self.chunks: dict[int, Chunk] = {}
        self.urgent: list[int] = []
        self.ascending = ascending
        self.sources: list[Source] = []
        self._count = -(-pieces // CHUNK_BITS)
        self._start = start
        self._cursor = start
        self.fill()

    # Peers

    def join(self, source: Source) -> None:
        """Count a peer; PeerFault if its bitfield does not fit."""
        source.bits.size_known(self.pieces, self.chunks)
        for chunk in self.chunks.values():
            source.bits.load(chunk.number)
            chunk.add(source.bits)
        self.sources.append(source)

    def leave(self, source: Source) -> None:
        """Forget a peer."""
        self.sources.remove(source)
        for chunk in self.chunks.values():
            chunk.remove(source.bits)

    def change(self, source: Source, first: int, end: int, change: Callable[[], object]) -> None:
        """Let a peer's bits change within a range, and count it anew."""
        touched = [
            chunk
            for chunk in self.chunks.values()
            if source.bits.everything or (chunk.first < end and first < chunk.end)
        ]
        for chunk in touched:
            chunk.remove(source.bits)
        try:
            change()
        finally:
            for chunk in touched:
                chunk.add(source.bits)

    # Pieces

    def set_ready(self, first: int, count: int, ready: bool = True) -> None:
        """Let pieces be asked for, or not any more."""
        self.ready[first : first + count] = ready
        self._refresh(first, first + count)

    def take(self, first: int, end: int) -> None:
        """Pieces are asked for, or have arrived."""
        self.taken[first:end] = 1
        chunk = self.chunks.get(first // CHUNK_BITS)
        if chunk is not None:  # a run lies within one chunk
            chunk.open[first - chunk.first : end - chunk.first] = 0

    def free(self, piece: int) -> None:
        """A piece is not asked for any more."""
        self.taken[piece] = self.held[piece]
        self._refresh_one(piece)

    def hold(self, piece: int) -> None:
        """A piece is there."""
        if self.held[piece]:
            return
        self.held[piece] = self.taken[piece] = 1
        self.have += 1
        chunk = self.chunks.get(piece // CHUNK_BITS)
        if chunk is not None:
            chunk.open[piece - chunk.first] = 0
        if self.priorities.wanted[piece]:
            self.left -= 1
            if chunk is not None:
                chunk.left -= 1
                if chunk.left == 0:
                    self._remove(chunk)
                    self.fill()

    def lose(self, piece: int) -> None:
        """A piece is not there after all."""
        if not self.held[piece]:
            return
        self.held[piece] = 0
        self.have -= 1
        if self.priorities.wanted[piece]:
            self.left += 1
            chunk = self.chunks.get(piece // CHUNK_BITS)
            if chunk is not None:
                chunk.left += 1
            else:
                self.fill()

    def prioritise(self, ranges: Iterable[PriorityRange]) -> None:
        """Change what is wanted, and choose the window anew."""
        self.priorities.set(ranges)
        self.left = self._count_missing(0, self.pieces)
        self.rebuild()

    def _refresh(self, first: int, end: int) -> None:
        for chunk in self.chunks.values():
            low, high = max(first, chunk.first), min(end, chunk.end)
            if low < high:
                wanted = self.priorities.wanted[low:high]
                may = self.ready[low:high] & wanted & ~self.taken[low:high]
                chunk.open[low - chunk.first : high - chunk.first] = may

    def _refresh_one(self, piece: int) -> None:
        chunk = self.chunks.get(piece // CHUNK_BITS)
        if chunk is not None:
            may = self.ready[piece] and self.priorities.wanted[piece] and not self.taken[piece]
            chunk.open[piece - chunk.first] = may

    @property
    def any_open(self) -> bool:
        """Whether some piece in the window may be asked for, whoever has it."""
        return any(chunk.open.any() for chunk in self.chunks.values())

    def missing(self, first: int, end: int) -> bitarray:
        """Return which pieces of a range are wanted and not there."""
        return self.priorities.wanted[first:end] & ~self.held[first:end]

    def _count_missing(self, first: int, end: int) -> int:
        wanted = self.priorities.wanted
        return sum(
            self.missing(at, min(end, at + CHUNK_BITS)).count()
            for at in range(first, end, CHUNK_BITS)
            if wanted.find(1, at, min(end, at + CHUNK_BITS)) >= 0
        )

    # Moving

    def rebuild(self) -> None:
        """Choose all chunks anew: deadlines, priorities or the order have changed."""
        for chunk in list(self.chunks.values()):
            self._remove(chunk)
        self.fill()

    def bring(self, numbers: Iterable[int]) -> None:
        """Bring urgent chunks in, in their order; others make room."""
        self.urgent = list(numbers)
        keep = self.urgent[:WINDOW_CHUNKS]
        for number in keep:
            if number not in self.chunks and len(self.chunks) >= WINDOW_CHUNKS:
                others = [chunk for chunk in self.chunks.values() if chunk.number not in keep]
                self._remove(others[-1])
            self._enter(number)

    def fill(self) -> None:
        """Let chunks come in while there is room and something is missing."""
        while len(self.chunks) < min(WINDOW_CHUNKS, self._count) and self._outside():
            number = self._next()
            if number is None:
                return
            self._enter(number)

    def look_around(self) -> None:
        """Swap chunks of which nobody has anything for some that somebody has."""
        if self._count <= len(self.chunks) or not self._outside():
            return
        for chunk in list(self.chunks.values()):
            if chunk.number in self.urgent or self.reachable(chunk).any():
                continue
            under_way = self.taken[chunk.first : chunk.end] & ~self.held[chunk.first : chunk.end]
            if not under_way.any():
                number = self._next_held()
                if number is None:
                    return
                self._remove(chunk)
                self._enter(number)

    def reachable(self, chunk: Chunk) -> bitarray:
        """Return which missing pieces of a chunk somebody has, as far as that is known."""
        missing = self.missing(chunk.first, chunk.end)
        some = zeros(chunk.end - chunk.first)
        for source in self.sources:
            view = source.bits.view(chunk.number)
            if view is True:
                return missing
            if view is not False:
                some |= view
        return missing & some

    def _outside(self) -> bool:
        """Return whether something is missing outside of the window."""
        return self.left > sum(chunk.left for chunk in self.chunks.values())

    def _enter(self, number: int) -> None:
        if number in self.chunks:
            return
        chunk = Chunk(number, self.pieces)
        chunk.left = self.missing(chunk.first, chunk.end).count()
        if not chunk.left:
            return
        chunk.open = zeros(chunk.end - chunk.first)
        self.chunks[number] = chunk
        self._refresh(chunk.first, chunk.end)
        for source in self.sources:
            source.bits.load(number)
            chunk.add(source.bits)

    def _remove(self, chunk: Chunk) -> None:
        del self.chunks[chunk.number]
        for source in self.sources:
            source.bits.unload(chunk.number)

    def _next(self) -> int | None:
        """Return the chunk that comes in next, whether somebody has it or not."""
        for number in self.urgent:
            if number not in self.chunks and self._misses(number, None):
                return number
        levels = self.priorities.levels
        for level in levels:
            outside = self._rotation(level if levels[1:] else None)
            first = next(outside, None)
            if first is None:
                continue
            if self.ascending or not self.sources:
                return first
            some = [first, *islice(outside, RARE_AMONG - 1)]
            holders = {number: self._holders(number) for number in some}
            return min(some, key=lambda number: holders[number] or math.inf)
        return None

    def _next_held(self) -> int | None:
        """Return a chunk outside of which somebody has something, of the next few."""
        for number in islice(self._rotation(None, self._cursor), LOOK_AMONG):
            self._cursor = number + 1
            if self._holders(number):
                return number
        return None

    def _holders(self, number: int) -> int:
        """Return how many pieces of a chunk all peers have together."""
        return sum(source.bits.count(number) for source in self.sources)

    def _rotation(self, priority: int | None, start: int | None = None) -> Iterator[int]:
        """Yield the chunks outside with missing pieces (of a priority), in their order."""
        if start is None:
            start = 0 if self.ascending else self._start
        for at in range(self._count):
            number = (start + at) % self._count
            if number not in self.chunks and self._misses(number, priority):
                yield number

    def _misses(self, number: int, priority: int | None) -> bool:
        first = number * CHUNK_BITS
        end = min(self.pieces, first + CHUNK_BITS)
        if priority is None:
            return bool(self.missing(first, end).any())
        mask = self.priorities.mask(priority, first, end)
        return bool((mask & ~self.held[first:end]).any())

    # What is to be known next

    def next_block(self, size: int, loaded: Container[int], seen: Container[int]) -> int | None:
        """Return which block of `size` pieces should be known next (`set_ready`).

        First one of which somebody has missing pieces: the most urgent, of the highest priority;
        then one that was never looked at, since its pieces may be had here.

        Args:
            size: Pieces in a block, a divisor of a chunk.
            loaded: Blocks that are known.
            seen: Blocks that were looked at; others come even if nobody has them.
        """
        urgent = {number: at for at, number in enumerate(self.urgent)}
        order = sorted(
            self.chunks.values(),
            key=lambda chunk: (urgent.get(chunk.number, len(urgent)), self._rank(chunk.number)),
        )
        levels = self.priorities.levels
        reach = [(chunk, self.reachable(chunk)) for chunk in order]
        for level in levels:
            for chunk, bits in reach:
                if levels[1:]:
                    bits = bits & self.priorities.mask(level, chunk.first, chunk.end)
                block = _first_block(chunk, bits, size, loaded)
                if block is not None:
                    return block
        for chunk in order:
            missing = self.missing(chunk.first, chunk.end)
            block = _first_block(chunk, missing, size, loaded, seen)
            if block is not None:
                return block
        return None

    def _rank(self, number: int) -> int:
        return number if self.ascending else (number - self._start) % self._count


def _first_block(chunk: Chunk, bits: bitarray, size: int, *but: Container[int]) -> int | None:
    at = bits.find(1)
    while at >= 0:
        block = (chunk.first + at) // size
        if not any(block in known for known in but):
            return block
        end = (block + 1) * size - chunk.first
        at = bits.find(1, end) if end < len(bits) else -1
    return None
