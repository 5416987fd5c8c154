"""Virtual time without an event loop: one heap of calls to come, and a digest of what happened.

Times are whole milliseconds: what falls into one millisecond happens in the order in which it was
asked for. Calls are bound methods with plain arguments, so that all of it can be written down.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable
from typing import Any, Final

TICKS: Final = 1000
"""Milliseconds in a second: all times are rounded up to one."""

FOLD_BYTES: Final = 1 << 16
"""Bytes of events that are hashed together."""


class Digest:
    """A running SHA-256 that can be written down and taken up again."""

    def __init__(self) -> None:
        self._done = bytes(32)
        self._open = bytearray()
        self.count = 0
        """Events so far."""

    def note(self, event: bytes) -> None:
        """Add an event."""
        self.count += 1
        self._open += event
        if len(self._open) >= FOLD_BYTES:
            self._done = hashlib.sha256(self._done + self._open).digest()
            self._open.clear()

    @property
    def hex(self) -> str:
        """The digest of all events so far."""
        return hashlib.sha256(self._done + self._open).hexdigest()


class Timeline:
    """What is to happen when."""

    def __init__(self) -> None:
        self.tick = 0
        """Milliseconds since the beginning."""
        self.now = 0.0
        """Seconds since the beginning."""
        self._turn = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    @property
    def waiting(self) -> int:
        """How many calls are to come."""
        return len(self._heap)

    def at(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Have something called at a time, rounded up; never before what is asked for already."""
        self.at_tick(math.ceil(seconds * TICKS - 1e-6), call, *args)

    def at_tick(self, tick: int, call: Callable[..., None], *args: Any) -> None:
        """Have something called at a millisecond."""
        self._turn += 1
        heapq.heappush(self._heap, (max(tick, self.tick), self._turn, call, args))

    def later(self, seconds: float, call: Callable[..., None], *args: Any) -> int:
        """Have something called at a time, but not within this millisecond; return when.

        For those who wait for a deadline: a sum of seconds may lie a hair above its millisecond.
        """
        tick = max(math.ceil(seconds * TICKS - 1e-6), self.tick + 1)
        self.at_tick(tick, call, *args)
        return tick

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        """Have something called some time from now."""
        tick = math.ceil((self.now + seconds) * TICKS - 1e-6)
        self._turn += 1
        heapq.heappush(self._heap, (max(tick, self.tick), self._turn, call, args))

    def run(self, until: float) -> None:
        """Let happen what is due before or at a time, which then is now."""
        end = math.ceil(until * TICKS - 1e-6)
        heap = self._heap
        while heap and heap[0][0] <= end:
            tick, _, call, args = heapq.heappop(heap)
            if tick != self.tick:
                self.tick, self.now = tick, tick / TICKS
            call(*args)
        self.tick, self.now = end, end / TICKS
