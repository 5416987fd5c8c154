"""What a hostile peer does on a swarm stream, one function for each way to do harm.

Each is called with a stream whose greeting is over (but for those in `UNGREETED`) and does its
worst until the stream ends; then it gets a new one. `hostile_peer.py` runs them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

import trio

from shoal.node.net.connection import Connection
from shoal.node.net.errors import NetError
from shoal.node.net.stream import Stream
from shoal.wire import varint
from shoal.wire.ids import Cid
from shoal.wire.swarm import (
    PROTOCOL,
    Bitfield,
    BitfieldKind,
    Body,
    Choke,
    Have,
    Hello,
    IndexNode,
    IndexRequest,
    NotHave,
    Piece,
    Reject,
    RejectReason,
    Request,
    Unchoke,
    content_key,
    decode,
    encode,
    hash_proof,
)
from shoal.wire.yamux import Session, YamuxStream
from shoal.wire.yamux_frames import HEADER, PING, SYN, WINDOW

MIB = 1 << 20
ALL = Bitfield(BitfieldKind.ALL)
MANY_STREAMS = 10_000
SWARM_STREAMS = 64
DELUGE = 32 << 20


class Wire:
    """A swarm stream that sends any frames, and reads what comes if it likes."""

    def __init__(self, stream: Stream, root: Cid, pieces: int, tap: Tap) -> None:
        self.stream = stream
        self.root = root
        self.pieces = pieces
        self.tap = tap
        self._data = bytearray()

    @property
    def connection(self) -> Connection:
        """The connection that carries it."""
        return self.stream.connection

    async def greet(self) -> None:
        """Say a right Hello."""
        connection = self.connection
        proof = hash_proof(self.root, connection.handshake_hash, connection.is_initiator)
        await self.send(Hello(content_key(self.root), proof))

    async def send(self, *bodies: Body, data: bytes = b"") -> None:
        """Send frames; `data` trails the last."""
        frames = [encode(body) for body in bodies[:-1]]
        await self.raw(b"".join(frames) + encode(bodies[-1], len(data)) + data)

    async def raw(self, data: bytes) -> None:
        """Send bytes."""
        await self.stream.send_all(data)

    async def receive(self) -> Body | None:
        """Return the next frame without what trails it; EOFError when the peer has ended."""
        while (found := varint.decode_prefix(self._data)) is None:
            await self._more()
        length, at = found
        while len(self._data) < at + length:
            await self._more()
        body, trailing = decode(self._data[at : at + length])
        end = at + length + trailing
        while len(self._data) < end:
            await self._more()
        del self._data[:end]
        return body

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._data += data

    async def next_request(self) -> Request:
        """Wait for a request; index nodes are said to be missing."""
        while True:
            match await self.receive():
                case IndexRequest(cids):
                    await self.send(*(IndexNode(cid, missing=True) for cid in cids))
                case Request() as request:
                    return request

    async def wait_end(self) -> None:
        """Read on until the other side ends the stream."""
        with suppress(EOFError):
            while True:
                await self._more()
                self._data.clear()

    def yamux(self, kind: int, flags: int, stream_id: int, value: int) -> None:
        """Queue a yamux frame past all rules of our own session."""
        session = self.connection.session
        assert isinstance(session, Session)
        session._control.append(HEADER.pack(0, kind, flags, stream_id, value))
        self.connection.wake_writer()


class Tap:
    """How fast a hostile peer reads from its sockets: 0 = as fast as it can."""

    def __init__(self) -> None:
        self.seconds_a_byte = 0.0


Misdeed = Callable[[Wire], Awaitable[None]]


async def rejects(wire: Wire) -> None:
    """Claim everything, and reject every request."""
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        await wire.send(Reject(request.id, RejectReason.NOT_HELD))


async def wrong(wire: Wire) -> None:
    """Claim everything, and send wrong bytes."""
    await wire.send(ALL)
    while True:
        request = await wire.next_request()
        for piece in range(request.first, request.first + request.count):
            await wire.send(Piece(request.id, piece, MIB), data=bytes(MIB))


async def silent(wire: Wire) -> None:
    """Claim everything, and answer nothing."""
    await wire.send(ALL)
    await wire.wait_end()


async def drips(wire: Wire) -> None:
    """Claim everything, and send a byte a second."""
    await wire.send(ALL)
    request = await wire.next_request()
    await wire.raw(encode(Piece(request.id, request.first, MIB), MIB))
    while True:
        await wire.raw(b"x")
        await trio.sleep(1)


async def unasked(wire: Wire) -> None:
    """Send a piece that nobody asked for."""
    await wire.send(ALL, Piece(1, 0, MIB), data=bytes(MIB))
    await wire.wait_end()


async def endless(wire: Wire) -> None:
    """Send pieces without end, asked for or not."""
    await wire.send(ALL)
    for number in count():
        await wire.send(Piece(1, number % wire.pieces, MIB), data=bytes(MIB))


async def oversized(wire: Wire) -> None:
    """Begin a frame of 256 MiB."""
    await wire.raw(varint.encode(256 * MIB) + bytes(MIB))
    await wire.wait_end()


async def trailing(wire: Wire) -> None:
    """Begin a frame with 3 MiB trailing."""
    frame = encode(Piece(1, 0, MIB), MIB)
    body = frame[1:].replace(varint.encode(MIB), varint.encode(3 * MIB))
    await wire.raw(varint.encode(len(body)) + body + bytes(MIB))
    await wire.wait_end()


async def truncated(wire: Wire) -> None:
    """End the stream inside a piece, or inside a frame if nothing is asked for."""
    await wire.send(ALL)
    with trio.move_on_after(1):
        request = await wire.next_request()
        await wire.raw(encode(Piece(request.id, request.first, MIB), MIB) + bytes(99))
        await wire.stream.send_eof()
        return
    await wire.raw(encode(Request(1, 0, 1))[:-1])
    await wire.stream.send_eof()


async def flutters(wire: Wire) -> None:
    """Hold everything and nothing in turn, choke and unchoke."""
    await wire.send(Bitfield(BitfieldKind.NONE))
    everything = ((0, wire.pieces),)
    while True:
        await wire.send(Have(everything), Choke(), NotHave(everything), Unchoke())
        await trio.sleep(0.01)


async def streams(wire: Wire) -> None:
    """Open 10 000 streams and name no protocol on any."""
    first = 1001 if wire.connection.is_initiator else 1002
    for number in range(MANY_STREAMS):
        wire.yamux(WINDOW, SYN, first + 2 * number, 0)
        if number % 500 == 499:
            await trio.sleep(0.01)
    await wire.wait_end()


async def greedy(wire: Wire) -> None:
    """Ask for everything again and again, and take none of it off the stream."""
    numbers = count(1)
    while True:
        batch = (Request(next(numbers), 0, min(wire.pieces, 1024)) for _ in range(1000))
        await wire.raw(b"".join(map(encode, batch)))


async def mute(wire: Wire) -> None:
    """Ask for everything, read a little of it, and then nothing ever again."""
    await wire.send(ALL, Request(1, 0, min(wire.pieces, 1024)))
    wire.stream.grow_window(16 * MIB)
    got = 0
    while got < 8 * MIB:
        data = await wire.stream.receive_some()
        if not data:
            return
        got += len(data)
    wire.tap.seconds_a_byte = 1e9
    await trio.sleep_forever()


async def sips(wire: Wire) -> None:
    """Ask for everything, and read a byte a second."""
    await wire.send(ALL, Request(1, 0, min(wire.pieces, 1024)))
    wire.tap.seconds_a_byte = 1.0
    await trio.sleep_forever()


async def pings(wire: Wire) -> None:
    """Ping without end, and read no answer."""
    wire.tap.seconds_a_byte = 1e9
    for number in count():
        wire.yamux(PING, SYN, 0, number & 0xFFFFFFFF)
        if number % 1000 == 999:
            await trio.sleep(0.01)


async def deluge(wire: Wire) -> None:
    """Break a rule, and go on sending on the stream that was reset."""
    inner = wire.stream._inner.id
    await wire.raw(varint.encode(256 * MIB))
    with suppress(trio.BrokenResourceError):
        await wire.wait_end()
    session = wire.connection.session
    assert isinstance(session, Session)
    ghost = YamuxStream(session, inner, inbound=False)
    ghost.send_window = DELUGE
    for _ in range(DELUGE >> 16):
        ghost.queue(bytes(1 << 16))
        wire.connection.wake_writer()
        await trio.sleep(0.001)


async def hoards(wire: Wire) -> None:
    """Begin a node of 2 MiB on as many streams as are taken, and never end it."""
    most = encode(IndexNode(wire.root), 2 * MIB) + bytes(2 * MIB - 1)

    async def hoard() -> None:
        with suppress(NetError, trio.BrokenResourceError):
            stream = await wire.connection.open_stream([PROTOCOL])
            await stream.send_all(most)
            await stream.receive_some()
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(SWARM_STREAMS - 1):
            nursery.start_soon(hoard)
    await trio.sleep(1)


MISDEEDS: dict[str, Misdeed] = {
    misdeed.__name__: misdeed
    for misdeed in (
        rejects, wrong, silent, drips, unasked, endless, oversized, trailing, truncated, flutters,
        streams, greedy, mute, sips, pings, deluge, hoards,
    )
}  # fmt: skip

UNGREETED = frozenset({"hoards"})
"""These do their worst before the greeting."""
