"""Wall-clock time in a simulation: a fixed day plus trio's virtual clock."""

from __future__ import annotations

from typing import Final

import trio

EPOCH: Final = 1_800_000_000.0
"""Unix time at which every simulation begins."""


class VirtualClock:
    """A `Clock` that follows trio's clock; `skew` seconds ahead of the other nodes."""

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew

    def now(self) -> float:
        """Return the Unix time in seconds."""
        return EPOCH + self.skew + trio.current_time()
