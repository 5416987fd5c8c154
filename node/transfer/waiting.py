"""Why a fetch waits, and how fast it goes: what people look at."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from ...wire.immutable import immutable

STALL_SECONDS = 10.0
"""A fetch without a newly verified byte for so long plans anew, and says so."""

RATE_SECONDS = 3.0
"""The rate shown is the mean over this long."""


class Kind(StrEnum):
    """The kinds of waiting; `docs/events.md` explains them, and they never change."""

    BEHIND = "behind"
    PAUSED = "paused"
    DISK_FULL = "disk full"
    DISK_SLOW = "disk slow"
    SYNCING = "syncing"
    RATE_LIMIT = "rate limit"
    SEARCHING = "searching"
    NO_PROVIDER = "no provider"
    UNREACHABLE = "unreachable"
    DIALLING = "dialling"
    CONNECTING = "connecting"
    GREETING = "greeting"
    INDEX = "index"
    PREPARING = "preparing"
    CHOKED = "choked"
    SLOW = "slow"
    NO_HOLDER = "no holder"
    MISMATCH = "hash mismatch"
    WAITING = "waiting"


@immutable
class Reason:
    """Why nothing flows: `kind` for programs, `text` for people."""

    kind: Kind
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
