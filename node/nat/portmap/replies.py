"""What PCP and NAT-PMP have in common: the meaning of a router's reply, and errors."""

from __future__ import annotations

from typing import Final

from ....wire.immutable import immutable
from ....wire.scopes import IpAddress

SERVER_PORT: Final = 5351
"""UDP port on which routers take requests (RFC 6886 and RFC 6887, section 19.1)."""

ANNOUNCE_PORT: Final = 5350
"""UDP port to which routers announce that they restarted or have a new address."""

MAX_DATAGRAM: Final = 1100
"""Bytes of the longest PCP message (RFC 6887, section 7)."""

TCP: Final = 6
"""IP protocol number."""

UNSUPPORTED_VERSION: Final = 1
"""The result code that both protocols share."""

Epoch = tuple[int, float]
"""The router's count of seconds since it started, and our time when it told."""


class RouterFault(Exception):
    """A datagram that is no proper reply; it is counted and dropped."""


@immutable
class Told:
    """The router answers at all: to a PCP ANNOUNCE, or NAT-PMP's request for its address."""

    result: int
    """0 = success."""
    epoch: int
    external_ip: IpAddress | None = None


@immutable
class Mapped:
    """The outcome of a request for one mapping."""

    result: int
    epoch: int
    lifetime: int
    """Seconds that the mapping lives or, on an error, before we may ask again."""
    internal_port: int
    external_port: int
    external_ip: IpAddress | None
    """None if the protocol does not tell it here."""
    nonce: bytes
    """The request's; empty in NAT-PMP."""


@immutable
class OtherVersion:
    """The router speaks another version of the protocol only."""

    version: int


Reply = Told | Mapped | OtherVersion


@immutable
class MapRequest:
    """A request for one mapping; its life is 0 to delete it."""

    internal_port: int
    lifetime: int
    nonce: bytes = b""
    external_port: int = 0
    """Wished for; 0 = any."""
    external_ip: IpAddress | None = None
    """Wished for; None = any."""
