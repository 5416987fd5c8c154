"""A byte stream between two places of the simulated network.

As TCP: bytes arrive whole and in order, or the stream breaks. The sender waits while as many bytes
as the buffers hold are unread. In one point it is milder than TCP: a side that closes with unread
bytes does not take from its peer what it sent before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from operator import index
from typing import Final, Protocol

import trio
from multiaddr import Multiaddr

CAPACITY: Final = 1 << 20
"""Bytes sent and not read, each way: both sides' buffers and what is under way."""

SEGMENT: Final = 64 * 1024
"""Most bytes delivered at once."""


class _Mark(Enum):
    END = auto()
    """The sender sends no more."""
    GONE = auto()
    """The sender has closed: it reads no more either."""


class Way(Protocol):
    """How one direction of a stream is carried."""

    def carry(self, data: bytes, deliver: Callable[[], None]) -> float:
        """Let `deliver` be called when the bytes are over; return when they have left us."""
        ...


class Half:
    """One direction of a stream."""

    def __init__(self, way: Way, capacity: int = CAPACITY) -> None:
        self._way = way
        self._capacity = capacity
        self._under_way: deque[bytes | _Mark] = deque()
        self._other: Half | None = None
        self.buffer = bytearray()
        """Arrived and not read."""
        self.unread = 0
        """Sent and not read."""
        self.ended = False
        """The end has arrived."""
        self.refused = False
        """Nobody reads any more, and the sender knows."""
        self.broken = ""
        """Why the stream broke; empty while it has not."""
        self.changed = trio.Event()
        self._stranded = False

    def join(self, other: Half) -> None:
        """Take note of the other direction."""
        self._other = other

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._capacity - self.unread

    def wake(self) -> None:
        """Let those look again who wait for something here."""
        self.changed.set()
        self.changed = trio.Event()

    def send(self, data: bytes) -> float:
        """Send bytes; return when they have left."""
        self.unread += len(data)
        self._under_way.append(data)
        return self._way.carry(data, self._arrive)

    def finish(self, *, gone: bool) -> None:
        """Send the end."""
        self._under_way.append(_Mark.GONE if gone else _Mark.END)
        self._way.carry(b"", self._arrive)

    def take(self, count: int) -> bytes:
        """Read up to `count` bytes of what has arrived."""
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        self.unread -= len(data)
        self.wake()
        return data

    def break_off(self, reason: str) -> None:
        """Break the stream: what is under way is lost, and both sides see it."""
        if not self.broken:
            self.broken = reason
            self._under_way.clear()
            self.buffer.clear()
            self.wake()

    def strand(self) -> None:
        """Let nothing arrive any more, and nobody be told."""
        self._stranded = True
        self._under_way.clear()

    def _arrive(self) -> None:
        if self._stranded or not self._under_way:
            return  # it broke meanwhile
        item = self._under_way.popleft()
        if isinstance(item, bytes):
            self.buffer += item
        else:
            self.ended = True
            if item is _Mark.GONE and self._other is not None:
                self._other.refused = True
                self._other.wake()
        self.wake()


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a stream of the simulated network; a `RawStream`."""

    def __init__(self, inward: Half, outward: Half, remote: Multiaddr, local: Multiaddr) -> None:
        self._in = inward
        self._out = outward
        self._remote = remote
        self._local = local
        self._closed = False
        self._sent_eof = False
        self._busy: set[str] = set()
        self.on_closed: Callable[[], None] = lambda: None

    @property
    def remote(self) -> Multiaddr:
        """The other end's address."""
        return self._remote

    @property
    def local(self) -> Multiaddr:
        """Our end's address."""
        return self._local

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them at the buffer's start; 0 = the peer sends no more."""
        data = await self.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._alone("receive"):
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError
                if self._in.broken:
                    raise trio.BrokenResourceError(self._in.broken)
                if self._in.buffer:
                    return self._in.take(SEGMENT if max_bytes is None else max_bytes)
                if self._in.ended:
                    return b""
                await self._in.changed.wait()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        with self._alone("send"):
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            view = memoryview(data)
            while view:
                await self._wait_for_room()
                part = bytes(view[: min(SEGMENT, self._out.room)])
                view = view[len(part) :]
                left = self._out.send(part)
                if left > trio.current_time():
                    with trio.move_on_at(left):  # woken early if the stream ends
                        while not (self._closed or self._out.broken):
                            await self._out.changed.wait()
                    self._check_sendable()

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        with self._alone("send"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError
            await self._wait_for_room()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        with self._alone("send"):
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError
            if not self._sent_eof:
                self._sent_eof = True
                self._out.finish(gone=False)

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        if not self._closed:
            self._closed = True
            self._out.finish(gone=True)
            self._in.wake()
            self._out.wake()
            self.on_closed()
        await trio.lowlevel.checkpoint()

    def break_off(self, reason: str) -> None:
        """Break both directions at once, as a reset does."""
        self._in.break_off(reason)
        self._out.break_off(reason)

    def strand(self) -> None:
        """Cut both directions for good: both ends stay open, and nothing comes."""
        self._in.strand()
        self._out.strand()

    def _check_sendable(self) -> None:
        if self._closed or self._sent_eof:
            raise trio.ClosedResourceError
        if self._out.broken:
            raise trio.BrokenResourceError(self._out.broken)
        if self._out.refused:
            raise trio.BrokenResourceError("the other side has closed the stream")

    async def _wait_for_room(self) -> None:
        while True:
            self._check_sendable()
            if self._out.room > 0:
                return
            await self._out.changed.wait()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task does {what} on this stream")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)
