"""A stream to a peer, as protocols see it: trio's stream interface, and the fast path."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import trio

from ...wire.errors import PeerFault
from ...wire.yamux import FilePart, Sink, YamuxStream
from .errors import ConnectionLost

if TYPE_CHECKING:
    from ...storage.disk import DiskFile
    from .connection import Connection

SEND_AHEAD = 256 * 1024
"""Bytes of `send_all` that may be queued on a stream before the sender waits."""


@dataclass(frozen=True, slots=True, eq=False)
class FileRange:
    """A range of a file to send: read by the connection's writer when its turn comes."""

    file: DiskFile
    offset: int
    length: int
    unchanged: Callable[[], bool] | None = None
    """Asked after each batch of reads, before anything of it is sent: is the file as it was?"""
    failed: Callable[[str], None] | None = None
    """Told why, when the file changed or could not be read; the stream has been reset then."""


class Stream(trio.abc.HalfCloseableStream):
    """One stream of a connection.

    `protocol` is what was agreed; `connection` leads to the peer. Either read with `receive_some`
    or install a sink; either send with `send_all` or queue.
    """

    def __init__(self, connection: Connection, inner: YamuxStream) -> None:
        self.connection = connection
        self.protocol = ""
        self._inner = inner
        inner.driver = self
        self._readable = trio.Event()
        self._writable = trio.Event()
        self._closed = False
        self._sent_eof = False
        self._sending = False
        self._receiving = False
        self._negotiating = False
        self._waiting_sink: Sink | None = None
        self.on_drained: Callable[[], None] | None = None
        """Called when bytes were handed to the connection's writer."""

    @property
    def direction(self) -> Literal["in", "out"]:
        """Who opened it."""
        return "in" if self._inner.inbound else "out"

    # Called by the connection

    def wake_reader(self) -> None:
        """Let a waiting `receive_some` look again."""
        self._readable.set()

    def wake_writer(self) -> None:
        """Let a waiting sender look again."""
        self._writable.set()
        if self.on_drained is not None:
            self.on_drained()

    def negotiate(self, sink: Sink) -> None:
        """Let `sink` take the bytes until the protocol is agreed (`negotiated`)."""
        self._negotiating = True
        self._inner.install_sink(sink)

    def negotiated(self) -> None:
        """Let the stream's own sink, or reader, have the bytes from here on."""
        self._negotiating = False
        self._inner.sink = self._waiting_sink

    def negotiation_ended(self, reason: str | None) -> None:
        """Pass on that the stream ended before its protocol was agreed."""
        if self._waiting_sink is not None:
            self._waiting_sink.ended(reason or "the peer ended the stream")

    # trio's interface

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; empty = the peer sends no more.

        Raises:
            trio.BrokenResourceError: The stream was reset or the connection ended.
            trio.ClosedResourceError: It was closed here.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task reads this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError
                inner = self._inner
                if inner.buffer:
                    size = len(inner.buffer) if max_bytes is None else max_bytes
                    data = bytes(inner.buffer[:size])
                    inner.consume(len(data))
                    self.connection.wake_writer()
                    return data
                if inner.reset:
                    raise trio.BrokenResourceError(self._inner.reason)
                if inner.remote_ended:
                    return b""
                self._readable = trio.Event()
                await self._readable.wait()
        finally:
            self._receiving = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue the bytes and wait until at most 256 KiB of the stream are unsent."""
        with self._exclusive_sender():
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            self.queue(bytes(data))
            await self._drained(SEND_AHEAD)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until little is queued."""
        with self._exclusive_sender():
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError
            await self._drained(SEND_AHEAD // 2)

    async def send_eof(self) -> None:
        """End our half; what is queued goes out first."""
        with self._exclusive_sender():
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError
            self._sent_eof = True
            self._inner.close()
            self.connection.wake_writer()

    async def aclose(self) -> None:
        """End both halves: ours properly, theirs by dropping what comes."""
        if not self._closed:
            self._closed = True
            self.connection.stream_closed(self._inner)
            self.wake_reader()
            self.wake_writer()
        await trio.lowlevel.checkpoint()

    def reset(self, reason: str = "") -> None:
        """End both halves at once; the peer sees a reset."""
        self._inner.abort(reason or "the stream was reset")
        self.connection.wake_writer()

    def _check_sendable(self) -> None:
        if self._closed or self._sent_eof:
            raise trio.ClosedResourceError
        if self._inner.reset:
            raise trio.BrokenResourceError(self._inner.reason)

    def _exclusive_sender(self) -> _Sender:
        return _Sender(self)

    async def _drained(self, below: int) -> None:
        # When much is queued elsewhere, only what this stream added itself must be gone.
        while self._inner.queued > (0 if self.connection.congested else below):
            if self._inner.reset or self._closed:
                break
            self._writable = trio.Event()
            await self._writable.wait()
        if self._closed:
            raise trio.ClosedResourceError
        if self._inner.reset:
            raise trio.BrokenResourceError(self._inner.reason)

    # The fast path

    @property
    def queued(self) -> int:
        """Bytes queued and not yet handed to the connection's writer."""
        return self._inner.queued

    @property
    def held_up(self) -> bool:
        """Whether the peer's window is used up: nothing can be sent until it reads."""
        return self._inner.send_window <= 0

    @property
    def is_closed(self) -> bool:
        """Whether it was closed here."""
        return self._closed

    @property
    def is_reset(self) -> bool:
        """Whether it ended before its time, here or there."""
        return self._inner.reset

    @property
    def reason(self) -> str:
        """Why it was reset; empty while it was not."""
        return self._inner.reason

    def install_sink(self, sink: Sink) -> None:
        """Hand every byte to `sink` inside the receive pass, what is buffered first."""
        if self._negotiating:
            self._waiting_sink = sink
            return
        try:
            self._inner.install_sink(sink)
        except PeerFault as fault:
            self.connection.stream_faulted(self._inner, fault)
        self.connection.wake_writer()

    def resume(self) -> None:
        """Feed the sink again what it did not take."""
        self.wake_reader()
        try:
            self._inner.resume()
        except PeerFault as fault:
            self.connection.stream_faulted(self._inner, fault)
        self.connection.wake_writer()

    def queue(self, data: bytes) -> None:
        """Queue bytes without waiting; dropped when the stream is over.

        The caller keeps `queued` in bounds.
        """
        if not (self._closed or self._sent_eof):
            self._inner.queue(data)
            self.connection.wake_writer()

    def queue_file(self, part: FileRange) -> None:
        """Queue a range of a file without waiting."""
        if not (self._closed or self._sent_eof):
            self._inner.queue(FilePart(part, part.offset, part.length))
            self.connection.wake_writer()

    async def wait_drained(self, below: int) -> None:
        """Wait until at most `below` bytes are queued.

        Raises:
            ConnectionLost: The stream ended meanwhile.
        """
        await trio.lowlevel.checkpoint()
        while self._inner.queued > below:
            if self._inner.reset or self._closed:
                raise ConnectionLost(self._inner.reason or "the stream was closed")
            self._writable = trio.Event()
            await self._writable.wait()

    def grow_window(self, limit: int) -> None:
        """Let the receive window grow to `limit` bytes: we asked for bytes here."""
        self._inner.allow_window(limit)


class _Sender:
    """Lets one task send at a time (trio's rule)."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        if self._stream._sending:
            raise trio.BusyResourceError("another task sends on this stream")
        self._stream._sending = True

    def __exit__(self, *_: object) -> None:
        self._stream._sending = False
