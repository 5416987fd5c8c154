"""Bitfields on the wire: chunks of 64 Ki pieces, run-length or raw, whichever is shorter.

A peer's bitfield is HaveAll, or a bitarray as long as the content has pieces. While the number of
pieces is not known yet (the index is still being fetched) chunks are kept as they came, within a
bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bitarray import bitarray
from bitarray.util import zeros

from ..wire import varint
from ..wire.errors import PeerFault
from ..wire.swarm import CHUNK_BITS, Bitfield, BitfieldKind, Range

MAX_KEPT_BYTES = 1 << 20
"""Of chunks kept for one peer while the number of pieces is unknown: 8 Mi pieces in raw form."""


def frames_of(bits: bitarray) -> Iterator[Bitfield]:
    """Yield the frames that tell a bitfield; the last has `more` unset."""
    total = len(bits)
    count = bits.count()
    if count == 0:
        yield Bitfield(BitfieldKind.NONE)
        return
    if count == total:
        yield Bitfield(BitfieldKind.ALL)
        return
    chunks = [
        number
        for number in range(-(-total // CHUNK_BITS))
        if bits.find(1, number * CHUNK_BITS, min(total, (number + 1) * CHUNK_BITS)) >= 0
    ]
    for number in chunks:
        part = bits[number * CHUNK_BITS : (number + 1) * CHUNK_BITS]
        raw = part.tobytes()
        runs = _runs(part, len(raw))
        more = number != chunks[-1]
        if runs is not None:
            yield Bitfield(BitfieldKind.RUNS, number, runs, more)
        else:
            yield Bitfield(BitfieldKind.RAW, number, raw, more)


def _runs(part: bitarray, shorter_than: int) -> bytes | None:
    """Return the run lengths, zeros first; None if that is not shorter than the raw form."""
    out = bytearray()
    at, value = 0, 0
    while at < len(part):
        end = part.find(1 - value, at)
        end = len(part) if end < 0 else end
        out += varint.encode(end - at)
        if len(out) >= shorter_than:
            return None
        at, value = end, 1 - value
    return bytes(out)


def chunk_bits(frame: Bitfield, length: int) -> bitarray:
    """Return the bits of a chunk of `length` pieces.

    Raises:
        PeerFault: The frame does not describe exactly so many pieces.
    """
    bits = bitarray()
    if frame.kind is BitfieldKind.RAW:
        bits.frombytes(frame.data)
        if len(frame.data) != -(-length // 8) or bits[length:].any():
            raise PeerFault("swarm-bitfield-length")
        del bits[length:]
        return bits
    bits = zeros(length)
    at = position = 0
    value = 0
    while position < len(frame.data):
        run, position = varint.decode(frame.data, position)
        if run > length - at or (run == 0 and position > 1 and at):
            raise PeerFault("swarm-bitfield-runs")
        if value:
            bits[at : at + run] = 1
        at += run
        value = 1 - value
    if at != length:
        raise PeerFault("swarm-bitfield-length")
    return bits


class PeerBits:
    """What one peer holds."""

    def __init__(self) -> None:
        self.everything = False
        self.bits: bitarray | None = None
        """Its pieces, once their number is known; unused if it has everything."""
        self._chunks: dict[int, Bitfield] = {}
        self._ranges: list[tuple[bool, Range]] = []
        self._kept = 0
        self._complete = False

    @property
    def told(self) -> bool:
        """Whether the whole bitfield has arrived."""
        return self._complete

    def take(self, frame: Bitfield) -> None:
        """Take a bitfield frame.

        Raises:
            PeerFault: It comes after the last, does not fit, or too much is kept.
        """
        if self._complete:
            raise PeerFault("swarm-bitfield-again")
        match frame.kind:
            case BitfieldKind.ALL | BitfieldKind.NONE:
                if self._chunks or (self.bits is not None and self.bits.any()):
                    raise PeerFault("swarm-bitfield-mixed")
                self.everything = frame.kind is BitfieldKind.ALL
                if self.bits is not None:
                    self.bits.setall(self.everything)
                self._complete = True
                return
            case _ if self.bits is not None:
                self._put(frame)
            case _:
                self._kept += len(frame.data) + 64
                if self._kept > MAX_KEPT_BYTES or frame.chunk in self._chunks:
                    raise PeerFault("swarm-bitfield-kept")
                self._chunks[frame.chunk] = frame
        self._complete = not frame.more

    def size_known(self, pieces: int) -> None:
        """Build the bits, now that the number of pieces is known.

        Raises:
            PeerFault: What was kept does not fit.
        """
        if self.bits is not None:
            return
        self.bits = zeros(pieces)
        if self.everything:
            self.bits.setall(1)
        for frame in self._chunks.values():
            self._put(frame)
        self._chunks.clear()
        for held, pair in self._ranges:
            self.change([pair], held)
        self._ranges.clear()

    def change(self, ranges: Iterable[Range], held: bool) -> list[Range]:
        """Take a Have or NotHave; return what is new (ranges may overlap what was known).

        Raises:
            PeerFault: A range does not fit, or too many are kept.
        """
        changed: list[Range] = []
        for first, count in ranges:
            if self.bits is None:
                self._kept += 64
                if self._kept > MAX_KEPT_BYTES:
                    raise PeerFault("swarm-bitfield-kept")
                self._ranges.append((held, (first, count)))
                continue
            if first + count > len(self.bits):
                raise PeerFault("swarm-range", f"{first} + {count}")
            at, end = first, first + count
            while at < end:  # only what differs from before
                start = self.bits.find(not held, at, end)
                if start < 0:
                    break
                stop = self.bits.find(held, start, end)
                stop = end if stop < 0 else stop
                changed.append((start, stop - start))
                at = stop
            self.bits[first:end] = held
            if not held:
                self.everything = False
        return changed

    def _put(self, frame: Bitfield) -> None:
        assert self.bits is not None
        start = frame.chunk * CHUNK_BITS
        length = min(CHUNK_BITS, len(self.bits) - start)
        if length <= 0:
            raise PeerFault("swarm-bitfield", f"chunk {frame.chunk}")
        self.bits[start : start + length] = chunk_bits(frame, length)
