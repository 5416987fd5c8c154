"""How the two protocols of port 5351 differ, for the client that speaks either."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Protocol

from ....wire.immutable import immutable
from ....wire.scopes import IpAddress
from . import natpmp, pcp
from .replies import Epoch, MapRequest, Reply
from .state import Via


@immutable
class Patience:
    """When a request is sent again, in seconds."""

    first: float
    longest: float
    """The wait doubles up to this."""
    jitter: float
    """Part of the wait that is added or taken off by chance."""


class Dialect(Protocol):
    """One protocol."""

    @property
    def via(self) -> Via:
        """Which one it is."""
        ...

    @property
    def patience(self) -> Patience:
        """When a request is sent again."""
        ...

    @property
    def nonce_bytes(self) -> int:
        """Length of a request's nonce; 0 = it has none."""
        ...

    @property
    def results(self) -> MappingOf[int, str]:
        """What result codes mean."""
        ...

    def probe(self) -> bytes:
        """Return the request that changes nothing."""
        ...

    def ask(self, request: MapRequest) -> bytes:
        """Return the request for a mapping."""
        ...

    def read(self, data: bytes) -> Reply:
        """Read a reply, else raise RouterFault."""
        ...

    def has_restarted(self, before: Epoch, after: Epoch) -> bool:
        """Return whether the router forgot its mappings between two replies."""
        ...


@dataclass(frozen=True)
class Pcp:
    """PCP for one address of ours, which the router compares with the packet's."""

    client_ip: IpAddress
    via = Via.PCP
    patience = Patience(first=3.0, longest=1024.0, jitter=0.1)
    """IRT, MRT and RAND of RFC 6887, section 8.1.1."""
    nonce_bytes = pcp.NONCE_BYTES
    results = pcp.RESULTS

    def probe(self) -> bytes:
        """Return an ANNOUNCE request."""
        return pcp.announce_request(self.client_ip)

    def ask(self, request: MapRequest) -> bytes:
        """Return a MAP request."""
        return pcp.map_request(self.client_ip, request)

    def read(self, data: bytes) -> Reply:
        """Read a reply."""
        return pcp.read_reply(data)

    def has_restarted(self, before: Epoch, after: Epoch) -> bool:
        """Compare the clocks as section 8.5 does."""
        return pcp.has_restarted(before, after)


@dataclass(frozen=True)
class NatPmp:
    """NAT-PMP."""

    via = Via.NAT_PMP
    patience = Patience(first=0.25, longest=64.0, jitter=0.0)
    """RFC 6886, section 3.1."""
    nonce_bytes = 0
    results = natpmp.RESULTS

    def probe(self) -> bytes:
        """Return a request for the external address."""
        return natpmp.ADDRESS_REQUEST

    def ask(self, request: MapRequest) -> bytes:
        """Return a mapping request."""
        return natpmp.map_request(request)

    def read(self, data: bytes) -> Reply:
        """Read a reply."""
        return natpmp.read_reply(data)

    def has_restarted(self, before: Epoch, after: Epoch) -> bool:
        """Compare the clocks as section 3.6 does."""
        return natpmp.has_restarted(before, after)
