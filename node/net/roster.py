"""Who we are connected with: which connection to use, which one has to go. Nothing here awaits."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from multiaddr import Multiaddr

from ...wire.ids import PeerId
from .bounds import Limits, global_ip
from .connection import Connection
from .errors import Shunned, TooMany
from .paths import Path

SPARE_SECONDS = 10.0
"""How long a connection that is not used for new streams may be without streams."""

SHUN_SECONDS = 60.0
"""How long a peer that broke too many rules gets no new connection."""

MAX_SHUNNED = 1024
"""Such peers that are remembered; the first one goes first."""


class Roster:
    """The connections of a host, by peer."""

    def __init__(self, own: PeerId, limits: Limits) -> None:
        self._own = own
        self._limits = limits
        self._by_peer: dict[PeerId, list[Connection]] = {}
        self._past_bytes = [0, 0]
        self._shunned: dict[PeerId, float] = {}  # until when

    def __iter__(self) -> Iterator[Connection]:
        """Go over all open connections."""
        return (c for several in list(self._by_peer.values()) for c in several if not c.closed)

    def get(self, peer: PeerId) -> Connection | None:
        """Return the connection to use for new streams.

        It is the one with the best path; among equals TCP before QUIC, which costs more; and then
        the one that the smaller id dialled.
        """
        usable = [c for c in self._by_peer.get(peer, ()) if c.usable]
        if not usable:
            return None
        preferred = "out" if self._own < peer else "in"

        def rank(c: Connection) -> tuple[bool, Path, bool, bool, float]:
            return (c.limited, c.path, c.transport == "quic", c.direction != preferred, c.opened_at)

        return min(usable, key=rank)

    def of(self, peer: PeerId) -> list[Connection]:
        """Return all connections with a peer, the oldest first."""
        return list(self._by_peer.get(peer, ()))

    def limited(self, peer: PeerId) -> list[Connection]:
        """Return the connections with a peer over relays that carry no content."""
        return [c for c in self._by_peer.get(peer, ()) if c.usable and c.limited]

    def add(self, connection: Connection) -> None:
        """Take a new connection."""
        self._by_peer.setdefault(connection.peer_id, []).append(connection)

    def remove(self, connection: Connection) -> None:
        """Forget one that has ended, but for its bytes."""
        several = self._by_peer.get(connection.peer_id, [])
        if connection in several:
            several.remove(connection)
            if connection.path is not Path.RELAYED:
                self._past_bytes[0] += connection.bytes_in
                self._past_bytes[1] += connection.bytes_out
        if not several:
            self._by_peer.pop(connection.peer_id, None)

    def shun(self, peer: PeerId) -> None:
        """Have no new connection with a peer for a while."""
        self._shunned.pop(peer, None)
        self._shunned[peer] = trio.current_time() + SHUN_SECONDS
        if len(self._shunned) > MAX_SHUNNED:
            del self._shunned[next(iter(self._shunned))]

    def make_room(self, peer: PeerId, remote: Multiaddr) -> None:
        """Close the least useful idle connection if there is no place for another.

        Raises:
            Shunned: The peer is to be left alone.
            TooMany: All are in use, or too many are with this IP.
        """
        if trio.current_time() < self._shunned.get(peer, 0.0):
            raise Shunned(f"{peer} broke too many rules and is left alone for a minute")
        everyone = list(self)
        ip = global_ip(remote)
        if ip is not None:
            same = sum(global_ip(c.remote) == ip for c in everyone)
            if same >= self._limits.per_ip:
                raise TooMany(f"there are {same} connections with this IP already")
        if len(everyone) < self._limits.connections:
            return
        idle = [c for c in everyone if c.usable and not c.streams and not c.fetching]
        if not idle:
            raise TooMany(f"there are {len(everyone)} connections, all in use")
        min(idle, key=lambda c: c.used_at).close("a newer connection needed the place")

    def close_spares(self) -> None:
        """Close what is no longer used for new streams and has been without any for a while."""
        limit = trio.current_time() - SPARE_SECONDS
        for connection in self:
            spare = connection is not self.get(connection.peer_id)
            if spare and not connection.streams and connection.used_at <= limit:
                connection.close("another connection is in use")

    def relieve(self) -> bool:
        """Reset the stream with most unread bytes; False if no open stream has any."""
        found = [(c, worst) for c in self if (worst := c.most_unread()) is not None]
        if not found:
            return False
        connection, worst = max(found, key=lambda pair: len(pair[1].buffer))
        connection.drop_unread(worst)
        return True

    @property
    def bytes_in(self) -> int:
        """Bytes received over all connections ever; a relayed one's came over its relay's."""
        return self._past_bytes[0] + sum(c.bytes_in for c in self if c.path is not Path.RELAYED)

    @property
    def bytes_out(self) -> int:
        """Bytes sent over all connections ever."""
        return self._past_bytes[1] + sum(c.bytes_out for c in self if c.path is not Path.RELAYED)
