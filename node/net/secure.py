"""From a raw stream to an authenticated, encrypted one with a muxer agreed.

multistream-select for `/noise`, then the handshake; both are pipelined, so that the dialler has its
answer after one round trip. The muxer is agreed inside the handshake, or behind it by
multistream-select when the peer names none there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...wire import multistream, noise, yamux
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ...wire.keys import PrivateKey, PublicKey
from ..environment import RawStream
from .errors import ConnectionLost
from .pump import Pump

if TYPE_CHECKING:
    from .bounds import Budgets
    from .connection import Connection

READ_BYTES = 16 * 1024
"""Read at once before the peer is authenticated. What is kept between reads is bounded by one
line of multistream or one message of the handshake (8 KiB)."""


@immutable
class Secured:
    """What an upgrade gives."""

    raw: RawStream
    session: noise.Session
    cipher: bytes
    """Received and not opened yet."""
    plain: bytes
    """Opened and not yet read: the muxer's first bytes."""
    rtt: float
    """Seconds from our first message to its answer."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self.session.peer

    @property
    def key(self) -> PublicKey:
        """The peer's identity key."""
        return self.session.key

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that both sides of this handshake know, and nobody else."""
        return self.session.handshake_hash

    def mux(self, connection: Connection, budgets: Budgets) -> tuple[yamux.Session, Pump]:
        """Run yamux over the stream."""
        session = yamux.Session(connection.is_initiator, connection, budgets.shared)
        pump = Pump(self.raw, self, session, connection, budgets.run_blocking, budgets.buffers)
        return session, pump


class NoiseKeys:
    """Our Noise keys: one static key for the process, a fresh ephemeral one for each use."""

    def __init__(self, identity: PrivateKey, static: bytes) -> None:
        self.identity = identity
        self.static = static


async def upgrade(
    raw: RawStream,
    keys: NoiseKeys,
    ephemeral: bytes,
    *,
    initiator: bool,
    expected: PeerId | None = None,
) -> Secured:
    """Run the upgrade; the caller brings the deadline and closes `raw` when this fails.

    Raises:
        PeerFault: The peer breaks a protocol or is not who was expected.
        ConnectionLost: It hung up.
    """
    handshake = noise.Handshake(
        keys.identity,
        keys.static,
        ephemeral,
        initiator=initiator,
        expected=expected,
        muxers=[yamux.PROTOCOL],
    )
    started = trio.current_time()
    if initiator:
        await _initiate(raw, handshake)
    else:
        await _respond(raw, handshake)
    assert handshake.session is not None
    rtt = trio.current_time() - started
    session, rest = handshake.session, handshake.remainder
    if session.muxer is not None:
        return Secured(raw, session, rest, b"", rtt)
    channel = _Channel(raw, session, rest)
    await _negotiate_muxer(channel, initiator)
    return Secured(raw, session, bytes(channel.cipher), bytes(channel.plain), rtt)


async def _receive(raw: RawStream) -> bytes:
    try:
        data = await raw.receive_some(READ_BYTES)
    except trio.BrokenResourceError as error:
        raise ConnectionLost("the peer broke off the handshake") from error
    if not data:
        raise ConnectionLost("the peer hung up during the handshake")
    return bytes(data)


async def _send(raw: RawStream, data: bytes) -> None:
    if data:
        try:
            await raw.send_all(data)
        except trio.BrokenResourceError as error:
            raise ConnectionLost("the peer broke off the handshake") from error


async def _initiate(raw: RawStream, handshake: noise.Handshake) -> None:
    selection = multistream.Initiator([noise.PROTOCOL])
    # The first handshake message goes right behind the proposal: one round trip saved.
    await _send(raw, selection.start() + handshake.start())
    while selection.agreed is None:
        selection.receive(await _receive(raw))
        if selection.refused:
            raise PeerFault("no-noise", "the peer does not speak Noise")
    await _send(raw, handshake.receive(selection.remainder))
    while handshake.session is None:
        await _send(raw, handshake.receive(await _receive(raw)))


async def _respond(raw: RawStream, handshake: noise.Handshake) -> None:
    selection = multistream.Responder(lambda name: name == noise.PROTOCOL)
    greeting = selection.start()
    while selection.agreed is None:
        answer = selection.receive(await _receive(raw))
        if selection.agreed is None:
            await _send(raw, greeting + answer)
            greeting = b""
        else:
            greeting += answer
    await _send(raw, greeting + handshake.receive(selection.remainder))
    while handshake.session is None:
        await _send(raw, handshake.receive(await _receive(raw)))


class _Channel:
    """Sends and receives plain bytes over Noise, for the few lines before the muxer."""

    def __init__(self, raw: RawStream, session: noise.Session, cipher: bytes) -> None:
        self._raw = raw
        self._session = session
        self.cipher = bytearray(cipher)
        self.plain = bytearray()
        self._buffer = memoryview(bytearray(noise.MAX_PLAIN))

    async def receive(self) -> bytes:
        """Return the plain bytes of the next frame."""
        while True:
            consumed, produced = self._session.opener.open(memoryview(self.cipher), self._buffer)
            if consumed:
                del self.cipher[:consumed]
                return bytes(self._buffer[:produced])
            self.cipher += await _receive(self._raw)

    async def send(self, data: bytes) -> None:
        """Send plain bytes."""
        if data:
            out = memoryview(bytearray(noise.sealed_size(len(data)) + 18))
            await _send(self._raw, bytes(out[: self._session.sealer.seal(memoryview(data), out)]))


async def _negotiate_muxer(channel: _Channel, initiator: bool) -> None:
    """Agree on yamux by multistream-select inside the encrypted channel."""
    selection: multistream.Initiator | multistream.Responder
    if initiator:
        selection = multistream.Initiator([yamux.PROTOCOL])
    else:
        selection = multistream.Responder(lambda name: name == yamux.PROTOCOL)
    await channel.send(selection.start())
    while selection.agreed is None:
        await channel.send(selection.receive(await channel.receive()))
        if isinstance(selection, multistream.Initiator) and selection.refused:
            raise PeerFault("no-yamux", "the peer does not speak yamux")
    channel.plain += selection.remainder
