"""Whether the peer of a connection is still there: pings, and how long their answers may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

PING_SECONDS: Final = 20.0
"""Within which an answer comes, or at least some bytes."""

DOUBT_SECONDS: Final = 5.0
"""Within which it is to come on a connection whose peer has a newer one with us: it may be at
another address now, and nothing tells us of that."""


class KeepAlive:
    """Sends pings; `run` ends when the peer is gone.

    Args:
        every: Seconds between two pings.
        send: Sends a ping with this number.
        heard: Returns how many bytes have come so far.
    """

    def __init__(self, every: float, send: Callable[[int], None], heard: Callable[[], int]) -> None:
        self._every = every
        self._send = send
        self._heard = heard
        self._number = 0
        self._sent_at: float | None = None
        self._pong = trio.Event()
        self._doubted = trio.Event()
        self._within = PING_SECONDS
        self._patience = trio.CancelScope()

    def doubt(self, within: float = PING_SECONDS) -> None:
        """Ping now, with so many seconds for the answer: the peer may be gone."""
        self._within = min(self._within, within)
        patience = self._patience  # for an answer that is waited for already
        patience.deadline = min(patience.deadline, trio.current_time() + within)
        self._doubted.set()

    def ponged(self, number: int) -> float | None:
        """Take an answer; return the round trip in seconds, or None if it answers nothing new."""
        if number != self._number or self._sent_at is None:
            return None
        seconds, self._sent_at = trio.current_time() - self._sent_at, None
        self._pong.set()
        return seconds

    async def run(self) -> str:
        """Ping until there is no answer; return what is to be said then."""
        while True:
            with trio.move_on_after(self._every):
                await self._doubted.wait()
            self._doubted = trio.Event()
            within, self._within = self._within, PING_SECONDS
            self._number = (self._number + 1) & 0xFFFFFFFF
            self._sent_at = began = trio.current_time()
            self._pong = trio.Event()
            self._send(self._number)
            heard = self._heard()
            with trio.move_on_after(within) as self._patience:
                await self._pong.wait()
            # On a slow link the answer may stand behind a long batch: other bytes count, too.
            if self._patience.cancelled_caught and self._heard() == heard:
                return f"the peer did not answer for {trio.current_time() - began:.0f} s"
