"""What a multiaddr means to us: its scope, host and port, and the peer at its end."""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from functools import lru_cache
from typing import Final

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from . import varint
from .errors import InvalidText, PeerFault
from .ids import PeerId

MAX_ADDR_BYTES: Final = 1024
"""Longest binary multiaddr taken from a peer; a relayed address has about 120."""

MAX_PARTS: Final = 16
"""Parts of one multiaddr; a relayed WebTransport address has nine."""

CACHED: Final = 16384
"""Addresses whose meaning is remembered: taking one apart costs 50 to 100 microseconds, and the
same few are named in every answer of the DHT."""

_IP4: Final = 4
_TCP: Final = 6
_IP6: Final = 41
_IP6ZONE: Final = 42
_P2P: Final = 421
_CIRCUIT: Final = 290
_DNS: Final = frozenset({53, 54, 55, 56})

_SHARED_SPACE = ipaddress.ip_network("100.64.0.0/10")  # carrier-grade NAT (RFC 6598)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Scope(IntEnum):
    """How far an address reaches; a wider scope is a larger number."""

    LOOPBACK = 0
    PRIVATE = 1
    """Private, link-local and shared (carrier-grade NAT) ranges."""
    GLOBAL = 2


def parse_multiaddr(text: str) -> Multiaddr:
    """Read a multiaddr that a person gave.

    Raises:
        InvalidText: It is none; the text says why.
    """
    try:
        if text.startswith("/") and text.strip("/"):
            addr = Multiaddr(text)
            peer_of(addr)
            return addr
    except (MultiaddrError, PeerFault, ValueError, TypeError, KeyError, IndexError):
        pass
    raise InvalidText(
        f"{text[:200]!r} is not a multiaddr (they look like /ip4/192.0.2.1/tcp/4071 and may end "
        "in /p2p/12D3KooW…)"
    )


@lru_cache(CACHED)
def multiaddr_from_bytes(data: bytes) -> Multiaddr:
    """Read a binary multiaddr that came over the wire.

    Raises:
        PeerFault: It is malformed or too long. An unknown protocol code counts as malformed: such
            an address is of no use to us.
    """
    if not 0 < len(data) <= MAX_ADDR_BYTES:
        raise PeerFault("multiaddr", "empty or too long")
    try:
        addr = Multiaddr(bytes(data))
        # The library is lenient with cut-off values: only what encodes to itself is sound.
        sound = Multiaddr(str(addr)).to_bytes() == data and len(list(addr.items())) <= MAX_PARTS
    except (MultiaddrError, ValueError, TypeError, KeyError, IndexError) as error:
        raise PeerFault("multiaddr", str(error)[:200]) from error
    if not sound:
        raise PeerFault("multiaddr", "not in its canonical form")
    return addr


@lru_cache(CACHED)
def _parts(addr: Multiaddr) -> tuple[tuple[int, str], ...]:
    return tuple((protocol.code, value or "") for protocol, value in addr.items())


def peer_of(addr: Multiaddr) -> PeerId | None:
    """Return the peer id at the end of the address (behind a relay: the target's)."""
    parts = _parts(addr)
    if parts and parts[-1][0] == _P2P:
        return PeerId.parse(parts[-1][1])
    return None


@lru_cache(CACHED)
def without_peer(addr: Multiaddr) -> Multiaddr:
    """Return the address without the peer id at its end."""
    peer = peer_of(addr)
    if peer is None:
        return addr
    suffix = varint.encode(_P2P) + varint.encode(len(peer.raw)) + peer.raw
    data = addr.to_bytes()
    return Multiaddr(data[: -len(suffix)]) if data.endswith(suffix) else addr


def with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr:
    """Return the address ending in `/p2p/<peer>`."""
    return without_peer(addr).encapsulate(Multiaddr(f"/p2p/{peer}"))


def ip_of(addr: Multiaddr) -> IpAddress | None:
    """Return the IP address that it begins with; None for names and relayed addresses."""
    parts = _parts(addr)
    if parts and parts[0][0] == _IP6ZONE:
        parts = parts[1:]
    if not parts or parts[0][0] not in (_IP4, _IP6):
        return None
    if any(code == _CIRCUIT for code, _ in parts):
        return None
    return _plain_ip(parts[0][1])


def _plain_ip(text: str) -> IpAddress:
    """Return the address, an IPv4 one inside IPv6 unwrapped."""
    ip = ipaddress.ip_address(text)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def host_port(addr: Multiaddr) -> tuple[str, int] | None:
    """Return (IP address, TCP port) of a plain TCP address; None for any other.

    A zone (`/ip6zone/eth0`) becomes part of the host: `fe80::1%eth0`.
    """
    parts = _parts(without_peer(addr))
    zone = ""
    if parts and parts[0][0] == _IP6ZONE:
        zone = f"%{parts[0][1]}"
        parts = parts[1:]
    if [code for code, _ in parts] in ([_IP4, _TCP], [_IP6, _TCP]):
        return parts[0][1] + zone, int(parts[1][1])
    return None


def tcp_addr(host: str, port: int) -> Multiaddr:
    """Return the multiaddr of an IP address and TCP port; IPv4 inside IPv6 is unwrapped."""
    host, _, zone = host.partition("%")
    ip = _plain_ip(host)
    prefix = f"/ip6zone/{zone}" if zone and ip.version == 6 else ""
    return Multiaddr(f"{prefix}/ip{ip.version}/{ip}/tcp/{port}")


def is_name(addr: Multiaddr) -> bool:
    """Return whether the address has to be resolved (dns, dns4, dns6, dnsaddr)."""
    return any(code in _DNS for code, _ in _parts(addr))


def scope_of_ip(ip: IpAddress) -> Scope:
    """Return how far an IP address reaches."""
    if ip.is_loopback:
        return Scope.LOOPBACK
    if isinstance(ip, ipaddress.IPv4Address) and ip in _SHARED_SPACE:
        return Scope.PRIVATE
    if ip.is_link_local or (ip.is_private and not _is_documentation(ip)):
        return Scope.PRIVATE
    return Scope.GLOBAL


def _is_documentation(ip: IpAddress) -> bool:
    """Whether Python calls it private although it is no range that anyone uses privately.

    Documentation and benchmark ranges: a simulation may use them as global addresses.
    """
    if isinstance(ip, ipaddress.IPv4Address):
        private = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
        return not any(ip in ipaddress.ip_network(net) for net in private)
    return ip not in ipaddress.ip_network("fc00::/7") and ip not in _NAT64


def scope_of(addr: Multiaddr) -> Scope | None:
    """Return the scope of the address; None if it does not begin with an IP address."""
    ip = ip_of(addr)
    return None if ip is None else scope_of_ip(ip)


def is_dialable_ip(ip: IpAddress) -> bool:
    """Return whether one can connect to it at all: not unspecified, multicast or broadcast."""
    if ip.is_unspecified or ip.is_multicast:
        return False
    return not (isinstance(ip, ipaddress.IPv4Address) and (ip.is_reserved or int(ip) >> 24 == 0))


@lru_cache(CACHED)
def acceptable(addr: Multiaddr, connection: Scope) -> bool:
    """Return whether to take (and dial) an address that a peer told us (scope rule).

    Args:
        addr: What it told.
        connection: The scope of our connection with that peer: an address of a narrower scope
            means something else at its end, or is an attempt to make us probe our own network.
    """
    ip = ip_of(addr)
    if ip is None or not is_dialable_ip(ip):
        return False
    pair = host_port(addr)
    return scope_of_ip(ip) >= connection and (pair is None or pair[1] > 0)


def is_tellable(addr: Multiaddr, connection: Scope) -> bool:
    """Return whether to tell an address of ours or of others over a connection of this scope."""
    return acceptable(addr, connection)


@lru_cache(CACHED)
def ip_group(addr: Multiaddr) -> bytes | None:
    """Return the group of a global address: its IPv4 /16 or IPv6 /32; None if it is not global."""
    ip = ip_of(addr)
    if ip is None or scope_of_ip(ip) is not Scope.GLOBAL:
        return None
    return bytes([ip.version]) + ip.packed[: 2 if ip.version == 4 else 4]
