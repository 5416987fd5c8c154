"""Whom the DHT knows, and how what others say about addresses becomes something to dial."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ..dht.neighbours import CHECKERS as CHECKERS
from ..dht.neighbours import Neighbours
from ..dht.providers import MAX_ADDRS
from ..dht.table import Table
from ..wire.addresses import acceptable, ip_group, peer_of, without_peer
from ..wire.ids import PeerId
from ..wire.kad import KadMessage, KadPeer, MessageType
from .find_rpc import Rpc, RpcFailed

if TYPE_CHECKING:
    from .net.connection import Connection
    from .net.host import Host

HEARD_LIFE = 1800.0
"""Seconds for which an address that others told is kept (go: 2 min to 1 h)."""


class Contacts:
    """The routing table and the addresses of one DHT, fed by answers and by new connections."""

    def __init__(self, host: Host, protocol: str, table: Table, rpc: Rpc) -> None:
        self._host = host
        self._protocol = protocol
        self.table = table
        self._neighbours = Neighbours(table)
        self._rpc = rpc
        self._idle = trio.lowlevel.ParkingLot()
        self.on_joined: list[Callable[[], None]] = []
        """Called when the table gets its first contact."""

    def answered(
        self, peer: PeerId, answer: KadMessage, connection: Connection, *, spread: bool = False
    ) -> list[PeerId]:
        """Take note of an answer: the table learns who gave it, the peerstore whom it names.

        Args:
            peer: Who answered.
            answer: Its answer.
            connection: What the answer came over.
            spread: It was asked for a refresh; see `Table.answered`.

        Returns:
            The peers that it names and that we could dial, at most k.
        """
        joined = self._neighbours.answered(
            peer,
            self._addrs_over(connection),
            ip_group(connection.remote),
            trio.current_time(),
            spread=spread,
        )
        self._idle.unpark(count=self._neighbours.waiting)
        if joined:
            for tell in self.on_joined:
                tell()
        reachable: list[PeerId] = []
        for entry in answer.closer[: self.table.config.k]:
            if entry.peer_id == self._host.peer_id:
                continue
            self.hear(entry, connection)
            if self.reachable(entry.peer_id):
                reachable.append(entry.peer_id)
        return reachable

    def unanswered(self, peer: PeerId) -> None:
        """Take note of a request that failed."""
        self._neighbours.unanswered(peer)

    def hear(self, entry: KadPeer, connection: Connection) -> list[Multiaddr]:
        """Keep the addresses that a peer told about another, and return those that are taken."""
        taken = [
            without_peer(addr)
            for addr in entry.addrs
            if acceptable(addr, connection.scope) and peer_of(addr) in (None, entry.peer_id)
        ][:MAX_ADDRS]
        if taken and entry.peer_id != self._host.peer_id:
            self._host.peerstore.add(
                entry.peer_id, taken, told_over=connection.scope, ttl=HEARD_LIFE
            )
        return taken

    def reachable(self, peer: PeerId) -> bool:
        """Return whether we are connected with a peer or know an address of it."""
        return self._host.connection(peer) is not None or bool(self._host.peerstore.addrs(peer))

    def addrs(self, peer: PeerId) -> list[Multiaddr]:
        """Return where a peer can be reached, as far as we know; our own addresses for ourselves.

        What the peer itself said over a connection that is open comes first.
        """
        if peer == self._host.peer_id:
            return list(self._host.told_addrs())
        connection = self._host.connection(peer)
        told = self._addrs_over(connection) if connection is not None else []
        contact = self.table.get(peer)
        if not told and contact is not None:
            told = list(contact.addrs)
        return told or list(self._host.peerstore.addrs(peer))[:MAX_ADDRS]

    def identified(self, connection: Connection) -> None:
        """Have a newly met peer asked, if it says that it serves this DHT.

        One that says that it does not (any more) leaves the table; one that says where it is now is
        named there to others.
        """
        if connection.info is None:
            return
        serves = self._protocol in connection.info.protocols
        self._neighbours.met(connection.peer_id, serves)
        self.table.moved(connection.peer_id, self._addrs_over(connection))
        self._idle.unpark(count=self._neighbours.waiting)

    def examine_silent(self) -> None:
        """Have the contacts asked that have been silent for too long."""
        self._neighbours.examine_silent(trio.current_time())
        self._idle.unpark(count=self._neighbours.waiting)

    async def check_candidates(self) -> None:
        """Ask the peers in line, one after the other; several of these run at once."""
        while True:
            peer = self._neighbours.next_candidate(trio.current_time())
            if peer is None:
                await self._idle.park()
            else:
                await self.check(peer)

    async def check(self, peer: PeerId, addrs: Iterable[Multiaddr] = ()) -> str | None:
        """Ask a peer for our own neighbours; who answers comes into the table.

        Returns:
            None if it answered, else why not, in words.
        """
        request = KadMessage(MessageType.FIND_NODE, self._host.peer_id.raw)
        try:
            answer, connection = await self._rpc.ask(peer, request, addrs)
        except RpcFailed as error:
            self.unanswered(peer)
            return str(error)
        self.answered(peer, answer, connection)
        return None

    def _addrs_over(self, connection: Connection) -> list[Multiaddr]:
        """Return where the peer says that it listens, and where we dialled it."""
        told = list(connection.info.listen_addrs) if connection.info is not None else []
        if connection.direction == "out":
            told.insert(0, connection.remote)
        good = (without_peer(addr) for addr in told if acceptable(addr, connection.scope))
        return list(dict.fromkeys(good))[:MAX_ADDRS]
