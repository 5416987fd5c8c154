"""Super-seeding: a single seed shows each peer only some pieces, others to everyone.

Peers that see all of a seed choose alike and ask it for the same rare pieces; the seed then sends a
piece several times before the swarm has each piece once, and its uplink is the bottleneck of all
(Legout et al. 2006: the trouble is the start). So it says Have for a few pieces at a time, those
that it has offered least so far, and for more whenever a peer has asked for half of them: nobody
has to wait for an offer, and no two peers are offered the same piece before each has been offered.
"""

from __future__ import annotations

from typing import Final, Protocol

from bitarray import bitarray
from bitarray.util import ones, zeros

from .peer_bits import PeerBits

MAX_PIECES: Final = 1 << 20
"""Of larger contents everything is shown: a bit for every piece and peer is kept meanwhile."""

FEWEST_PIECES: Final = 16
"""Of smaller contents, too."""

FIRST_OFFERS: Final = 4
"""Pieces that a peer is offered at first, and has to choose from at least."""

STARVED_SECONDS: Final = 10.0
"""A peer that holds no more than so long ago is offered also what others got, though there are
pieces yet that nobody did: they may not be linked with it."""

IGNORED_SECONDS: Final = 2.0
"""Offers of which none is asked for that long are not what the peer wants: twice as many follow."""


class Draw(Protocol):
    """The random source that is handed in."""

    def randrange(self, stop: int, /) -> int:
        """Return a number from 0 to `stop - 1`."""
        ...


class _Peer:
    __slots__ = ("asked", "bits", "grew_at", "most", "offered", "open", "sent", "since")

    def __init__(self, pieces: int, bits: PeerBits, now: float) -> None:
        self.bits = bits
        self.offered = zeros(pieces)
        self.open: set[int] = set()
        """Offered, not asked for yet and not held."""
        self.asked: set[int] = set()
        """Asked for, not sent and not held yet."""
        self.sent: set[int] = set()
        """Sent and not held yet."""
        self.most = FIRST_OFFERS
        self.since = now
        """When it was last offered something, or asked."""
        self.grew_at = now
        """When it last held more than before."""

    def awaits(self, piece: int) -> bool:
        """Return whether it was offered a piece and may still ask for it."""
        busy = piece in self.asked or piece in self.sent
        return bool(self.offered[piece]) and not busy and not self.bits.has(piece)

    def look(self) -> None:
        """Forget what it holds by now."""
        for pieces in (self.open, self.asked, self.sent):
            pieces.difference_update([piece for piece in pieces if self.bits.has(piece)])


class Offers:
    """What one seed has offered to whom.

    Args:
        pieces: How many there are.
        random: Where a choice begins.
    """

    def __init__(self, pieces: int, random: Draw) -> None:
        self._pieces = pieces
        self._random = random
        self._fresh = ones(pieces)  # pieces that were offered to nobody
        self._out = zeros(pieces)  # pieces that were sent to somebody
        self._peers: dict[str, _Peer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, name: str) -> bool:
        return name in self._peers

    def join(self, name: str, bits: PeerBits, now: float) -> None:
        """Begin to offer pieces to a peer, which was told that we hold nothing."""
        self._peers[name] = _Peer(self._pieces, bits, now)

    def leave(self, name: str) -> None:
        """Forget a peer."""
        peer = self._peers.pop(name, None)
        if peer is not None:
            self._fresh[list(peer.open | peer.asked | peer.sent)] = 1
            self._out[list(peer.sent)] = 0

    def grew(self, name: str, now: float) -> None:
        """A peer holds more than before."""
        peer = self._peers.get(name)
        if peer is not None:
            peer.grew_at = now

    def asked(self, name: str, first: int, count: int, now: float) -> dict[str, list[int]]:
        """A peer has asked for pieces; return what others are not to be offered any more."""
        peer = self._peers.get(name)
        if peer is None:
            return {}
        pieces = range(first, min(first + count, self._pieces))
        peer.open.difference_update(pieces)
        peer.asked.update(piece for piece in pieces if not peer.bits.has(piece))
        peer.since = now
        self._fresh[first : first + count] = 0
        taken: dict[str, list[int]] = {}
        for other_name, other in self._peers.items():
            both = [piece for piece in pieces if other.awaits(piece)]
            if both:
                other.open.difference_update(both)
                other.offered[both] = 0
                taken[other_name] = both
        return taken

    def sent(self, name: str, piece: int) -> None:
        """A piece is on its way to a peer."""
        self._out[piece] = 1
        peer = self._peers.get(name)
        if peer is not None:
            peer.asked.discard(piece)
            if not peer.bits.has(piece):
                peer.sent.add(piece)

    def choked(self, name: str) -> list[int]:
        """A peer gets nothing for now; return what it is not to be offered any more."""
        peer = self._peers.get(name)
        if peer is None:
            return []
        lost = sorted(piece for piece in peer.open | peer.asked if not peer.bits.has(piece))
        peer.asked.clear()
        peer.open.clear()
        if lost:
            self._fresh[lost] = 1
            peer.offered[lost] = 0
        return lost

    def hides(self, name: str, first: int, count: int) -> bool:
        """Return whether nothing of a run is offered to a peer (any more)."""
        peer = self._peers.get(name)
        return peer is not None and not peer.offered[first : first + count].any()

    def next(self, name: str, now: float) -> list[int]:
        """Return pieces to offer to a peer now."""
        peer = self._peers.get(name)
        if peer is None:
            return []
        peer.look()
        busy = bool(peer.asked or peer.sent)
        ignored = not busy and now >= peer.since + IGNORED_SECONDS
        if peer.open and ignored:
            peer.open.clear()
            peer.most = min(2 * peer.most, self._pieces)
        found: list[int] = []
        starves = now >= peer.grew_at + STARVED_SECONDS
        most = max(
            peer.most, len(peer.asked) + len(peer.sent)
        )  # to choose from: as much as it asks for at a time
        if 2 * len(peer.open) <= most:
            found = self._choose(peer, self._fresh & ~peer.offered, most - len(peer.open))
            if not found and not peer.open and (ignored or not busy):
                found = self._again(peer, ignored, starves)
        if found:
            peer.since = now
        return found

    def _again(self, peer: _Peer, ignored: bool, starves: bool) -> list[int]:
        """Offer what was sent to nobody, though offered; what was only if there is no more."""
        left = ~peer.offered
        new = left & ~self._out
        under_way = zeros(self._pieces)
        for other in self._peers.values():
            under_way[list(other.asked | other.sent)] = 1
        found = self._choose(peer, new & ~under_way, peer.most if ignored else 1)
        if not found and (starves or self._out.all()):
            found = self._choose(peer, left & ~under_way, peer.most if ignored else 1)
            found = found or (self._choose(peer, left, peer.most) if ignored else [])
        return found

    def _choose(self, peer: _Peer, bits: bitarray, most: int) -> list[int]:
        """Offer pieces from a random place on."""
        found: list[int] = []
        while len(found) < most and bits.any():
            at: int = bits.find(1, self._random.randrange(self._pieces))
            if at < 0:
                at = bits.find(1)
            bits[at] = 0
            peer.offered[at] = 1
            if not peer.bits.has(at):
                self._fresh[at] = 0
                peer.open.add(at)
                found.append(at)
        return found

    def hidden(self, name: str) -> bitarray | None:
        """Return what a peer was not offered; None if we offer it nothing piece by piece."""
        peer = self._peers.get(name)
        return None if peer is None else ~peer.offered
