"""One line for all that a node sends: pieces go one after the other, each as fast as the line is.

Whoever sends eight pieces at a time on a slow line makes each take eight times as long, and nobody
can pass a piece on before it has all of it: a crowd then waits eight times as long at every hop. So
only so much is queued on all streams together as the line carries in half a second (one piece at
least), and streams take turns by pieces. What a slow receiver, or one that does not read, keeps in
its own stream counts only by what it takes in that time: the line is never idle for its sake.

The line's rate is what left while something was queued all the time. A line that is always quicker
than its node has none, and then only each stream's own bound counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

AHEAD_SECONDS: Final = 0.5
"""Of its rate that is queued on a stream, or on the line; the rest can still be cancelled."""

LEAST_AHEAD: Final = 256 << 10
MOST_AHEAD: Final = 3 << 20
"""Bytes of pieces queued on a stream."""

PACE_SECONDS: Final = 0.25
"""How often rates are measured."""

MEMORY: Final = 0.5
"""Weight of the past in the line's rate, each time it is measured anew."""

STILL_SECONDS: Final = 0.5
STILL_BYTES: Final = 128 << 10
"""A stream of which nothing has left for so long, or for as long as the line takes for so many
bytes, is not waited for."""

QUICK_RATE: Final = 8e6
"""Bytes a second that are not all that the line can carry, but enough to let streams be."""

IDLE_SECONDS: Final = 1.0
"""A line on which nothing was queued for so long is measured from the next piece on."""


class Lane:
    """One stream on the line.

    Args:
        queued: Returns how many bytes are queued on it.
        wake: Called when it may send after it had to wait.

    Attributes:
        sent: Bytes that were queued so far.
    """

    __slots__ = ("_ahead", "_at", "_gone", "granted", "moved_at", "queued", "rate", "sent", "wake")

    def __init__(self, queued: Callable[[], int], wake: Callable[[], None]) -> None:
        self.queued = queued
        self.wake = wake
        self.sent = 0
        self.granted = False
        self.rate: float | None = None
        """Bytes a second that it takes; None = as many as come."""
        self.moved_at = 0.0
        """When bytes left last."""
        self._ahead = 1 << 20
        self._at = 0.0
        self._gone = 0

    def measure(self, now: float) -> None:
        """Look what has left."""
        queued = self.queued()
        gone = self.sent - queued
        if gone != self._gone and now > self.moved_at:
            self.moved_at = now
        span = now - self._at
        if span >= PACE_SECONDS:
            rate = (gone - self._gone) / span
            self._at, self._gone = now, gone
            # An empty queue says nothing of the stream but that it is quicker than we are.
            self.rate = rate if queued else None
            wanted = int(rate * AHEAD_SECONDS) if queued else MOST_AHEAD
            self._ahead = max(LEAST_AHEAD, min(MOST_AHEAD, wanted))

    @property
    def full(self) -> bool:
        """Whether enough is queued."""
        return self.queued() > self._ahead


class Uplink:
    """See the top of the file.

    Attributes:
        rate: Bytes a second; None = not known, or more than was ever wanted.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._quick = False
        self._busy: dict[Lane, None] = {}  # on which something is queued
        self._waiting: dict[Lane, None] = {}
        self._sent = 0
        self._gone = 0
        self._from = -1.0
        self._broke = True  # nothing was queued at some time since the last measurement

    def may_send(self, lane: Lane, now: float) -> bool:
        """Return whether a lane may queue a piece now: then it must, and say so (`queue`).

        If not it is woken when it may, unless it has left.
        """
        if lane.granted:
            return True
        self._measure(now)
        if not self._waiting and self._room(lane, now):
            return True
        self._waiting[lane] = None
        self.look(now)
        return lane.granted

    def queue(self, lane: Lane, count: int, now: float) -> None:
        """Take note that a lane queues a piece."""
        lane.granted = False
        if not self._busy:
            lane.moved_at = now
            if self._from < 0 or now > self._from + IDLE_SECONDS:
                self._from, self._gone, self._broke = now, self._sent, False
        lane.sent += count
        self._sent += count
        self._busy[lane] = None

    def leave(self, lane: Lane) -> None:
        """A lane has nothing to send any more."""
        lane.granted = False
        self._waiting.pop(lane, None)

    def close(self, lane: Lane) -> None:
        """A lane is gone, with what was queued on it."""
        self.leave(lane)
        if self._busy.pop(lane, None) is not None:
            self._sent -= lane.queued()

    def look(self, now: float) -> None:
        """Wake lanes that may send: bytes have left, or time has passed."""
        self._measure(now)
        while self._waiting:
            lane = next((lane for lane in self._waiting if self._room(lane, now)), None)
            if lane is None:
                return
            del self._waiting[lane]
            lane.granted = True
            self._busy[lane] = None
            lane.wake()

    def _room(self, lane: Lane, now: float) -> bool:
        if lane.full or lane.granted:
            return False
        if any(other.granted for other in self._busy):
            return False  # it queues its piece any moment
        rate = self.rate
        if rate is None:
            if self._quick:
                return True
            return sum(other.queued() for other in self._busy) < LEAST_AHEAD
        still = now - max(STILL_SECONDS, STILL_BYTES / rate)
        leaves = 0.0
        for other in self._busy:
            if other.moved_at > still:
                takes = math.inf if other.rate is None else other.rate * AHEAD_SECONDS
                leaves += min(other.queued(), takes)
        return leaves < rate * AHEAD_SECONDS

    def _measure(self, now: float) -> None:
        for lane in list(self._busy):
            lane.measure(now)
            if not lane.queued() and not lane.granted:
                del self._busy[lane]
        queued = sum(lane.queued() for lane in self._busy)
        self._broke = self._broke or not queued
        span = now - self._from
        if self._from < 0 or span < PACE_SECONDS:
            return
        rate = (self._sent - queued - self._gone) / span
        if not self._broke:
            self._quick = False
            self.rate = rate if self.rate is None else MEMORY * self.rate + (1 - MEMORY) * rate
        elif self.rate is None:
            self._quick = self._quick or rate >= QUICK_RATE
        elif rate > self.rate:
            self.rate = rate  # it is quicker than that
        self._from, self._gone, self._broke = now, self._sent - queued, not queued
