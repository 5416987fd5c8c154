"""Whom to serve: upload slots for one content, by reciprocity, need and turns.

A plain object. Up to eight peers that want something are served at once (design: section 5), on a
slow line only so many as it can keep busy; while there are no more of them, nobody is choked.
Beyond that they take turns: a turn is over when a peer has got its share, when it asks for nothing,
or after a while. The next turn goes to those in turn who have given most to us, who hold least, and
who have waited longest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import cycle
from types import MappingProxyType
from typing import Final

SLOTS: Final = 8
"""Peers served at a time at most."""

LEAST_SLOTS: Final = 2
"""So many also on the slowest line: while one is sent its piece, the next asks."""

SLOT_SECONDS: Final = 1.0
"""There is a slot for each piece that the line carries in that time."""

TURN_SECONDS: Final = 2.0
"""A turn brings what the line carries meanwhile for one slot, and one piece at least."""

LONGEST_TURN: Final = 20.0
"""Seconds after which it is over, whatever it brought."""

IDLE_SECONDS: Final = 0.25
"""A peer that asks for nothing for so long loses its slot while others wait."""

NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class _By(Enum):
    GIVEN = auto()
    NEED = auto()
    WAITED = auto()


ORDER: Final = (_By.WAITED, _By.GIVEN, _By.NEED, _By.GIVEN)
"""By what turns are given: half of them to those who give most."""


@dataclass(slots=True)
class _Peer:
    served: bool
    since: float
    """When it was choked or unchoked."""
    busy_at: float
    """When it last asked for something, or was sent something."""
    given: float = 0
    """Bytes that it gave, less what it got in turns for that."""
    got: int = 0
    """Bytes that it got in this turn."""


class Slots:
    """See the top of the file.

    Attributes:
        most: How many may be served at a time.
    """

    def __init__(self) -> None:
        self.most = SLOTS
        self._peers: dict[str, _Peer] = {}
        self._order = cycle(ORDER)
        self._rate: float | None = None
        self._piece = 0

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def names(self) -> list[str]:
        """All that want something."""
        return list(self._peers)

    @property
    def served(self) -> set[str]:
        """Peers that have a slot."""
        return {name for name, peer in self._peers.items() if peer.served}

    @property
    def crowded(self) -> bool:
        """Whether somebody waits."""
        return any(not peer.served for peer in self._peers.values())

    def measured(self, rate: float | None, piece: int) -> None:
        """Learn the line's rate (None = enough for all), and how long a piece is."""
        self._rate, self._piece = rate, piece
        if rate is not None and piece:
            self.most = max(LEAST_SLOTS, min(SLOTS, math.ceil(rate * SLOT_SECONDS / piece)))
        else:
            self.most = SLOTS

    def wants(self, name: str, now: float) -> bool:
        """A peer wants something of us; return whether it is served now."""
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer(len(self.served) < self.most, now, now)
        peer.busy_at = now
        return peer.served

    def gave(self, name: str, count: int) -> None:
        """Count bytes that a peer gave us."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.given += count

    def got(self, name: str, count: int, now: float) -> None:
        """Count bytes that a peer was sent."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.got += count
            peer.busy_at = now

    def leave(self, name: str) -> None:
        """A peer is gone, or wants nothing more."""
        self._peers.pop(name, None)

    def take_turns(
        self,
        now: float,
        busy: Collection[str],
        lacking: Collection[str],
        held: Mapping[str, int] = NOTHING,
        *,
        full: bool = False,
    ) -> tuple[list[str], list[str]]:
        """Decide anew.

        Args:
            now: Seconds.
            busy: Peers with something asked for and not sent.
            lacking: Peers that lack something that we hold; no others get a slot.
            held: How many pieces peers hold, as far as that is known.
            full: The line has enough to do with what it has accepted: nobody's turn begins yet.

        Returns:
            Whom to choke, and whom to unchoke.
        """
        before = self.served
        peers = self._peers
        waiting = [name for name, peer in peers.items() if not peer.served and name in lacking]
        for name in busy:
            if name in peers:
                peers[name].busy_at = now
        active = [n for n in peers if n in before and self._is_active(n, now, busy)]
        active.sort(key=lambda name: peers[name].since)
        if waiting:
            for name in [name for name in active if self._is_over(name, now)]:
                if full or name not in busy or len(active) >= self.most:
                    self._set(name, False, now)
                    active.remove(name)
                    waiting.append(name)
        asking = [name for name in active if name in busy]
        excess = [name for name in asking if not peers[name].got]
        for name in reversed(excess[max(0, len(excess) - max(0, len(asking) - self.most)) :]):
            self._set(name, False, now)  # the line is slower than was thought
            active.remove(name)
        while len(active) < self.most and waiting and not full:
            if len(self.served) >= SLOTS:
                idle = [n for n, peer in peers.items() if peer.served and n not in active]
                if not idle:
                    break
                self._set(min(idle, key=lambda name: peers[name].busy_at), False, now)
            name = self._best(waiting, held)
            waiting.remove(name)
            self._set(name, True, now)
            active.append(name)
        after = self.served
        return sorted(before - after), sorted(after - before)

    def _is_active(self, name: str, now: float, busy: Collection[str]) -> bool:
        return name in busy or now < self._peers[name].busy_at + IDLE_SECONDS

    def _is_over(self, name: str, now: float) -> bool:
        peer = self._peers[name]
        if now >= peer.since + LONGEST_TURN:
            return True
        share = (self._rate or math.inf) * TURN_SECONDS / self.most
        return peer.got >= max(1, self._piece, share)

    def _set(self, name: str, served: bool, now: float) -> None:
        peer = self._peers[name]
        peer.served, peer.since, peer.busy_at, peer.got = served, now, now, 0

    def _best(self, waiting: list[str], held: Mapping[str, int]) -> str:
        by = next(self._order)
        peers = self._peers
        if by is _By.GIVEN:
            best = max(waiting, key=lambda name: (peers[name].given, -peers[name].since))
            if peers[best].given > 0:
                peers[best].given /= 2
                return best
            by = _By.WAITED
        if by is _By.NEED:
            return min(waiting, key=lambda name: (held.get(name, 0), peers[name].since))
        return min(waiting, key=lambda name: peers[name].since)
