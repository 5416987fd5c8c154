"""What our addresses look like from outside, as peers tell it. A plain object.

Peers lie, so an address counts as confirmed when observers in four different groups (IPv4 /16, IPv6
/32) agree. From the same reports follows how a NAT maps ports: the same for everybody
(endpoint-independent), or anew for each destination (endpoint-dependent), where no hole can be
punched between two of that kind.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_group, ip_of, is_quic, place_of, scope_of
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ...wire.scopes import IpAddress, is_dialable_ip

CONFIRMED_GROUPS = 4
"""Groups of observers that must agree (go: 4)."""

AGREEING_GROUPS = 2
"""Groups that must name an IP address for others to be left out."""

MAX_REPORTS = 256
"""Reports remembered; beyond, the oldest of the group that has most goes."""

REPORT_SECONDS = 1800.0
"""Life of a report after the connection has ended (go: 30 min)."""

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
    """Reports of observers, by observer."""

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[PeerId, bool], Report] = OrderedDict()  # (…, over QUIC)
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
        if group is None or observed is None or place_of(observed) is None or ip is None:
            return
        if scope_of(observed) is not Scope.GLOBAL or not is_dialable_ip(ip):
            self.refused += 1
            return
        their = ip_of(remote)
        if their is None or their.version != ip.version:
            self.refused += 1
            return
        key = (observer, is_quic(observed))
        self._reports.pop(key, None)
        self._reports[key] = Report(group, observed, port, outbound, now)
        if len(self._reports) > MAX_REPORTS:
            # Of the group that says most: many peers of one network cannot drive out the others.
            most = Counter(r.group for r in self._reports.values()).most_common(1)[0][0]
            del self._reports[next(o for o, r in self._reports.items() if r.group == most)]

    def still(self, observer: PeerId, now: float) -> None:
        """Keep an observer's reports: our connection with it is still the same."""
        for quic in (False, True):
            report = self._reports.get((observer, quic))
            if report is not None:
                self._reports[observer, quic] = replace(report, at=now)

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
        """Return what may be an address of ours, best first: worth a try, not worth telling.

        Where groups agree on an IP, one that a single group names is left out: others would be
        made to dial it.
        """
        groups = self.groups()
        by_ip: dict[IpAddress | None, set[bytes]] = {}
        for report in self._reports.values():
            by_ip.setdefault(ip_of(report.addr), set()).add(report.group)
        agreed = {ip for ip, seen in by_ip.items() if len(seen) >= AGREEING_GROUPS}
        families = {ip.version for ip in agreed if ip is not None}
        found = [
            addr
            for addr in groups
            if (ip := ip_of(addr)) is not None and (ip in agreed or ip.version not in families)
        ]
        return found[:MAX_CANDIDATES]

    def ips(self) -> list[str]:
        """Return the global IP addresses at which observers see us, most of them first."""
        counted: Counter[str] = Counter()
        for report in self._reports.values():
            pair = place_of(report.addr)
            if pair is not None:
                counted[pair[0]] += 1
        return [ip for ip, _ in counted.most_common(MAX_CANDIDATES)]

    def mapping(self, own: Iterable[Multiaddr]) -> Mapping:
        """Return how our NAT maps ports (that of IPv4, if we use IPv4).

        Args:
            own: The addresses that we listen on: who is seen at one of them is behind no NAT.
        """
        out = [r for r in self._reports.values() if r.outbound and r.port is not None]
        # Each family has a NAT of its own, if any: that of IPv4 is what stands in the way.
        for version in (4, 6):
            family = [r for r in out if (ip := ip_of(r.addr)) is not None and ip.version == version]
            # TCP and UDP have ports of their own, and go through one box in one way.
            kinds = [[r for r in family if is_quic(r.addr) == quic] for quic in (False, True)]
            found = [_mapping(kind, set(own)) for kind in kinds if kind]
            if found:
                return next((verdict for verdict in found if verdict != "unknown"), "unknown")
        return "unknown"


def _mapping(out: list[Report], listening: set[Multiaddr]) -> Mapping:
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
