"""Hole punching over UDP: one side dials by QUIC, the other sends datagrams of random bytes to it.

For that both must know how others see the UDP port that they listen on. Connections are made over
TCP first, so nobody has seen it: a connection by QUIC with the relay, and with another peer, shows.
It is open anew before each attempt, so that what the NAT keeps for the port is still there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Final

import trio
from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_group, is_quic, scope_of, split_relayed
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ..net.connection import Connection
from ..net.dialer import PUBLIC_PAUSE
from ..net.errors import NetError
from ..net.host import Host
from ..net.paths import Path

SHOW_SECONDS: Final = 3.0
"""For a connection that shows how our UDP port is seen."""

MAX_SHOWN: Final = 2
"""Peers in different groups that are asked: two tell whether the port is the same for both."""

LEAST_PAUSE: Final = 0.01
MOST_PAUSE: Final = 0.2
"""Between two datagrams that open a hole (specification: 10 to 200 ms, at random)."""

STRAY_BYTES: Final = 64
"""Of a datagram that opens a hole."""

HEAD_START: Final = PUBLIC_PAUSE
"""Seconds by which TCP is ahead of QUIC: where both get through, it carries more."""


class QuicPunch:
    """See the top of the file.

    Args:
        host: Connections.
        chance: For pauses and bytes.
    """

    def __init__(self, host: Host, chance: Random) -> None:
        self._host = host
        self._chance = chance

    async def show(self, relayed: Connection) -> None:
        """Let others see our UDP port, the relay of this connection first."""
        if not self._host.uses_quic:
            return
        with trio.move_on_after(SHOW_SECONDS):
            async with trio.open_nursery() as nursery:
                for peer, addr in self._observers(relayed):
                    nursery.start_soon(self._show_to, peer, addr)

    def _observers(self, relayed: Connection) -> Iterator[tuple[PeerId, Multiaddr]]:
        over = split_relayed(relayed.remote) or split_relayed(relayed.local)
        relay = None if over is None else over[1]
        near = [c.peer_id for c in self._host.connections() if c.path is Path.DIRECT]
        groups: set[bytes | None] = set()
        for peer in dict.fromkeys([*([relay] if relay is not None else []), *near]):
            addrs = self._host.peerstore.addrs(peer)
            for addr in addrs:
                public = is_quic(addr) and scope_of(addr) is Scope.GLOBAL
                if public and ip_group(addr) not in groups:
                    groups.add(ip_group(addr))
                    yield peer, addr
                    break
            if len(groups) >= MAX_SHOWN:
                return

    async def _show_to(self, peer: PeerId, addr: Multiaddr) -> None:
        for connection in self._host.connections():
            if connection.peer_id == peer and is_quic(connection.remote) and connection.usable:
                return  # what keeps it alive keeps the NAT's mapping alive
        if self._host.dials.waits(addr):
            return
        with suppress(NetError, PeerFault, OSError, trio.TooSlowError):
            connection = await self._host.maker.dial(addr, peer)
            await connection.identified()

    async def dial(self, addr: Multiaddr, peer: PeerId) -> None:
        """Be the one that dials; return when there is a connection.

        Raises:
            NetError, PeerFault, OSError, trio.TooSlowError: It did not work.
        """
        quic = self._host.quic
        if quic is None:
            raise OSError("QUIC is not in use here")
        await trio.sleep(HEAD_START)
        link = await quic.dial(addr)
        await self._host.maker.admit(link, peer, initiator=True, path=Path.PUNCHED)

    async def knock(self, addr: Multiaddr) -> None:
        """Be the one that opens the way, until cancelled: the other's connection comes to us."""
        quic = self._host.quic
        if quic is None:
            raise OSError("QUIC is not in use here")
        while True:
            quic.stray(addr, self._chance.randbytes(STRAY_BYTES))
            await trio.sleep(self._chance.uniform(LEAST_PAUSE, MOST_PAUSE))
