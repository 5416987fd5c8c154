"""The transport of real nodes: TCP over IPv4 and IPv6, with names resolved on demand."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress

import trio
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from ...wire.addresses import host_port, is_name, tcp_addr

BACKLOG = 128
"""Inbound connections that the kernel keeps until we accept them."""

MAX_RESOLVED = 16
"""Addresses taken from one name."""

RESOLVE_SECONDS = 10.0

LOOK_SECONDS = 2.0
"""Between two looks at the addresses of this machine's interfaces."""

LEAST_UNSENT = 1 << 14
"""Bytes that the kernel takes beyond those that are on their way, as trio sets it: what waits there
cannot be overtaken by a ping. It is raised to what one call brings (senders give about 50 ms of
their rate): with so little a MiB takes seven calls."""


class TcpStream(trio.abc.HalfCloseableStream):
    """A TCP connection: trio's stream, with its addresses and reads into a given buffer."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._plain = socket.socket(fileno=sock.detach())
        self._socket = sock = trio.socket.from_stdlib_socket(self._plain)
        self._stream = trio.SocketStream(sock)  # sets TCP_NODELAY
        self._sending = False
        self._unsent = LEAST_UNSENT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._remote = _addr(sock.getpeername())
        self._local = _addr(sock.getsockname())

    @property
    def remote(self) -> Multiaddr:
        """The other end's address."""
        return self._remote

    @property
    def local(self) -> Multiaddr:
        """Our end's address."""
        return self._local

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them at the buffer's start; 0 = the peer sends no more.

        Raises:
            trio.BrokenResourceError: The connection broke.
            trio.ClosedResourceError: It was closed on our side.
        """
        await trio.lowlevel.checkpoint()
        try:
            while True:
                try:
                    return self._open().recv_into(buffer)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._plain)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As `trio.abc.ReceiveStream.receive_some`."""
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        self._not_busy()
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            if self._socket.did_shutdown_SHUT_WR:
                raise trio.ClosedResourceError("nothing is sent behind the end")
            left = memoryview(data)
            if not self._unsent // 4 < len(left) <= self._unsent:
                self._allow_unsent(max(len(left), LEAST_UNSENT))
            while True:
                with suppress(BlockingIOError):
                    left = left[self._open().send(left) :]
                if not left:
                    return
                await trio.lowlevel.wait_writable(self._plain)
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._sending = False

    def _allow_unsent(self, count: int) -> None:
        if count != self._unsent:
            self._unsent = count
            with suppress(OSError, AttributeError):  # not on every system
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, count)

    def _not_busy(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")

    def _open(self) -> socket.socket:
        if self._plain.fileno() < 0:
            raise trio.ClosedResourceError("this stream was closed")
        return self._plain

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        self._not_busy()
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        self._not_busy()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        await self._stream.aclose()


class TcpListener:
    """A listening socket; a wildcard address stands for all interfaces of its family."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock
        self._host, self._port = sock.getsockname()[:2]
        self._looked_at = trio.current_time()
        self._addrs = self._look()

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        """Concrete addresses that reach this socket; those of a wildcard may change."""
        if trio.current_time() >= self._looked_at + LOOK_SECONDS:
            self._looked_at = trio.current_time()
            self._addrs = self._look()
        return self._addrs

    def _look(self) -> tuple[Multiaddr, ...]:
        if not ipaddress.ip_address(self._host).is_unspecified:
            return (tcp_addr(self._host, self._port),)
        ips = interface_addresses(six=self._socket.family == socket.AF_INET6)
        return tuple(tcp_addr(ip, self._port) for ip in ips)

    async def accept(self) -> TcpStream:
        """Wait for the next connection.

        Raises:
            OSError: Nothing can be accepted now (no file descriptor left).
            trio.ClosedResourceError: It listens no longer.
        """
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError
            sock, _ = await self._socket.accept()
            try:
                return TcpStream(sock)
            except OSError:
                sock.close()  # it was gone before we could look at it

    async def aclose(self) -> None:
        """Stop listening."""
        self._socket.close()
        await trio.lowlevel.checkpoint()


class TcpTransport:
    """Dials and listens on `/ip4|ip6/…/tcp/…`."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Return whether it is a plain TCP address or a name."""
        return host_port(addr) is not None or is_name(addr)

    async def dial(self, addr: Multiaddr, *, source_port: int | None = None) -> TcpStream:
        """Connect; the caller brings the deadline."""
        pair = host_port(addr)
        if pair is None:
            raise OSError(f"{addr} is no TCP address")
        host, port = pair
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        target = (await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))[0][4]
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            if source_port is not None:
                _share_port(sock)
                await sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", source_port))
            await sock.connect(target)
            return TcpStream(sock)
        except BaseException:
            sock.close()
            raise

    async def listen(self, addr: Multiaddr) -> TcpListener:
        """Listen; port 0 takes a free one."""
        pair = host_port(addr)
        if pair is None:
            raise OSError(f"{addr} is no TCP address")
        host, port = pair
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        target = (await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM))[0][4]
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(target)
            sock.listen(BACKLOG)
            # Only now: before, another process's listener on this port would not be noticed.
            _share_port(sock)
            return TcpListener(sock)
        except BaseException:
            sock.close()
            raise

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Replace names by addresses; an address without names comes back as it is.

        Raises:
            OSError: The name does not resolve.
        """
        if not is_name(addr):
            return [addr]
        try:
            with trio.fail_after(RESOLVE_SECONDS):
                found = await addr.resolve()
        except trio.TooSlowError:
            raise OSError("the name did not resolve in time") from None
        except (MultiaddrError, ValueError) as error:
            raise OSError(f"the name does not resolve: {error}") from error
        if not found:
            raise OSError("the name does not resolve")
        return list(found)[:MAX_RESOLVED]


def _share_port(sock: trio.socket.SocketType) -> None:
    """Let connections be made from the port of a listener, and the other way round."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with suppress(OSError, AttributeError):  # not on every system
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _addr(name: tuple[str, int] | tuple[str, int, int, int]) -> Multiaddr:
    host, port = name[:2]
    return tcp_addr(host, port)


def interface_addresses(*, six: bool) -> list[str]:
    """Return this machine's IPv4 or IPv6 addresses, loopback last."""
    import psutil

    family = socket.AF_INET6 if six else socket.AF_INET

    found: list[str] = []
    up = psutil.net_if_stats()
    for name, entries in psutil.net_if_addrs().items():
        if name in up and not up[name].isup:
            continue
        found += [entry.address for entry in entries if entry.family == family]
    # Link-local IPv6 addresses mean nothing to others without a zone of theirs.
    usable = [ip for ip in found if not ip.lower().startswith("fe80:")]
    ranked = sorted(set(usable), key=lambda ip: (ipaddress.ip_address(ip).is_loopback, ip))
    return ranked or ["127.0.0.1" if family == socket.AF_INET else "::1"]
