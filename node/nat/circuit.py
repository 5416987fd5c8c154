"""A connection through a relay, as a raw stream: what both its ends have in common."""

from __future__ import annotations

import trio
from multiaddr import Multiaddr

from ...wire import varint
from ...wire.addresses import relayed_addr, with_peer
from ...wire.delimited import frame
from ...wire.errors import PeerFault
from ..net.errors import StreamRefused
from ..net.stream import Stream

MAX_LENGTH_BYTES = 3
"""Bytes of the length in front of a message of at most 8 KiB."""

CIRCUIT_WINDOW = 4 << 20
"""Receive window in bytes of a circuit that carries content."""


class CircuitStream(trio.abc.HalfCloseableStream):
    """A stream to a relay that has become a pipe to another peer; see `environment.RawStream`."""

    def __init__(self, stream: Stream, *, limited: bool) -> None:
        self._stream = stream
        self._limited = limited
        connection = stream.connection
        self._remote = relayed_addr(with_peer(connection.remote, connection.peer_id))
        if not limited:
            stream.grow_window(CIRCUIT_WINDOW)

    @property
    def limited(self) -> bool:
        """Whether the relay ends it after so much time or so many bytes."""
        return self._limited

    @property
    def remote(self) -> Multiaddr:
        """The relay's address, and that it goes on from there."""
        return self._remote

    @property
    def local(self) -> Multiaddr:
        """Our end of the connection with the relay."""
        return self._stream.connection.local

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them at the buffer's start; 0 = the peer sends no more."""
        data = await self._stream.receive_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        await self._stream.aclose()


async def read_message(stream: Stream, limit: int) -> bytes:
    """Read one message with its length in front, and not a byte more.

    Raises:
        PeerFault: It is longer than `limit`, or the stream ends inside it.
        StreamRefused: The stream ends before it: the peer has nothing to say, which is no fault.
    """
    length = bytearray(await stream.receive_some(1))
    if not length:
        raise StreamRefused("the peer ended the stream without an answer")
    while length[-1] & 0x80:
        if len(length) == MAX_LENGTH_BYTES:
            raise PeerFault("frame-too-long", f"at most {limit}")
        length += await _some(stream, 1)
    count = varint.decode(bytes(length), 0)[0]
    if count > limit:
        raise PeerFault("frame-too-long", f"{count} bytes, at most {limit}")
    message = b""
    while len(message) < count:
        message += await _some(stream, count - len(message))
    return message


async def _some(stream: Stream, count: int) -> bytes:
    data = await stream.receive_some(count)
    if not data:
        raise PeerFault("frame-truncated")
    return data


async def send_message(stream: Stream, message: bytes) -> None:
    """Send one message with its length in front."""
    await stream.send_all(frame(message))
