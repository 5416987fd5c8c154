"""The router door of real nodes: UDP sockets, the kernel's routes, and the miniupnpc library."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ....wire.scopes import IpAddress
from ...environment import run_abandonable
from .door import Igd, IgdEntry, IgdError, IgdMissing, Route
from .netlink import MAX_REPLY, read_route, route_request
from .replies import ANNOUNCE_PORT, MAX_DATAGRAM, SERVER_PORT

if TYPE_CHECKING:
    from miniupnpc import UPnP

T = TypeVar("T")

FAR_AWAY: Final = {
    4: ipaddress.ip_address("198.41.0.4"),
    6: ipaddress.ip_address("2001:503:ba3e::2:30"),
}
"""A root name server: an address that stays, to ask the way to. Nothing is sent there."""

DISCOVER_MS: Final = 500
"""How long each of up to five kinds of UPnP device may take to answer, in milliseconds."""

CALL_SECONDS: Final = 5.0
"""One call to an UPnP router."""

FIND_SECONDS: Final = 8.0
"""Looking for an UPnP router and reading its description."""

DESCRIPTION: Final = "shoal"
"""What the router's own pages show for our mappings."""


class UdpSocket:
    """A UDP socket."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._socket = sock

    async def send(self, data: bytes) -> None:
        """Send to where the socket is connected."""
        await self._socket.send(data)

    async def receive(self) -> tuple[bytes, tuple[IpAddress, int]]:
        """Wait for a datagram; a longer one than any of ours is cut off behind the bound."""
        data, (host, port, *_) = await self._socket.recvfrom(MAX_DATAGRAM + 1)
        return data, (ipaddress.ip_address(host.partition("%")[0]), port)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class SystemRouter:
    """What the machine offers."""

    def __init__(self) -> None:
        self._one_at_a_time = trio.CapacityLimiter(1)
        """A thread that a bad router holds up is the only one."""

    def route(self, version: int) -> Route | None:
        """Ask the kernel; where it does not tell the gateway, our address alone is known."""
        try:
            if hasattr(socket, "AF_NETLINK"):
                return self._route_of_linux(version)
        except OSError:
            pass  # a sandbox may bar it
        return self._route_without_gateway(version)

    def _route_of_linux(self, version: int) -> Route | None:
        # The protocol is NETLINK_ROUTE, 0.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.setblocking(False)  # the kernel answers before `send` returns
            sock.send(route_request(FAR_AWAY[version]))
            return read_route(sock.recv(MAX_REPLY), version)

    def _route_without_gateway(self, version: int) -> Route | None:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((str(FAR_AWAY[version]), SERVER_PORT))
                host = sock.getsockname()[0]
        except OSError:
            return None
        return Route(ipaddress.ip_address(host.partition("%")[0]), None)

    async def open(self, route: Route) -> UdpSocket:
        """Open a connected socket: the kernel drops what comes from elsewhere."""
        assert route.gateway is not None
        family = socket.AF_INET if route.source.version == 4 else socket.AF_INET6
        sock = trio.socket.socket(family, socket.SOCK_DGRAM)
        try:
            await sock.bind(_target(route.source, 0, 0))
            await sock.connect(_target(route.gateway, SERVER_PORT, route.interface))
        # Cancelled or failed: the socket is ours alone so far; it goes on outwards.
        except BaseException:
            sock.close()
            raise
        return UdpSocket(sock)

    async def announcements(self, version: int) -> UdpSocket:
        """Open a socket on port 5350, which other programs may share.

        They go to all hosts' group (224.0.0.1, ff02::1), which every machine is in.
        """
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        sock = trio.socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(("0.0.0.0" if version == 4 else "::", ANNOUNCE_PORT))
        # Cancelled or failed: the socket is ours alone so far; it goes on outwards.
        except BaseException:
            sock.close()
            raise
        return UdpSocket(sock)

    async def find_igd(self, source: IpAddress) -> Igd:
        """Look for an UPnP router; bounded by `FIND_SECONDS`."""
        try:
            from miniupnpc import UPnP
        except ImportError:
            raise IgdMissing("UPnP is not built in: install shoal[upnp]") from None
        upnp = UPnP(multicastif=str(source), discoverdelay=DISCOVER_MS)

        def find() -> str:
            upnp.discover()
            return upnp.selectigd()

        url = await _in_thread(find, FIND_SECONDS, self._one_at_a_time)
        host = url.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
        return SystemIgd(upnp, host, self._one_at_a_time)


class SystemIgd:
    """A router that miniupnpc has found."""

    def __init__(self, upnp: UPnP, host: str, limiter: trio.CapacityLimiter) -> None:
        self._upnp = upnp
        self._limiter = limiter
        self._host = host
        self._our_ip = upnp.lanaddr

    @property
    def host(self) -> str:
        """The address at which it is controlled."""
        return self._host

    @property
    def our_ip(self) -> str:
        """Our address as the library found it when it connected."""
        return self._our_ip

    async def external_ip(self) -> str:
        """Return its address on the other side."""
        return await self._call(self._upnp.externalipaddress)

    async def entry(self, external_port: int) -> IgdEntry | None:
        """Return what an external TCP port is mapped to."""
        found = await self._call(lambda: self._upnp.getspecificportmapping(external_port, "TCP"))
        return None if found is None else IgdEntry(found[0], found[1])

    async def add(self, external_port: int, internal_port: int, lease: int) -> None:
        """Map a TCP port to ours."""
        ours, add = self._our_ip, self._upnp.addportmapping
        await self._call(
            lambda: add(external_port, "TCP", ours, internal_port, DESCRIPTION, "", lease)
        )

    async def remove(self, external_port: int) -> None:
        """Delete a mapping."""
        await self._call(lambda: self._upnp.deleteportmapping(external_port, "TCP"))

    async def _call(self, function: Callable[[], T]) -> T:
        return await _in_thread(function, CALL_SECONDS, self._limiter)


async def _in_thread(function: Callable[[], T], seconds: float, limiter: trio.CapacityLimiter) -> T:
    """Run a call of the library; IgdError if it fails or takes too long.

    The library reads a page as long as a byte comes every few seconds: no bound of its own ends
    that, so such a thread is left behind.
    """
    try:
        with trio.fail_after(seconds):
            return await run_abandonable(_translated, function, limiter=limiter)
    except trio.TooSlowError:
        raise IgdError("no answer in time") from None


def _translated(function: Callable[[], T]) -> T:
    try:
        return function()
    except Exception as error:
        # The library raises Exception itself, and texts of the router need not be UTF-8.
        if type(error) not in (Exception, UnicodeDecodeError):
            raise
        raise IgdError(str(error)[:80]) from error


def _target(
    ip: IpAddress, port: int, interface: int
) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the socket address; a link-local one needs the interface."""
    return (str(ip), port) if ip.version == 4 else (str(ip), port, 0, interface)
