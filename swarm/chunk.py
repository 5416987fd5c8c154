"""A chunk in the window of a download: what of it may be asked for, and how rare it is."""

from __future__ import annotations

from bitarray import bitarray

from ..wire.swarm import CHUNK_BITS
from .availability import Availability
from .peer_bits import PeerBits
from .source import Source


class Chunk:
    """A chunk in the window."""

    __slots__ = ("end", "first", "full", "left", "number", "open", "rarity")

    def __init__(self, number: int, pieces: int) -> None:
        self.number = number
        self.first = number * CHUNK_BITS
        self.end = min(pieces, self.first + CHUNK_BITS)
        self.open = bitarray()
        """Pieces that may be asked for: wanted, known, and neither there nor taken."""
        self.left = 0
        """Wanted pieces that are not there."""
        self.rarity = Availability()
        self.full = 0
        """Peers that hold all of it, though not all of the content."""

    def add(self, bits: PeerBits) -> None:
        """Count what a peer holds of it."""
        view = bits.view(self.number)
        if isinstance(view, bitarray):
            self.rarity.add(view)
        elif view and not bits.everything:
            self.full += 1

    def remove(self, bits: PeerBits) -> None:
        """Count a peer no more; it must hold what it held when it was counted."""
        view = bits.view(self.number)
        if isinstance(view, bitarray):
            self.rarity.remove(view)
        elif view and not bits.everything:
            self.full -= 1

    def offered(self, source: Source) -> bitarray | None:
        """Return which open pieces may be asked of a peer now; None = none."""
        view = source.bits.view(self.number)
        if view is False or not self.open.any():
            return None
        bits = self.open.copy() if view is True else self.open & view
        for piece in source.refused:
            if self.first <= piece < self.end:
                bits[piece - self.first] = 0
        return bits if bits.any() else None
