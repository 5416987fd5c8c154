"""Two streams that a relay has joined: what comes from one goes to the other."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ...wire.circuit import Limit
from ..net.errors import ConnectionLost
from ..net.stream import Stream

READ_BYTES = 64 * 1024
"""Bytes taken from a stream at once."""

AHEAD_WIDE = 256 * 1024
AHEAD = 64 * 1024
AHEAD_LIMITED = 32 * 1024
"""Bytes that may wait to be sent in each direction; a sender beyond that waits in turn, as its
window is not opened. Of whole transfers a few may have more, as their windows may grow."""

NO_END = 1 << 63
"""Bytes that no circuit carries."""

IDLE_SECONDS = 600.0
"""A circuit on which nothing passes in either direction for so long ends; connections ping more
often."""


class Splice:
    """One circuit.

    Args:
        here: The stream of the one who asked.
        there: The stream of the one who was asked.
        limit: How much time, and bytes in each direction, it has.
        forwarded: Told of bytes before they are sent on; False = no more may be.
    """

    def __init__(
        self, here: Stream, there: Stream, limit: Limit | None, forwarded: Callable[[int], bool]
    ) -> None:
        self._here = here
        self._there = there
        self._limit = limit or Limit()
        self._ahead = AHEAD if limit is None else AHEAD_LIMITED
        self._forwarded = forwarded
        self._scope = trio.CancelScope()
        self._passed_at = 0.0
        self.reason = ""
        """Why it ended before its time."""

    def widen(self) -> None:
        """Let more wait: it is one of few circuits."""
        self._ahead = AHEAD_WIDE

    def cut(self, reason: str) -> None:
        """End it."""
        self.reason = self.reason or reason
        self._scope.cancel()

    async def run(self) -> None:
        """Forward until both have ended, one breaks off, or the limit is reached."""
        self._passed_at = trio.current_time()
        seconds = self._limit.seconds
        if seconds is not None:
            self._scope.deadline = trio.current_time() + seconds
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                async with trio.open_nursery() as both:
                    both.start_soon(self._forward, self._here, self._there)
                    both.start_soon(self._forward, self._there, self._here)
                nursery.cancel_scope.cancel()

    async def _forward(self, source: Stream, target: Stream) -> None:
        left = self._limit.bytes_each_way or NO_END
        try:
            while data := await source.receive_some(min(left or 1, READ_BYTES)):
                if left == 0:
                    self.cut("the limit is reached")
                    return
                left -= len(data)
                if not self._forwarded(len(data)):
                    self.cut("the quota is used up")
                    return
                self._passed_at = trio.current_time()
                target.queue(data)
                await target.wait_drained(0 if target.connection.congested else self._ahead)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionLost):
            self.cut("one side broke off")

    async def _watch(self) -> None:
        while True:
            await trio.sleep_until(self._passed_at + IDLE_SECONDS)
            if trio.current_time() >= self._passed_at + IDLE_SECONDS:
                self.cut("nothing passed for a long time")
