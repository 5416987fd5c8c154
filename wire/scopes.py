"""How far an IP address reaches: loopback, this network, or the world."""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import Final

_NAT64: Final = 0x0064_FF9B << 96
_SIX_TO_FOUR: Final = 0x2002
_LOW_32: Final = (1 << 32) - 1

_PRIVATE_IP4: Final = tuple(
    (int(net.network_address), int(net.netmask))
    for net in map(
        ipaddress.IPv4Network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",  # link-local
            "100.64.0.0/10",  # carrier-grade NAT (RFC 6598)
            "192.0.0.0/24",  # inside a provider's network (RFC 6890)
        ),
    )
)
"""Own table: what Python's `is_private` means differs between its versions. The documentation and
benchmark ranges count as global: nobody uses them privately, simulations use them openly."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Scope(IntEnum):
    """How far an address reaches; a wider scope is a larger number."""

    LOOPBACK = 0
    PRIVATE = 1
    """Private, link-local and shared (carrier-grade NAT) ranges."""
    GLOBAL = 2


def unmapped(ip: IpAddress) -> IpAddress:
    """Return the IPv4 address inside a mapped IPv6 one, else the address itself."""
    if ip.version == 6 and int(ip) >> 32 == 0xFFFF:
        return ipaddress.IPv4Address(int(ip) & _LOW_32)
    return ip


def reached(ip: IpAddress) -> IpAddress:
    """Return the IPv4 address that a translating or tunnelling IPv6 address leads to, or itself.

    Else `64:ff9b::127.0.0.1` would pass for a global address.
    """
    number = int(ip)
    if ip.version == 4:
        return ip
    if number >> 32 in (0xFFFF, _NAT64 >> 32):
        return ipaddress.IPv4Address(number & _LOW_32)
    if number >> 112 == _SIX_TO_FOUR:
        return ipaddress.IPv4Address(number >> 80 & _LOW_32)
    return ip


def scope_of_ip(ip: IpAddress) -> Scope:
    """Return how far an IP address reaches.

    IPv6: global is what may be allocated for it, 2000::/3 (RFC 4291); an address that leads to an
    IPv4 one has that one's scope.
    """
    ip = reached(ip)
    number = int(ip)
    if ip.version == 4:
        if number >> 24 == 127:
            return Scope.LOOPBACK
        private = any(number & mask == net for net, mask in _PRIVATE_IP4)
        return Scope.PRIVATE if private else Scope.GLOBAL
    if number == 1:
        return Scope.LOOPBACK
    return Scope.GLOBAL if number >> 125 == 0b001 else Scope.PRIVATE


def is_dialable_ip(ip: IpAddress) -> bool:
    """Return whether one can connect to it at all: not unspecified, multicast or broadcast."""
    ip = reached(ip)
    number = int(ip)
    if ip.version == 4:
        return 0 < number >> 24 < 224  # 0/8 is "this network", 224/4 multicast, 240/4 reserved
    return number != 0 and number >> 120 != 0xFF
