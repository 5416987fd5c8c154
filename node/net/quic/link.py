"""One QUIC connection on an endpoint's socket: its timers, its datagrams, its handshake."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ....wire.addresses import quic_addr
from ....wire.errors import PeerFault
from ....wire.ids import PeerId
from ....wire.immutable import immutable
from ....wire.keys import PublicKey
from ....wire.tls_certificate import check_certificate
from ...environment import Place
from ..errors import ConnectionLost
from .happenings import Ended, Event, IdAdded, IdRetired, StreamData
from .library import FAILURES, PANICS, Engine
from .pump import QuicPump
from .session import QuicSession

if TYPE_CHECKING:
    from ..bounds import Budgets
    from ..connection import Connection
    from .endpoint import Endpoint

SENT_AT_ONCE = 128
"""Datagrams laid out before they are sent: two calls' worth on Linux."""

MAX_UNTAKEN = 4
"""Windows full of datagrams that are taken in while nobody takes events; more are dropped."""

CLOSED = 0
BROKEN = 1
"""Application error codes of a connection's end; libp2p defines no others."""


@immutable
class QuicSecured:
    """What the handshake gave (see `muxing.Security`)."""

    link: Link
    key: PublicKey
    handshake_hash: bytes
    rtt: float

    @property
    def peer(self) -> PeerId:
        """Who is at the other end."""
        return self.key.peer_id

    def mux(self, connection: Connection, budgets: Budgets) -> tuple[QuicSession, QuicPump]:
        """Run the connection's streams as streams of QUIC."""
        session = QuicSession(self.link.engine, connection, budgets.shared, client=self.link.client)
        return session, QuicPump(self.link, session, connection, budgets.run_blocking)


class Link:
    """A connection's raw end; it ends with `aclose`.

    Args:
        endpoint: The socket that it uses.
        place: Where the peer is.
        client: Whether we dial.
        window: Bytes that the peer may send before they are taken.
        make: Makes the engine, given who judges the peer's certificate.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        place: Place,
        *,
        client: bool,
        window: int,
        make: Callable[[Callable[[bytes], None]], Engine],
    ) -> None:
        self.client = client
        self.remote: Multiaddr = quic_addr(*place[:2])
        self.local: Multiaddr = quic_addr(*endpoint.name[:2])
        self.bytes_in = self.bytes_out = 0
        self.failed = ""
        """Why it is over; empty while it is not."""
        self.ids: set[bytes] = set()
        """The connection ids by which its datagrams are known."""
        self.window = window
        self._endpoint = endpoint
        self._place = place
        self._wake = trio.Event()
        self._early: deque[Event] = deque()  # events that are for who comes after the handshake
        self._untaken = 0
        self._key: PublicKey | None = None
        self._fault: PeerFault | None = None
        self._closed = False
        self.engine = make(self._judge)

    def _judge(self, certificate: bytes) -> None:
        self._key = check_certificate(certificate, self._endpoint.wall_clock())

    # Life

    async def first_answer(self) -> None:
        """Wait until the other side has answered at all; the caller brings the deadline.

        Raises:
            ConnectionLost, PeerFault: It went wrong.
        """
        await self._until(lambda: self.engine.heard)

    async def secure(self, expected: PeerId | None) -> QuicSecured:
        """Finish the handshake; the caller brings the deadline and closes when this fails.

        Raises:
            PeerFault: The peer breaks the protocol or is not who was expected.
            ConnectionLost: It ended the connection.
        """
        await self._until(lambda: self.engine.established)
        key = self._key
        if key is None:
            raise PeerFault("tls-certificate", "none")
        if expected is not None and key.peer_id != expected:
            self._end(BROKEN, "another peer was expected")
            raise PeerFault("tls-wrong-peer", f"{key.peer_id} instead of {expected}")
        self._endpoint.established(self)
        return QuicSecured(self, key, self.engine.exporter, self.engine.rtt or 0.1)

    async def _until(self, done: Callable[[], bool]) -> None:
        while not done():
            await self.flush()
            self._take_early()
            if done():
                break
            self.check()
            await self.wait()
        await self.flush()

    def check(self) -> None:
        """Raise why it is over, if it is.

        Raises:
            PeerFault: The peer is at fault.
            ConnectionLost: The connection has ended.
        """
        self.check_fault()
        if self.failed:
            raise ConnectionLost(self.failed)

    def check_fault(self) -> None:
        """Raise the peer's fault, if there is one."""
        fault = self._fault or self.engine.fault
        if fault is not None:
            raise fault

    def ended(self, event: Ended) -> None:
        """Take note that the connection is over."""
        self.failed = self.failed or (
            f"the peer closed the connection: {told(event)}" if event.by_peer else told(event)
        )

    async def aclose(self) -> None:
        """End it at once, with a word to the peer if one can be sent without waiting."""
        self._end(CLOSED, "")
        await trio.lowlevel.checkpoint()

    def close(self, code: int, reason: str) -> None:
        """As `aclose`, and say why."""
        self._end(code, reason)

    def _end(self, code: int, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        last: list[bytes] = []
        with self._guarded():
            self.engine.close(code, reason)
            last = self.engine.transmit(trio.current_time(), SENT_AT_ONCE)
        for datagram in last[-1:]:  # what says that it is over
            self.bytes_out += len(datagram)
            self._endpoint.socket.send_now(datagram, self.place)
        self.failed = self.failed or "the connection was closed"
        self._endpoint.forget(self, last[-1] if last else b"")
        self.wake()

    # Bytes

    @property
    def place(self) -> Place:
        """Where the peer is now; it may move behind its NAT."""
        return self.engine.place or self._place

    def receive(self, data: bytes, size: int, place: Place) -> None:
        """Take datagrams that came for this connection, each of `size` bytes but the last."""
        if self._closed or self._untaken > MAX_UNTAKEN * self.window:
            return
        self.bytes_in += len(data)
        self._untaken += len(data)
        with self._guarded():
            self.engine.receive(data, size, place, trio.current_time())
        self.wake()

    def take(self) -> Event | None:
        """Return what happened next; only this lets the peer send more."""
        while True:
            event: Event | None = None
            if self._early:
                event = self._early.popleft()
            else:
                with self._guarded():
                    event = self.engine.take()
            if event is None:
                self._untaken = 0
                return None
            if isinstance(event, StreamData):
                self._untaken = max(0, self._untaken - len(event.data))
            if not self._about_ids(event):
                return event

    def _take_early(self) -> None:
        """Take note of ids and of the end; the rest is kept. Nothing of a stream is there yet."""
        while not self.engine.established:
            event: Event | None = None
            with self._guarded():
                event = self.engine.take()
            if event is None:
                return
            if isinstance(event, Ended):
                self.failed = self.failed or f"the handshake failed: {told(event)}"
            elif not self._about_ids(event):
                self._early.append(event)

    def _about_ids(self, event: Event) -> bool:
        match event:
            case IdAdded(connection_id):
                self._endpoint.know(connection_id, self)
            case IdRetired(connection_id):
                self._endpoint.unknow(connection_id, self)
            case _:
                return False
        return True

    async def flush(self) -> bool:
        """Do what is due and send what can be sent; True = there may be more."""
        now = trio.current_time()
        datagrams: list[bytes] = []
        with self._guarded():
            timer = self.engine.timer
            if timer is not None and timer <= now:
                self.engine.handle_timer(now)
            datagrams = self.engine.transmit(now, SENT_AT_ONCE)
        if not datagrams:
            await trio.lowlevel.checkpoint()
            return False
        self.bytes_out += sum(map(len, datagrams))
        await self._endpoint.socket.send(datagrams, self.place)
        return len(datagrams) == SENT_AT_ONCE

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._wake.set()

    async def wait(self, until: float = math.inf) -> None:
        """Wait for a datagram, a timer, `wake` or the time `until`."""
        with self._guarded():
            timer = self.engine.timer
            until = until if timer is None else min(until, timer)
        with trio.move_on_at(until):
            await self._wake.wait()
        self._wake = trio.Event()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """What the library raises is the end of this connection, and of no other."""
        try:
            yield
        # A panic of the library's Rust is a BaseException; all that is not the library's goes on.
        except BaseException as error:
            if not isinstance(error, FAILURES) and type(error).__module__ != PANICS:
                raise
            why = f"{type(error).__name__}: {error}"
            self._fault = self._fault or self.engine.fault or PeerFault("quic-library", why[:200])
            self.failed = self.failed or "the connection broke"


def told(event: Ended) -> str:
    """Return why a connection ended, in words."""
    reason = f" ({event.reason[:200]})" if event.reason else ""
    return f"QUIC error {event.code:#x}{reason}" if event.code or reason else "it was closed"
