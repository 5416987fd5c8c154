"""Addresses of peers that we have met or heard of, with the scope rule and a bound on each.

An address that a peer told is kept only if our connection with the teller has the same or a
narrower scope than the address: a peer on the internet cannot make us dial into our own network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from multiaddr import Multiaddr

from ...wire.addresses import Scope, acceptable, peer_of, without_peer
from ...wire.ids import PeerId

MAX_ADDRS = 8
"""Addresses of one peer that others told us."""

MAX_PEERS = 10_000
"""Peers remembered; the least recently touched go first."""

HEARD_SECONDS = 3600.0
"""Life of an address that others told us (go: 2 min to 1 h)."""

MET_SECONDS = 24 * 3600.0
"""Life of an address at which we reached the peer ourselves, or that the user named."""


@dataclass(slots=True)
class _Known:
    addrs: dict[Multiaddr, float] = field(default_factory=dict)
    """Address -> until when it is kept (trio's clock)."""


class Peerstore:
    """What we know of peers' addresses."""

    def __init__(self, own: PeerId, clock: Callable[[], float]) -> None:
        self._own = own
        self._now = clock
        self._peers: OrderedDict[PeerId, _Known] = OrderedDict()
        self.on_new: list[Callable[[PeerId], None]] = []
        """Told of each peer for which an address was learned that was not known before."""

    def __len__(self) -> int:
        return len(self._peers)

    def add(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        *,
        told_over: Scope | None = None,
        ttl: float | None = None,
    ) -> list[Multiaddr]:
        """Remember addresses; return those that were taken.

        Args:
            peer: Whose they are.
            addrs: With or without a `/p2p` part; one that names another peer is left out.
            told_over: Scope of the connection over which a peer told them; None = the user named
                them, or we reached the peer there.
            ttl: Seconds to keep them.
        """
        if peer == self._own:
            return []
        life = ttl or (MET_SECONDS if told_over is None else HEARD_SECONDS)
        now = self._now()
        taken: list[Multiaddr] = []
        for addr in addrs:
            if peer_of(addr) not in (None, peer):
                continue
            plain = without_peer(addr)
            if told_over is None or acceptable(plain, told_over):
                taken.append(plain)
        if not taken:
            return []
        known = self._peers.setdefault(peer, _Known())
        self._peers.move_to_end(peer)
        fresh = any(addr not in known.addrs for addr in taken)
        for addr in taken:
            until = now + life
            known.addrs[addr] = max(known.addrs.pop(addr, 0.0), until)
        while len(known.addrs) > MAX_ADDRS:  # the longest known go
            del known.addrs[min(known.addrs, key=lambda a: known.addrs[a])]
        while len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)
        if fresh:
            for tell in self.on_new:
                tell(peer)
        return [addr for addr in taken if addr in known.addrs]

    def addrs(self, peer: PeerId) -> list[Multiaddr]:
        """Return the peer's addresses, the longest-lived first."""
        known = self._peers.get(peer)
        if known is None:
            return []
        now = self._now()
        for addr in [a for a, until in known.addrs.items() if until <= now]:
            del known.addrs[addr]
        return sorted(known.addrs, key=lambda a: -known.addrs[a])

    def forget(self, peer: PeerId, addr: Multiaddr) -> None:
        """Forget an address at which somebody else answered."""
        known = self._peers.get(peer)
        if known is not None:
            known.addrs.pop(without_peer(addr), None)
