"""Whom to serve: upload slots for one content, by reciprocity and by turns.

A plain object. Up to eight peers that want something are served at once (design: section 5); while
there are no more of them, nobody is choked. Beyond that the four that give most to us stay; the
other slots go for a while to those that hold least, and among equals to who has waited longest. One
slot is optimistic: at every decision the peer that has waited longest gets it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

SLOTS: Final = 8
"""Peers served at a time, the optimistic one among them."""

ROTATE_SECONDS: Final = 10.0
"""How often it is decided anew."""

GIVERS: Final = 4
"""Slots that those who give most keep; the others go by need, so that whoever has fallen behind,
and has nothing yet that others lack, is not left there."""

NOTHING: Final[Mapping[str, int]] = MappingProxyType({})

TURN_SECONDS: Final = 20.0
"""How long a peer that gives nothing is served at least while others wait."""


@dataclass(slots=True)
class _Peer:
    served: bool
    since: float
    """When it was choked or unchoked."""
    given: int = 0
    """Bytes that it gave since the last rotation."""


class Slots:
    """See the top of the file."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._rotated = 0.0

    def __len__(self) -> int:
        return len(self._peers)

    @property
    def served(self) -> set[str]:
        """Peers that have a slot."""
        return {name for name, peer in self._peers.items() if peer.served}

    @property
    def crowded(self) -> bool:
        """Whether somebody waits."""
        return any(not peer.served for peer in self._peers.values())

    def wants(self, name: str, now: float) -> bool:
        """A peer wants something of us; return whether it is served now."""
        peer = self._peers.get(name)
        if peer is None:
            if not self._peers:
                self._rotated = now
            peer = self._peers[name] = _Peer(len(self.served) < SLOTS, now)
        return peer.served

    def gave(self, name: str, count: int) -> None:
        """Count bytes that a peer gave us."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.given += count

    def leave(self, name: str, now: float) -> list[str]:
        """A peer is gone, or wants nothing more; return who gets its slot."""
        peer = self._peers.pop(name, None)
        return self._fill(now) if peer is not None and peer.served else []

    def rotate(
        self, now: float, idle: Iterable[str] = (), held: Mapping[str, int] = NOTHING
    ) -> tuple[list[str], list[str]] | None:
        """Decide anew; to be called from time to time.

        Args:
            now: Seconds.
            idle: Peers with a slot that want nothing at present: they lose it while others wait.
            held: How many pieces peers hold, as far as that is known.

        Returns:
            Whom to choke, and whom to unchoke; None if it is too early.
        """
        if now < self._rotated + ROTATE_SECONDS:
            return None
        self._rotated = now
        before = self.served
        if self.crowded:
            for name in before & set(idle):
                before.discard(name)
                del self._peers[name]
            self._choose(now, held)
        for peer in self._peers.values():
            peer.given = 0
        after = self.served
        return sorted(before - after), sorted(after - before)

    def _choose(self, now: float, held: Mapping[str, int]) -> None:
        waited = [name for name in self._longest() if not self._peers[name].served]
        optimistic = waited[:1]
        giving = sorted(
            (name for name, peer in self._peers.items() if peer.given and name not in optimistic),
            key=lambda name: -self._peers[name].given,
        )
        chosen = {*optimistic, *giving[:GIVERS]}
        rest = [name for name in self._peers if name not in chosen]
        rest.sort(key=lambda name: self._rank(self._peers[name], now, held.get(name, 0)))
        chosen.update(rest[: SLOTS - len(chosen)])
        for name, peer in self._peers.items():
            if peer.served != (name in chosen):
                peer.served, peer.since = name in chosen, now

    @staticmethod
    def _rank(peer: _Peer, now: float, held: int) -> tuple[int, int, float]:
        """Return a key: whose turn is not over, then who holds least, then who waits longest."""
        turn = peer.served and now < peer.since + TURN_SECONDS
        return (0 if turn else 1), held, peer.since if not peer.served else math.inf

    def _longest(self) -> list[str]:
        return sorted(self._peers, key=lambda name: self._peers[name].since)

    def _fill(self, now: float) -> list[str]:
        """Give free slots to those who have waited longest."""
        free = SLOTS - len(self.served)
        filled = [name for name in self._longest() if not self._peers[name].served][: max(0, free)]
        for name in filled:
            self._peers[name].served, self._peers[name].since = True, now
        return filled
