"""Which pieces a copy holds: rows of 64 Ki bits, and the flags that stand for many of them.

A copy that is `whole` needs no rows. A `lost` copy (its root is gone) claims nothing, a file marked
`bad` takes its pieces out; both only cover the bits, so what comes back counts again. A row has a
checksum: SQLite notices a damaged page only where it spoils the structure, and a bit that is not
ours would be a hole in a file that counts as complete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final
from zlib import crc32

from bitarray import bitarray
from bitarray.util import ones, zeros

from .database import Connection
from .model import BITS_PER_ROW

_COPY: Final = (
    "SELECT copies.whole, copies.lost, contents.pieces, contents.id FROM copies "
    "JOIN contents ON contents.id = copies.content WHERE copies.id = ?"
)


class Bits:
    """The bitfields of all copies. Bit order is big-endian, as on the wire."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def chunk(self, copy: int, chunk: int) -> bitarray:
        """See `Store.chunk_bits`."""
        with self._db.snapshot():
            whole, lost, pieces, content = self._copy(copy)
            length = BITS_PER_ROW if pieces is None else self._length(pieces, chunk)
            if lost:
                return zeros(length, "big")
            bits = ones(length, "big") if whole else self._row(copy, chunk, length)
            first = chunk * BITS_PER_ROW
            for start, count in self._bad(copy, content, first, length):
                start -= first
                bits[max(0, start) : max(0, start + count)] = False
            return bits

    def all(self, copy: int) -> bitarray:
        """See `Store.bits`."""
        with self._db.snapshot():
            bits = bitarray(endian="big")
            for chunk in range(self._chunks(copy)):
                bits += self.chunk(copy, chunk)
            return bits

    def counts(self, copy: int) -> list[int]:
        """See `Store.bit_counts`."""
        with self._db.snapshot():
            return [self.chunk(copy, chunk).count() for chunk in range(self._chunks(copy))]

    def runs(self, copy: int, first: int, count: int) -> list[tuple[int, int]]:
        """Return the runs (first piece, length) of held pieces in a range."""
        found: list[tuple[int, int]] = []
        with self._db.snapshot():
            last = first + count
            for chunk in range(first // BITS_PER_ROW, -(-last // BITS_PER_ROW)):
                base = chunk * BITS_PER_ROW
                bits = self.chunk(copy, chunk)
                at, end = max(0, first - base), min(len(bits), last - base)
                while (start := bits.find(1, at, end)) >= 0:
                    stop = bits.find(0, start, end)
                    at = end if stop < 0 else stop
                    if found and sum(found[-1]) == base + start:  # goes on from the last chunk
                        found[-1] = (found[-1][0], found[-1][1] + at - start)
                    else:
                        found.append((base + start, at - start))
        return found

    def set(self, copy: int, pieces: Iterable[int]) -> None:
        """See `Store.set_bits`."""
        with self._db.transaction():
            whole, _, known, _ = self._copy(copy)
            if not whole:
                self._write(copy, known, pieces, True)

    def clear(self, copy: int, pieces: Iterable[int]) -> None:
        """See `Store.clear_bits`."""
        with self._db.transaction():
            whole, _, known, _ = self._copy(copy)
            if whole:
                for chunk in range(self._chunks(copy)):
                    self._put(copy, chunk, ones(self._length(known, chunk), "big"))
                self._db.run("UPDATE copies SET whole = 0 WHERE id = ?", (copy,))
            self._write(copy, known, pieces, False)

    def set_whole(self, copy: int) -> None:
        """Claim every piece, now or once their number is known."""
        with self._db.transaction():
            self._db.run("UPDATE copies SET whole = 1 WHERE id = ?", (copy,))
            self._db.run("DELETE FROM bits WHERE copy = ?", (copy,))

    def set_none(self, copy: int) -> None:
        """Claim nothing."""
        with self._db.transaction():
            self._db.run("UPDATE copies SET whole = 0 WHERE id = ?", (copy,))
            self._db.run("DELETE FROM bits WHERE copy = ?", (copy,))

    def _copy(self, copy: int) -> tuple[bool, bool, int | None, int]:
        row = self._db.row(_COPY, (copy,))
        if row is None:
            raise KeyError(copy)
        return bool(row[0]), bool(row[1]), row[2], row[3]

    def _chunks(self, copy: int) -> int:
        """Return how many chunks there are: of the content, or as far as bits were set."""
        pieces = self._copy(copy)[2]
        if pieces is not None:
            return -(-pieces // BITS_PER_ROW)
        row = self._db.row("SELECT max(chunk) FROM bits WHERE copy = ?", (copy,))
        return 0 if row[0] is None else int(row[0]) + 1

    @staticmethod
    def _length(pieces: int | None, chunk: int) -> int:
        if pieces is None:
            return BITS_PER_ROW
        return max(0, min(BITS_PER_ROW, pieces - chunk * BITS_PER_ROW))

    def _bad(self, copy: int, content: int, first: int, count: int) -> list[tuple[int, int]]:
        """Return the pieces (first, count) of files marked bad that reach into a range."""
        return self._db.rows(
            "SELECT first_piece, pieces FROM copy_files JOIN entries "
            "ON entries.content = ? AND entries.ordinal = copy_files.ordinal "
            "WHERE copy_files.copy = ? AND bad AND first_piece < ? AND first_piece + pieces > ?",
            (content, copy, first + count, first),
        )

    def _row(self, copy: int, chunk: int, length: int) -> bitarray:
        row = self._db.row("SELECT bits, sum FROM bits WHERE copy = ? AND chunk = ?", (copy, chunk))
        bits = bitarray(endian="big")
        if row is not None:
            data, known = row
            sound = isinstance(data, bytes) and known in (None, crc32(data))
            if not sound:  # no sum: from before there were any
                raise self._db.damaged(f"the bits of copy {copy} are not those that were written")
            bits.frombytes(data)
        del bits[length:]
        bits.extend(zeros(length - len(bits), "big"))
        return bits

    def _put(self, copy: int, chunk: int, bits: bitarray) -> None:
        """Write a row; zeros at its end are left out, so a small content costs a few bytes."""
        data = bits.tobytes().rstrip(b"\0")
        self._db.run(
            "INSERT OR REPLACE INTO bits (copy, chunk, bits, sum) VALUES (?, ?, ?, ?)",
            (copy, chunk, data, crc32(data)),
        )

    def _write(self, copy: int, known: int | None, pieces: Iterable[int], value: bool) -> None:
        places: defaultdict[int, list[int]] = defaultdict(list)
        for piece in pieces:
            if known is not None and not 0 <= piece < known:
                raise IndexError(f"piece {piece} of {known}")
            places[piece // BITS_PER_ROW].append(piece % BITS_PER_ROW)
        for chunk, indices in places.items():
            bits = self._row(copy, chunk, self._length(known, chunk))
            bits[indices] = value
            self._put(copy, chunk, bits)
