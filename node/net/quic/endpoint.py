"""One UDP socket with all the QUIC connections on it: listening, dialling and punching alike.

Datagrams are told apart by connection id. Nobody's datagram costs more than a look: a connection
begins with a whole first flight alone, half-open ones are bounded, and beyond a few of them a
client has to show first that it gets what is sent to its address (Retry).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio
from multiaddr import Multiaddr

from ....wire.addresses import quic_addr
from ....wire.immutable import immutable
from ....wire.scopes import Scope, scope_of_ip, unmapped
from ....wire.tls_certificate import OwnCertificate
from ....wire.yamux_stream import Budget
from ...environment import DatagramSocket, Place
from ..tcp import LOOK_SECONDS, interface_addresses
from .library import (
    CONNECTION_ID_BYTES,
    VERSION,
    Engine,
    Header,
    read_header,
    retry_packet,
    version_packet,
)
from .link import Link

READS = 32
"""Reads of the socket before other tasks have their turn."""

FIRST_BYTES = 1200
"""The least size of a datagram that begins a connection (RFC 9000, 14.1)."""

MAX_HALF_OPEN = 64
MAX_HALF_OPEN_PER_IP = 16
"""Inbound handshakes under way, in all and from one global IP (IPv6: /64)."""

RETRY_FROM = 16
"""Inbound handshakes under way from which on an address must be proved first."""

RETRY_SECONDS = 10.0
"""For which a Retry's token is good."""

SMALL_WINDOW = 256 * 1024
ACCEPTED_WINDOW = 1 << 20
DIALLED_WINDOW = 4 << 20
"""Bytes that a peer may send before they are taken. What goes beyond the small one comes from the
process's budget for windows; content mostly flows to who dialled."""

LOOPBACK_DATAGRAM = 1452
DATAGRAM = 1232
"""Bytes of a datagram: an Ethernet's worth on this machine; elsewhere what every path carries (the
least MTU of IPv6, less its headers), until probes have shown that it carries more."""

MAX_GONE = 256
GONE_SECONDS = 5.0
"""Connections that we ended, whose last word is said again to who did not get it."""

MAX_AMPLIFIED = 3
"""How many times what came may be sent to an address that is not proved (RFC 9000, 8.1)."""

MAX_IDS = 32
"""Connection ids of one connection."""


@immutable
class _Gone:
    """What is left of a connection that we ended."""

    last: bytes
    place: Place
    until: float


class Endpoint:
    """See the top of the file; `run` must be running.

    Args:
        socket: Bound already; the endpoint closes it.
        certificate: Ours.
        secret: 32 random bytes, for the tokens of Retry.
        random: Gives so many random bytes.
        wall_clock: Returns Unix time.
        budget: Where windows come from.
        count: Counts something that went wrong, by a short reason.
    """

    def __init__(
        self,
        socket: DatagramSocket,
        certificate: OwnCertificate,
        *,
        random: Callable[[int], bytes],
        wall_clock: Callable[[], float],
        budget: Budget,
        count: Callable[[str], None],
    ) -> None:
        self.socket = socket
        self.name = socket.name
        self.wall_clock = wall_clock
        self.accepting = False
        """Whether peers may dial us here."""
        self.on_stray: Callable[[bytes, Place], None] | None = None
        """Told of datagrams that are no QUIC of ours (tests)."""
        self._certificate = certificate
        self._secret = random(32)
        self._random = random
        self._budget = budget
        self._count = count
        self._links: dict[bytes, Link] = {}
        self._half_open: dict[Link, bytes | None] = {}
        self._gone: dict[bytes, _Gone] = {}
        self._arrived, self._arriving = trio.open_memory_channel[Link](MAX_HALF_OPEN)
        self._looked_at = float("-inf")
        self._addrs: tuple[Multiaddr, ...] = ()

    # Life

    async def run(self) -> None:
        """Read the socket until it is closed."""
        with suppress(trio.ClosedResourceError):
            while True:
                await self.socket.wait_readable()
                for _ in range(READS):
                    came = self.socket.receive()
                    if came is None:
                        break
                    self._receive(*came)
                await trio.lowlevel.checkpoint()

    async def accept(self) -> Link:
        """Wait for a peer that begins a connection.

        Raises:
            trio.ClosedResourceError: It listens no longer.
        """
        try:
            return await self._arriving.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """Take no more connections; those that are there go on until `close`."""
        self.accepting = False
        self._arrived.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """End all connections and close the socket."""
        self.accepting = False
        self._arrived.close()
        for link in set(self._links.values()):
            link.close(0, "")
        self.socket.close()

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        """Concrete addresses that reach this socket; those of a wildcard may change."""
        now = trio.current_time()
        if now >= self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            host, port = self.name[:2]
            hosts = [host]
            if ipaddress.ip_address(host).is_unspecified:
                hosts = interface_addresses(six=self.six)
            self._addrs = tuple(quic_addr(each, port) for each in hosts)
        return self._addrs

    @property
    def six(self) -> bool:
        """Whether it is a socket of IPv6."""
        return ":" in self.name[0]

    def reaches(self, host: str) -> bool:
        """Return whether connections to an address can be made from here."""
        own, ip = ipaddress.ip_address(self.name[0]), ipaddress.ip_address(host)
        if own.version != ip.version:
            return False
        return own.is_unspecified or own.is_loopback == ip.is_loopback

    # Connections

    def dial(self, place: Place) -> Link:
        """Begin a connection; the caller finishes it with `Link.secure`, or closes it."""
        link = self._link(place, DIALLED_WINDOW, client=True)
        link.engine.connect(place, trio.current_time())
        self.know(link.engine.id, link)
        return link

    def send_stray(self, data: bytes, place: Place) -> None:
        """Send a datagram that is none of QUIC, to open a NAT for what comes from there."""
        self.socket.send_now(data, place)

    def know(self, connection_id: bytes, link: Link) -> None:
        """Route what is sent to a connection id to a connection."""
        if len(link.ids) < MAX_IDS and connection_id not in self._links:
            link.ids.add(connection_id)
            self._links[connection_id] = link

    def unknow(self, connection_id: bytes, link: Link) -> None:
        """Forget a connection id."""
        if connection_id in link.ids:
            link.ids.discard(connection_id)
            del self._links[connection_id]

    def established(self, link: Link) -> None:
        """Take note that a handshake is over."""
        self._half_open.pop(link, None)

    def forget(self, link: Link, last: bytes) -> None:
        """Forget a connection that has ended; `last` is said again to who did not get it."""
        now = trio.current_time()
        self._half_open.pop(link, None)
        self._budget.windows += link.window - SMALL_WINDOW
        gone = _Gone(last, link.place, now + GONE_SECONDS)
        for connection_id in link.ids:
            self._links.pop(connection_id, None)
            if last:
                self._gone[connection_id] = gone
        while len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]
        link.ids.clear()

    @property
    def half_open(self) -> int:
        """Inbound handshakes under way."""
        return len(self._half_open)

    def __len__(self) -> int:
        """Return how many connections there are."""
        return len(set(self._links.values()))

    def _link(
        self,
        place: Place,
        wanted: int,
        *,
        client: bool,
        original: bytes | None = None,
        retried: bytes | None = None,
    ) -> Link:
        """Make one end of a connection, with the window that is wanted if there is budget."""
        window = self._take_window(wanted)

        def make(judge: Callable[[bytes], None]) -> Engine:
            return Engine(
                client=client,
                certificate=self._certificate,
                judge=judge,
                window=window,
                datagram=_datagram(place),
                original=original,
                retried=retried,
            )

        return Link(self, place, client=client, window=window, make=make)

    def _take_window(self, wanted: int) -> int:
        if self._budget.windows < wanted - SMALL_WINDOW:
            return SMALL_WINDOW
        self._budget.windows -= wanted - SMALL_WINDOW
        return wanted

    # Datagrams

    def _receive(self, data: bytes, size: int, place: Place) -> None:
        if len(data) <= size:
            self._route(data, len(data), place)
            return
        ids = {_short_id(data, at) for at in range(0, len(data), size)}
        if len(ids) == 1 and None not in ids:
            self._route(data, size, place)
            return
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            self._route(piece, len(piece), place)

    def _route(self, data: bytes, size: int, place: Place) -> None:
        """Take datagrams of one connection, all of `size` bytes but the last."""
        found = _short_id(data, 0)
        if found is None:
            if len(data) < 7 or len(data) < 6 + data[5]:
                self._stray(data, place)
                return
            found = data[6 : 6 + data[5]]
        link = self._links.get(found)
        if link is not None:
            link.receive(data, size, place)
        elif (gone := self._gone.get(found)) is not None:
            if trio.current_time() >= gone.until or place != gone.place:
                del self._gone[found]
            elif len(gone.last) <= MAX_AMPLIFIED * len(data):
                self.socket.send_now(gone.last, place)
        elif data[0] & 0x80 and self.accepting and size >= FIRST_BYTES:
            self._begin(data[:size], place)
        else:
            self._stray(data, place)

    def _stray(self, data: bytes, place: Place) -> None:
        if self.on_stray is not None:
            self.on_stray(data, place)

    def _begin(self, data: bytes, place: Place) -> None:
        """Take a datagram that may begin a connection."""
        header = read_header(data)
        if header is None:
            self._stray(data, place)
        elif header.version != VERSION:
            if header.version and len(header.source) <= 20 and len(header.destination) <= 20:
                answer = version_packet(header.source, header.destination)
                self.socket.send_now(answer, place)
        elif header.initial and len(header.destination) >= CONNECTION_ID_BYTES:
            self._admit(header, data, place)

    def _admit(self, header: Header, data: bytes, place: Place) -> None:
        group = _group(place)
        if len(self._half_open) >= MAX_HALF_OPEN:
            self._count("quic-half-open")
            return
        if group is not None and list(self._half_open.values()).count(group) >= (
            MAX_HALF_OPEN_PER_IP
        ):
            self._count("quic-half-open-ip")
            return
        original, retried = header.destination, None
        if header.token:
            told = self._read_token(header.token, header.destination, place)
            if told is not None:
                original, retried = told, header.destination
        if retried is None and len(self._half_open) >= RETRY_FROM:
            fresh = self._random(CONNECTION_ID_BYTES)
            token = self._token(original, fresh, place)
            self.socket.send_now(retry_packet(header, fresh, token), place)
            return
        link = self._link(place, ACCEPTED_WINDOW, client=False, original=original, retried=retried)
        self._half_open[link] = group
        self.know(header.destination, link)
        self.know(link.engine.id, link)
        link.receive(data, len(data), place)
        try:
            self._arrived.send_nowait(link)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            link.close(1, "busy")

    def _token(self, original: bytes, ours: bytes, place: Place) -> bytes:
        until = int(trio.current_time() + RETRY_SECONDS)
        body = until.to_bytes(8, "big") + original
        return body + self._mac(body + b"|" + ours, place)

    def _read_token(self, token: bytes, ours: bytes, place: Place) -> bytes | None:
        """Return the connection id of the client's first flight, if the token is good."""
        body, mac = token[:-32], token[-32:]
        if len(body) < 8 or not hmac.compare_digest(mac, self._mac(body + b"|" + ours, place)):
            return None
        if int.from_bytes(body[:8], "big") < trio.current_time():
            return None
        return body[8:]

    def _mac(self, data: bytes, place: Place) -> bytes:
        return hmac.digest(self._secret, repr(place[:2]).encode() + data, "sha256")


def _short_id(data: bytes, at: int) -> bytes | None:
    """Return the connection id of a packet with a short header; None = it has a long one."""
    if at >= len(data) or data[at] & 0x80:
        return None
    return data[at + 1 : at + 1 + CONNECTION_ID_BYTES]


def _group(place: Place) -> bytes | None:
    """Return what counts as one source: a global IPv4 address or IPv6 /64; None = no limit."""
    ip = unmapped(ipaddress.ip_address(place[0].partition("%")[0]))
    if scope_of_ip(ip) is not Scope.GLOBAL:
        return None
    return ip.packed[:8]


def _datagram(place: Place) -> int:
    ip = unmapped(ipaddress.ip_address(place[0].partition("%")[0]))
    return LOOPBACK_DATAGRAM if scope_of_ip(ip) is Scope.LOOPBACK else DATAGRAM
