"""How many peers hold each piece, in bit planes, so that the rarest are found by whole words.

Plane i holds bit i of every piece's count. Adding a peer's bitfield is a ripple-carry addition of
bitarrays; the rarest of a set of candidates are found by walking the planes from the top. Peers
that hold everything change no piece's rank and are not counted here.
"""

from __future__ import annotations

from collections.abc import Iterable

from bitarray import bitarray
from bitarray.util import zeros

from ..wire.swarm import Range


class Availability:
    """Counts of holders for `pieces` pieces."""

    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self._planes: list[bitarray] = []

    def add(self, bits: bitarray) -> None:
        """Count one more holder of each set piece."""
        carry = bits.copy()
        for plane in self._planes:
            plane ^= carry
            carry &= ~plane
            if not carry.any():
                return
        if carry.any():
            self._planes.append(carry)

    def remove(self, bits: bitarray) -> None:
        """Count one holder less of each set piece; each must have been counted."""
        borrow = bits.copy()
        for plane in self._planes:
            plane ^= borrow
            borrow &= plane
            if not borrow.any():
                break
        while self._planes and not self._planes[-1].any():
            self._planes.pop()

    def add_ranges(self, ranges: Iterable[Range]) -> None:
        """Count one more holder of some ranges, which do not overlap."""
        self.add(self._mask(ranges))

    def remove_ranges(self, ranges: Iterable[Range]) -> None:
        """Count one holder less of some ranges, which do not overlap."""
        self.remove(self._mask(ranges))

    def count(self, piece: int) -> int:
        """Return how many holders a piece has."""
        return sum(plane[piece] << number for number, plane in enumerate(self._planes))

    def rarest(self, candidates: bitarray) -> bitarray:
        """Return those of the candidates with the fewest holders."""
        for plane in reversed(self._planes):
            fewer = candidates & ~plane
            if fewer.any():
                candidates = fewer
        return candidates

    def _mask(self, ranges: Iterable[Range]) -> bitarray:
        mask = zeros(self._pieces)
        for first, count in ranges:
            mask[first : first + count] = 1
        return mask
