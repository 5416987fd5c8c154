"""Virtual time for objects that need no tasks: one heap of events."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Events:
    """Calls what is due, in the order of its time, then of its turn.

    Attributes:
        now: Seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._turn = 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Call `what` at a time."""
        self._turn += 1
        heapq.heappush(self._heap, (when, self._turn, what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` some time from now."""
        self.at(self.now + seconds, what)

    def run(self, until: float, over: Callable[[], bool]) -> None:
        """Call what is due until a time, or until `over` says so."""
        heap = self._heap
        while heap and heap[0][0] <= until and not over():
            self.now, _, what = heapq.heappop(heap)
            what()
