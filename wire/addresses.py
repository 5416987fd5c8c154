"""What a multiaddr means to us: its scope, host and port, and the peer at its end.

`Multiaddr` is the value that travels through the project. The library takes cut-off and padded
values without complaint and needs 50 to 100 microseconds to take an address apart, which a peer
that names thousands of them would turn against us; so the parts are read here, strictly, from
the binary form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from . import varint
from .errors import InvalidText, Misuse, PeerFault
from .ids import PeerId, split_multihash
from .immutable import immutable
from .scopes import IpAddress, is_dialable_ip, reached, scope_of_ip, unmapped
from .scopes import Scope as Scope

MAX_ADDR_BYTES: Final = 1024
"""Longest binary multiaddr; a relayed address has about 120 bytes."""

MAX_TEXT: Final = 2048
"""Longest text of a multiaddr; hexadecimal and base58 forms are up to twice the bytes."""

MAX_PARTS: Final = 16
"""Parts of one multiaddr; a relayed WebTransport address has nine."""

MAX_NAME_BYTES: Final = 253
"""Longest domain name (RFC 1035) or interface name."""

_REMEMBERED: Final = 4096
"""Addresses whose parts are remembered: each answer of the DHT names many that are known."""

_REMEMBERED_BYTES: Final = 128
"""Parts of longer addresses are not remembered, so that it all takes at most about 10 MB."""

_IP4: Final = 4
_TCP: Final = 6
_IP6: Final = 41
_IP6ZONE: Final = 42
_UDP: Final = 273
_CIRCUIT: Final = 290
_P2P: Final = 421
_CERTHASH: Final = 466
_SNI: Final = 449
_DNS: Final = frozenset({53, 54, 55, 56})
_DOMAINS: Final = _DNS | {_SNI}
_LABEL: Final = rb"(?!..--)(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_PLAIN_NAME: Final = re.compile(_LABEL + rb"(?:\." + _LABEL + rb")*")

_PREFIXED: Final = -1
_PROTOCOLS: Final[dict[str, tuple[int, int]]] = {
    "ip4": (_IP4, 4),
    "tcp": (_TCP, 2),
    "ip6": (_IP6, 16),
    "ip6zone": (_IP6ZONE, _PREFIXED),
    "dns": (53, _PREFIXED),
    "dns4": (54, _PREFIXED),
    "dns6": (55, _PREFIXED),
    "dnsaddr": (56, _PREFIXED),
    "udp": (_UDP, 2),
    "webrtc-direct": (280, 0),
    "webrtc": (281, 0),
    "p2p-circuit": (_CIRCUIT, 0),
    "p2p": (_P2P, _PREFIXED),
    "https": (443, 0),
    "tls": (448, 0),
    "sni": (_SNI, _PREFIXED),
    "noise": (454, 0),
    "quic": (460, 0),
    "quic-v1": (461, 0),
    "webtransport": (465, 0),
    "certhash": (_CERTHASH, _PREFIXED),
    "ws": (477, 0),
    "wss": (478, 0),
    "http": (480, 0),
}
"""Name: (code, bytes of the value or -1 for a length in front), from the multiaddr table.

Others (onion, unix, memory, …) are of no use to us and count as malformed.
"""

_VALUE_BYTES: Final = dict(_PROTOCOLS.values())

_CIRCUIT_BYTES: Final = varint.encode(_CIRCUIT)

Parts = tuple[tuple[int, bytes], ...]


def parse_multiaddr(text: str) -> Multiaddr:
    """Read a multiaddr that a person gave; `/ipfs/<peer>` is read as `/p2p/<peer>`.

    Raises:
        InvalidText: It is none, or of a kind that we do not know; the text says why.
    """
    if not text.startswith("/"):
        raise _not_a_multiaddr(text, "it must begin with /")
    if len(text) > MAX_TEXT:
        raise _not_a_multiaddr(text, f"it is over {MAX_TEXT} characters long")
    words = text[1:].removesuffix("/").split("/")
    data = b""
    while words:
        name, *words = words
        name = "p2p" if name == "ipfs" else name
        if name not in _PROTOCOLS:
            raise _not_a_multiaddr(text, f"{name[:40]!r} is no kind of address that shoal knows")
        if _PROTOCOLS[name][1] == 0:
            data += Multiaddr(f"/{name}").to_bytes()
            continue
        if not words or not words[0]:
            raise _not_a_multiaddr(text, f"nothing stands behind {name}")
        value, *words = words
        try:
            data += Multiaddr(
                f"/{name}/{PeerId.parse(value) if name == 'p2p' else value}"
            ).to_bytes()
        except (MultiaddrError, ValueError) as error:
            raise _not_a_multiaddr(text, f"{value[:80]!r} cannot stand behind {name}") from error
    try:
        _split(data)
    except PeerFault as fault:
        raise _not_a_multiaddr(text, fault.detail) from fault
    return Multiaddr(data)


def _not_a_multiaddr(text: str, why: str) -> InvalidText:
    return InvalidText(
        f"{text[:200]!r} is not a multiaddr: {why} (they look like /ip4/192.0.2.1/tcp/4071 and "
        "may end in /p2p/12D3KooW…)"
    )


def multiaddr_from_bytes(data: bytes) -> Multiaddr:
    """Read a binary multiaddr that came over the wire.

    Raises:
        PeerFault: It is empty, longer than 1 KiB or malformed. A protocol code that we do not know
            counts as malformed: such an address is of no use to us. So does a domain name that is
            not plain ASCII: the library could not show it, and we never resolve a peer's names.
    """
    for code, value in _split(data):
        if code in _DOMAINS and not _PLAIN_NAME.fullmatch(value):
            raise PeerFault("multiaddr", "a bad name")
    return Multiaddr(data)


def multiaddr_or_none(data: bytes) -> Multiaddr | None:
    """Return the address, or None if it is malformed or of a kind that we do not know."""
    try:
        return multiaddr_from_bytes(data)
    except PeerFault:
        return None


def _split(data: bytes) -> Parts:
    """Return the (code, value) parts of a binary multiaddr; PeerFault if it is malformed."""
    return _split_short(data) if len(data) <= _REMEMBERED_BYTES else _split_any(data)


def _split_any(data: bytes) -> Parts:
    end = len(data)
    if not 0 < end <= MAX_ADDR_BYTES:
        raise PeerFault("multiaddr", "empty or too long")
    parts: list[tuple[int, bytes]] = []
    at = 0
    while at < end:
        code, at = varint.decode(data, at)
        length = _VALUE_BYTES.get(code)
        if length is None:
            raise PeerFault("multiaddr", f"unknown protocol {code}")
        if length == _PREFIXED:
            length, at = varint.decode(data, at)
        if length > end - at:
            raise PeerFault("multiaddr", "cut off")
        value = data[at : at + length]
        at += length
        if _VALUE_BYTES[code] == _PREFIXED:
            _check_value(code, value)
        parts.append((code, value))
        if len(parts) > MAX_PARTS:
            raise PeerFault("multiaddr", "too many parts")
    return tuple(parts)


_split_short = lru_cache(_REMEMBERED)(_split_any)


def _check_value(code: int, value: bytes) -> None:
    """Refuse a value of variable length that has no text form; PeerFault."""
    if code == _P2P:
        PeerId.from_bytes(value)
        return
    if code == _CERTHASH:
        split_multihash(value)
        return
    try:
        name = value.decode()
    except UnicodeDecodeError as error:
        raise PeerFault("multiaddr", "a name that is not UTF-8") from error
    bad = any(c in "/%" or c.isspace() or not c.isprintable() for c in name)
    if not 0 < len(value) <= MAX_NAME_BYTES or bad:
        raise PeerFault("multiaddr", "a bad name")


def _parts(addr: Multiaddr) -> Parts:
    """Return the parts; none for an address of a kind that we do not know."""
    try:
        return _split(addr.to_bytes())
    except PeerFault:
        return ()


def peer_of(addr: Multiaddr) -> PeerId | None:
    """Return the peer id at the end of the address (behind a relay: the target's)."""
    parts = _parts(addr)
    if parts and parts[-1][0] == _P2P:
        return PeerId(parts[-1][1])
    return None


def without_peer(addr: Multiaddr) -> Multiaddr:
    """Return the address without the peer id at its end."""
    peer = peer_of(addr)
    return addr if peer is None else Multiaddr(addr.to_bytes()[: -len(_peer_part(peer))])


def with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr:
    """Return the address ending in `/p2p/<peer>`, in place of a peer id at its end."""
    return Multiaddr(without_peer(addr).to_bytes() + _peer_part(peer))


def is_relayed(addr: Multiaddr) -> bool:
    """Return whether the address leads over a relay."""
    return any(code == _CIRCUIT for code, _ in _parts(addr))


def relayed_addr(relay: Multiaddr, target: PeerId | None = None) -> Multiaddr:
    """Return the address of a place at a relay.

    Args:
        relay: The relay's address, ending in its peer id.
        target: Who has the place; None leaves it open, as listeners write it.
    """
    if peer_of(relay) is None or is_relayed(relay):
        raise Misuse(f"{relay} does not name a relay")
    addr = Multiaddr(relay.to_bytes() + _CIRCUIT_BYTES)
    return addr if target is None else with_peer(addr, target)


def split_relayed(addr: Multiaddr) -> tuple[Multiaddr, PeerId, PeerId | None] | None:
    """Return a relay's address without its id, its id, and who has a place there.

    None for an address that is not relayed, is relayed twice, or does not name its relay: we
    reach a peer over one relay, whose identity we check.
    """
    target = peer_of(addr)
    plain = without_peer(addr).to_bytes()
    if not plain.endswith(_CIRCUIT_BYTES) or len(plain) == len(_CIRCUIT_BYTES):
        return None
    at_relay = multiaddr_or_none(plain[: -len(_CIRCUIT_BYTES)])
    if at_relay is None or is_relayed(at_relay):
        return None
    relay = peer_of(at_relay)
    if relay is None:
        return None
    place = without_peer(at_relay)
    return None if peer_of(place) is not None else (place, relay, target)


def addrs_within(addrs: Iterable[Multiaddr], count: int, size: int) -> list[bytes]:
    """Return the first addresses in binary form, at most `count` of at most `size` bytes together.

    Three bytes are counted for each beyond its own: a tag and its length stand before it.
    """
    fitting: list[bytes] = []
    for addr in addrs:
        data = addr.to_bytes()
        size -= len(data) + 3
        if size < 0 or len(fitting) >= count:
            break
        fitting.append(data)
    return fitting


def _peer_part(peer: PeerId) -> bytes:
    return varint.encode(_P2P) + varint.encode(len(peer.raw)) + peer.raw


@immutable
class _Place:
    """Where an address that begins with an IP address leads."""

    ip: IpAddress
    scope: Scope
    tellable: bool
    """Whether it means the same on another machine and can be connected to."""


@lru_cache(_REMEMBERED)
def _place(data: bytes) -> _Place | None:
    try:
        parts = _split(data)
    except PeerFault:
        return None
    zone = parts[0][0] == _IP6ZONE
    match parts[1:] if zone else parts:
        case _ if any(code == _CIRCUIT for code, _ in parts):
            return None
        case ((4, value), *_):
            ip: IpAddress = ipaddress.IPv4Address(value)
        case ((41, value), *_):
            ip = unmapped(ipaddress.IPv6Address(value))
        case _:
            return None
    # A link-local IPv6 address needs a zone, and a zone means something on one machine only.
    local = zone or (ip.version == 6 and int(ip) >> 118 == 0xFE80 >> 6)
    port_0 = any(code in (_TCP, _UDP) and value == b"\0\0" for code, value in parts)
    return _Place(ip, scope_of_ip(ip), is_dialable_ip(ip) and not local and not port_0)


def ip_of(addr: Multiaddr) -> IpAddress | None:
    """Return the IP address that it begins with; None for names and relayed addresses.

    An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) comes unwrapped.
    """
    place = _place(addr.to_bytes())
    return None if place is None else place.ip


def host_port(addr: Multiaddr) -> tuple[str, int] | None:
    """Return (IP address, TCP port) of a plain TCP address; None for any other.

    A zone (`/ip6zone/eth0`) becomes part of the host: `fe80::1%eth0`.
    """
    parts = _parts(addr)
    zone = ""
    if parts and parts[0][0] == _IP6ZONE:
        zone = f"%{parts[0][1].decode()}"
        parts = parts[1:]
    if parts and parts[-1][0] == _P2P:
        parts = parts[:-1]
    match parts:
        case ((4, value), (6, port)) if not zone:
            return str(ipaddress.IPv4Address(value)), int.from_bytes(port, "big")
        case ((41, value), (6, port)):
            return str(ipaddress.IPv6Address(value)) + zone, int.from_bytes(port, "big")
        case _:
            return None


def quic_place(addr: Multiaddr) -> tuple[str, int] | None:
    """Return (IP address, UDP port) of a plain QUIC address (`/quic-v1`); None for any other."""
    parts = _parts(addr)
    if parts and parts[-1][0] == _P2P:
        parts = parts[:-1]
    match parts:
        case ((4, value), (code, port), (461, _)) if code == _UDP:
            return str(ipaddress.IPv4Address(value)), int.from_bytes(port, "big")
        case ((41, value), (code, port), (461, _)) if code == _UDP:
            return str(ipaddress.IPv6Address(value)), int.from_bytes(port, "big")
        case _:
            return None


def is_quic(addr: Multiaddr) -> bool:
    """Return whether it is a plain QUIC address."""
    return quic_place(addr) is not None


def place_of(addr: Multiaddr) -> tuple[str, int] | None:
    """Return (IP address, port) of a plain TCP or QUIC address; None for any other."""
    return host_port(addr) or quic_place(addr)


def quic_addr(host: str, port: int) -> Multiaddr:
    """Return the QUIC multiaddr of an IP address and UDP port; IPv4 inside IPv6 is unwrapped."""
    ip = unmapped(ipaddress.ip_address(host.partition("%")[0]))
    return Multiaddr(f"/ip{ip.version}/{ip}/udp/{port}/quic-v1")


def tcp_addr(host: str, port: int) -> Multiaddr:
    """Return the multiaddr of an IP address and TCP port; IPv4 inside IPv6 is unwrapped."""
    host, _, zone = host.partition("%")
    ip = unmapped(ipaddress.ip_address(host))
    prefix = f"/ip6zone/{zone}" if zone and ip.version == 6 else ""
    return Multiaddr(f"{prefix}/ip{ip.version}/{ip}/tcp/{port}")


def is_name(addr: Multiaddr) -> bool:
    """Return whether the address has to be resolved (dns, dns4, dns6, dnsaddr)."""
    return any(code in _DNS for code, _ in _parts(addr))


def scope_of(addr: Multiaddr) -> Scope | None:
    """Return the scope of the address; None if it does not begin with an IP address."""
    place = _place(addr.to_bytes())
    return None if place is None else place.scope


def acceptable(addr: Multiaddr, scope_of_connection: Scope) -> bool:
    """Return whether to take (and dial) an address that a peer told us (scope rule).

    Never one that is unspecified, multicast, broadcast, has port 0 or needs a zone; a relayed one
    if its relay's address is.

    Args:
        addr: What it told.
        scope_of_connection: The scope of our connection with that peer: an address of a narrower
            scope means something else at its end, or is an attempt to make us probe our own
            network.
    """
    over = split_relayed(addr)
    place = _place((addr if over is None else over[0]).to_bytes())
    return place is not None and place.tellable and place.scope >= scope_of_connection


def is_tellable(addr: Multiaddr, scope_of_connection: Scope) -> bool:
    """Return whether to tell an address of ours or of others over a connection of this scope."""
    return acceptable(addr, scope_of_connection)


def ip_group(addr: Multiaddr) -> bytes | None:
    """Return the group of a global address: its IPv4 /16 or IPv6 /32; None if it is not global.

    The first byte is the IP version.
    """
    place = _place(addr.to_bytes())
    if place is None or place.scope is not Scope.GLOBAL:
        return None
    ip = reached(place.ip)
    return bytes([ip.version]) + ip.packed[: 2 if ip.version == 4 else 4]
