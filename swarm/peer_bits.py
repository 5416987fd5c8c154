"""What one peer holds.

All, or counts for chunks of 64 Ki pieces, and the bits of those chunks that somebody looks at: the
window of a download. The bits of other chunks are kept as they came as long as they are few; beyond
that only the count stays, and the peer is asked again when the window comes there
(`BitfieldRequest`). So a peer that has everything costs nothing, and one that has a random half of
50 TiB costs what its window does.
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable
from typing import Final

from bitarray import bitarray
from bitarray.util import ones, zeros

from ..wire.errors import PeerFault
from ..wire.swarm import CHUNK_BITS, Bitfield, BitfieldKind, Range
from .bitfield import chunk_bits, held_in

MAX_KEPT_BYTES: Final = 128 << 10
"""Of chunks kept as they came, for one peer: 1 Mi pieces in raw form."""

KEPT_OVERHEAD: Final = 64
"""Bytes that each kept chunk or range counts besides its data."""

MAX_UNSIZED_CHUNKS: Final = 1 << 15
"""Counts of chunks while the number of pieces is not known: 2 Gi pieces."""

NOTHING: Final[frozenset[int]] = frozenset()


class PeerBits:
    """See the top of the file.

    Attributes:
        everything: It has all pieces.
        pieces: How many there are, once that is known.
    """

    def __init__(self) -> None:
        self.everything = False
        self.pieces: int | None = None
        self._window: Container[int] = NOTHING
        self._counts: array[int] = array("I")  # by chunk; empty if it has everything
        self._parts: dict[int, bitarray] = {}  # bits of chunks in the window
        self._assumed: set[int] = set()  # parts that were made up
        self._asked: set[int] = set()  # chunks that it was asked for again
        self._kept: dict[int, Bitfield] = {}
        self._kept_bytes = 0
        self._unsized: dict[int, int] = {}  # counts of chunks, while `pieces` is not known
        self._ranges: list[tuple[bool, Range]] = []
        self._complete = False

    @property
    def told(self) -> bool:
        """Whether the whole bitfield has arrived."""
        return self._complete

    # What comes from the peer

    def take(self, frame: Bitfield) -> None:
        """Take a frame of the bitfield, or of a chunk that was asked for again.

        Raises:
            PeerFault: It comes unasked after the last, does not fit, or too much is kept.
        """
        if self._complete:
            if (
                frame.kind in (BitfieldKind.ALL, BitfieldKind.NONE)
                or frame.chunk not in self._asked
            ):
                raise PeerFault("swarm-bitfield-again")
            self._put(frame)
            self._asked.discard(frame.chunk)
            return
        if frame.kind in (BitfieldKind.ALL, BitfieldKind.NONE):
            if self._kept or self._unsized or self._parts or any(self._counts):
                raise PeerFault("swarm-bitfield-mixed")
            self.everything = frame.kind is BitfieldKind.ALL
            if self.everything:
                self._counts = array("I")
            self._complete = True
            return
        if self.pieces is not None:
            self._put(frame)
        elif frame.chunk in self._kept or frame.chunk in self._unsized:
            raise PeerFault("swarm-bitfield-kept", f"chunk {frame.chunk} twice")
        elif not self._keep(frame):
            if len(self._unsized) >= MAX_UNSIZED_CHUNKS:
                raise PeerFault("swarm-bitfield-kept")
            self._unsized[frame.chunk] = held_in(frame)
        self._complete = not frame.more

    def size_known(self, pieces: int, window: Container[int] = NOTHING) -> None:
        """Learn the number of pieces, and which chunks somebody looks at.

        Args:
            pieces: How many.
            window: Numbers of chunks; may change if each change is followed by `load` or `unload`.

        Raises:
            PeerFault: What was kept does not fit.
        """
        self._window = window
        if self.pieces is not None:
            for number in [n for n in self._parts if n not in window]:
                self.unload(number)
            return
        self.pieces = pieces
        if not self.everything:
            self._counts = array("I", bytes(4 * -(-pieces // CHUNK_BITS)))
        kept, self._kept, self._kept_bytes = self._kept, {}, 0
        for frame in kept.values():
            self._put(frame)
        for number, count in self._unsized.items():
            if self._length(number) <= 0:
                raise PeerFault("swarm-bitfield", f"chunk {number}")
            self._counts[number] = min(max(1, count), self._length(number) - 1)  # bits: unknown
        self._unsized.clear()
        ranges, self._ranges = self._ranges, []
        for held, pair in ranges:
            self.change([pair], held)

    def change(self, ranges: Iterable[Range], held: bool) -> None:
        """Take a Have or NotHave.

        Raises:
            PeerFault: A range does not fit, or too many are kept.
        """
        for first, count in ranges:
            if self.pieces is None:
                self._kept_bytes += KEPT_OVERHEAD
                if self._kept_bytes > MAX_KEPT_BYTES:
                    raise PeerFault("swarm-bitfield-kept")
                self._ranges.append((held, (first, count)))
                continue
            end = first + count
            if end > self.pieces:
                raise PeerFault("swarm-range", f"{first} + {count}")
            if self.everything:
                if held:
                    continue
                self._spread()
            low, high = first // CHUNK_BITS, (end - 1) // CHUNK_BITS
            for number in range(low, high + 1) if high - low < 2 else (low, high):
                base = number * CHUNK_BITS
                self._change(number, max(0, first - base), min(CHUNK_BITS, end - base), held)
            if high - low >= 2:
                self._change_whole(low + 1, high, held)

    # What it holds

    def has(self, piece: int) -> bool:
        """Return whether it holds a piece, as far as that is known here."""
        if self.everything:
            return True
        number, at = divmod(piece, CHUNK_BITS)
        part = self._parts.get(number)
        if part is not None:
            return bool(part[at])
        return bool(self._counts) and self._counts[number] == self._length(number)

    def view(self, number: int) -> bitarray | bool:
        """Return what it holds of a chunk: bits, True = all, False = nothing, or not known."""
        if self.everything:
            return True
        part = self._parts.get(number)
        if part is not None:
            return part
        return bool(self._counts) and self._counts[number] == self._length(number)

    def count(self, number: int) -> int:
        """Return about how many pieces of a chunk it holds; 0 and all are exact."""
        if self.everything:
            return self._length(number)
        part = self._parts.get(number)
        if part is not None:
            return part.count()
        return self._counts[number] if self._counts else 0

    # The window

    def load(self, number: int) -> None:
        """Have the bits of a chunk that comes into the window, if they are kept."""
        frame = self._kept.pop(number, None)
        if frame is not None:
            self._kept_bytes -= len(frame.data) + KEPT_OVERHEAD
            self._parts[number] = chunk_bits(frame, self._length(number))

    def unload(self, number: int) -> None:
        """Let go of the bits of a chunk that leaves the window; its count stays."""
        part = self._parts.pop(number, None)
        if part is not None:
            self._counts[number] = part.count()
            if number in self._assumed:
                self._assumed.discard(number)
                self._counts[number] = min(max(1, part.count()), self._length(number) - 1)

    def unknown(self, number: int) -> bool:
        """Return whether it holds some of a chunk's pieces, and it is not known which."""
        if self.everything or number in self._parts or number in self._kept or not self._counts:
            return False
        return 0 < self._counts[number] < self._length(number)

    def asked(self, number: int) -> None:
        """Note that it was asked for a chunk again; the answer is welcome from now on."""
        self._asked.add(number)

    def assume(self, number: int) -> None:
        """Suppose that it holds all of a chunk, as it cannot be asked: what it lacks it rejects."""
        self._assumed.add(number)
        self._parts[number] = ones(self._length(number))

    def assumes(self, piece: int) -> bool:
        """Return whether it is supposed to hold a piece only since it could not be asked."""
        return piece // CHUNK_BITS in self._assumed

    # Within

    def _length(self, number: int) -> int:
        assert self.pieces is not None
        return max(0, min(CHUNK_BITS, self.pieces - number * CHUNK_BITS))

    def _keep(self, frame: Bitfield) -> bool:
        size = len(frame.data) + KEPT_OVERHEAD
        if self._kept_bytes + size > MAX_KEPT_BYTES:
            return False
        self._kept_bytes += size
        self._kept[frame.chunk] = frame
        return True

    def _drop_kept(self, number: int) -> None:
        frame = self._kept.pop(number, None)
        if frame is not None:
            self._kept_bytes -= len(frame.data) + KEPT_OVERHEAD

    def _put(self, frame: Bitfield) -> None:
        length = self._length(frame.chunk)
        if length <= 0:
            raise PeerFault("swarm-bitfield", f"chunk {frame.chunk}")
        bits = chunk_bits(frame, length)
        if self.everything:
            self._spread()
        self._drop_kept(frame.chunk)
        self._parts.pop(frame.chunk, None)
        self._assumed.discard(frame.chunk)
        self._counts[frame.chunk] = count = bits.count()
        if 0 < count < length:
            if frame.chunk in self._window:
                self._parts[frame.chunk] = bits
            else:
                self._keep(frame)

    def _spread(self) -> None:
        """Count by chunk from now on, as not everything is held any more."""
        assert self.pieces is not None
        self.everything = False
        self._counts = self._all_of(0, -(-self.pieces // CHUNK_BITS))

    def _all_of(self, first: int, end: int) -> array[int]:
        counts = array("I", (CHUNK_BITS,)) * (end - first)
        if end > first:
            counts[-1] = self._length(end - 1)
        return counts

    def _change(self, number: int, low: int, high: int, held: bool) -> None:
        """Change a range within a chunk."""
        length = self._length(number)
        if low == 0 and high == length:
            self._change_whole(number, number + 1, held)
            return
        part = self._parts.get(number)
        count = self._counts[number]
        if part is None and number in self._window:
            self.load(number)
            part = self._parts.get(number)
            if part is None and count in (0, length):
                part = self._parts[number] = ones(length) if count else zeros(length)
        if part is not None:
            part[low:high] = held
            return
        if count == (length if held else 0):
            return
        self._drop_kept(number)  # from now on only about how many
        count += high - low if held else low - high
        self._counts[number] = min(max(1, count), length - 1)

    def _change_whole(self, first: int, end: int, held: bool) -> None:
        """Change all of some chunks."""
        self._counts[first:end] = (
            self._all_of(first, end) if held else array("I", bytes(4 * (end - first)))
        )
        for table in (self._parts, self._kept):
            for number in [n for n in table if first <= n < end]:
                self._drop_kept(number)
                self._parts.pop(number, None)
                self._assumed.discard(number)
