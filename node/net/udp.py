"""UDP sockets of a real node: many datagrams in one call where the system can (Linux)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

import trio

from ..environment import Place

SOCKET_BUFFER = 4 << 20
"""Asked for in both directions; the system may give less (`net.core.rmem_max`)."""

MAX_READ = 1 << 16
UDP_SEGMENT = 103
UDP_GRO = 104
"""Options of Linux (`linux/udp.h`): one call for many datagrams of one size."""

MAX_SEGMENTS = 64
MAX_BATCH = 65_000
"""What one call may send (Linux: 64 segments, 64 KiB)."""

IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PROBE = 3
"""Never in fragments, and whatever the kernel thinks of the path: QUIC finds out itself."""

LOST = frozenset(
    {
        *(errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EMSGSIZE, errno.EPERM),
        *(errno.EACCES, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.EINVAL, errno.EIO),
        *(errno.EHOSTDOWN, errno.ENETDOWN),
    }
)
"""Errors that say something of one datagram or address, and nothing of the socket."""


class UdpSocket:
    """A bound UDP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._turn = trio.Lock()
        self._groups = False  # whether the system joins and cuts datagrams for us
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with suppress(OSError):  # some systems give all or nothing
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        if sys.platform == "linux":
            six = sock.family == socket.AF_INET6
            level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
            try:
                sock.setsockopt(level, IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER, PROBE)
                sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
                self._groups = True
            except OSError:
                pass  # an old kernel: the slow way

    @property
    def name(self) -> Place:
        """The address that it is bound to."""
        found: Place = self._socket.getsockname()
        return found

    async def wait_readable(self) -> None:
        """Wait for a datagram.

        Raises:
            trio.ClosedResourceError: The socket was closed.
        """
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_readable(self._socket)

    def receive(self) -> tuple[bytes, int, Place] | None:
        """Return bytes, the size of each datagram in them, and the sender; None = nothing there."""
        try:
            data, options, _, peer = self._socket.recvmsg(MAX_READ, socket.CMSG_SPACE(4))
        except OSError as error:
            if error.errno == errno.EBADF:
                raise trio.ClosedResourceError from error
            return None  # nothing there, or an ICMP answer to what we sent
        if "%" in peer[0]:  # the zone of a link-local address stands in its number as well
            peer = (peer[0].partition("%")[0], *peer[1:])
        for _, kind, value in options:
            if kind == UDP_GRO and len(value) >= 4:
                return data, max(1, struct.unpack("@i", value[:4])[0]), peer
        return data, max(1, len(data)), peer

    async def send(self, datagrams: Sequence[bytes], place: Place) -> None:
        """Send datagrams to one address, in order; what the network refuses is lost.

        Raises:
            trio.ClosedResourceError: The socket was closed.
        """
        await trio.lowlevel.checkpoint()
        at = 0
        while at < len(datagrams):
            until = self._batch(datagrams, at)
            if self._send(datagrams[at:until], place):
                at = until
            elif self._socket.fileno() < 0:
                raise trio.ClosedResourceError
            else:
                async with self._turn:  # one task at a time may wait
                    if self._socket.fileno() < 0:
                        raise trio.ClosedResourceError
                    await trio.lowlevel.wait_writable(self._socket)

    def send_now(self, datagram: bytes, place: Place) -> None:
        """Send one datagram if that is possible without waiting."""
        self._send([datagram], place)

    def _batch(self, datagrams: Sequence[bytes], at: int) -> int:
        """Return where the run that starts at `at` ends: of one size, the last may be shorter."""
        until = at + 1
        size = len(datagrams[at])
        if self._groups and size:
            most = min(len(datagrams), at + min(MAX_SEGMENTS, MAX_BATCH // size))
            while until < most:
                until += 1
                if len(datagrams[until - 1]) != size:
                    return until - (len(datagrams[until - 1]) > size)
        return until

    def _send(self, batch: Sequence[bytes], place: Place) -> bool:
        """Send with one call; False = there is no room now (or the socket is closed)."""
        options = []
        if len(batch) > 1:
            options = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("@H", len(batch[0])))]
        try:
            self._socket.sendmsg(batch, options, 0, place)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in LOST and len(batch) > 1 and self._groups:
                # The path or the card may be at odds with large batches: one by one says which.
                for datagram in batch:
                    self._send([datagram], place)
            elif error.errno not in LOST:
                return False
        return True

    def close(self) -> None:
        """Close it; who waits for it is woken."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


class UdpDoor:
    """Opens UDP sockets."""

    async def bind(self, host: str, port: int) -> UdpSocket:
        """Open a socket on an address; port 0 takes a free one.

        Raises:
            OSError: The address is in use or not ours.
        """
        await trio.lowlevel.checkpoint()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            target = socket.getaddrinfo(
                host, port, family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )[0][4]
            sock.bind(target)
            return UdpSocket(sock)
        except BaseException:
            sock.close()
            raise
