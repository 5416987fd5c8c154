"""How many peers hold each piece, in bit planes, so that the rarest are found by whole words.

Plane i holds bit i of every piece's count. Adding a peer's bitfield is a ripple-carry addition of
bitarrays; the rarest of a set of candidates are found by walking the planes from the top. Peers
that hold everything change no piece's rank and are not counted here.
"""

from __future__ import annotations

from bitarray import bitarray


class Availability:
    """Counts of holders for the pieces of one chunk."""

    def __init__(self) -> None:
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

    def count(self, piece: int) -> int:
        """Return how many holders a piece has."""
        return sum(plane[piece] << number for number, plane in enumerate(self._planes))

    def fewest(self, candidates: bitarray) -> tuple[int, bitarray]:
        """Return the least number of holders of any candidate, and those that have so many."""
        least = 0
        for number in reversed(range(len(self._planes))):
            fewer = candidates & ~self._planes[number]
            if fewer.any():
                candidates = fewer
            else:
                least += 1 << number
        return least, candidates
