"""PCP, the Port Control Protocol (RFC 6887): its messages and its rule for the epoch.

Only MAP without options and ANNOUNCE are spoken. Numbers are big-endian; IPv4 addresses travel as
`::ffff:a.b.c.d`.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from ....wire.scopes import IpAddress
from .replies import (
    MAX_DATAGRAM,
    TCP,
    UNSUPPORTED_VERSION,
    Epoch,
    Mapped,
    MapRequest,
    OtherVersion,
    Reply,
    RouterFault,
    Told,
)

VERSION: Final = 2
ANNOUNCE: Final = 0
MAP: Final = 1
REPLY: Final = 0x80
NONCE_BYTES: Final = 12

UNSUPPORTED_OPCODE: Final = 4

RESULTS: Final = {
    1: "it speaks another version of PCP",
    2: "it does not allow it",
    3: "it found the request malformed",
    4: "it does not know the request",
    5: "it does not know an option",
    6: "it found an option malformed",
    7: "its own connection has failed",
    8: "it has no room for more mappings",
    9: "it does not map TCP",
    10: "its quota for one machine is used up",
    11: "it cannot provide that external address or port",
    12: "another router lies between it and us",
    13: "too many remote peers were asked for",
}
"""Result codes of section 7.4 as the end of a sentence on the router."""

_REQUEST: Final = struct.Struct(">BBxxI16s")
_REPLY: Final = struct.Struct(">BBxBII12x")
_MAP: Final = struct.Struct(">12sBxxxHH16s")

_MAPPED: Final = 0xFFFF << 32
_LOW_32: Final = (1 << 32) - 1


def announce_request(client_ip: IpAddress) -> bytes:
    """Ask whether a PCP server is there (section 14.1.1)."""
    return _REQUEST.pack(VERSION, ANNOUNCE, 0, _pack_ip(client_ip))


def map_request(client_ip: IpAddress, asked: MapRequest) -> bytes:
    """Ask for a TCP mapping, or to delete it (section 11.1)."""
    wished = asked.external_ip
    if wished is None:  # "any", in the family of the client
        wished = ipaddress.ip_address(bytes(4 if client_ip.version == 4 else 16))
    body = _MAP.pack(asked.nonce, TCP, asked.internal_port, asked.external_port, _pack_ip(wished))
    return _REQUEST.pack(VERSION, MAP, asked.lifetime, _pack_ip(client_ip)) + body


def read_reply(data: bytes) -> Reply:
    """Read what a router sent; options behind it are passed over.

    Raises:
        RouterFault: It is no reply of a PCP server.
    """
    if len(data) < 4 or not data[1] & REPLY:
        raise RouterFault("no reply")
    if data[3] == UNSUPPORTED_VERSION:
        # A server of NAT-PMP alone answers so in 8 bytes of its own, that agree thus far
        # (appendix A).
        return OtherVersion(data[0])
    if data[0] != VERSION:
        raise RouterFault("another version")
    if not _REPLY.size <= len(data) <= MAX_DATAGRAM or len(data) % 4:
        raise RouterFault("a bad length")
    _, opcode, result, lifetime, epoch = _REPLY.unpack_from(data)
    match opcode & ~REPLY:
        case 0:
            return Told(result, epoch)
        case 1 if len(data) >= _REPLY.size + _MAP.size:
            nonce, protocol, internal, external, ip = _MAP.unpack_from(data, _REPLY.size)
            if protocol != TCP:
                raise RouterFault("another protocol")
            found = _unpack_ip(ip)
            return Mapped(result, epoch, lifetime, internal, external, found, nonce)
        case 1:
            raise RouterFault("a bad length")
        case _:
            raise RouterFault("another opcode")


def has_restarted(before: Epoch, after: Epoch) -> bool:
    """Return whether the server lost its state between two replies (section 8.5)."""
    server = after[0] - before[0]
    client = after[1] - before[1]
    if server < -1:
        return True
    return client + 2 < server - server / 16 or server + 2 < client - client / 16


def _pack_ip(ip: IpAddress) -> bytes:
    return (int(ip) | (_MAPPED if ip.version == 4 else 0)).to_bytes(16, "big")


def _unpack_ip(data: bytes) -> IpAddress:
    number = int.from_bytes(data, "big")
    if number >> 32 == 0xFFFF:
        return ipaddress.IPv4Address(number & _LOW_32)
    return ipaddress.IPv6Address(number)
