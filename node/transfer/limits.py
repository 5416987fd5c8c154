"""The limits of a node's transfers, each way: for the node, for a content, for each peer.

Upwards a piece waits at the gate before it is queued to its stream (`Turn`). Downwards a fetch
waits there before it asks (`Allowance`), as what was asked for comes at the sender's speed. Without
a limit neither costs more than a look at a flag.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakValueDictionary

import trio

from ...swarm.bucket import Bucket, Gate, Ticket, give
from ...swarm.queue import Budget
from ...wire.ids import Cid, PeerId
from ...wire.swarm import MAX_PIECE

LEAST_SLEEP = 0.001
"""Seconds between two looks at the gate: rounding must not make it spin."""

ASK_SECONDS = 0.25
"""A fetch holds so much of its rate (one piece at least) that it has not asked for yet."""

LEAST_SHARE = 4096
"""Bytes that a fetch takes at the gate at a time, at least; fetches take turns by them."""


class Side:
    """One direction: its buckets, and the gate where transfers wait for them.

    `run` must be running. Buckets are kept when their limit is lifted, so that whoever waits sees
    every change; there is one for each content that ever had a limit since the start.
    """

    def __init__(self) -> None:
        self.free = True
        """There is no limit at all."""
        self._node = Bucket(None, 0.0)
        self._contents: dict[Cid, Bucket] = {}
        self._peer_rate: float | None = None
        self._peers: WeakValueDictionary[PeerId, _PeerBucket] = WeakValueDictionary()
        self._gate = Gate()
        self._wakes: dict[Ticket, Callable[[], None]] = {}
        self._changed = trio.Event()

    def set_node(self, rate: float | None) -> None:
        """Limit everything together (bytes a second; None = no limit)."""
        self._node.set_rate(rate, trio.current_time())
        self._rates_changed()

    def set_content(self, cid: Cid, rate: float | None) -> None:
        """Limit one content."""
        bucket = self._contents.get(cid)
        if bucket is not None:
            bucket.set_rate(rate, trio.current_time())
        elif rate is not None:
            self._contents[cid] = Bucket(rate, trio.current_time())
        self._rates_changed()

    def set_peers(self, rate: float | None) -> None:
        """Limit each peer."""
        self._peer_rate = rate
        for bucket in self._peers.values():
            bucket.set_rate(rate, trio.current_time())
        self._rates_changed()

    def _rates_changed(self) -> None:
        contents = [bucket.rate for bucket in self._contents.values()]
        rates = [self._node.rate, self._peer_rate, *contents]
        self.free = all(rate is None for rate in rates)
        self.look()

    def of_peer(self, peer: PeerId) -> Bucket | None:
        """Return a peer's bucket, which lives as long as somebody holds it; None = no limit."""
        if self._peer_rate is None:
            return None
        bucket = self._peers.get(peer)
        if bucket is None:
            bucket = self._peers[peer] = _PeerBucket(self._peer_rate, trio.current_time())
        return bucket

    def of_content(self, cid: Cid) -> tuple[Bucket, ...]:
        """Return the buckets that have a limit for a content: the content's and the node's."""
        both = (self._contents.get(cid), self._node)
        return tuple(bucket for bucket in both if bucket is not None and bucket.rate is not None)

    def enter(self, ticket: Ticket, wake: Callable[[], None]) -> None:
        """Wait at the gate; `wake` is called when the ticket is granted, perhaps at once."""
        self._wakes[ticket] = wake
        self._gate.enter(ticket)
        self.look()

    def leave(self, ticket: Ticket) -> None:
        """Wait no more; what was granted is given back."""
        self._wakes.pop(ticket, None)
        self._gate.leave(ticket, trio.current_time())
        self.look()

    def look(self) -> float:
        """Let through who may go; return when to look again."""
        granted, again = self._gate.grant(trio.current_time())
        for ticket in granted:
            self._wakes.pop(ticket)()
        self._changed.set()
        return math.inf if again is None else again

    async def run(self) -> None:
        """Let tickets through as the buckets fill, until cancelled."""
        while True:
            again = self.look()
            self._changed = trio.Event()
            with trio.move_on_at(max(again, trio.current_time() + LEAST_SLEEP)):
                await self._changed.wait()


class _PeerBucket(Bucket):
    """A bucket that can be referred to weakly."""

    __slots__ = ("__weakref__",)


class Turn:
    """The place of one link at the gate upwards."""

    def __init__(self, side: Side, cid: Cid, peer: PeerId, wake: Callable[[], None]) -> None:
        self._side = side
        self._cid = cid
        self._peer = peer
        self._wake = wake
        self._bucket: Bucket | None = None  # held here, so that the peer's debt is not forgotten
        self._ticket: Ticket | None = None

    def may_send(self, count: int) -> bool:
        """Return whether `count` bytes may go now: they must, then. If not, wait to be woken."""
        ticket = self._ticket
        if ticket is None:
            if self._side.free:
                return True
        elif ticket.granted and count <= ticket.count:
            self._ticket = None
            give(ticket.buckets, ticket.count - count, trio.current_time())
            return True
        elif not ticket.granted and ticket.count == count:
            return False
        else:
            self.leave()
        self._bucket = self._side.of_peer(self._peer)
        of_peer = (self._bucket,) if self._bucket is not None else ()
        ticket = Ticket((*of_peer, *self._side.of_content(self._cid)), count)
        if not ticket.buckets:
            return True
        self._ticket = ticket
        self._side.enter(ticket, self._wake)
        if not ticket.granted:
            return False
        self._ticket = None
        return True

    def leave(self) -> None:
        """Wait no more."""
        if self._ticket is not None:
            self._side.leave(self._ticket)
            self._ticket = None


class Allowance:
    """What one fetch may ask for: the memory for arriving pieces, and below the limits.

    It is the engine's budget. Bytes are taken when they are asked for and given back if they do not
    come; `came` tells those that do. A peer's own limit is taken as it is asked (`asking`), and not
    given back: whoever does not deliver is asked for less.
    """

    def __init__(
        self, side: Side, cid: Cid, pool: Budget, piece_size: int, wake: Callable[[], None]
    ) -> None:
        self._side = side
        self._cid = cid
        self._pool = pool
        self._piece_size = piece_size
        self._wake = wake  # must not ask at once: we may be in the midst of asking
        self._have = 0
        self._ticket: Ticket | None = None
        self._peers: dict[PeerId, Bucket] = {}
        self._asking: Bucket | None = None
        self.held_back = False
        """Bytes are wanted and the limits have no room for them."""

    @property
    def room(self) -> int:
        """Bytes that may still be reserved."""
        room = self._pool.room
        if self._side.free:
            self._forget()
            self.held_back = False
            return room
        if self._asking is not None:
            peer_room = self._asking.room(trio.current_time())
            room = room if peer_room is None else min(room, int(peer_room))
        buckets = self._side.of_content(self._cid)
        if buckets:
            self._wait(buckets)
            room = min(room, self._have)
        self.held_back = room < self._piece_size <= self._pool.room
        return room

    def _wait(self, buckets: tuple[Bucket, ...]) -> None:
        """Take what fits, and stand at the gate for the next share while too little is here."""
        slowest = min(bucket.rate or math.inf for bucket in buckets)
        most = max(MAX_PIECE, int(ASK_SECONDS * slowest))
        share = min(MAX_PIECE, max(LEAST_SHARE, int(slowest / 8)))
        while self._have < most and self._ticket is None:
            ticket = Ticket(buckets, share)
            self._ticket = ticket
            self._side.enter(ticket, self._granted)
            if not ticket.granted:
                return

    def _granted(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._have += ticket.count
            self._wake()

    def _forget(self) -> None:
        if self._ticket is not None:
            self._side.leave(self._ticket)
            self._ticket = None
        self._have = 0

    def reserve(self, count: int) -> None:
        """Take bytes for a request."""
        self._pool.reserve(count)
        if not self._side.free:
            self._have -= count
            if self._asking is not None:
                self._asking.take(count, trio.current_time())

    def release(self, count: int) -> None:
        """Give back what a request reserved."""
        self._pool.release(count)
        if not self._side.free:
            self._have += count
            excess = self._have - MAX_PIECE
            if excess > 0:
                self._have -= excess
                give(self._side.of_content(self._cid), excess, trio.current_time())

    def came(self, count: int) -> None:
        """Take note that a piece arrives; told before its reservation is given back."""
        if not self._side.free:
            self._have -= count

    def asking(self, peer: PeerId | None) -> None:
        """Say whom the next requests are for; None = nobody."""
        self._asking = None
        if peer is not None and not self._side.free:
            bucket = self._side.of_peer(peer)
            if bucket is not None:
                self._asking = self._peers[peer] = bucket

    def left(self, peer: PeerId) -> None:
        """Forget a peer."""
        self._peers.pop(peer, None)

    def close(self) -> None:
        """Want nothing more; what was not asked for is given back."""
        if self._have > 0:
            give(self._side.of_content(self._cid), self._have, trio.current_time())
        self._forget()


class Limits:
    """Both directions."""

    def __init__(self) -> None:
        self.up = Side()
        self.down = Side()

    async def run(self) -> None:
        """Let transfers go on as the buckets fill, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.up.run)
            nursery.start_soon(self.down.run)
