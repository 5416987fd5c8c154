"""Being a relay for others: places, circuits, and their limits.

There are two kinds. A *rendezvous* relay gives anybody a place and lets a circuit carry little
(128 KiB, 2 minutes: the numbers of go-libp2p), enough to agree on a hole punch. An *own* relay
carries whole transfers, for its owner's members or for all, within a quota for each day.

What passes is encrypted between the two ends; a relay only sees who talks with whom, and how much.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

import trio

from ...wire.addresses import ip_group, is_relayed, is_tellable, with_peer
from ...wire.circuit import (
    HOP,
    MAX_MESSAGE,
    STOP,
    HopMessage,
    HopType,
    Limit,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ..net.bounds import global_ip
from ..net.connection import Connection
from ..net.errors import NetError
from ..net.host import Host
from ..net.paths import Path
from ..net.stream import Stream
from .circuit import read_message, send_message
from .splice import Splice

RENDEZVOUS = Limit(120, 128 << 10)
"""What a circuit of a rendezvous relay carries (go)."""

PLACE_SECONDS = 3600
"""A reservation's life (go)."""

MAX_PLACES = 128
MAX_PLACES_PER_IP = 8
MAX_PLACES_PER_GROUP = 32
"""Places of one global IP, and of one IPv4 /16 or IPv6 /32 (go: of one network operator)."""

MAX_CIRCUITS = 128
MAX_CIRCUITS_PER_PEER = 16
"""Circuits of one peer, at either end (go)."""

MAX_ASKS = 20
ASKS_SECONDS = 60.0
"""Requests that one peer may make in a minute; more are refused, and counted."""

MAX_ASKS_PER_IP = 80
"""The same of all peers of one global IP: peer ids cost nothing."""

MAX_ASKERS = 2048
"""Peers, and IPs, whose requests are counted; the oldest are forgotten first."""

STOP_SECONDS = 30.0
"""For a peer to take a circuit (go)."""

HOP_SECONDS = 10.0
"""For a peer to say what it wants."""

DAY_SECONDS = 24 * 3600.0
WINDOW = 1 << 20
"""Receive window of each direction of an own relay's circuit, in bytes."""

MAX_WIDE = 8
"""Circuits whose windows and queues may grow; with more the bytes of 128 circuits that nobody reads
would not fit in 150 MiB."""


@immutable
class RelayPolicy:
    """Whom a relay serves, and how much."""

    limit: Limit | None = RENDEZVOUS
    """Of each circuit; None = whole transfers (an own relay)."""

    members: frozenset[PeerId] | None = None
    """Who may have a place; None = anybody. Anybody may reach a member."""

    quota: int | None = None
    """Bytes that are forwarded in a day, both directions of all circuits; None = no end."""


@immutable
class RelayStatistics:
    """What a relay does."""

    places: int
    circuits: int
    bytes: int
    """Forwarded since the start."""
    refused: dict[str, int]


@dataclass(slots=True)
class _Place:
    expires: float
    """Unix time."""
    ip: bytes | None
    group: bytes | None


@dataclass(slots=True)
class _Asks:
    since: float
    count: int = 0


class RelayServer:
    """See the top of the file."""

    def __init__(self, host: Host, policy: RelayPolicy) -> None:
        self._host = host
        self.policy = policy
        self._places: dict[PeerId, _Place] = {}
        self._circuits: Counter[PeerId] = Counter()
        self._running: set[Splice] = set()
        self._asks: OrderedDict[bytes, _Asks] = OrderedDict()
        self._refused: Counter[str] = Counter()
        self._bytes = 0
        self._day = self._now()
        self._today = 0
        host.handle(HOP, self._hop, max_inbound=2 * MAX_CIRCUITS_PER_PEER)
        host.on_disconnected.append(self._gone)

    def stop(self) -> None:
        """Serve no more; circuits end."""
        self._host.unhandle(HOP)
        self._host.on_disconnected.remove(self._gone)
        for splice in list(self._running):
            splice.cut("the relay serves no more")

    def statistics(self) -> RelayStatistics:
        """Return a snapshot."""
        self._expire()
        return RelayStatistics(
            len(self._places), len(self._running), self._bytes, dict(self._refused)
        )

    @property
    def left_today(self) -> int | None:
        """Bytes left of today's quota; None = no quota."""
        if self.policy.quota is None:
            return None
        if self._now() >= self._day + DAY_SECONDS:
            self._day, self._today = self._now(), 0
        return max(0, self.policy.quota - self._today)

    def _now(self) -> float:
        return self._host.environment.clock.now()

    async def _hop(self, stream: Stream) -> None:
        with trio.fail_after(HOP_SECONDS):
            data = await read_message(stream, MAX_MESSAGE)
        try:
            message = HopMessage.decode(data)
        except PeerFault as fault:
            stream.connection.count(fault)
            await self._answer(stream, Status.MALFORMED_MESSAGE)
            return
        peer = stream.connection.peer_id
        if stream.connection.path is Path.RELAYED:
            await self._refuse(stream, Status.PERMISSION_DENIED, "over-a-relay")
        elif not self._may_ask(stream.connection):
            reserves = message.type is HopType.RESERVE
            status = Status.RESERVATION_REFUSED if reserves else Status.RESOURCE_LIMIT_EXCEEDED
            await self._refuse(stream, status, "asks-too-often")
        elif message.type is HopType.RESERVE:
            await self._reserve(stream, peer)
        elif message.type is HopType.CONNECT and message.peer is not None:
            await self._connect(stream, peer, message.peer)
        else:
            await self._refuse(stream, Status.UNEXPECTED_MESSAGE, "unexpected")

    def _may_ask(self, connection: Connection) -> bool:
        """Count a request; at most so many of a peer, and of an IP, in a minute."""
        ip = global_ip(connection.remote)
        of_peer = self._asked(connection.peer_id.raw) <= MAX_ASKS
        return of_peer and (ip is None or self._asked(ip) <= MAX_ASKS_PER_IP)

    def _asked(self, who: bytes) -> int:
        """Count a request; return how many there were in this minute of theirs."""
        now, known = trio.current_time(), self._asks
        while known and now >= next(iter(known.values())).since + ASKS_SECONDS:
            known.popitem(last=False)
        while len(known) > MAX_ASKERS:
            known.popitem(last=False)
        asks = known.setdefault(who, _Asks(now))
        asks.count += 1
        return asks.count

    # Places

    async def _reserve(self, stream: Stream, peer: PeerId) -> None:
        connection = stream.connection
        members = self.policy.members
        if members is not None and peer not in members:
            await self._refuse(stream, Status.PERMISSION_DENIED, "no-member")
            return
        ip, group = global_ip(connection.remote), ip_group(connection.remote)
        if not self._has_room(peer, ip, group):
            await self._refuse(stream, Status.RESERVATION_REFUSED, "places-full")
            return
        expires = self._now() + PLACE_SECONDS
        self._places[peer] = _Place(expires, ip, group)
        own = self._host.peer_id
        addrs = tuple(
            with_peer(addr, own)
            for addr in self._host.told_addrs()
            if is_tellable(addr, connection.scope) and not is_relayed(addr)
        )
        voucher = Voucher(own, peer, int(expires)).seal(self._host.identity)
        given = Reservation(int(expires), addrs, voucher)
        answer = HopMessage(
            HopType.STATUS, reservation=given, limit=self.policy.limit, status=Status.OK
        )
        await send_message(stream, answer.encode())

    def _has_room(self, peer: PeerId, ip: bytes | None, group: bytes | None) -> bool:
        if peer in self._places:
            return True
        self._expire()
        places = self._places.values()
        if len(places) >= MAX_PLACES:
            return False
        if self.policy.members is not None:
            return True  # they are known by name
        if ip is not None and sum(p.ip == ip for p in places) >= MAX_PLACES_PER_IP:
            return False
        return group is None or sum(p.group == group for p in places) < MAX_PLACES_PER_GROUP

    def _expire(self) -> None:
        now = self._now()
        for peer in [p for p, place in self._places.items() if place.expires <= now]:
            del self._places[peer]

    def _gone(self, connection: Connection) -> None:
        """End a place whose connection has ended: it lives as long as that."""
        left = self._host.connection(connection.peer_id)
        if left is None or left.path is Path.RELAYED:
            self._places.pop(connection.peer_id, None)

    # Circuits

    async def _connect(self, stream: Stream, source: PeerId, target: PeerId) -> None:
        self._expire()
        refusal = self._why_no_circuit(source, target)
        if refusal is not None:
            await self._refuse(stream, *refusal)
            return
        connection = self._host.connection(target)
        if connection is None or connection.path is Path.RELAYED:
            await self._refuse(stream, Status.NO_RESERVATION, "no-place")
            return
        ends = (stream.connection, connection)
        for end in ends:
            self._circuits[end.peer_id] += 1
            end.fetching += 1  # it is kept, and may have as much unread as one with a transfer
        try:
            there = await self._stop(connection, source)
            if there is None:
                await self._refuse(stream, Status.CONNECTION_FAILED, "peer-did-not-answer")
                return
            await self._pipe(stream, there)
        finally:
            for end in ends:
                end.fetching -= 1
                self._circuits[end.peer_id] -= 1
                if not self._circuits[end.peer_id]:
                    del self._circuits[end.peer_id]

    def _why_no_circuit(self, source: PeerId, target: PeerId) -> tuple[Status, str] | None:
        if target not in self._places or source == target:
            return Status.NO_RESERVATION, "no-place"
        if self.left_today == 0:
            return Status.RESOURCE_LIMIT_EXCEEDED, "quota"
        if self._circuits.total() >= 2 * MAX_CIRCUITS:  # each counts at both its ends
            return Status.RESOURCE_LIMIT_EXCEEDED, "circuits-full"
        if max(self._circuits[source], self._circuits[target]) >= MAX_CIRCUITS_PER_PEER:
            return Status.RESOURCE_LIMIT_EXCEEDED, "circuits-of-peer"
        return None

    async def _stop(self, connection: Connection, source: PeerId) -> Stream | None:
        """Ask a peer to take a circuit; None if it does not."""
        stream: Stream | None = None
        try:
            with trio.fail_after(STOP_SECONDS):
                stream = await connection.open_stream([STOP], lazy=True)
                asked = StopMessage(StopType.CONNECT, source, self.policy.limit)
                await send_message(stream, asked.encode())
                answer = StopMessage.decode(await read_message(stream, MAX_MESSAGE))
            if answer.type is StopType.STATUS and answer.status == Status.OK:
                return stream
        except PeerFault as fault:
            connection.count(fault)
        except (NetError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        # Cancelled: the peer must not wait for us; it goes on outwards.
        except BaseException:
            if stream is not None:
                stream.reset("cancelled")
            raise
        if stream is not None:
            stream.reset("no circuit")
        return None

    async def _pipe(self, here: Stream, there: Stream) -> None:
        limit = self.policy.limit
        splice = Splice(here, there, limit, self._forwarded)
        self._running.add(splice)
        try:
            answer = HopMessage(HopType.STATUS, limit=limit, status=Status.OK)
            await send_message(here, answer.encode())
            if limit is None and len(self._running) <= MAX_WIDE:
                splice.widen()
                here.grow_window(WINDOW)
                there.grow_window(WINDOW)
            await splice.run()
            if not splice.reason:
                await there.aclose()
        finally:
            self._running.discard(splice)
            if not there.is_closed:
                why = splice.reason or "the circuit ended"
                here.reset(why)
                there.reset(why)

    def _forwarded(self, count: int) -> bool:
        """Count bytes; return whether they are within the quota."""
        left = self.left_today
        if left is not None and count > left:
            self._today += left  # what is too little for a message is nothing
            self._refused["quota"] += 1
            return False
        self._bytes += count
        self._today += count
        return True

    # Answers

    async def _refuse(self, stream: Stream, status: Status, why: str) -> None:
        self._refused[why] += 1
        await self._answer(stream, status)

    async def _answer(self, stream: Stream, status: Status) -> None:
        await send_message(stream, HopMessage(HopType.STATUS, status=status).encode())
