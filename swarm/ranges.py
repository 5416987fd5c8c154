"""Pieces as ranges, as Have and NotHave name them."""

from __future__ import annotations

from collections.abc import Sequence

from bitarray import bitarray

from ..wire.swarm import Range


def ranges_of(pieces: Sequence[int]) -> list[Range]:
    """Return ascending piece numbers as ranges."""
    ranges: list[Range] = []
    for piece in pieces:
        if ranges and ranges[-1][0] + ranges[-1][1] == piece:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + 1)
        else:
            ranges.append((piece, 1))
    return ranges


def runs_of(bits: bitarray) -> list[Range]:
    """Return the runs of set bits."""
    ranges: list[Range] = []
    at = bits.find(1)
    while at >= 0:
        end = bits.find(0, at)
        end = len(bits) if end < 0 else end
        ranges.append((at, end - at))
        at = bits.find(1, end) if end < len(bits) else -1
    return ranges
