"""Budgets that all connections of a host share, and the bounds on how many there may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_of, scope_of_ip
from ...wire.yamux import WindowBudget
from ..environment import RunBlocking

MAX_UNREAD_TOTAL = 64 << 20
"""Received and unread bytes in the process."""

MAX_WINDOWS_TOTAL = 48 << 20
"""Window bytes granted beyond the initial ones, in the process."""

MAX_QUEUED_TOTAL = 32 << 20
"""Bytes queued to send in the process."""

MAX_CONNECTIONS = 512
MAX_PER_IP = 64
"""Connections with one globally routable IP address."""

MAX_UPGRADES = 64
"""Inbound connections whose upgrade is under way."""


class Budgets:
    """What the connections of one host share."""

    def __init__(self, run_blocking: RunBlocking, queued: Callable[[], int]) -> None:
        self.windows = WindowBudget(MAX_WINDOWS_TOTAL)
        self.run_blocking = run_blocking
        self.unread = 0
        """Received and unread bytes, over all connections."""
        self._queued = queued

    @property
    def too_much_unread(self) -> bool:
        """Whether the process holds too many unread bytes."""
        return self.unread > MAX_UNREAD_TOTAL

    @property
    def congested(self) -> bool:
        """Whether the process has too many bytes queued to send."""
        return self._queued() > MAX_QUEUED_TOTAL


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a host keeps."""

    connections: int = MAX_CONNECTIONS
    per_ip: int = MAX_PER_IP
    upgrades: int = MAX_UPGRADES


def global_ip(addr: Multiaddr) -> bytes | None:
    """Return the packed IP if it is globally routable; limits by IP skip all others."""
    ip = ip_of(addr)
    return ip.packed if ip is not None and scope_of_ip(ip) is Scope.GLOBAL else None


def per_ip(addrs: Iterable[Multiaddr]) -> Counter[bytes]:
    """Count globally routable addresses by IP."""
    return Counter(ip for addr in addrs if (ip := global_ip(addr)) is not None)
