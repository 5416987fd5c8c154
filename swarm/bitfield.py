"""Bitfields on the wire: chunks of 64 Ki pieces, run-length or raw, whichever is shorter."""

from __future__ import annotations

from collections.abc import Iterator

from bitarray import bitarray
from bitarray.util import zeros

from ..wire import varint
from ..wire.errors import PeerFault
from ..wire.swarm import CHUNK_BITS, Bitfield, BitfieldKind


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
        yield frame_of(part, number, more=number != chunks[-1])


def frame_of(part: bitarray, chunk: int, *, more: bool = False) -> Bitfield:
    """Return the frame that tells one chunk."""
    raw = part.tobytes()
    runs = _runs(part, len(raw))
    if runs is not None:
        return Bitfield(BitfieldKind.RUNS, chunk, runs, more)
    return Bitfield(BitfieldKind.RAW, chunk, raw, more)


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


def held_in(frame: Bitfield) -> int:
    """Count the pieces that a chunk says are held, while its length is not known.

    Raises:
        PeerFault: It says more than a chunk can hold.
    """
    if frame.kind is BitfieldKind.RAW:
        bits = bitarray()
        bits.frombytes(frame.data)
        return bits.count()
    total = held = position = value = 0
    while position < len(frame.data):
        run, position = varint.decode(frame.data, position)
        total += run
        held += run * value
        value = 1 - value
        if total > CHUNK_BITS:
            raise PeerFault("swarm-bitfield-runs")
    return held
