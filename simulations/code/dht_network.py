"""The model network under simulated DHT nodes: who reaches whom, and how long it takes.

A request to a peer that we have a connection with takes one round trip, to any other three (TCP,
handshake, request). Who cannot be reached costs the caller the shipped time-outs. A node
keeps the connections of the shipped node, at most 512. Messages travel as objects; their size is
computed, not encoded.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ...node.find_rpc import RPC_TIMEOUT
from ...node.net.bounds import MAX_CONNECTIONS
from ...node.net.dialer import CONNECT_SECONDS
from ...wire.ids import PeerId
from ...wire.kad import KadMessage, KadPeer
from ..latency import Geography
from .timeline import Digest, Timeline

if TYPE_CHECKING:
    import random

    from .dht_node import Node
    from .dht_walk import Asking

NEW_TRIPS: Final = 3.0
"""Round trips of a request to a peer never met, until its answer."""

KNOWN_TRIPS: Final = 1.0
"""Round trips of a request over a connection."""

_EVENT: Final = struct.Struct("<IBIII")
ASKED, REPLIED, FAILED, ONLINE, OFFLINE, FAULT, DONE = range(7)
"""Kinds of events in the digest."""


class Counters:
    """Messages so far."""

    def __init__(self) -> None:
        self.requests = 0
        self.answers = 0
        self.failures = 0
        self.bytes = 0


class Network:
    """All nodes, and what lies between them.

    Args:
        places: Where nodes are.
        jitter: Part of a latency by which a message may be later.
        chance: Draws the jitter.
        trips: Round trips of every request; None = as connections make it. With a number, nobody
            keeps connections, and nobody is asked for having been met.
    """

    def __init__(
        self, places: Geography, jitter: float, chance: random.Random, trips: float | None = None
    ) -> None:
        self.time = Timeline()
        self.digest = Digest()
        self.counters = Counters()
        self.nodes: list[Node] = []
        self.index: dict[PeerId, int] = {}
        """Numbers of the nodes by their ids."""
        self.cut: set[int] = set()
        """Nodes on the smaller side of a cut."""
        self.slow: dict[int, float] = {}
        """Bytes a second of nodes with a slow line."""
        self.places = places
        self.trips = trips
        self._jitter = jitter
        self._chance = chance

    def note(self, kind: int, one: int, other: int = 0, more: int = 0) -> None:
        """Add an event to the digest."""
        self.digest.note(_EVENT.pack(self.time.tick, kind, one, other, more))

    def find(self, peer: PeerId) -> Node:
        """Return the node with this id."""
        return self.nodes[self.index[peer]]

    def ask(self, asking: Asking) -> None:
        """Send a request; `asking.replied` or `asking.failed` is called later, once."""
        source, target = asking.node, asking.target
        trip = asking.trip = self.places.round_trip(source.number, target.number)
        known = target.number in source.links
        asking.patience = RPC_TIMEOUT if known else CONNECT_SECONDS
        trips = self.trips or (KNOWN_TRIPS if known else NEW_TRIPS)
        if known:
            self._use(source, target)
        delay = (trips - 0.5) * trip + self._later(source, target, asking.request, 0.5 * trip)
        self.counters.requests += 1
        self.time.after(delay, self._arrive, asking)

    def _arrive(self, asking: Asking) -> None:
        source, target = asking.node, asking.target
        if not self._reaches(source, target) or not target.serves:
            self._fail(asking)
            return
        if self.trips is None and target.number not in source.links:
            self._connect(source, target)
            asking.connected = True
        self.note(ASKED, source.number, target.number, int(asking.request.type))
        answer = target.answer(asking.request, source)
        way = 0.5 * asking.trip
        delay = way + self._later(target, source, answer, way)
        self.time.after(delay, self._return, asking, answer)

    def _return(self, asking: Asking, answer: KadMessage | None) -> None:
        source, target = asking.node, asking.target
        if not self._reaches(target, source):
            self._fail(asking)
            return
        if asking.session != source.session or not source.online:
            return
        self.counters.answers += 1
        named = len(answer.closer) if answer is not None else 0
        self.note(REPLIED, source.number, target.number, named)
        asking.replied(answer)
        if asking.connected:
            source.met(target)

    def _fail(self, asking: Asking) -> None:
        self.time.at(asking.asked_at + asking.patience, self._failed, asking)

    def _failed(self, asking: Asking) -> None:
        source, target = asking.node, asking.target
        if asking.session != source.session or not source.online:
            return
        self.counters.failures += 1
        self.unlink(source, target)
        self.note(FAILED, source.number, target.number)
        asking.failed()

    def _reaches(self, source: Node, target: Node) -> bool:
        return (
            target.online
            and source.online
            and not source.silent
            and not target.silent
            and (source.number in self.cut) == (target.number in self.cut)
        )

    def _later(self, source: Node, target: Node, message: KadMessage | None, way: float) -> float:
        """Return by how much a message is late: jitter, and lines that are slow."""
        late = way * self._jitter * self._chance.random() if self._jitter else 0.0
        size = size_of(message)
        self.counters.bytes += size
        if self.slow:
            for node in source, target:
                rate = self.slow.get(node.number)
                if rate is not None:
                    late += size / rate
        return late

    # Connections

    def _connect(self, source: Node, target: Node) -> None:
        for here, there in (source, target), (target, source):
            here.links[there.number] = None
            if len(here.links) > MAX_CONNECTIONS:
                oldest = next(iter(here.links))
                self.unlink(here, self.nodes[oldest])
        target.met(source)

    def _use(self, source: Node, target: Node) -> None:
        for here, there in (source, target), (target, source):
            if there.number in here.links:
                del here.links[there.number]
                here.links[there.number] = None

    def unlink(self, one: Node, other: Node) -> None:
        """Let a connection be gone, at both ends."""
        one.links.pop(other.number, None)
        other.links.pop(one.number, None)


def size_of(message: KadMessage | None) -> int:
    """Return how many bytes a message takes on a stream, its length in front included.

    The parts of a connection's handshake and the framing below are not counted.
    """
    if message is None:
        return 0
    size = 2 + _field(len(message.key))
    if message.closer:
        size += _peers(message.closer)
    if message.providers:
        size += _peers(message.providers)
    return size + _varint(size)


def _peers(peers: Sequence[KadPeer]) -> int:
    """All simulated peers have one address of one length, but the first may be told otherwise."""
    size = _peer(peers[-1])
    first = size if peers[0].addrs is peers[-1].addrs else _peer(peers[0])
    return first + (len(peers) - 1) * size


def _peer(peer: KadPeer) -> int:
    size = _field(len(peer.peer_id.raw)) + 2
    for addr in peer.addrs:
        size += _field(len(addr.to_bytes()))
    return 1 + _varint(size) + size


def _field(size: int) -> int:
    return 1 + _varint(size) + size if size else 0


def _varint(number: int) -> int:
    return 1 if number < 128 else (number.bit_length() + 6) // 7
