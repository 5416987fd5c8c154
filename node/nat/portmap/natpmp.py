"""NAT-PMP, the NAT Port Mapping Protocol (RFC 6886): its messages and its rule for the epoch.

Numbers are big-endian. It knows IPv4 alone, and has no nonce: a reply is recognised by where it
comes from and by being expected.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from .replies import (
    MAX_DATAGRAM,
    UNSUPPORTED_VERSION,
    Epoch,
    Mapped,
    MapRequest,
    OtherVersion,
    Reply,
    RouterFault,
    Told,
)

VERSION: Final = 0
ADDRESS: Final = 0
MAP_TCP: Final = 2
REPLY: Final = 0x80

RESULTS: Final = {
    1: "it speaks another version of NAT-PMP",
    2: "it does not allow it",
    3: "its own connection has failed",
    4: "it has no room for more mappings",
    5: "it does not know the request",
}
"""Result codes of section 3.5 as the end of a sentence on the router."""

ADDRESS_REQUEST: Final = bytes((VERSION, ADDRESS))
"""Asks for the external address (section 3.2); it changes nothing."""

_MAP_REQUEST: Final = struct.Struct(">BBxxHHI")
_HEAD: Final = struct.Struct(">BBHI")
_MAP: Final = struct.Struct(">HHI")


def map_request(asked: MapRequest) -> bytes:
    """Ask for a TCP mapping, or to delete it (sections 3.3 and 3.4)."""
    return _MAP_REQUEST.pack(
        VERSION, MAP_TCP, asked.internal_port, asked.external_port, asked.lifetime
    )


def read_reply(data: bytes) -> Reply:
    """Read what a router sent.

    Raises:
        RouterFault: It is no reply of a NAT-PMP server.
    """
    if not _HEAD.size <= len(data) <= MAX_DATAGRAM:
        raise RouterFault("a bad length")
    version, opcode, result, epoch = _HEAD.unpack_from(data)
    if result == UNSUPPORTED_VERSION and opcode & REPLY:
        return OtherVersion(version)
    if version != VERSION:
        raise RouterFault("another version")
    match opcode:
        case 0x80 if len(data) >= _HEAD.size + 4:
            ip = ipaddress.IPv4Address(data[_HEAD.size : _HEAD.size + 4])
            return Told(result, epoch, ip if result == 0 else None)
        case 0x80 if result:
            return Told(result, epoch)
        case 0x82 if len(data) >= _HEAD.size + _MAP.size:
            internal, external, lifetime = _MAP.unpack_from(data, _HEAD.size)
            return Mapped(result, epoch, lifetime, internal, external, None, b"")
        case 0x80 | 0x82:
            raise RouterFault("a bad length")
        case _:
            raise RouterFault("another opcode")


def has_restarted(before: Epoch, after: Epoch) -> bool:
    """Return whether the router lost its mappings between two replies (section 3.6)."""
    expected = before[0] + (after[1] - before[1]) * 7 / 8
    return after[0] < expected - 2
