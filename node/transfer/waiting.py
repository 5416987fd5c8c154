"""Why a fetch waits, and how fast it goes: what people look at."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RATE_SECONDS = 3.0
"""The rate shown is the mean over this long."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why nothing flows.

    `kind` is a stable word (no peers, dialling, index, choked, no holder, disk full, syncing,
    hash mismatch, behind, waiting); `text` is for people.
    """

    kind: str
    text: str


class Rate:
    """Bytes a second over the last seconds."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, int]] = deque()
        self._total = 0
        self._started: float | None = None

    def add(self, count: int, now: float) -> None:
        """Count bytes."""
        if self._started is None:
            self._started = now
        if self._steps and now - self._steps[-1][0] < RATE_SECONDS / 30:
            at, before = self._steps.pop()
            self._steps.append((at, before + count))
        else:
            self._steps.append((now, count))
        self._total += count

    def value(self, now: float) -> float:
        """Return the mean rate; 0 if nothing came."""
        while self._steps and self._steps[0][0] < now - RATE_SECONDS:
            self._total -= self._steps.popleft()[1]
        if not self._steps or self._started is None:
            return 0.0
        span = min(RATE_SECONDS, max(now - self._started, 0.05))
        return self._total / span
