"""Finding and keeping peers for a fetch: named ones, connected ones, and providers of the DHT."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ...wire.addresses import peer_of
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.swarm import PROTOCOL
from ..link import PeerHint
from ..net.connection import Connection
from ..net.errors import NetError
from .waiting import Reason

if TYPE_CHECKING:
    from .fetch import Fetch
    from .transfers import Transfers

SEEK_SECONDS = 60.0
SEEK_IDLE_SECONDS = 15.0
"""How often providers are sought: while pieces flow, and while nothing does."""

NAMED_SECONDS = 15.0
"""How often a peer that was named and is not linked is tried again."""

TRIES_AT_ONCE = 16
"""Peers that are tried at a time."""

MAX_TRIED = 512
"""Peers whose last failure is remembered."""

MAX_LINKS = 64
"""Peers that one content is fetched from and served to at our asking."""


class Seeker:
    """Looks for peers for one fetch until cancelled."""

    def __init__(self, transfers: Transfers, fetch: Fetch, hints: Iterable[PeerHint]) -> None:
        self._transfers = transfers
        self._fetch = fetch
        self._hints: list[PeerHint] = []
        self._limit = trio.CapacityLimiter(TRIES_AT_ONCE)
        self._trying: set[PeerId] = set()
        self._opening: set[PeerId] = set()
        self._nursery: trio.Nursery | None = None
        self.failures: dict[str, str] = {}
        """What went wrong lately, by peer or address, in words."""
        self.searches = 0
        self.searching = False
        self.asked = 0
        """DHT nodes asked by the last search."""
        self.found = 0
        """Providers that the last search named."""
        self.nothing: str | None = None
        """Why the last search found nothing."""
        self.add(hints)

    def add(self, hints: Iterable[PeerHint]) -> None:
        """Ask these peers, too."""
        for hint in hints:
            if hint not in self._hints:
                self._hints.append(hint)
                if self._nursery is not None:
                    self._nursery.start_soon(self._keep_named, hint)

    @property
    def named(self) -> int:
        """How many peers were named."""
        return len(self._hints)

    @property
    def dialling(self) -> int:
        """Peers that are being tried."""
        return len(self._trying)

    async def run(self) -> None:
        """Look for peers until cancelled."""
        on_identified = self._transfers.host.on_identified
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for hint in self._hints:
                nursery.start_soon(self._keep_named, hint)
            on_identified.append(self.connected)
            try:
                await self._seek()
            finally:
                on_identified.remove(self.connected)

    def connected(self, connection: Connection) -> None:
        """Ask a connected peer that speaks the swarm protocol whether it has the content."""
        if connection.speaks(PROTOCOL):
            self._try(connection.peer_id, ())

    async def _seek(self) -> None:
        """Search the DHT again and again; each provider is used as it is found.

        Connected peers are asked each time, too: they may have come to hold the content.
        """
        while True:
            for connection in self._transfers.host.connections():
                self.connected(connection)
            search = self._transfers.find_providers(self._fetch.cid)
            if search is not None:
                self.searches += 1
                self.searching = True
                found = 0
                async with search:
                    async for provider in search:
                        found += 1
                        host = self._transfers.host
                        host.dials.clear(provider.addrs)
                        self._try(provider.peer_id, provider.addrs)
                self.searching = False
                self.asked, self.found = search.asked, found
                self.nothing = None if found else str(search.nothing or "")
            await self._pause()

    async def _pause(self) -> None:
        """Wait 60 s, but only 15 s when nothing flows."""
        started = trio.current_time()
        waited = 0.0
        while waited < (SEEK_SECONDS if self._flows else SEEK_IDLE_SECONDS):
            await trio.sleep(1.0)
            waited = trio.current_time() - started

    @property
    def _flows(self) -> bool:
        return trio.current_time() - self._fetch.progress_at < SEEK_IDLE_SECONDS and bool(
            self._fetch.swarm.links
        )

    def _try(self, peer: PeerId, addrs: Iterable[Multiaddr]) -> None:
        swarm = self._fetch.swarm
        if (
            self._nursery is None
            or peer in self._trying
            or peer in swarm.links
            or peer in self._fetch.banned
            or peer == self._transfers.host.peer_id
            or len(swarm.links) + len(self._trying) >= MAX_LINKS
        ):
            return
        self._trying.add(peer)
        self._nursery.start_soon(self._link, peer, tuple(addrs))

    async def _link(self, peer: PeerId, addrs: tuple[Multiaddr, ...]) -> None:
        try:
            async with self._limit:
                connection = await self._transfers.host.connect(peer, addrs)
                await self._open(connection)
        except (NetError, PeerFault) as error:
            self._failed(str(peer), str(error))
        finally:
            self._trying.discard(peer)

    async def _open(self, connection: Connection) -> None:
        # Of two streams opened at once each side might keep another one.
        peer = connection.peer_id
        if peer in self._fetch.swarm.links or peer in self._opening:
            return
        self._opening.add(peer)
        try:
            await self._transfers.open_link(connection, self._fetch.swarm)
        finally:
            self._opening.discard(peer)
        self.failures.pop(str(peer), None)

    async def _keep_named(self, hint: PeerHint) -> None:
        """Try a named peer again and again while it is not linked."""
        name = str(hint)
        while True:
            peer = hint if isinstance(hint, PeerId) else peer_of(hint)
            links = self._fetch.swarm.links
            if peer is not None and peer in self._fetch.banned:
                return
            if peer is None or peer not in links:
                try:
                    connection = await self._transfers.reach(hint)
                    await self._open(connection)
                    self.failures.pop(name, None)
                except (NetError, PeerFault) as error:
                    self._failed(name, str(error))
            await trio.sleep(NAMED_SECONDS)

    def _failed(self, name: str, why: str) -> None:
        self.failures.pop(name, None)
        self.failures[name] = why
        while len(self.failures) > MAX_TRIED:
            del self.failures[next(iter(self.failures))]

    def why(self) -> Reason:
        """Say why there is no peer."""
        if self._trying:
            return Reason("dialling", f"trying {len(self._trying)} peers")
        if self.failures:
            why = next(reversed(self.failures.values()))
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            return Reason("unreachable", f"{why}{more}")
        if self.searching or not self.searches:
            return Reason("searching", "looking for providers in the DHT")
        asked = f"no provider found ({self.asked} nodes asked)"
        return Reason("no provider", f"{asked}: {self.nothing}" if self.nothing else asked)
