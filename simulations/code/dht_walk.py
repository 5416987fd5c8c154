"""What a simulated node asks: lookups, checks and announcements, driven by events.

These are the drivers of `node/find_walk.py` and its neighbours without tasks: they ask whom the
rules name and report what came of it. Hops are counted beside the lookup: a contact of our own is
one hop away, a peer that it names two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ...dht.announcements import Sweep, takers
from ...dht.keyspace import K
from ...dht.lookup import Lookup
from ...dht.walks import WALK_DEADLINE, FoundProviders
from ...node.find_announce import TOLD_AT_ONCE
from ...wire.ids import PeerId
from ...wire.kad import KadMessage, KadPeer, MessageType

if TYPE_CHECKING:
    from .dht_node import Node


class Asking:
    """One request that is under way."""

    __slots__ = (
        *("asked_at", "connected", "node", "patience", "peer", "request", "session", "target"),
        "trip",
    )

    def __init__(self, node: Node, peer: PeerId, request: KadMessage) -> None:
        self.node = node
        self.peer = peer
        self.target = node.network.find(peer)
        self.request = request
        self.asked_at = node.network.time.now
        self.session = node.session
        self.trip = 0.0
        """The round trip between the two."""
        self.patience = 0.0
        self.connected = False
        """Whether a connection was made for it."""

    def replied(self, answer: KadMessage | None) -> None:
        """Take the answer."""

    def failed(self) -> None:
        """Take note that there will be none."""


class Step(Asking):
    """A request of a walk."""

    __slots__ = ("walk",)

    def __init__(self, walk: Walk, peer: PeerId) -> None:
        super().__init__(walk.node, peer, walk.request)
        self.walk = walk

    def replied(self, answer: KadMessage | None) -> None:
        """Take the answer: it leads on."""
        assert answer is not None
        self.walk.replied(self.target, answer)

    def failed(self) -> None:
        """Take note that the peer is not there."""
        self.walk.failed(self.peer)


class Walk:
    """One lookup."""

    __slots__ = (
        *("began_at", "depth", "first_found", "found", "is_over", "lookup", "node", "request"),
        *("rpcs", "session", "spread", "then", "wakes_at"),
    )

    def __init__(
        self,
        node: Node,
        lookup: Lookup,
        seeds: Iterable[PeerId],
        request: KadMessage,
        then: Callable[[Walk], None] | None,
        *,
        spread: bool = False,
        found: FoundProviders | None = None,
    ) -> None:
        self.node = node
        self.lookup = lookup
        self.request = request
        self.then = then
        """Called with the walk when it is over."""
        self.spread = spread
        self.session = node.session
        self.began_at = node.network.time.now
        self.rpcs = 0
        """Requests sent."""
        self.depth: dict[PeerId, int] = dict.fromkeys(seeds, 1)
        """Hops to each peer heard of, by the way on which it was heard of first."""
        self.found = found
        """The providers, if these are sought."""
        self.first_found: float | None = None
        """When the first provider was found."""
        self.is_over = False
        self.wakes_at = -1.0

    def step(self) -> None:
        """Ask whom the lookup names now; end when it is over."""
        if self.is_over or self.session != self.node.session:
            return
        network = self.node.network
        now = network.time.now
        lookup = self.lookup
        deadline = self.began_at + WALK_DEADLINE
        peers = lookup.next_peers(now) if now < deadline else ()
        for peer in peers:
            self.rpcs += 1
            network.ask(Step(self, peer))
        if now >= deadline or lookup.over:
            self.is_over = True
            if self.then is not None:
                self.then(self)
            return
        change = lookup.next_change()
        assert change is not None, "a lookup that is not over waits for somebody"
        change = min(change, deadline)
        if self.wakes_at < 0.0 or change < self.wakes_at:
            self.wakes_at = change
            network.time.later(change, self._wake, change)

    def replied(self, source: Node, answer: KadMessage) -> None:
        """Take an answer."""
        node, peer = self.node, source.peer
        node.answered(source, spread=self.spread)
        if self.is_over:
            return
        depth = self.depth
        hops = depth[peer] + 1
        closer: list[PeerId] = []
        for entry in answer.closer[: node.table.config.k]:
            named = entry.peer_id
            if named is not node.peer:
                closer.append(named)
                if named not in depth:
                    depth[named] = hops
        self.lookup.replied(peer, closer)
        if self.found is not None:
            for entry in answer.providers:
                self.offer(entry)
        self.step()

    def failed(self, peer: PeerId) -> None:
        """Take note that a peer did not answer."""
        self.node.unanswered(peer)
        self.lookup.failed(peer)
        self.step()

    def offer(self, entry: KadPeer) -> None:
        """Take note of a provider."""
        assert self.found is not None
        is_new = entry.peer_id != self.node.peer and self.found.offer(entry.peer_id, entry.addrs)
        if is_new and self.first_found is None:
            self.first_found = self.node.network.time.now

    def _wake(self, at: float) -> None:
        if at == self.wakes_at:
            self.wakes_at = -1.0
            self.step()


class Check(Asking):
    """A question to a peer whether it serves, and for our own neighbours."""

    __slots__ = ("then",)

    def __init__(self, node: Node, peer: PeerId, then: Callable[[bool], None]) -> None:
        super().__init__(node, peer, KadMessage(MessageType.FIND_NODE, node.peer.raw))
        self.then = then

    def replied(self, answer: KadMessage | None) -> None:
        """Give it a place."""
        self.node.answered(self.target)
        self.then(True)

    def failed(self) -> None:
        """Count it as failed."""
        self.node.unanswered(self.peer)
        self.then(False)


class Tell(Asking):
    """An announcement to one peer, which has no answer; the next follows over the same stream."""

    __slots__ = ("announcing", "batch")

    def __init__(self, announcing: Announcing, peer: PeerId, batch: list[bytes]) -> None:
        node = announcing.node
        ourselves = (node.entry,)
        request = KadMessage(MessageType.ADD_PROVIDER, batch[0], providers=ourselves)
        super().__init__(node, peer, request)
        self.announcing = announcing
        self.batch = batch

    def replied(self, answer: KadMessage | None) -> None:
        """Count it as taken; the rest of the batch came with it."""
        for multihash in self.batch[1:]:
            self.target.answer(
                KadMessage(MessageType.ADD_PROVIDER, multihash, providers=(self.node.entry,)),
                self.node,
            )
        self.announcing.told(self.batch, True)

    def failed(self) -> None:
        """Count it as not taken."""
        self.announcing.told(self.batch, False)


class Announcing:
    """A round of announcements: lookups by sweep, and telling those found."""

    def __init__(self, node: Node, due: list[bytes], then: Callable[[], None]) -> None:
        self.node = node
        self.then = then
        self._sweep = Sweep(due)
        self._region: list[bytes] = []
        self._left: list[tuple[PeerId, list[bytes]]] = []
        self._open = 0
        self._taken: dict[bytes, int] = {}
        self._wanted = 0
        self._joins = 0
        self._began_at = 0.0
        self._rpcs = 0
        self._hops = 0

    def go_on(self) -> None:
        """Look up the next region."""
        following = self._sweep.next_lookup()
        if following is None:
            self.then()
            return
        multihash, width = following
        self._joins = self.node.announcements.joins
        self._began_at = self.node.network.time.now
        self.node.look(multihash, self._walked, width=width)

    def _walked(self, walk: Walk) -> None:
        found = walk.lookup.result
        self._hops, self._rpcs = hops_of(walk), walk.rpcs
        self._region = self._sweep.found(found)
        self._taken = {}
        self._wanted = min(K, len(found))
        batches: dict[PeerId, list[bytes]] = {}
        for multihash in self._region:
            for peer in takers(multihash, found):
                batches.setdefault(peer, []).append(multihash)
        self._left = list(reversed(batches.items()))
        self._open = 0
        if batches:
            self._tell()
        else:
            self._finish()

    def _tell(self) -> None:
        while self._left and self._open < TOLD_AT_ONCE:
            peer, batch = self._left.pop()
            self._open += 1
            self.node.network.ask(Tell(self, peer, batch))

    def told(self, batch: list[bytes], taken: bool) -> None:
        """Take note that a peer took its announcements, or did not."""
        self._open -= 1
        if taken:
            for multihash in batch:
                self._taken[multihash] = self._taken.get(multihash, 0) + 1
        self._tell()
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        node = self.node
        for multihash in self._region:
            taken = self._taken.get(multihash, 0)
            node.announcements.outcome(
                multihash, taken, self._wanted, self._joins, node.unix, node.draw
            )
            node.watch.announced(node, self._began_at, self._hops, self._rpcs, taken)
        self.go_on()


def hops_of(walk: Walk) -> int:
    """Return how far away the nearest peer is that a walk found; 0 if it found none."""
    result = walk.lookup.result
    return walk.depth[result[0]] if result else 0
