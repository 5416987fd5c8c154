"""What our addresses look like from outside, as peers tell it. A plain object.

Peers lie, so an address counts as confirmed when observers in four different groups (IPv4 /16, IPv6
/32) agree. From the same reports follows how a NAT maps ports: the same for everybody
(endpoint-independent), or anew for each destination (endpoint-dependent), where no hole can be
punched between two of that kind.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Literal

from multiaddr import Multiaddr

from ...wire.addresses import Scope, host_port, ip_group, ip_of, scope_of
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ...wire.scopes import is_dialable_ip

CONFIRMED_GROUPS = 4
"""Groups of observers that must agree (go: 4)."""

MAX_REPORTS = 256
"""Reports remembered; the oldest goes first."""

REPORT_SECONDS = 1800.0
"""Life of a report (go: 30 min)."""

MAX_CANDIDATES = 4
"""Addresses that are taken for ours as far as trying them goes."""

Mapping = Literal["unknown", "none", "endpoint-independent", "endpoint-dependent"]


@immutable
class Report:
    """What one observer said."""

    group: bytes
    addr: Multiaddr
    """Where it sees us."""

    port: int | None
    """The listening port that our connection uses; None = another one."""

    outbound: bool
    """We dialled it; else it dialled us, at this address."""

    at: float


class Observations:
    """Reports of observers, by observer.

    Args:
        own: Returns the addresses that we listen on.
    """

    def __init__(self) -> None:
        self._reports: OrderedDict[PeerId, Report] = OrderedDict()
        self.refused = 0
        """Reports that cannot be true, or are of no use."""

    def take(
        self,
        observer: PeerId,
        observed: Multiaddr | None,
        *,
        remote: Multiaddr,
        port: int | None,
        outbound: bool,
        now: float,
    ) -> None:
        """Take a report.

        Args:
            observer: Who says it.
            observed: What it sees.
            remote: Its own address, over which it is grouped; only global ones count.
            port: Our listening port of this connection; None = the connection uses another one.
            outbound: Whether we dialled.
            now: Seconds.
        """
        group = ip_group(remote)
        ip = ip_of(observed) if observed is not None else None
        if group is None or observed is None or host_port(observed) is None or ip is None:
            return
        if scope_of(observed) is not Scope.GLOBAL or not is_dialable_ip(ip):
            self.refused += 1
            return
        their = ip_of(remote)
        if their is None or their.version != ip.version:
            self.refused += 1
            return
        self._reports.pop(observer, None)
        self._reports[observer] = Report(group, observed, port, outbound, now)
        while len(self._reports) > MAX_REPORTS:
            self._reports.popitem(last=False)

    def expire(self, now: float) -> None:
        """Forget what is too old."""
        for observer in [o for o, r in self._reports.items() if r.at <= now - REPORT_SECONDS]:
            del self._reports[observer]

    def forget(self) -> None:
        """Forget everything: our network is another one now."""
        self._reports.clear()

    def groups(self) -> dict[Multiaddr, int]:
        """Return how many groups of observers see us at each address, the most first."""
        seen: dict[Multiaddr, set[bytes]] = {}
        for report in self._reports.values():
            if report.port is not None:
                seen.setdefault(report.addr, set()).add(report.group)
        return dict(sorted(((a, len(g)) for a, g in seen.items()), key=lambda pair: -pair[1]))

    def confirmed(self) -> list[Multiaddr]:
        """Return the addresses that observers in four groups agree on."""
        return [a for a, n in self.groups().items() if n >= CONFIRMED_GROUPS][:MAX_CANDIDATES]

    def candidates(self) -> list[Multiaddr]:
        """Return what may be an address of ours, best first: worth a try, not worth telling."""
        return list(self.groups())[:MAX_CANDIDATES]

    def ips(self) -> list[str]:
        """Return the global IP addresses at which observers see us, most of them first."""
        counted: Counter[str] = Counter()
        for report in self._reports.values():
            pair = host_port(report.addr)
            if pair is not None:
                counted[pair[0]] += 1
        return [ip for ip, _ in counted.most_common(MAX_CANDIDATES)]

    def mapping(self, own: Iterable[Multiaddr]) -> Mapping:
        """Return how our NAT maps ports.

        Args:
            own: The addresses that we listen on: who is seen at one of them is behind no NAT.
        """
        out = [r for r in self._reports.values() if r.outbound and r.port is not None]
        if not out:
            return "unknown"
        listening = set(own)
        if sum(r.addr in listening for r in out) * 2 > len(out):
            return "none"
        by_addr: dict[tuple[int | None, Multiaddr], set[bytes]] = {}
        for r in out:
            by_addr.setdefault((r.port, r.addr), set()).add(r.group)
        groups = len({r.group for r in out})
        most = max(map(len, by_addr.values()))
        if most >= 2 and 2 * most > groups:
            return "endpoint-independent"
        if groups >= 3 and len(by_addr) >= 3:
            return "endpoint-dependent"
        return "unknown"
