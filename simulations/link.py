"""The way between two places: how long it takes, how much fits through, and whether it is cut."""

from __future__ import annotations

import random
from collections.abc import Callable

from ..wire.immutable import immutable


@immutable
class Link:
    """Conditions of one direction between two places."""

    latency: float = 0.05
    """Seconds one way."""

    jitter: float = 0.0
    """Up to this many seconds more, evenly spread; bytes of one stream still keep their order."""

    rate: float | None = None
    """Bytes per second; None = no limit."""


class Pipe:
    """Something through which bytes go one after the other: an uplink, a downlink, a path."""

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self.free_at = 0.0
        """When what was handed in so far is through."""

    def pass_through(self, begin: float, size: int) -> float:
        """Return when `size` bytes that stand before the pipe at `begin` are through it."""
        if self.rate is None:
            return begin
        self.free_at = max(begin, self.free_at) + size / self.rate
        return self.free_at


class Path:
    """One direction between two places, with what is under way on it while it is cut."""

    def __init__(self, link: Link, chance: random.Random) -> None:
        self._link = link
        self._chance = chance
        self.pipe = Pipe(link.rate)
        self.cut = False
        self.held: list[Callable[[], None]] = []
        """Deliveries that came due while it was cut: late, but not lost."""

    @property
    def link(self) -> Link:
        """The conditions."""
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        self.pipe.rate = link.rate

    def delay(self) -> float:
        """Return the next latency, jitter included."""
        jitter = self._link.jitter
        return self._link.latency + (jitter * self._chance.random() if jitter else 0.0)
