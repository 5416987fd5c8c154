"""How many bytes of pieces may be queued on a stream: half a second of its measured rate."""

from __future__ import annotations

from typing import Final

AHEAD_SECONDS: Final = 0.5
"""Of its rate that is queued on a stream; what is not queued can still be cancelled."""

LEAST_AHEAD: Final = 256 << 10
MOST_AHEAD: Final = 3 << 20
"""Bytes of pieces queued on a stream."""

PACE_SECONDS: Final = 0.25
"""How often a stream's rate is measured."""


class Pace:
    """See the top of the file.

    Attributes:
        sent: Bytes that were queued so far.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._ahead = 1 << 20
        self._at = 0.0
        self._gone = 0

    def ahead(self, queued: int, now: float) -> int:
        """Return how many bytes may be queued, of which `queued` are."""
        span = now - self._at
        if span >= PACE_SECONDS:
            gone = self.sent - queued
            rate = (gone - self._gone) / span
            self._at, self._gone = now, gone
            # An empty queue says nothing of the stream but that it is quicker than we are.
            wanted = int(rate * AHEAD_SECONDS) if queued else MOST_AHEAD
            self._ahead = max(LEAST_AHEAD, min(MOST_AHEAD, wanted))
        return self._ahead
