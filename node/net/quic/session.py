"""The streams of a QUIC connection, as `Connection` and `Stream` know them from yamux.

What yamux does with window updates is done here by not taking: the peer may send one window beyond
the events that were taken. When a stream's reader is too far behind, nothing is taken from the
whole connection for a while (the library gives its events in one order); a reader that stays
behind loses its stream, so that the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from ....wire.errors import Misuse, PeerFault
from ....wire.yamux_stream import INITIAL_WINDOW, Budget, Events, YamuxStream
from .library import Engine

MAX_HELD: Final = 256 * 1024
"""Unread bytes of a stream at which no more are taken (the window of a yamux stream)."""

STALL_SECONDS: Final = 5.0
STALL_ASKED_SECONDS: Final = 30.0
"""For so long a reader may hold up the connection; then its stream is reset. Where we asked for
bytes (`grow_window`) it is a disk of ours that takes so long, else whoever opened the stream."""

CHUNK: Final = 256 * 1024
"""Bytes of one stream handed over at a time: then it is another stream's turn."""

SEND_AHEAD: Final = 512 * 1024
"""Bytes of a stream that wait in the library to be sent."""

SEND_AHEAD_TOTAL: Final = 2 << 20
"""The same for all streams of a connection."""

SEND_AHEAD_LEAST: Final = 16 * 1024
"""What a stream of which the library holds nothing may give it, whatever the others have given."""

SEND_AHEAD_CROWDED: Final = 64 * 1024
CROWDED: Final = 16 << 20
"""The same for a connection while more than 16 MiB are queued in the process: many peers that take
nothing must not cost 2 MiB each."""

MAX_OURS: Final = 256
"""Streams of ours at a time, if the peer allows so many."""


class QuicSession:
    """See the top of the file.

    Args:
        engine: The library's connection.
        events: Who is told.
        budget: What all connections of the process share.
        client: Whether we dialled: our streams have even ids.
    """

    def __init__(self, engine: Engine, events: Events, budget: Budget, *, client: bool) -> None:
        self._engine = engine
        self._events = events
        self._budget = budget
        self._ours = 0 if client else 1
        self.streams: dict[int, YamuxStream] = {}
        self._inbound = 0
        self._aborted: set[int] = set()  # of which something may still come
        self._ready: deque[YamuxStream] = deque()
        self._waiting: dict[YamuxStream, None] = {}  # until the library has sent what it holds
        self._full: dict[YamuxStream, float] = {}  # since when their readers are behind
        self._fed: dict[YamuxStream, None] = {}
        self.held = False
        """Nothing is taken, since a reader is behind."""
        self.said = False
        """The library was told something that has to go out (a reset)."""
        self.unread = 0
        self.queued = 0
        self._in_library = 0  # of those that are queued
        self.gone_away = False
        self.rtt = 0.1
        self.now: Callable[[], float] = lambda: 0.0

    # Receiving

    def deliver(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Take bytes of a stream, opening it if it is new."""
        stream = self._stream_for(stream_id)
        if stream is None:
            return
        if data and not stream.reset:
            self._feed(stream, data)
        if fin and not stream.reset and not stream.remote_ended:
            stream.remote_ended = True
            self._fed.pop(stream, None)
            if stream.sink is not None and not stream.buffer:
                stream.tell_ended(None)
            self._events.readable(stream)
            self._forget_if_done(stream)

    def _feed(self, stream: YamuxStream, data: bytes) -> None:
        used = 0
        if stream.sink is not None and not stream.buffer:
            try:
                used = stream.sink.feed(memoryview(data))
            except PeerFault as fault:
                stream.abort(str(fault))
                self._events.faulted(stream, fault)
                return
            self._fed[stream] = None
        if used < len(data) and not stream.reset:
            stream.buffer += data[used:]
            self.count_unread(len(data) - used)
            if len(stream.buffer) >= MAX_HELD:
                self._full.setdefault(stream, self.now())
            if stream.sink is None:
                self._events.readable(stream)

    def _stream_for(self, stream_id: int) -> YamuxStream | None:
        stream = self.streams.get(stream_id)
        if stream is not None or stream_id in self._aborted:
            return stream
        if stream_id & 1 == self._ours:
            return None
        if stream_id & 2 or self.gone_away:  # libp2p has no streams of one direction
            self._refuse(stream_id)
            return None
        stream = YamuxStream(self, stream_id, inbound=True)
        stream.acknowledged = True
        stream.send_window = SEND_AHEAD
        self.streams[stream_id] = stream
        self._inbound += 1
        self._events.opened(stream)
        return stream

    def _refuse(self, stream_id: int) -> None:
        self._aborted.add(stream_id)
        self.said = True
        self._engine.stop(stream_id)
        if not stream_id & 2:
            self._engine.reset(stream_id)

    def reset_by_peer(self, stream_id: int) -> None:
        """Take note that the peer gave up a stream: it is over in both directions."""
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._engine.reset(stream_id)
            self._drop(stream, "reset by the peer")

    def stopped_by_peer(self, stream_id: int) -> None:
        """Take note that the peer takes nothing more on a stream; it may still send."""
        stream = self.streams.get(stream_id)
        if stream is None or stream.local_ended:
            return
        stream.muted = True
        stream.clear_out()
        stream.send_window = SEND_AHEAD
        self._waiting.pop(stream, None)
        self._events.writable(stream)
        if stream.fin_queued:
            self.sent_end(stream)

    def finished(self, stream_id: int) -> None:
        """Take note that nothing more comes of a stream."""
        self._aborted.discard(stream_id)

    def pass_done(self) -> None:
        """Tell the sinks that were fed that nothing more comes in this pass."""
        fed, self._fed = self._fed, {}
        for stream in fed:
            if stream.sink is not None and not stream.reset:
                try:
                    stream.sink.pass_done()
                except PeerFault as fault:
                    stream.abort(str(fault))
                    self._events.faulted(stream, fault)

    def behind(self) -> tuple[float, YamuxStream] | None:
        """Return until when the reader of which stream may be too far behind; None = nobody is."""
        for stream in [s for s in self._full if len(s.buffer) < MAX_HELD]:
            del self._full[stream]
        if not self._full:
            return None
        first = min(self._full, key=self._patience)
        return self._patience(first), first

    def _patience(self, stream: YamuxStream) -> float:
        asked = stream.window_limit > INITIAL_WINDOW
        return self._full[stream] + (STALL_ASKED_SECONDS if asked else STALL_SECONDS)

    def count_unread(self, count: int) -> None:
        """Count bytes that were kept (or, below zero, taken)."""
        self.unread += count
        self._budget.unread += count

    def credited(self, stream: YamuxStream) -> None:
        """Do nothing: what is taken from the library is credited there."""
        stream.consumed = 0

    # Streams

    def open(self) -> YamuxStream:
        """Open a stream.

        Raises:
            Misuse: It cannot be (`can_open`).
        """
        if not self.can_open:
            raise Misuse("no stream can be opened")
        stream = YamuxStream(self, self._engine.open(), inbound=False)
        stream.send_window = SEND_AHEAD
        self.streams[stream.id] = stream
        return stream

    @property
    def can_open(self) -> bool:
        """Whether `open` is allowed: by us, and by the peer."""
        ours = len(self.streams) - self._inbound
        return not self.gone_away and ours < MAX_OURS and self._engine.can_open

    @property
    def inbound(self) -> int:
        """How many streams of the peer are open."""
        return self._inbound

    def _forget_if_done(self, stream: YamuxStream) -> None:
        if stream.remote_ended and stream.local_ended and not stream.out:
            self._forget(stream)

    def _forget(self, stream: YamuxStream) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self._inbound -= stream.inbound
        self._waiting.pop(stream, None)

    def _drop(self, stream: YamuxStream, reason: str) -> None:
        if stream.reset:
            return
        stream.reset = True
        stream.reason = reason
        self.forget_buffer(stream)
        stream.clear_out()
        self._fed.pop(stream, None)
        self._forget(stream)
        if stream.sink is not None:
            stream.tell_ended(reason)
        self._events.readable(stream)
        self._events.writable(stream)

    def forget_buffer(self, stream: YamuxStream) -> None:
        """Throw away what the stream has received and nobody read."""
        self.count_unread(-len(stream.buffer))
        stream.buffer.clear()
        self._full.pop(stream, None)

    def abort(self, stream: YamuxStream, reason: str) -> None:
        """Reset both halves of a stream."""
        if not stream.reset:
            if stream.id in self.streams:
                self._refuse(stream.id)
            self._drop(stream, reason)

    def close_all(self, reason: str) -> None:
        """End all streams because the connection has ended."""
        self.gone_away = True
        for stream in list(self.streams.values()):
            self._drop(stream, reason)
        self._budget.unread -= self.unread
        self._budget.queued -= self.queued
        self._budget = Budget(0)

    # Sending

    def count_queued(self, count: int) -> None:
        """Count bytes that were queued to send (or, below zero, laid out)."""
        self.queued += count
        self._budget.queued += count

    def make_ready(self, stream: YamuxStream) -> None:
        """Enter a stream into the round of those with something to send."""
        if (
            not stream.ready
            and not stream.reset
            and stream.can_send
            and stream not in self._waiting
        ):
            stream.ready = True
            self._ready.append(stream)

    @property
    def has_output(self) -> bool:
        """Whether the pump has something to do."""
        return bool(self._ready) or self.said or (self.held and self.behind() is None)

    @property
    def can_hand_over(self) -> bool:
        """Whether `next_ready` would return a stream."""
        return any(self._room(stream) for stream in self._ready)

    def _room(self, stream: YamuxStream) -> int:
        """Return how much of a stream may go to the library now; an end of it always may."""
        crowded = self._budget.queued > CROWDED
        room = (SEND_AHEAD_CROWDED if crowded else SEND_AHEAD_TOTAL) - self._engine.queued()
        if room < SEND_AHEAD_LEAST and not self._engine.queued(stream.id):
            room = SEND_AHEAD_LEAST  # what others are held up with must not hold up this one
        return max(0, min(room, CHUNK))

    def count_library(self) -> None:
        """Count what the library holds as queued, too."""
        held = self._engine.queued()
        self.count_queued(held - self._in_library)
        self._in_library = held

    def next_ready(self) -> tuple[YamuxStream, int] | None:
        """Return the next stream in the round, and how much of it may go to the library.

        None: there is none, or the library holds enough.
        """
        for _ in range(len(self._ready)):
            stream = self._ready.popleft()
            if stream.reset:
                stream.ready = False
            elif room := self._room(stream):
                stream.ready = False
                return stream, room
            else:
                self._ready.append(stream)
        return None

    def room_again(self) -> None:
        """Let streams go on of which the library has sent half of what it held."""
        # What waits while the line has room waits for the peer's window.
        held_up = 2 * self._engine.in_flight < self._engine.congestion_window
        for stream in list(self._waiting):
            if (room := SEND_AHEAD - self._engine.queued(stream.id)) >= SEND_AHEAD // 2:
                del self._waiting[stream]
                stream.send_window = room
                self.make_ready(stream)
            else:
                stream.send_window = 0 if held_up else 1

    def sent(self, stream: YamuxStream, count: int) -> None:
        """Take note that bytes of a stream went to the library."""
        stream.send_window -= count
        if stream.send_window <= 0:
            self._waiting[stream] = None
        self.make_ready(stream)
        self._events.writable(stream)

    def sent_end(self, stream: YamuxStream) -> None:
        """Take note that our half of a stream has ended."""
        stream.local_ended = True
        self._forget_if_done(stream)
