"""What port mapping has achieved, as others see it."""

from __future__ import annotations

from enum import StrEnum

from multiaddr import Multiaddr

from ....wire.addresses import Scope, tcp_addr
from ....wire.immutable import immutable
from ....wire.scopes import IpAddress, scope_of_ip


class Via(StrEnum):
    """The protocol by which a router was asked."""

    PCP = "PCP"
    NAT_PMP = "NAT-PMP"
    UPNP = "UPnP"


@immutable
class Mapping:
    """One port of ours that the router forwards to us."""

    via: Via
    internal_port: int
    external_ip: IpAddress
    external_port: int
    expires: float | None
    """Unix time in seconds; None = it stays until it is removed."""

    @property
    def addr(self) -> Multiaddr:
        """Where others reach the port."""
        return tcp_addr(str(self.external_ip), self.external_port)

    @property
    def is_public(self) -> bool:
        """Whether the whole world can reach it.

        False behind another NAT: the router's own address is private (RFC 1918) or a
        carrier's (100.64/10, RFC 6598).
        """
        return scope_of_ip(self.external_ip) is Scope.GLOBAL


@immutable
class Verdict:
    """What came of one protocol, told in a sentence."""

    protocol: str
    """`PCP`, `NAT-PMP`, `UPnP`; with ` (IPv6)` behind it for openings in an IPv6 firewall."""
    works: bool
    sentence: str


@immutable
class PortMapState:
    """All that is known; it changes as a whole."""

    gateway: str | None = None
    """The IPv4 router's address (else the IPv6 one's); None as long as it is unknown."""
    mappings: tuple[Mapping, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def via(self) -> Via | None:
        """The protocol in use, for IPv4 if both are."""
        return self.mappings[0].via if self.mappings else None

    @property
    def external_addrs(self) -> tuple[Multiaddr, ...]:
        """Where the router takes connections for us, private addresses too."""
        return tuple(mapping.addr for mapping in self.mappings)

    @property
    def public_addrs(self) -> tuple[Multiaddr, ...]:
        """Those of them that mean something to the world."""
        return tuple(mapping.addr for mapping in self.mappings if mapping.is_public)

    @property
    def external_is_private(self) -> bool:
        """Whether there is a mapping, but of no use to the world: a second NAT lies behind."""
        return any(not mapping.is_public for mapping in self.mappings)

    @property
    def expires(self) -> float | None:
        """When the first mapping ends if it is not renewed, as Unix time in seconds."""
        return min((m.expires for m in self.mappings if m.expires is not None), default=None)
