"""yamux: many streams over one secured connection (hashicorp yamux, as libp2p uses it).

`Session` is a state machine between two buffers. `receive` walks the plain bytes of one pass and
hands the payload of data frames to the streams' sinks as views, without waiting for whole frames
and without allocating. `fill` lays out frames for one batch to send: control frames first, then
the streams in turn; the bytes of files are not copied here but named as `Read`s, which the caller
performs straight into the batch.

Windows: a peer may send 256 KiB on a new stream. What a sink consumed is credited when half of
the window is used up. Where we asked for bytes (`allow_window`), the window doubles as long as
half of it is used up within 4 round trips (go-yamux), up to a limit and a budget of the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from .errors import Misuse, PeerFault
from .yamux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_BYTES,
    MAX_FRAME,
    NORMAL,
    PING,
    RST,
    SYN,
    WINDOW,
)
from .yamux_stream import Budget, Events, FilePart, Read, Sink, YamuxStream

__all__ = ["Budget", "Events", "FilePart", "Read", "Session", "Sink", "YamuxStream"]

PROTOCOL: Final = "/yamux/1.0.0"
MAX_STREAMS: Final = 256
"""Streams of one connection, each way."""

MAX_CONTROL: Final = 4096
"""Control frames waiting to be sent when the peer makes us add another (pings, new streams): it
sends without reading, and that ends the connection."""

MAX_WINDOW: Final = (1 << 32) - 1


class Session:
    """One side of a yamux connection.

    Args:
        client: Whether we dialled: our streams have odd ids.
        events: Who is told.
        budget: What all connections of the process share.
    """

    def __init__(self, client: bool, events: Events, budget: Budget) -> None:
        self._client = client
        self._events = events
        self._budget = budget
        self._next_id = 1 if client else 2
        self._last_peer_id = 0
        self.streams: dict[int, YamuxStream] = {}
        """Streams that are not over in both directions."""
        self._inbound = 0
        self._control: deque[bytes] = deque()
        self._ready: deque[YamuxStream] = deque()
        self._body = 0  # bytes left of the data frame being read
        self._body_flags = 0
        self._body_stream: YamuxStream | None = None
        self._fed: dict[YamuxStream, None] = {}  # in the order of feeding
        self.unread = 0
        """Bytes received and not consumed, over all streams."""
        self.queued = 0
        """Bytes in memory that are queued to send, over all streams; files not counted."""
        self.gone_away = False
        """The peer said that it goes away, or we did."""
        self.rtt = 0.1
        """Round trip in seconds, as the driver measured it."""
        self.now: Callable[[], float] = lambda: 0.0
        """The driver's clock, for the growth of windows."""

    # Receiving

    def receive(self, plain: memoryview) -> int:
        """Take plain bytes; return how many were used up (the rest, under 12, comes again).

        Raises:
            PeerFault: The connection must end (after `go_away(PROTOCOL_ERROR)`).
        """
        at, end = 0, len(plain)
        while True:
            if self._body:
                if at == end:
                    return at
                take = min(self._body, end - at)
                if self._body_stream is not None:
                    self._deliver(self._body_stream, plain[at : at + take])
                at += take
                self._body -= take
                if self._body == 0:
                    self._end_of_frame()
            elif end - at < HEADER_BYTES:
                return at
            else:
                version, kind, flags, stream_id, length = HEADER.unpack_from(plain, at)
                at += HEADER_BYTES
                if version != 0:
                    raise PeerFault("yamux-version", str(version))
                if kind == DATA:
                    self._data_header(flags, stream_id, length)
                elif kind == WINDOW:
                    self._window_update(flags, stream_id, length)
                elif kind == PING:
                    self._ping(flags, length)
                elif kind == GO_AWAY:
                    self.gone_away = True
                    self._events.going_away(length)
                else:
                    raise PeerFault("yamux-type", str(kind))

    def pass_done(self) -> None:
        """Tell the sinks that were fed that nothing more comes in this pass."""
        fed, self._fed = self._fed, {}
        for stream in fed:
            if stream.sink is not None and not stream.reset:
                try:
                    stream.sink.pass_done()
                except PeerFault as fault:
                    self._fault(stream, fault)

    def _stream_for(self, flags: int, stream_id: int) -> YamuxStream | None:
        """Return the stream that a frame belongs to, opening it on SYN; None: ignore the frame."""
        if stream_id == 0:
            raise PeerFault("yamux-stream-zero")
        if flags & SYN:
            return self._syn(stream_id)
        stream = self.streams.get(stream_id)
        if stream is None:
            ours = (stream_id & 1) == self._client
            known = stream_id < self._next_id if ours else stream_id <= self._last_peer_id
            if not known and not flags & RST:
                self._answer(WINDOW, RST, stream_id, 0)
        elif flags & ACK:
            stream.acknowledged = True
        return stream

    def _syn(self, stream_id: int) -> YamuxStream | None:
        if (stream_id & 1) == self._client:
            raise PeerFault("yamux-stream-parity", str(stream_id))
        if stream_id <= self._last_peer_id:
            raise PeerFault("yamux-stream-reused", str(stream_id))
        self._last_peer_id = stream_id
        if self._inbound >= MAX_STREAMS or self.gone_away:
            self._answer(WINDOW, RST, stream_id, 0)
            return None
        stream = YamuxStream(self, stream_id, inbound=True)
        stream.acknowledged = True
        self.streams[stream_id] = stream
        self._inbound += 1
        self._answer(WINDOW, ACK, stream_id, 0)
        self._events.opened(stream)
        return stream

    def _data_header(self, flags: int, stream_id: int, length: int) -> None:
        stream = self._stream_for(flags, stream_id)
        if stream is not None:
            if length > stream.receive_window:
                raise PeerFault("yamux-window-exceeded", f"{length} bytes")
            if length and stream.remote_ended:
                raise PeerFault("yamux-data-after-end")
            stream.receive_window -= length
        self._body = length
        self._body_flags = flags
        self._body_stream = stream
        if length == 0:
            self._end_of_frame()

    def _end_of_frame(self) -> None:
        stream, self._body_stream = self._body_stream, None
        if stream is not None and self._body_flags & (FIN | RST):
            self._end_flags(stream, self._body_flags)

    def _end_flags(self, stream: YamuxStream, flags: int) -> None:
        if flags & RST:
            self._drop(stream, "reset by the peer")
        elif flags & FIN and not stream.remote_ended:
            stream.remote_ended = True
            self._fed.pop(stream, None)
            if stream.sink is not None and not stream.buffer:
                stream.tell_ended(None)
            self._events.readable(stream)
            self._forget_if_done(stream)

    def _window_update(self, flags: int, stream_id: int, delta: int) -> None:
        stream = self._stream_for(flags, stream_id)
        if stream is None:
            return
        if stream.send_window + delta > MAX_WINDOW:
            raise PeerFault("yamux-window-overflow")
        stream.send_window += delta
        if stream.out:
            self.make_ready(stream)
        if flags & (FIN | RST):
            self._end_flags(stream, flags)

    def _ping(self, flags: int, opaque: int) -> None:
        if flags & SYN:
            self._answer(PING, ACK, 0, opaque)
        elif flags & ACK:
            self._events.ponged(opaque)

    def _deliver(self, stream: YamuxStream, data: memoryview) -> None:
        if stream.reset:
            return  # reset here while the frame was under way
        sink = stream.sink
        if sink is None or stream.buffer:
            stream.buffer += data
            self.count_unread(len(data))
            self._events.readable(stream)
            return
        try:
            used = sink.feed(data)
        except PeerFault as fault:
            self._fault(stream, fault)
            return
        self._fed[stream] = None
        if used:
            stream.credit(used)
        if used < len(data) and not stream.reset:
            stream.buffer += data[used:]
            self.count_unread(len(data) - used)

    def count_unread(self, count: int) -> None:
        """Count bytes that were kept (or, below zero, taken)."""
        self.unread += count
        self._budget.unread += count

    def count_queued(self, count: int) -> None:
        """Count bytes that were queued to send (or, below zero, laid out)."""
        self.queued += count
        self._budget.queued += count

    def _fault(self, stream: YamuxStream, fault: PeerFault) -> None:
        stream.abort(str(fault))
        self._events.faulted(stream, fault)

    # Streams

    def open(self) -> YamuxStream:
        """Open a stream; its SYN goes out with the next batch.

        Raises:
            Misuse: The session goes away, or has 256 streams of ours already (`can_open`).
        """
        if not self.can_open:
            raise Misuse("no stream can be opened")
        stream = YamuxStream(self, self._next_id, inbound=False)
        self._next_id += 2
        self.streams[stream.id] = stream
        self._push(WINDOW, SYN, stream.id, 0)
        return stream

    @property
    def can_open(self) -> bool:
        """Whether `open` is allowed."""
        return (
            not self.gone_away
            and len(self.streams) - self._inbound < MAX_STREAMS
            and self._next_id < MAX_WINDOW - 2
        )

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
            stream.give_back_window(self._budget)

    def _drop(self, stream: YamuxStream, reason: str) -> None:
        """End a stream at once, in both directions."""
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

    def abort(self, stream: YamuxStream, reason: str) -> None:
        """Reset a stream (see `YamuxStream.abort`)."""
        if not stream.reset:
            if stream.id in self.streams:
                self._push(WINDOW, RST, stream.id, 0)
            self._drop(stream, reason)

    def close_all(self, reason: str) -> None:
        """End all streams because the connection has ended."""
        self.gone_away = True
        for stream in list(self.streams.values()):
            self._drop(stream, reason)
        self._control.clear()
        # Ended streams that nobody has read to their end weigh on the process no longer.
        self._budget.unread -= self.unread
        self._budget.queued -= self.queued
        self._budget = Budget(0)

    # Windows

    def credited(self, stream: YamuxStream) -> None:
        """Send a window update if half of the stream's window has been consumed."""
        if stream.consumed < stream.window // 2 or stream.remote_ended or stream.reset:
            return
        delta = stream.consumed + stream.growth(self.now(), self.rtt, self._budget)
        stream.consumed = 0
        stream.receive_window += delta
        self._push(WINDOW, 0, stream.id, delta)

    # Sending

    def _push(self, kind: int, flags: int, stream_id: int, value: int) -> None:
        self._control.append(HEADER.pack(0, kind, flags, stream_id, value))

    def _answer(self, kind: int, flags: int, stream_id: int, value: int) -> None:
        """Send what the peer's frame asks for, but not without end."""
        if len(self._control) >= MAX_CONTROL:
            raise PeerFault("yamux-control-flood")
        self._push(kind, flags, stream_id, value)

    def ping(self, opaque: int) -> None:
        """Send a ping; the answer comes as `ponged`."""
        self._push(PING, SYN, 0, opaque)

    def go_away(self, code: int = NORMAL) -> None:
        """Tell the peer that no more streams are opened or taken."""
        self.gone_away = True
        self._push(GO_AWAY, 0, 0, code)

    def make_ready(self, stream: YamuxStream) -> None:
        """Enter a stream into the round of those with something to send."""
        if not stream.ready and not stream.reset and stream.can_send:
            stream.ready = True
            self._ready.append(stream)

    @property
    def has_output(self) -> bool:
        """Whether `fill` has something to lay out."""
        return bool(self._control or self._ready)

    def fill(self, plain: memoryview) -> tuple[int, int, list[Read]]:
        """Lay out frames; return (bytes, those of control frames ahead of all data, file reads).

        The reads must be performed into their views before the bytes are sealed.

        Args:
            plain: Where to; at least 64 KiB + 12 bytes.
        """
        at, end = 0, len(plain)
        control = self._control
        while control and end - at >= HEADER_BYTES:
            plain[at : at + HEADER_BYTES] = control.popleft()
            at += HEADER_BYTES
        lead = at
        reads: list[Read] = []
        ready = self._ready
        while ready and end - at > HEADER_BYTES:
            stream = ready.popleft()
            stream.ready = False
            if stream.reset:
                continue
            room = min(end - at - HEADER_BYTES, MAX_FRAME, stream.send_window)
            size = stream.take(plain, at + HEADER_BYTES, room, reads)
            stream.send_window -= size
            # In a frame of its own, as others do: js takes the end before the bytes it comes with.
            flags = FIN if stream.wants_fin and not size else 0
            HEADER.pack_into(plain, at, 0, DATA, flags, stream.id, size)
            at += HEADER_BYTES + size
            if flags:
                stream.local_ended = True
                self._forget_if_done(stream)
            self.make_ready(stream)
            self._events.writable(stream)
        return at, lead, reads
