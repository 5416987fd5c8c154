"""Whether others can reach us, address by address, from what AutoNAT servers tried. Plain objects.

A verdict needs the agreement of servers in different groups, as far as there are any: one liar
among them changes nothing. It follows the last five results, so that it can change.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from multiaddr import Multiaddr

from ...wire.addresses import is_quic

Reachability = Literal["unknown", "public", "private"]

KEPT_RESULTS = 5
"""Results of an address that its verdict follows."""

AGREEING = 2
"""Results of different servers that must agree, if there are so many servers."""

MAX_ADDRS = 8
"""Addresses of ours that are tested."""

FIRST_SECONDS = 3.0
"""Until an address that is new is tested (go: 15 s)."""

RETRY_SECONDS = 30.0
"""Until an address without a verdict, or with that of one server among several, is tested again
(go: 90 s)."""

REFRESH_SECONDS = 900.0
"""Until a verdict is tested again (go: 15 min)."""

MAX_SILENT = 3
"""Times that no server answered for an address, after which it is left for `REFRESH_SECONDS`."""


@dataclass(slots=True)
class _Addr:
    due: float
    results: deque[tuple[bytes, bool]] = field(default_factory=lambda: deque(maxlen=KEPT_RESULTS))
    """(the server's group, whether it reached us), the newest last."""
    silent: int = 0
    verdict: Reachability = "unknown"
    retry_at: float = math.inf

    @property
    def agreeing(self) -> int:
        """How many results stand for the verdict."""
        return sum(reached == (self.verdict == "public") for _, reached in self.results)


class AddressTests:
    """The addresses that may be ours, and what tests of them showed."""

    def __init__(self) -> None:
        self._addrs: dict[Multiaddr, _Addr] = {}

    def candidates(self, addrs: Iterable[Multiaddr], now: float) -> None:
        """Say which addresses may be ours now; results of others are forgotten."""
        wanted = list(dict.fromkeys(addrs))[:MAX_ADDRS]
        for gone in self._addrs.keys() - set(wanted):
            del self._addrs[gone]
        for addr in wanted:
            self._addrs.setdefault(addr, _Addr(now + FIRST_SECONDS))

    def recheck(self, now: float) -> None:
        """Have everything tested soon: something has changed."""
        for known in self._addrs.values():
            known.due = min(known.due, now + FIRST_SECONDS)
            known.silent = 0

    def due(self, now: float, servers: int) -> list[Multiaddr]:
        """Return the addresses to test now.

        Args:
            now: Seconds.
            servers: Groups in which there are servers that can be asked: a verdict that hangs on
                one of them does not wait long for another's word.
        """
        return [
            addr
            for addr, known in self._addrs.items()
            if known.due <= now
            or (known.agreeing < min(AGREEING, servers) and known.retry_at <= now)
        ]

    def result(
        self, addr: Multiaddr, group: bytes, reached: bool | None, now: float, servers: int
    ) -> None:
        """Take a result.

        Args:
            addr: What was tested.
            group: The server's group.
            reached: Whether it worked; None = the server could or would not say.
            now: Seconds.
            servers: Groups in which there are servers that can be asked.
        """
        known = self._addrs.get(addr)
        if known is None:
            return
        if reached is None:
            known.silent += 1
            known.due = now + (REFRESH_SECONDS if known.silent >= MAX_SILENT else RETRY_SECONDS)
            return
        known.silent = 0
        for entry in [entry for entry in known.results if entry[0] == group]:
            known.results.remove(entry)
        known.results.append((group, reached))
        known.verdict = self._verdict(known, servers)
        known.retry_at = now + RETRY_SECONDS
        settled = known.verdict == ("public" if reached else "private")
        known.due = now + (REFRESH_SECONDS if settled else FIRST_SECONDS)

    @staticmethod
    def _verdict(known: _Addr, servers: int) -> Reachability:
        good = sum(reached for _, reached in known.results)
        bad = len(known.results) - good
        needed = max(1, min(AGREEING, servers))
        if good >= needed and good > bad:
            return "public"
        if bad >= needed and bad > good:
            return "private"
        return known.verdict

    def judges(self, addr: Multiaddr) -> set[bytes]:
        """Return the groups of the servers whose results count for an address."""
        known = self._addrs.get(addr)
        return set() if known is None else {group for group, _ in known.results}

    def verdict(self, addr: Multiaddr) -> Reachability:
        """Return what is known of one address."""
        known = self._addrs.get(addr)
        return "unknown" if known is None else known.verdict

    def given_up(self, addr: Multiaddr) -> bool:
        """Return whether no server would test an address, several times."""
        known = self._addrs.get(addr)
        return known is not None and known.silent >= MAX_SILENT

    def reachable(self) -> list[Multiaddr]:
        """Return the addresses at which others reach us."""
        return [addr for addr, known in self._addrs.items() if known.verdict == "public"]

    def tested(self) -> dict[Multiaddr, Reachability]:
        """Return all addresses and their verdicts."""
        return {addr: known.verdict for addr, known in self._addrs.items()}

    def overall(self, whole: Reachability = "unknown") -> Reachability:
        """Return whether we can be reached at any address.

        Args:
            whole: What AutoNAT version 1 says of us as a whole; it counts if nothing else does.
        """
        if any(known.verdict == "public" for known in self._addrs.values()):
            return "public"
        # Few servers dial by QUIC, so an address of that kind without a verdict says nothing.
        verdicts = [
            known.verdict
            for addr, known in self._addrs.items()
            if known.verdict != "unknown" or not is_quic(addr)
        ]
        if verdicts and all(verdict == "private" for verdict in verdicts):
            return "private"
        return whole


class WholeTests:
    """AutoNAT version 1: whether we can be reached as a whole; more than three reports decide."""

    NEEDED = 3

    def __init__(self) -> None:
        self._results: deque[tuple[bytes, bool]] = deque(maxlen=2 * self.NEEDED)
        self.verdict: Reachability = "unknown"

    def result(self, group: bytes, reached: bool, servers: int) -> None:
        """Take a result of a server in this group."""
        for entry in [entry for entry in self._results if entry[0] == group]:
            self._results.remove(entry)
        self._results.append((group, reached))
        good = sum(r for _, r in self._results)
        bad = len(self._results) - good
        needed = max(1, min(self.NEEDED, servers))
        if good >= needed and good > bad:
            self.verdict = "public"
        elif bad >= needed and bad > good:
            self.verdict = "private"

    def forget(self) -> None:
        """Forget everything: our network is another one now."""
        self._results.clear()
        self.verdict = "unknown"
