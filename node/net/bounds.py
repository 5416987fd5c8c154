"""Bounds on what all connections of a host may hold together, and on how many there may be."""

from __future__ import annotations

from collections.abc import Callable

from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_of
from ...wire.immutable import immutable
from ...wire.scopes import scope_of_ip
from ...wire.yamux import Budget
from ..environment import RunBlocking
from .pump import Buffers

MAX_UNREAD_TOTAL = 64 << 20
"""Received and unread bytes in the process."""

MAX_WINDOWS_TOTAL = 48 << 20
"""Window bytes granted beyond the initial ones, in the process."""

MAX_QUEUED_TOTAL = 32 << 20
"""Bytes queued to send in the process; senders wait beyond it."""

MAX_CONNECTIONS = 512
MAX_PER_IP = 64
"""Connections with one globally routable IP address."""

MAX_UPGRADES = 64
"""Inbound connections whose upgrade is under way."""


class Budgets:
    """What the connections of one host share.

    Args:
        run_blocking: Reads files that are not in memory.
        relieve: Resets the stream with most unread bytes of all; False if there is none.
    """

    def __init__(self, run_blocking: RunBlocking, relieve: Callable[[], bool]) -> None:
        self.shared = Budget(MAX_WINDOWS_TOTAL)
        self.run_blocking = run_blocking
        self.buffers = Buffers()
        self._relieve = relieve

    @property
    def congested(self) -> bool:
        """Whether the process has too many bytes queued to send."""
        return self.shared.queued > MAX_QUEUED_TOTAL

    def hold_memory(self) -> None:
        """Reset streams while the process holds too many unread bytes."""
        while self.shared.unread > MAX_UNREAD_TOTAL and self._relieve():
            pass


@immutable
class Limits:
    """How many connections a host keeps."""

    connections: int = MAX_CONNECTIONS
    per_ip: int = MAX_PER_IP
    upgrades: int = MAX_UPGRADES


def global_ip(addr: Multiaddr) -> bytes | None:
    """Return the packed IP if it is globally routable; limits by IP skip all others."""
    ip = ip_of(addr)
    return ip.packed if ip is not None and scope_of_ip(ip) is Scope.GLOBAL else None
