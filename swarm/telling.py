"""When peers are told of pieces that are new here.

The first one at once: in a young swarm every hop waits for that word. Those that follow within a
tenth of a second are told together, as small pieces are many.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..wire.swarm import Range
from .ranges import ranges_of

TELL_SECONDS: Final = 0.1
"""Between two words to peers at least."""


class Telling:
    """See the top of the file."""

    def __init__(self) -> None:
        self._untold: set[int] = set()
        self._told_at = float("-inf")

    def add(self, pieces: Iterable[int], now: float) -> float | None:
        """Take pieces to be told; return when `take` is due, None if that was said before."""
        waiting = bool(self._untold)
        self._untold.update(pieces)
        if waiting or not self._untold:
            return None
        return max(now, self._told_at + TELL_SECONDS)

    def drop(self, pieces: Iterable[int]) -> None:
        """Forget pieces: they are lost again."""
        self._untold.difference_update(pieces)

    def take(self, now: float) -> list[Range]:
        """Return what is to be told now."""
        ranges = ranges_of(sorted(self._untold))
        self._untold.clear()
        self._told_at = now
        return ranges
