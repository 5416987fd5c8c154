"""The door through which port mapping reaches the world; tests and simulations bring their own."""

from __future__ import annotations

from typing import Protocol

from ....wire.immutable import immutable
from ....wire.scopes import IpAddress


@immutable
class Route:
    """The way to the internet in one IP family."""

    source: IpAddress
    """Our address on that way."""
    gateway: IpAddress | None
    """The next router; None = there is none, or this system does not tell."""
    interface: int = 0
    """Number of the interface, that link-local addresses need; 0 = unknown."""


class Datagrams(Protocol):
    """An open UDP socket."""

    async def send(self, data: bytes) -> None:
        """Send to the gateway it was opened for.

        Raises:
            OSError: The network is down, or the gateway refused an earlier datagram.
        """
        ...

    async def receive(self) -> tuple[bytes, tuple[IpAddress, int]]:
        """Wait for a datagram; return it with its sender's address and port.

        Raises:
            OSError: As above.
        """
        ...

    def close(self) -> None:
        """Give the socket back."""
        ...


class IgdError(Exception):
    """An UPnP router refused, or there is none."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """The router's word for it, such as `ConflictInMappingEntry`, or a phrase."""


class IgdMissing(IgdError):
    """UPnP is not built in."""


@immutable
class IgdEntry:
    """A mapping in a router's table."""

    host: str
    port: int


class Igd(Protocol):
    """One UPnP router (Internet Gateway Device). Every method may raise IgdError."""

    @property
    def host(self) -> str:
        """The address at which it is controlled, as it told."""
        ...

    @property
    def our_ip(self) -> str:
        """Our address as the router sees it."""
        ...

    async def external_ip(self) -> str:
        """Return its address on the other side, as it says it."""
        ...

    async def entry(self, external_port: int) -> IgdEntry | None:
        """Return what an external TCP port is mapped to."""
        ...

    async def add(self, external_port: int, internal_port: int, lease: int) -> None:
        """Map a TCP port to ours for `lease` seconds; 0 = for ever."""
        ...

    async def remove(self, external_port: int) -> None:
        """Delete a mapping."""
        ...


class Router(Protocol):
    """All that port mapping needs from the system."""

    def route(self, version: int) -> Route | None:
        """Return the way to the internet over IPv4 (4) or IPv6 (6); None if there is none."""
        ...

    async def open(self, route: Route) -> Datagrams:
        """Open a socket from `route.source` to port 5351 of `route.gateway`; may raise OSError."""
        ...

    async def announcements(self, version: int) -> Datagrams:
        """Open a socket for what routers announce on port 5350; may raise OSError."""
        ...

    async def find_igd(self, source: IpAddress) -> Igd:
        """Look for an UPnP router on the network of this address of ours; may raise IgdError."""
        ...
