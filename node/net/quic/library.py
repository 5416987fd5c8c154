"""One QUIC connection in the library qh3: the only file beside `mutual.py` that touches it.

What is private to qh3 and used here: its native core, whose events we take one by one. The core
lets the peer send more only as its events are taken, so a reader that stops stops the sender;
qh3's own loop takes them all at once. `tests/node/net/quic/test_library.py` holds what is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from qh3._hazmat import CryptoError, pull_quic_header
from qh3.quic import events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.packet import QuicPacketType, encode_quic_retry, encode_quic_version_negotiation
from qh3.quic.tls_bridge import QuicTlsBridge
from qh3.tls import Group

from ....wire.errors import PeerFault
from ....wire.tls_certificate import OwnCertificate
from ...environment import Place
from .happenings import (
    Ended,
    Event,
    IdAdded,
    IdRetired,
    Ponged,
    StreamData,
    StreamFinished,
    StreamReset,
    StreamStopped,
)
from .mutual import SIGNATURES, MutualContext

ALPN: Final = "libp2p"
VERSION: Final = 1
CONNECTION_ID_BYTES: Final = 8
IDLE_SECONDS: Final = 60.0
"""After which a silent connection is over; a ping goes out more often than that."""

OVER: Final = frozenset({"closing", "draining", "terminated"})
"""States of the library's connection in which nothing more can be sent."""

NO_AUTHORITY: Final = 0
"""`ssl.CERT_NONE`: nobody else vouches for a certificate; it is judged by us."""

FAILURES: Final = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, LookupError, RuntimeError),
    *(TypeError, ValueError, OSError, CryptoError, QuicConnectionError),
)
"""What qh3 may raise on bytes that it does not expect: the connection is over then, no more."""

PANICS: Final = "pyo3_runtime"
"""The module of what a broken promise inside its Rust comes out as; it is no `Exception`."""

logging.getLogger("quic").addHandler(logging.NullHandler())
logging.getLogger("quic").propagate = False  # it would write a line for each peer that goes


class Header(NamedTuple):
    """What the start of a packet tells without any key."""

    version: int
    initial: bool
    destination: bytes
    source: bytes
    token: bytes


class _Connection(QuicConnection):
    """qh3's connection: with mutual TLS, and with events that wait in the core until taken."""

    judge: Callable[[bytes], None]

    def _create_tls(self, remote_source_cid: bytes | None) -> QuicTlsBridge:
        bridge = super()._create_tls(remote_source_cid)
        context = bridge.tls
        context.__class__ = MutualContext
        assert isinstance(context, MutualContext)
        context.judge = self.judge
        # One packet is enough for the client's first flight without the post-quantum share.
        context._supported_groups = [Group.X25519, Group.SECP256R1]
        context._compress_certificate_algorithms = None
        return bridge

    def _drain_core(self) -> None:
        if not self._handshake_complete:
            super()._drain_core()


class Engine:
    """One connection: bytes in and out, and what happened.

    Args:
        client: Whether we dial.
        certificate: Ours.
        judge: Looks at the peer's certificate; its `PeerFault` ends the handshake.
        window: Bytes that the peer may send on a stream, and on all streams together, before they
            are taken.
        datagram: Bytes of the largest datagram to begin with.
        original: For a server: the connection id that the client made up.
        retried: For a server: the connection id of the Retry that was sent before.
    """

    def __init__(
        self,
        *,
        client: bool,
        certificate: OwnCertificate,
        judge: Callable[[bytes], None],
        window: int,
        datagram: int,
        original: bytes | None = None,
        retried: bytes | None = None,
    ) -> None:
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN],
            connection_id_length=CONNECTION_ID_BYTES,
            idle_timeout=IDLE_SECONDS,
            is_client=client,
            max_data=window,
            max_stream_data=window,
            max_datagram_size=datagram,
            signature_algorithms=list(SIGNATURES),
            verify_mode=NO_AUTHORITY,
        )
        configuration.load_cert_chain(certificate.certificate, certificate.key)
        self._quic = _Connection(
            configuration=configuration,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        self._quic.judge = judge
        self.id: bytes = self._quic.host_cid
        """The connection id by which the peer calls us."""

    # Handshake

    def connect(self, place: Place, now: float) -> None:
        """Begin to dial."""
        self._quic.connect(place, now)

    @property
    def established(self) -> bool:
        """Whether the handshake is over and the peer has proved who it is."""
        return self._quic._handshake_complete

    @property
    def fault(self) -> PeerFault | None:
        """Why the peer was refused, if it was."""
        context = self._quic.tls
        return context.fault if isinstance(context, MutualContext) else None

    @property
    def exporter(self) -> bytes:
        """32 bytes that both sides of this handshake know, and nobody else."""
        context = self._quic.tls
        assert isinstance(context, MutualContext)
        return context.exporter

    @property
    def heard(self) -> bool:
        """Whether the other side has answered with something that only it could send."""
        core = self._quic._core
        return core is not None and core.received_authenticated_packet

    @property
    def rtt(self) -> float | None:
        """Round trip in seconds, smoothed; None before the first."""
        core = self._quic._core
        return None if core is None else core.smoothed_rtt

    @property
    def in_flight(self) -> int:
        """Bytes sent and not acknowledged."""
        core = self._quic._core
        return 0 if core is None else core.bytes_in_flight

    @property
    def congestion_window(self) -> int:
        """Bytes that may be on their way."""
        core = self._quic._core
        return 0 if core is None else core.congestion_window

    # Datagrams

    def receive(self, data: bytes, size: int, place: Place, now: float) -> None:
        """Take datagrams, each of `size` bytes but the last.

        Raises:
            FAILURES: They confuse the library; the connection is over.
        """
        if size >= len(data):
            self._quic.receive_datagram(data, place, now)
        else:
            self._quic.receive_gro_buffer(data, size, place, now)

    def transmit(self, now: float, most: int) -> list[bytes]:
        """Return up to `most` datagrams to send now."""
        core = self._quic._core
        out: list[bytes] = []
        while core is not None and len(out) < most:
            found = core.poll_transmit(now)
            if found is None:
                break
            out.append(found[0])
        return out

    @property
    def place(self) -> Place | None:
        """Where the peer is now; it may move."""
        core = self._quic._core
        return None if core is None else core.active_path[2]

    @property
    def timer(self) -> float | None:
        """When `handle_timer` is to be called."""
        return self._quic.get_timer()

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._quic.handle_timer(now)

    # Events

    def take(self) -> Event | None:
        """Return what happened next; only this lets the peer send more stream bytes."""
        while True:
            waiting = self._quic.next_event()
            if waiting is not None:
                found = _translated(waiting)
            else:
                core = self._quic._core
                native = core.next_event() if core is not None and self.established else None
                if native is None:
                    return None
                found = self._native(core, native)
            if found is not None:
                return found

    def _native(self, core: Any, native: tuple[Any, ...]) -> Event | None:
        match native:
            case ("stream_data", stream, data, fin):
                return StreamData(stream, data, fin)
            case ("stream_reset", stream, *_):
                return StreamReset(stream)
            case ("stop_sending", stream, *_):
                return StreamStopped(stream)
            case ("stream_finished", stream, *_):
                return StreamFinished(stream)
            case ("ping_acknowledged", uid, *_):
                return Ponged(uid)
            case ("handshake_done", *_):
                core.handshake_confirmed()
            case ("connection_id_issued", connection_id, *_):
                return IdAdded(connection_id)
            case ("connection_id_retired", connection_id, *_):
                return IdRetired(connection_id)
            case ("peer_closed", _, code, _, reason):
                return Ended(code, bytes(reason).decode("utf-8", "replace"), True)
            case ("protocol_error", code, _, reason):
                return Ended(code, str(reason), False)
            case ("connection_terminated", code, _, reason):
                return Ended(code, bytes(reason).decode("utf-8", "replace"), False)
            case _:
                pass  # session tickets, address tokens and datagram frames are of no use to us
        return None

    # Streams

    @property
    def can_open(self) -> bool:
        """Whether the peer allows one more stream of ours."""
        core = self._quic._core
        if core is None or core.state in OVER:
            return False
        allowed, _, opened, _ = core.stream_limits
        return opened < allowed

    def open(self) -> int:
        """Open a stream in both directions; ask `can_open` before."""
        assert self._quic._core is not None
        return self._quic._core.open_stream(False)

    def send(self, stream: int, data: memoryview | bytes, fin: bool) -> bool:
        """Queue a copy of bytes of a stream; False = it was stopped, or all is over."""
        assert self._quic._core is not None
        try:
            self._quic._core.send_stream(stream, data, fin)
        except (ValueError, RuntimeError):
            return False
        return True

    def queued(self, stream: int | None = None) -> int:
        """Return the bytes of a stream, or of all, that have not been sent yet."""
        core = self._quic._core
        return 0 if core is None else core.get_send_buffer_size(stream)

    def reset(self, stream: int) -> None:
        """End our half of a stream before its time; nothing happens if it has ended."""
        self._quietly("reset_stream", stream)

    def stop(self, stream: int) -> None:
        """Ask the peer to end its half of a stream; nothing happens if it has ended."""
        self._quietly("stop_sending", stream)

    def _quietly(self, operation: str, stream: int) -> None:
        with suppress(ValueError, RuntimeError):  # over already
            getattr(self._quic._core, operation)(stream, 0)

    def ping(self, number: int) -> None:
        """Send a ping; nothing happens if the connection is over."""
        with suppress(QuicConnectionError):
            self._quic.send_ping(number)

    def close(self, code: int, reason: str) -> None:
        """Say that the connection is over; `transmit` gives the datagram."""
        if self._quic._core is not None:
            self._quic._core.close(code, None, reason.encode()[:256])


def _translated(event: Any) -> Event | None:
    match event:
        case events.ConnectionTerminated():
            return Ended(event.error_code, event.reason_phrase, False)
        case events.StreamDataReceived():
            return StreamData(event.stream_id, event.data, event.end_stream)
        case events.StreamReset():
            return StreamReset(event.stream_id)
        case events.StopSendingReceived():
            return StreamStopped(event.stream_id)
        case events.ConnectionIdIssued():
            return IdAdded(event.connection_id)
        case events.ConnectionIdRetired():
            return IdRetired(event.connection_id)
        case _:
            return None


def read_header(datagram: bytes) -> Header | None:
    """Read the first packet's long header; None if it is none that can begin a connection."""
    try:
        version, kind, _, destination, source, token, *_ = pull_quic_header(
            datagram, 0, CONNECTION_ID_BYTES
        )
    except (ValueError, OverflowError):
        return None
    if version is None:
        return None
    return Header(version, kind == QuicPacketType.INITIAL, destination, source, token)


def retry_packet(header: Header, ours: bytes, token: bytes) -> bytes:
    """Return the Retry that asks a client to come again with a token (RFC 9000, 8.1.2)."""
    return encode_quic_retry(
        version=VERSION,
        source_cid=ours,
        destination_cid=header.source,
        original_destination_cid=header.destination,
        retry_token=token,
    )


def version_packet(destination: bytes, source: bytes) -> bytes:
    """Return the Version Negotiation packet that answers a version other than ours."""
    return encode_quic_version_negotiation(
        source_cid=destination, destination_cid=source, supported_versions=[VERSION]
    )
