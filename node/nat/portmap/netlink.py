"""Asking Linux for the way to an address: one rtnetlink message each way (RTM_GETROUTE).

This follows policy routing and VPNs, tells our own source address as well, and does IPv6 alike;
reading the tables in /proc would not. Numbers are in the machine's byte order.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from typing import Final

from ....wire.scopes import IpAddress
from .door import Route

MAX_REPLY: Final = 8192
"""Bytes; a reply has about 100."""

_RTM_NEWROUTE: Final = 24
_RTM_GETROUTE: Final = 26
_NLM_F_REQUEST: Final = 1
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PREFSRC: Final = 7
_FAMILY: Final = {4: 2, 6: 10}
"""IP version: address family as Linux counts."""

_HEAD: Final = struct.Struct("=IHHII")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE: Final = struct.Struct("=HH")


def route_request(to: IpAddress) -> bytes:
    """Ask for the way to an address."""
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(to.packed), _RTA_DST) + to.packed
    route = _ROUTE.pack(_FAMILY[to.version], to.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    size = _HEAD.size + len(route) + len(attribute)
    return _HEAD.pack(size, _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + route + attribute


def read_route(data: bytes, version: int) -> Route | None:
    """Read the kernel's answer; None if there is no way, or it cannot be read."""
    if len(data) < _HEAD.size + _ROUTE.size:
        return None
    size, kind, _, _, _ = _HEAD.unpack_from(data)
    if kind != _RTM_NEWROUTE or not _HEAD.size + _ROUTE.size <= size <= len(data):
        return None
    gateway: IpAddress | None = None
    source: IpAddress | None = None
    interface = 0
    at = _HEAD.size + _ROUTE.size
    while at + _ATTRIBUTE.size <= size:
        length, attribute = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + _ATTRIBUTE.size : at + length]
        if length < _ATTRIBUTE.size or at + length > size:
            return None
        if attribute == _RTA_OIF and len(value) == 4:
            interface = int.from_bytes(value, sys.byteorder)
        elif len(value) == (4 if version == 4 else 16):
            if attribute == _RTA_GATEWAY:
                gateway = ipaddress.ip_address(value)
            elif attribute == _RTA_PREFSRC:
                source = ipaddress.ip_address(value)
        at += (length + 3) & ~3
    return None if source is None else Route(source, gateway, interface)
