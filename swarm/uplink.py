"""One line for all that a node sends: pieces go one after the other, each as fast as the line is.

Whoever sends eight pieces at a time on a slow line makes each take eight times as long, and nobody
can pass a piece on before it has all of it: a crowd then waits eight times as long at every hop. So
the next piece is queued when little of the last one is left, on whichever stream, and streams take
turns by pieces. Receivers may be slower than the line: now and then one stream more is sent to, and
that is kept up if more goes through. One that does not read counts for nothing.

The line's rate is what left while something was queued all the time that peers had room for. A line
that is always quicker than its node has none, and then only each stream's own bound counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

AHEAD_SECONDS: Final = 0.5
"""Of its rate that is queued on a stream; the rest can still be cancelled."""

LEAST_AHEAD: Final = 64 << 10
MOST_AHEAD: Final = 3 << 20
"""Bytes of pieces queued on a stream."""

NEXT_SECONDS: Final = 0.05
NEXT_BYTES: Final = 64 << 10
"""The next piece is queued when no more is left of those before it than a connection seals at a
time (`BATCH_SECONDS` of its rate in `node/net/pump.py`, 64 KiB at least)."""

SLOW_TIMES: Final = 4
"""A stream that takes so many times as long for a piece as the line does leaves it to others."""

SLOWEST: Final = 16 << 10
"""Bytes a second that a line is taken for while its rate is not known."""

PACE_SECONDS: Final = 0.25
"""How often rates are measured."""

SPAN_BYTES: Final = 256 << 10
"""So much leaves between two measurements of the line, at least."""

MEMORY: Final = 0.5
"""Weight of the past in the line's rate, each time it is measured anew."""

STILL_SECONDS: Final = 0.5
STILL_BYTES: Final = 128 << 10
"""A stream of which nothing has left for so long, or for as long as the line takes for so many
bytes of each stream, is not waited for. (Twice what a connection seals at a time on slow lines.)"""

QUICK_RATE: Final = 8e6
"""Bytes a second that are not all that the line can carry, but enough to let streams be."""

PROBE_EVERY: Final = 16
"""Every so many pieces one more stream is sent to at a time, to see whether more goes through:
those that are sent to now may be slower than the line."""

WORTH: Final = 1.25
"""It is worth that if so many times as much does."""

UNREAD_SECONDS: Final = 4.0
"""If nothing left for so long it was not the line that was slow: nobody read."""

IDLE_SECONDS: Final = 1.0
"""A line on which nothing was queued for so long is measured from the next piece on."""


class Lane:
    """One stream on the line.

    Args:
        queued: Returns how many bytes are queued on it.
        wake: Called when it may send after it had to wait.
        held_up: Returns whether its peer's window is used up: the line has no part in that.

    Attributes:
        sent: Bytes that were queued so far.
    """

    __slots__ = (
        *("_ahead", "_at", "_gone", "granted", "held_up", "moved_at", "queued", "rate", "sent"),
        *("slow_at", "wake"),
    )

    def __init__(
        self,
        queued: Callable[[], int],
        wake: Callable[[], None],
        held_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.queued = queued
        self.wake = wake
        self.held_up = held_up
        self.sent = 0
        self.granted = False
        self.rate: float | None = None
        """Bytes a second that it takes; None = as many as come."""
        self.moved_at = 0.0
        """When bytes left last."""
        self.slow_at = 0.0
        """When the last piece should have left, however slow its peer is."""
        self._ahead = 1 << 20
        self._at = 0.0
        self._gone = 0

    def measure(self, now: float, span_wanted: float) -> None:
        """Look what has left."""
        queued = self.queued()
        gone = self.sent - queued
        if gone != self._gone and now > self.moved_at:
            self.moved_at = now
        span = now - self._at
        if span >= span_wanted:
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
        self._gone = 0  # bytes that had left when it was last measured
        self._seen = 0
        self._moved_at = 0.0
        self._from = -1.0
        self._width = 1
        """Streams that are sent to at a time although the line is busy."""
        self._rates: dict[int, float] = {}  # of the line, by streams at a time
        self._lanes = 0  # when it was last measured
        self._grants = 0
        self._broke = True  # nothing was queued at some time since the last measurement

    def may_send(self, lane: Lane, now: float) -> bool:
        """Return whether a lane may queue a piece now: then it must, and say so (`queue`).

        If not it is woken when it may, unless it has left.
        """
        if lane.granted:
            return True
        self._measure(now)
        if not self._waiting and self._room(lane, now):
            lane.granted = True
            self._busy[lane] = None
            return True
        self._waiting[lane] = None
        self.look(now)
        return lane.granted

    def queue(self, lane: Lane, count: int, now: float) -> None:
        """Take note that a lane queues a piece."""
        lane.granted = False
        self._grants += 1
        if not lane.queued():
            lane.moved_at = now
        alone = all(other is lane for other in self._busy)
        if alone and (self._from < 0 or now > self._from + IDLE_SECONDS):
            self._from, self._gone, self._broke = now, self._sent, False
        ahead = count + sum(other.queued() for other in self._busy)
        lane.slow_at = now + max(STILL_SECONDS, SLOW_TIMES * ahead / (self.rate or SLOWEST))
        lane.sent += count
        self._sent += count
        self._busy[lane] = None

    @property
    def at_once(self) -> int:
        """Bytes of small pieces that a lane may queue at a time."""
        if self.rate is None:
            return MOST_AHEAD if self._quick else LEAST_AHEAD
        return int(self.rate * AHEAD_SECONDS)

    @property
    def quick(self) -> bool:
        """Whether it is taken to be quicker than its node."""
        return self.rate is None and self._quick

    def load(self, now: float) -> int:
        """Return how many bytes are queued on the lanes that keep up with the line."""
        return sum(lane.queued() for lane in self._moving(now) if self._keeps_up(lane, now))

    def takes(self, lane: Lane, now: float) -> bool:
        """Return whether the line is what a lane waits for, and not its peer."""
        if not lane.queued():
            return True
        return self._keeps_up(lane, now) and lane in self._moving(now)

    def _keeps_up(self, lane: Lane, now: float) -> bool:
        return now < lane.slow_at

    def leave(self, lane: Lane, now: float) -> None:
        """A lane has nothing to send for now."""
        self._waiting.pop(lane, None)
        if lane.granted:
            lane.granted = False
            self.look(now)

    def close(self, lane: Lane, now: float) -> None:
        """A lane is gone, with what was queued on it."""
        if self._busy.pop(lane, None) is not None:
            self._sent -= lane.queued()
        self.leave(lane, now)
        self.look(now)

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
        rate = self.rate
        if rate is None and self._quick:
            return True
        if any(other.granted for other in self._busy):
            return False  # it queues its piece any moment
        if rate is None:
            return sum(other.queued() for other in self._moving(now)) < NEXT_BYTES
        moving = self._moving(now)
        little = max(NEXT_BYTES, rate * NEXT_SECONDS)
        if sum(other.queued() for other in moving) < little:
            return True
        others_wait = any(other is not lane for other in self._waiting)
        if others_wait and lane in moving and lane.queued() >= little:
            return False
        width = self._width + (self._grants % PROBE_EVERY == 0)
        return sum(other is not lane for other in moving) < width

    def _moving(self, now: float) -> list[Lane]:
        """Return the lanes on which something is queued and leaves."""
        still = now - self._patience()
        return [
            lane
            for lane in self._busy
            if lane.moved_at > still and lane.queued() and not lane.held_up()
        ]

    def _patience(self) -> float:
        """Return how long it may take until something of each busy lane leaves."""
        return max(STILL_SECONDS, len(self._busy) * STILL_BYTES / (self.rate or math.inf))

    def _measure(self, now: float) -> None:
        wanted = self._patience() if self.rate else PACE_SECONDS
        for lane in list(self._busy):
            lane.measure(now, wanted)
            if not lane.queued() and not lane.granted:
                del self._busy[lane]
        queued = sum(lane.queued() for lane in self._busy)
        idle = not any(lane.queued() and not lane.held_up() for lane in self._busy)
        self._broke = self._broke or idle
        span = now - self._from
        gone = self._sent - queued
        if gone <= self._seen:  # (less: words of a few bytes are queued, too)
            return  # just behind what has left: between that the line seems to be slower
        self._seen = gone
        self._broke = self._broke or now > self._moved_at + max(UNREAD_SECONDS, self._patience())
        self._moved_at = now
        if self._from < 0 or span < max(PACE_SECONDS, SPAN_BYTES / (self.rate or math.inf)):
            return
        rate = (gone - self._gone) / span
        lanes = len(self._moving(now))
        if not self._broke:
            self._quick = False
            if lanes == self._lanes:
                self._weigh(lanes, rate)
            self.rate = rate if self.rate is None else MEMORY * self.rate + (1 - MEMORY) * rate
        elif self.rate is None:
            self._quick = self._quick or rate >= QUICK_RATE
        elif rate > self.rate:
            self.rate = rate  # it is quicker than that
        self._from, self._gone, self._broke = now, gone, idle
        self._lanes = lanes

    def _weigh(self, lanes: int, rate: float) -> None:
        """See whether more streams at a time bring more through, or fewer as much."""
        old = self._rates.get(lanes)
        self._rates[lanes] = new = rate if old is None else MEMORY * old + (1 - MEMORY) * rate
        usual = self._rates.get(self._width)
        if usual is None or lanes == self._width:
            return
        more = lanes > self._width and new > WORTH * usual
        fewer = lanes < self._width and usual < WORTH * new
        if more or fewer:
            self._width = lanes
