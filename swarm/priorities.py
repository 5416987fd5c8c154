"""Which pieces of a content are wanted, and how much: a priority for each, 0 = not wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bitarray import bitarray
from bitarray.util import ones, zeros

MAX_PRIORITY: Final = 7
"""The highest; each one in use costs a bit for every piece."""

NORMAL: Final = 1
"""The priority of every piece, unless another is set."""

PriorityRange = tuple[int, int, int]
"""First piece, number of pieces, priority."""


class Priorities:
    """See the top of the file.

    Attributes:
        wanted: The pieces with a priority above 0.
    """

    def __init__(self, pieces: int) -> None:
        self.wanted = ones(pieces)
        self._masks: dict[int, bitarray] = {NORMAL: self.wanted}  # of each priority in use

    def set(self, ranges: Iterable[PriorityRange]) -> None:
        """Change the priority of some ranges; of two that overlap the later one counts.

        Raises:
            ValueError: A range leaves the content, or a priority is not from 0 to 7.
        """
        pieces = len(self.wanted)
        if len(self._masks) == 1:
            self._masks = {priority: mask.copy() for priority, mask in self._masks.items()}
        for first, count, priority in ranges:
            if not (first >= 0 and count > 0 and first + count <= pieces):
                raise ValueError(f"pieces {first} + {count} of {pieces}")
            if not 0 <= priority <= MAX_PRIORITY:
                raise ValueError(f"priority {priority}: 0 to {MAX_PRIORITY}")
            for mask in self._masks.values():
                mask[first : first + count] = 0
            if priority and priority not in self._masks:
                self._masks[priority] = zeros(pieces)
            if priority:
                self._masks[priority][first : first + count] = 1
        self._masks = {
            priority: mask for priority, mask in sorted(self._masks.items()) if mask.any()
        }
        if len(self._masks) == 1:
            (self.wanted,) = self._masks.values()
            return
        self.wanted = zeros(pieces)
        for mask in self._masks.values():
            self.wanted |= mask

    @property
    def levels(self) -> list[int]:
        """The priorities in use, the highest first."""
        return sorted(self._masks, reverse=True)

    def mask(self, priority: int, first: int, end: int) -> bitarray:
        """Return which pieces of a range have exactly this priority."""
        return self._masks[priority][first:end]
