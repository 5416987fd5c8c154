"""What becomes of those who answer, do not answer, or turn up: who is asked, who gets a place.

The table holds servers that answered a query of ours. Whoever else may be one (a peer that we met,
a contact that was silent) stands in a bounded line until it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable

from multiaddr import Multiaddr

from ..wire.ids import PeerId
from .table import Table

MAX_CANDIDATES = 256
"""Peers that wait to be asked whether they serve the DHT (go: 256)."""

JUST_HEARD = 60.0
"""Seconds since its last answer for which a contact need not be asked whether it serves."""

CHECKERS = 8
"""Such questions asked at the same time."""


class Neighbours:
    """A routing table, and who stands in line to be asked."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._line: dict[PeerId, None] = {}

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def answered(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        group: bytes | None,
        now: float,
        *,
        spread: bool = False,
    ) -> bool:
        """Take note of an answer (see `Table.answered`); return whether it is the first contact."""
        was_empty = not len(self.table)
        offer = self.table.answered(peer, addrs, group, now, spread=spread)
        if offer.ask is not None:
            self.examine(offer.ask.peer)
        return was_empty and bool(len(self.table))

    def unanswered(self, peer: PeerId) -> None:
        """Take note of a request that failed."""
        self.table.failed(peer)

    def met(self, peer: PeerId, serves: bool) -> None:
        """Take note of a new connection with a peer that says whether it serves this DHT.

        One that says that it does not (any more) leaves the table.
        """
        if serves:
            self.examine(peer)
        else:
            self.table.remove(peer)

    def examine(self, peer: PeerId) -> None:
        """Put a peer in line to be asked whether it serves (again); dropped if the line is full."""
        if peer != self.table.own and len(self._line) < MAX_CANDIDATES:
            self._line[peer] = None

    def examine_silent(self, now: float) -> None:
        """Put those in line that have been silent for too long."""
        for contact in self.table.silent(now):
            self.examine(contact.peer)

    def next_candidate(self, now: float) -> PeerId | None:
        """Return who is to be asked next; those that answered just now are passed over."""
        while self._line:
            peer = next(iter(self._line))
            del self._line[peer]
            contact = self.table.get(peer)
            # Most peers that are new were met because we asked them.
            if contact is None or contact.failures or now - contact.seen >= JUST_HEARD:
                return peer
        return None
