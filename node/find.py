"""The DHT as the node uses it: find peers and providers, announce, keep the place.

The rules are in `dht/`; here they meet the network. `Dht` wires the parts: `find_rpc` (a request),
`find_walk` (one lookup), `find_contacts` (table and addresses), `find_announce` (our contents),
`find_upkeep` (joining, refresh, saving) and `find_serve` (answers to others).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Literal

import trio
from multiaddr import Multiaddr

from ..dht.keyspace import K, common_prefix, key_of
from ..dht.lookup import LookupConfig
from ..dht.providers import ProviderConfig, ProviderStore
from ..dht.responder import Responder
from ..dht.table import Table, TableConfig
from ..dht.upkeep import UpkeepConfig
from ..dht.walks import begin, refresh_width
from ..wire.ids import PeerId
from ..wire.immutable import immutable
from ..wire.kad import KadMessage, MessageType
from .environment import Environment
from .find_announce import Announcer
from .find_contacts import CHECKERS, HEARD_LIFE, Contacts
from .find_memory import DhtMemory, ShortMemory
from .find_rpc import Rpc
from .find_serve import MAX_INBOUND, Server
from .find_upkeep import Joined, Keeper
from .find_walk import NothingFound, ProviderSearch, Walk, Walked, why_nothing

if TYPE_CHECKING:
    from .net.connection import Connection
    from .net.host import Host

OWN_PROTOCOL = "/shoal/kad/1.0.0"
AMINO_PROTOCOL = "/ipfs/kad/1.0.0"

ENOUGH_SOURCES = 2
"""Peers that must name an address of the sought peer before a search for it ends early."""

MAX_ADDRS_FOUND = 16
"""Addresses returned by a search for a peer."""

GOODBYE = 2.0
"""Seconds for saving when the node stops."""

Mode = Literal["server", "client"]


@immutable
class DhtConfig:
    """Which DHT, and how to take part in it."""

    protocol: str = OWN_PROTOCOL
    """Its protocol id."""

    mode: Mode = "server"
    """server answers others and is found in their tables; client only asks."""

    table: TableConfig = field(default_factory=TableConfig)
    lookup: LookupConfig = field(default_factory=LookupConfig)
    providers: ProviderConfig = field(default_factory=ProviderConfig)
    upkeep: UpkeepConfig = field(default_factory=UpkeepConfig)


@immutable
class FoundPeer:
    """What a search for a peer found."""

    addrs: tuple[Multiaddr, ...]
    """Where it is said to be; nobody has proved it."""
    asked: int
    answered: int
    nothing: NothingFound | None
    """Why there is no address, if there is none."""


@immutable
class TableRow:
    """One contact of the routing table."""

    peer_id: PeerId
    addrs: tuple[Multiaddr, ...]
    bucket: int
    """Leading bits that its key shares with ours."""
    seen: float
    """Unix time of its last answer."""
    failures: int
    """Failed requests since."""


@immutable
class DhtStatistics:
    """A snapshot of the counters."""

    mode: Mode
    contacts: int
    records: int
    announced: int
    sent: dict[str, int]
    served: dict[str, int]
    last_join: Joined


class Dht:
    """One node's part in a DHT; it lives while `run` runs."""

    def __init__(
        self,
        environment: Environment,
        host: Host,
        config: DhtConfig | None = None,
        stored: DhtMemory | None = None,
    ) -> None:
        self.config = config or DhtConfig()
        self._environment = environment
        self._host = host
        memory = stored if stored is not None else ShortMemory()
        draw = environment.random.stream
        name = f"dht {self.config.protocol}"
        self._table = Table(host.peer_id, self.config.table)
        self._providers = ProviderStore(self.config.providers)
        self._rpc = Rpc(host, self.config.protocol)
        self._contacts = Contacts(host, self.config.protocol, self._table, self._rpc)
        self._announcer = Announcer(
            environment, host, self._rpc, self, memory, draw(f"{name} announce")
        )
        self._joined = trio.Event()
        self._contacts.on_joined += [self._joined.set, self._announcer.joined]
        self._keeper = Keeper(
            environment,
            host,
            self._contacts,
            self._providers,
            memory,
            self.config.protocol,
            self._refresh,
            draw(f"{name} refresh"),
            self.config.upkeep,
        )
        responder = Responder(
            host.peer_id,
            self._table,
            self._providers,
            draw(f"{name} answers"),
            self._contacts.addrs,
            self._provided,
        )
        self._server = Server(responder, environment.clock)
        self._answers_draw = draw(f"{name} local answers")
        self._mode: Mode = self.config.mode
        self._nursery: trio.Nursery | None = None

    @property
    def on_joined(self) -> list[Callable[[], None]]:
        """Called when the table gets its first contact."""
        return self._contacts.on_joined

    @property
    def on_announced(self) -> list[Callable[[bytes, int], None]]:
        """Called after each announcement with the multihash and how many peers took it."""
        return self._announcer.on_announced

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled; started once searches can be asked for."""
        await self._keeper.load()
        await self._announcer.load()
        self._host.on_identified.append(self._contacts.identified)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._mode == "server":
                    self._serve()
                for connection in self._host.connections():
                    self._contacts.identified(connection)
                for _ in range(CHECKERS):
                    nursery.start_soon(self._contacts.check_candidates)
                nursery.start_soon(self._rpc.close_unused)
                nursery.start_soon(self._keeper.run)
                nursery.start_soon(self._announcer.run)
                task_status.started()
        finally:
            self._nursery = None
            self._host.on_identified.remove(self._contacts.identified)
            if self._mode == "server":
                self._host.unhandle(self.config.protocol)
            with trio.move_on_after(GOODBYE, shield=True):
                await self._keeper.save(records=True)
                await self._rpc.close_all()

    @property
    def mode(self) -> Mode:
        """How we take part."""
        return self._mode

    def set_mode(self, mode: Mode) -> None:
        """Begin or end to serve others; a client does not advertise the protocol."""
        if mode == self._mode:
            return
        self._mode = mode
        if self._nursery is None:
            return
        if mode == "server":
            self._serve()
        else:
            self._host.unhandle(self.config.protocol)
            self._server.stop()

    @property
    def knows_anyone(self) -> bool:
        """Whether some peer of the DHT is known, from now or from an earlier run."""
        return len(self._table) > 0 or self._keeper.knows_anyone

    async def wait_joined(self) -> None:
        """Wait until some server of the DHT has answered us."""
        await self._joined.wait()

    async def bootstrap(self, where: Iterable[Multiaddr | PeerId]) -> Joined:
        """Join through these peers and look for ourselves.

        They are tried again whenever no contact is left. A failure is no error here: the answer
        says how many answered, and for each other one why not.
        """
        return await self._keeper.bootstrap(where)

    async def find_peer(self, peer: PeerId) -> list[Multiaddr]:
        """Return where a peer is said to be; empty if nobody knows. See `look_for_peer`."""
        return list((await self.look_for_peer(peer)).addrs)

    async def look_for_peer(self, peer: PeerId) -> FoundPeer:
        """Look for the addresses of a peer, be it a server or a client.

        Ends early when the peer itself could be reached, or two peers named addresses of it.
        """
        if self._host.connection(peer) is not None:
            return FoundPeer(tuple(self._contacts.addrs(peer)), 0, 0, None)
        found: dict[Multiaddr, None] = {}
        sources = 0

        def on_answer(source: PeerId, answer: KadMessage, connection: Connection) -> None:
            nonlocal sources
            for entry in answer.closer[:K]:
                if entry.peer_id == peer and (addrs := self._contacts.hear(entry, connection)):
                    found.update(dict.fromkeys(addrs))
                    sources += 1
            if sources >= ENOUGH_SOURCES or self._host.connection(peer) is not None:
                walk.stop()

        walk = self._walk(KadMessage(MessageType.FIND_NODE, peer.raw), peer.key, on_answer)
        walked = await walk.run()
        if self._host.connection(peer) is not None:
            found = {**dict.fromkeys(self._contacts.addrs(peer)), **found}
        addrs = tuple(found)[:MAX_ADDRS_FOUND]
        nothing = None if addrs else why_nothing(walked.asked, walked.answered)
        return FoundPeer(addrs, walked.asked, walked.answered, nothing)

    def find_providers(self, multihash: bytes) -> ProviderSearch:
        """Begin a search for who has a content and return it: an async iterator of `Provider`.

        Raises:
            RuntimeError: The DHT does not run (a bug of the caller).
        """
        if self._nursery is None:
            raise RuntimeError("the DHT does not run")
        search = ProviderSearch(multihash)
        self._nursery.start_soon(self._search, search)
        return search

    async def nearest(self, key: bytes, width: int = K) -> Walked:
        """Look up the `width` peers nearest to what `key` (a peer id or multihash) hashes to."""
        request = KadMessage(MessageType.FIND_NODE, key)
        return await self._walk(request, key_of(key), width=width).run()

    async def announce(self, multihash: bytes) -> int:
        """Tell the k nearest peers that we have a content, and keep telling them every 22 h.

        Returns:
            How many peers took it.
        """
        return await self._announcer.announce(multihash)

    async def announce_soon(self, multihashes: Iterable[bytes], *, again: bool = False) -> None:
        """Have contents announced, many by sweep; those in the schedule stay as they are.

        With `again` all are announced at once: after a restart our addresses may be others.
        """
        await self._announcer.add(multihashes, again=again)

    async def withdraw(self, multihash: bytes) -> None:
        """Announce a content no more."""
        await self._announcer.drop(multihash)

    def table(self) -> list[TableRow]:
        """Return the contacts, the farthest first."""
        started = self._environment.clock.now() - trio.current_time()
        own = self._host.peer_id.key
        return sorted(
            (
                TableRow(
                    contact.peer,
                    contact.addrs,
                    common_prefix(contact.id, own),
                    started + contact.seen,
                    contact.failures,
                )
                for contact in self._table
            ),
            key=lambda row: (row.bucket, row.peer_id),
        )

    def statistics(self) -> DhtStatistics:
        """Return the counters."""
        return DhtStatistics(
            self._mode,
            len(self._table),
            len(self._providers),
            len(self._announcer.schedule),
            dict(self._rpc.sent),
            dict(self._server.served),
            self._keeper.last_join,
        )

    def _serve(self) -> None:
        self._host.handle(self.config.protocol, self._server.serve, max_inbound=MAX_INBOUND)

    def _provided(self, multihash: bytes) -> Iterable[Multiaddr] | None:
        return self._host.told_addrs() if multihash in self._announcer.schedule else None

    def _walk(
        self,
        request: KadMessage,
        target: bytes,
        on_answer: Callable[[PeerId, KadMessage, Connection], None] | None = None,
        *,
        width: int | None = None,
        spread: bool = False,
    ) -> Walk:
        """Make a walk; with a `width`, that many of the nearest must have answered."""
        now = trio.current_time()
        lookup, nearest = begin(self._table, target, now, self.config.lookup, width)
        for contact in nearest:
            if not self._contacts.reachable(contact.peer):
                self._host.peerstore.add(contact.peer, contact.addrs, ttl=HEARD_LIFE)
        return Walk(lookup, request, self._rpc, self._contacts, on_answer=on_answer, spread=spread)

    async def _refresh(self, key: bytes) -> Walked:
        request = KadMessage(MessageType.FIND_NODE, key)
        width = refresh_width(key, self._host.peer_id)
        return await self._walk(request, key_of(key), width=width, spread=width is None).run()

    async def _search(self, search: ProviderSearch) -> None:
        multihash = search.multihash

        def on_answer(source: PeerId, answer: KadMessage, connection: Connection) -> None:
            for entry in answer.providers[: self.config.providers.per_key]:
                if entry.peer_id != self._host.peer_id:
                    addrs = self._contacts.hear(entry, connection)
                    search.offer(entry.peer_id, addrs or self._contacts.addrs(entry.peer_id))

        request = KadMessage(MessageType.GET_PROVIDERS, multihash)
        walk = self._walk(request, key_of(multihash), on_answer)
        search.lookup = walk.lookup
        try:
            with search.scope:
                now = self._environment.clock.now()
                draw = self._answers_draw
                for provider in self._providers.get(multihash, K, now, draw):
                    if provider.peer_id != self._host.peer_id:
                        search.offer(provider.peer_id, provider.addrs)
                await walk.run()
                for peer in search.without_addrs():
                    search.offer(peer, await self.find_peer(peer))
        finally:
            search.finish()
