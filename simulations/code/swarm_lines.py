"""Access lines and the ways between them: who sends how much when.

An uplink carries segments, one after the other, of all ways that have something to send, in turn
(as one TCP connection to each peer does); a downlink carries what arrives in that order. On a way
bytes keep their order, and at most a window of them is not yet arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ...wire.swarm import Body
from ..link import Pipe
from .events import Events

SEGMENT: Final = 64 * 1024
"""Bytes of one way that an uplink carries before those of another."""

WINDOW: Final = 1 << 20
"""Bytes of a way that have left and not arrived, as in `simulations/stream.py`."""

FRAME: Final = 24
"""Bytes of a frame besides the bytes that trail it: protobuf, yamux and Noise."""


@dataclass(slots=True)
class Sending:
    """A frame on its way."""

    body: Body
    left: int
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What a segment brings of a frame."""

    body: Body
    count: int
    first: bool
    last: bool


class Line:
    """The access line of a peer."""

    def __init__(self, events: Events, up: float | None, down: float | None) -> None:
        self.events = events
        self.up = up
        self.down = Pipe(down)
        self.sent = 0
        """Bytes that have left."""
        self._ready: deque[Way] = deque()
        self._busy = False

    def add(self, way: Way) -> None:
        """Let a way send when its turn comes."""
        self._ready.append(way)
        if not self._busy:
            self._next()

    def _next(self) -> None:
        if not self._ready:
            self._busy = False
            return
        self._busy = True
        way = self._ready.popleft()
        parts, size = way.segment()
        self.sent += size
        seconds = size / self.up if self.up else 0.0

        def left() -> None:
            way.left(parts, size)
            self._next()

        self.events.after(seconds, left)


class Way:
    """One direction between two peers.

    Args:
        line: Of the sender.
        target: Of the receiver.
        latency: Seconds.
        deliver: Told what arrives.
        drained: Called when bytes have left.
    """

    def __init__(
        self,
        line: Line,
        target: Line,
        latency: float,
        deliver: Callable[[list[Part]], None],
        drained: Callable[[], None],
    ) -> None:
        self._line = line
        self._target = target
        self._latency = latency
        self._deliver = deliver
        self._drained = drained
        self._waiting: deque[Sending] = deque()
        self._ready = False
        self._under_way = 0
        self.queued = 0
        """Bytes that have not left."""
        self.closed = False

    def send(self, body: Body, trailing: int = 0) -> None:
        """Queue a frame."""
        if self.closed:
            return
        self._waiting.append(Sending(body, FRAME + trailing))
        self.queued += FRAME + trailing
        self._look()

    def close(self) -> None:
        """Drop what has not left, and deliver nothing more."""
        self.closed = True
        self._waiting.clear()
        self.queued = 0

    def _look(self) -> None:
        if self._waiting and not self._ready and self._under_way < WINDOW:
            self._ready = True
            self._line.add(self)

    def segment(self) -> tuple[list[Part], int]:
        """Take the next segment off."""
        room = SEGMENT
        parts: list[Part] = []
        while room and self._waiting:
            head = self._waiting[0]
            count = min(room, head.left)
            head.left -= count
            room -= count
            parts.append(Part(head.body, count, not head.begun, not head.left))
            head.begun = True
            if not head.left:
                self._waiting.popleft()
        return parts, SEGMENT - room

    def left(self, parts: list[Part], size: int) -> None:
        """Take note that a segment has left."""
        self._ready = False
        if self.closed:
            return
        self.queued -= size
        self._under_way += size
        events = self._line.events

        def arrived() -> None:
            self._under_way -= size
            if not self.closed:
                self._deliver(parts)
                self._look()

        events.at(self._target.down.pass_through(events.now + self._latency, size), arrived)
        self._look()
        self._drained()
