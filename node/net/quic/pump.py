"""Moves the bytes of a QUIC connection: events to streams, and streams to the library."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ....wire.errors import PeerFault
from ....wire.yamux import Read, YamuxStream
from ...environment import RunBlocking
from ..keepalive import PING_SECONDS, KeepAlive
from ..reading import read_run, runs_of, withdraw
from .happenings import Ended, Event, Ponged, StreamData, StreamFinished, StreamReset, StreamStopped
from .session import QuicSession

if TYPE_CHECKING:
    from ..connection import Connection
    from .link import Link

PASS_BYTES = 1 << 19
"""Bytes taken, and bytes handed over, before the rest of the node has its turn."""

PASS_EVENTS = 1024
"""Events taken before that."""

PING_EVERY = 15.0
"""Half of the idle time-out that others have (go, js: 30 s)."""

DRAIN_SECONDS = 2.0
"""How long a connection that we close waits for what is queued to arrive."""


class _Over(Exception):
    """The connection is over; the text says why."""


class QuicPump:
    """See `muxing.Mover`."""

    def __init__(
        self,
        link: Link,
        session: QuicSession,
        connection: Connection,
        run_blocking: RunBlocking,
    ) -> None:
        self._link = link
        self._session = session
        self._connection = connection
        self._run_blocking = run_blocking
        self.closing = False
        self.broken = False
        self._broken_reason = ""
        self._drain_by = math.inf
        self._alive = KeepAlive(PING_EVERY, self._ping, lambda: self.bytes_in)

    @property
    def bytes_in(self) -> int:
        """Bytes received."""
        return self._link.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes sent."""
        return self._link.bytes_out

    def wake(self) -> None:
        """Look for something to send, or to take again."""
        if self._session.has_output or self.closing:
            self._link.wake()

    def close(self) -> None:
        """Send what is queued, and end."""
        if not self.closing:
            self.closing = True
            self._drain_by = trio.current_time() + DRAIN_SECONDS
            self._session.gone_away = True
            self._link.wake()

    def break_off(self, reason: str) -> None:
        """Drop everything, tell the peer that it is at fault, and end."""
        self._session.close_all(reason)
        self._broken_reason = reason
        self.closing = self.broken = True
        self._link.wake()

    def doubt(self, within: float = PING_SECONDS) -> None:
        """Ping now, with so many seconds for the answer: the peer may be gone."""
        self._alive.doubt(within)

    def ponged(self, opaque: int) -> None:
        """Take the answer to a ping."""
        self._alive.ponged(opaque)

    async def run(self, pass_done: Callable[[], None]) -> str:
        """Run until the connection ends; return why it did."""
        reason = ""

        async def ending(loop: Callable[[], object]) -> None:
            nonlocal reason
            try:
                await loop()  # type: ignore[misc]
            except PeerFault as fault:
                self._connection.count(fault)
                reason = reason or str(fault)
                self._link.close(1, str(fault))
            except _Over as end:
                reason = reason or str(end)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                reason = reason or "the connection broke"
            nursery.cancel_scope.cancel()

        async def move() -> None:
            await self._move(pass_done)

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ending, move)
                nursery.start_soon(ending, self._keep_alive)
        finally:
            self._link.close(0, "")
        return reason

    async def _move(self, pass_done: Callable[[], None]) -> None:
        session, link = self._session, self._link
        while True:
            more = self._take()
            pass_done()
            if self.broken:
                link.close(1, self._broken_reason)
                raise _Over(self._broken_reason)
            session.rtt = link.engine.rtt or session.rtt
            session.said = False
            await self._hand_over()
            more = await link.flush() or more
            link.check_fault()
            if link.failed:
                raise _Over(link.failed)
            if self.closing and self._drained():
                link.close(0, "")
                raise _Over("closed")
            session.count_library()
            session.room_again()
            if not more and not session.can_hand_over:
                behind = session.behind() if session.held else None
                until = self._drain_by if self.closing else math.inf
                await link.wait(until if behind is None else min(until, behind[0]))

    # Receiving

    def _take(self) -> bool:
        """Give events to the streams; True = there are more."""
        session, link = self._session, self._link
        taken = 0
        for _ in range(PASS_EVENTS):
            behind = session.behind()
            session.held = behind is not None
            if behind is not None:
                until, stream = behind
                if trio.current_time() < until:
                    return False
                self._connection.drop_unread(stream)
                continue
            event = link.take()
            if event is None or self.broken:
                return False
            self._apply(event)
            if isinstance(event, StreamData):
                taken += len(event.data)
                if taken >= PASS_BYTES:
                    break
        return True

    def _apply(self, event: Event) -> None:
        session = self._session
        match event:
            case StreamData(stream, data, fin):
                session.deliver(stream, data, fin)
            case StreamReset(stream):
                session.reset_by_peer(stream)
            case StreamStopped(stream):
                session.stopped_by_peer(stream)
            case StreamFinished(stream):
                session.finished(stream)
            case Ponged(ping):
                self.ponged(ping)
            case Ended():
                self._link.ended(event)
            case _:
                pass

    # Sending

    async def _hand_over(self) -> None:
        """Give queued bytes to the library, as much as it should hold."""
        session = self._session
        given = 0
        while given < PASS_BYTES and (found := session.next_ready()) is not None:
            stream, room = found
            if stream.muted:
                session.sent_end(stream)
                continue
            size = max(0, min(room, stream.queued, stream.send_window))
            view = memoryview(bytearray(size))
            reads: list[Read] = []
            count = stream.take(view, 0, size, reads)
            for run in runs_of(reads):
                why = await read_run(run, self._run_blocking)
                if why is not None:
                    withdraw(run[0], why)
                    break
            if not stream.reset and not stream.muted:
                self._send(stream, view[:count])
            given += count

    def _send(self, stream: YamuxStream, data: memoryview) -> None:
        fin = stream.wants_fin
        if not self._link.engine.send(stream.id, data, fin):
            self._session.stopped_by_peer(stream.id)  # the event is on its way
            return
        self._session.sent(stream, len(data))
        if fin:
            self._session.sent_end(stream)

    def _drained(self) -> bool:
        """Whether all that was queued has arrived, or the time for it is over."""
        if trio.current_time() >= self._drain_by:
            return True
        engine = self._link.engine
        queued = any(stream.can_send or stream.queued for stream in self._session.streams.values())
        return not (queued or engine.queued() or engine.in_flight)

    # Keeping alive

    def _ping(self, number: int) -> None:
        self._link.engine.ping(number)
        self._link.wake()

    async def _keep_alive(self) -> None:
        raise _Over(await self._alive.run())
