"""Finding and keeping peers for a fetch: named ones, connected ones, and providers of the DHT."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ...wire.addresses import peer_of
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.swarm import PROTOCOL
from ..link import PeerHint
from ..net.connection import Connection
from ..net.errors import NetError, StreamRefused
from .waiting import STALL_SECONDS, Kind, Reason

if TYPE_CHECKING:
    from .fetch import Fetch
    from .transfers import Transfers

SEEK_SECONDS = 60.0
SEEK_IDLE_SECONDS = 15.0
"""How often providers are sought: while pieces flow, and while nothing does."""

NAMED_SECONDS = 15.0
"""How often a peer that was named and is not linked is tried again."""

TRIES_AT_ONCE = 16
"""Peers that are tried at a time; of more providers, those whose back-off runs are left alone."""

MAX_TRIED = 512
"""Peers whose last failure, and providers whose addresses, are remembered."""

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
        self._linked: set[PeerId] = set()  # as of a moment ago
        self._aside: set[PeerId] = set()
        self._named_trying: dict[PeerHint, None] = {}
        self._providers: dict[PeerId, tuple[Multiaddr, ...]] = {}
        self._kick = trio.Event()
        self._sooner = False
        self._replanned_at: float | None = None  # during this stall
        self._nursery: trio.Nursery | None = None
        self.failures: dict[str, Reason] = {}
        """What went wrong lately, by peer or address."""
        self.searches = 0
        self.searching = False
        self.asked = 0
        """DHT nodes asked by the last search."""
        self.found = 0
        """Providers that the last search named."""
        self.nothing: str | None = None
        """Why the last search found nothing."""
        self.add(hints)

    @property
    def hints(self) -> tuple[PeerHint, ...]:
        """The peers that were named."""
        return tuple(self._hints)

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
        return len(self._trying - self._aside) + len(self._named_trying)

    async def run(self) -> None:
        """Look for peers until cancelled."""
        on_identified = self._transfers.host.on_identified
        on_disconnected = self._transfers.host.on_disconnected
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for hint in self._hints:
                nursery.start_soon(self._keep_named, hint)
            nursery.start_soon(self._watch)
            on_identified.append(self.connected)
            on_disconnected.append(self.lost)
            try:
                await self._seek()
            finally:
                on_identified.remove(self.connected)
                on_disconnected.remove(self.lost)

    def connected(self, connection: Connection) -> None:
        """Ask a connected peer that speaks the swarm protocol whether it has the content."""
        if connection.speaks(PROTOCOL):
            self._try(connection.peer_id, (), aside=True)

    def lost(self, connection: Connection) -> None:
        """Try a peer again at once whose connection has ended: another path may lead there."""
        peer = connection.peer_id
        if peer in self._linked:
            self._linked.discard(peer)
            self._try(peer, self._providers.get(peer, ()))

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
                        self._provider(provider.peer_id, provider.addrs)
                self.searching = False
                self.asked, self.found = search.asked, found
                self.nothing = None if found else str(search.nothing or "")
            await self._pause()

    def _provider(self, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        """Use a provider; where it is now its back-off does not count, where it was it may.

        Of few even that does not: dialling them costs nothing, and one may be back.
        """
        known = self._providers.pop(peer, ())
        self._providers[peer] = tuple(addrs)
        while len(self._providers) > MAX_TRIED:
            del self._providers[next(iter(self._providers))]
        few = len(self._providers) <= TRIES_AT_ONCE
        self._transfers.host.dials.clear(a for a in addrs if few or a not in known)
        self._try(peer, addrs)

    async def _pause(self) -> None:
        """Wait 60 s, but only 15 s when nothing flows, and not at all when a stall begins."""
        started = trio.current_time()
        waited, kick = 0.0, self._kick
        while not self._sooner and waited < (SEEK_SECONDS if self._flows else SEEK_IDLE_SECONDS):
            with trio.move_on_after(1.0):
                await kick.wait()
            waited = trio.current_time() - started
        self._sooner = False

    def look_again(self) -> None:
        """Search at once, or again behind the search under way, and try those named."""
        self._sooner = True
        kick, self._kick = self._kick, trio.Event()
        kick.set()

    async def _watch(self) -> None:
        """Plan anew whenever nothing has been verified for 10 s."""
        begun = trio.current_time()
        while True:
            await trio.sleep(1.0)
            fetch, now = self._fetch, trio.current_time()
            self._linked = set(fetch.swarm.links)
            if not fetch.waits_for_peers:
                begun = now
                continue
            since = max(begun, fetch.progress_at)
            if self._replanned_at is not None and since > self._replanned_at:
                self._replanned_at = None  # that stall is over
            if now - max(since, self._replanned_at or since) >= STALL_SECONDS:
                self._replan(now)

    def _replan(self, now: float) -> None:
        first = self._replanned_at is None
        self._replanned_at = now
        fetch, host = self._fetch, self._transfers.host
        reason = fetch.snapshot().waiting
        for link in list(fetch.swarm.links.values()):
            link.connection.doubt()
        fetch.replan()
        if first:
            why = reason.text if reason is not None else "the peers send nothing"
            self._transfers.remark(
                f"the fetch to {fetch.copy.path} has got nothing for {STALL_SECONDS:.0f} s: {why}"
            )
            for peer, addrs in self._providers.items():
                host.dials.clear([*addrs, *host.peerstore.addrs(peer)])
            self.look_again()
        for peer, addrs in self._providers.items():
            self._try(peer, addrs)

    @property
    def _flows(self) -> bool:
        return trio.current_time() - self._fetch.progress_at < SEEK_IDLE_SECONDS and bool(
            self._fetch.swarm.links
        )

    def _try(self, peer: PeerId, addrs: Iterable[Multiaddr], *, aside: bool = False) -> None:
        """Link with a peer in a task of its own; `aside`: nobody said that it has the content."""
        swarm = self._fetch.swarm
        if not aside:
            self._aside.discard(peer)
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
        if aside:
            self._aside.add(peer)
        self._nursery.start_soon(self._link, peer, tuple(addrs))

    async def _link(self, peer: PeerId, addrs: tuple[Multiaddr, ...]) -> None:
        try:
            async with self._limit:
                connection = await self._transfers.host.connect(peer, addrs, carrying=True)
                await self._open(connection)
        except (NetError, PeerFault) as error:
            if peer not in self._aside:
                self._failed(str(peer), error)
        finally:
            self._trying.discard(peer)
            self._aside.discard(peer)

    async def _open(self, connection: Connection) -> None:
        # Of two streams opened at once each side might keep another one.
        peer = connection.peer_id
        if peer in self._fetch.swarm.links or peer in self._opening:
            return
        self._opening.add(peer)
        try:
            await self._transfers.open_link(connection, self._fetch.swarm)
            self._linked.add(peer)
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
                self._named_trying[hint] = None
                try:
                    connection = await self._transfers.reach(hint)
                    await self._open(connection)
                    self.failures.pop(name, None)
                except (NetError, PeerFault) as error:
                    self._failed(name, error)
                finally:
                    del self._named_trying[hint]
            with trio.move_on_after(NAMED_SECONDS):
                await self._kick.wait()

    def _failed(self, name: str, error: NetError | PeerFault) -> None:
        kind = Kind.NO_PROVIDER if isinstance(error, StreamRefused) else Kind.UNREACHABLE
        self.failures.pop(name, None)
        self.failures[name] = Reason(kind, str(error))
        while len(self.failures) > MAX_TRIED:
            del self.failures[next(iter(self.failures))]

    def why(self) -> Reason:
        """Say why there is no peer."""
        greeting = len(self._opening - self._aside)
        if greeting:
            return Reason(Kind.GREETING, f"greeting {_peers(greeting)}")
        named = {hint if isinstance(hint, PeerId) else peer_of(hint) for hint in self._named_trying}
        tried = self._trying - self._aside | {peer for peer in named if peer is not None}
        securing = sum(peer in self._transfers.host.maker.securing for peer in tried)
        if securing:
            return Reason(Kind.CONNECTING, f"connecting to {_peers(securing)}")
        if self.dialling:
            return Reason(Kind.DIALLING, f"dialling {_peers(self.dialling)}")
        asked = f"no provider found ({self.asked} nodes asked)"
        if self.failures:
            last = next(reversed(self.failures.values()))
            more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
            searched = self.searches > self.searching
            none = f"; {asked}" if searched and not self.found else ""
            return Reason(last.kind, f"{last.text}{more}{none}")
        if not self.searches or (self.searching and self.searches == 1):
            return Reason(Kind.SEARCHING, "looking for providers in the DHT")
        return Reason(Kind.NO_PROVIDER, f"{asked}: {self.nothing}" if self.nothing else asked)


def _peers(count: int) -> str:
    return f"{count} peer{'s' * (count != 1)}"
