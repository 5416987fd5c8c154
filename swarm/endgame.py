"""The last pieces: those that are slow to come are asked of a second peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .source import LATE_SECONDS, Run, Source

DUPLICATE_SHARE: Final = 0.05
"""Pieces that hedging may fetch twice, as a share of those wanted; one at least."""

HEDGE_WITHIN: Final = 64
"""Only so many last pieces are hedged."""

HEDGE_SECONDS: Final = 0.5
"""A piece is hedged if it is expected to take so much longer where it was asked for."""

Asked = Mapping[int, Sequence[tuple[Source, Run]]]
"""Who was asked for a piece."""


class Endgame:
    """Hedging, within its budget."""

    def __init__(self, piece_size: int) -> None:
        self._piece_size = piece_size
        self._hedged = 0

    def hedged(self) -> None:
        """Count a piece that is asked for twice."""
        self._hedged += 1

    def pick(self, source: Source, asked: Asked, most: int, pieces: Callable[[], int]) -> list[int]:
        """Return the pieces that a peer should be asked for although another was.

        Args:
            source: Who is to be asked.
            asked: All that is under way.
            most: How many at most.
            pieces: Returns how many pieces are wanted in all.
        """
        if len(asked) > HEDGE_WITHIN:
            return []
        allowed = max(1, int(DUPLICATE_SHARE * pieces())) - self._hedged
        if not source.rate:
            most = 1 - source.outstanding  # of a peer that we do not know yet
        waiting: list[tuple[float, int]] = []
        for piece, askers in asked.items():
            if len(askers) == 1 and source.bits.has(piece) and piece not in source.refused:
                other = askers[0][0]
                if other is not source:
                    slow = other.expected(other.outstanding * self._piece_size)
                    known = other.rate and other.live
                    waiting.append((slow if known else LATE_SECONDS, piece))
        waiting.sort(reverse=True)
        ours = source.expected((source.outstanding + 1) * self._piece_size)
        return [
            piece
            for theirs, piece in waiting[: max(0, min(most, allowed))]
            if theirs >= 2 * ours + HEDGE_SECONDS
        ]
