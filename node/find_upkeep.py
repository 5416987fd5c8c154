"""Joins the DHT and keeps the place in it: refresh, silent contacts, expiry, saving."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ..dht.keyspace import Draw, preimage
from ..dht.lookup import BETA
from ..dht.providers import ProviderStore
from ..dht.upkeep import JOIN_AT_ONCE, Job, Rejoining, Upkeep, UpkeepConfig, refresh_plan
from ..storage.model import RememberedPeer
from ..wire.ids import PeerId
from ..wire.immutable import immutable
from .environment import Environment
from .find_contacts import Contacts
from .find_memory import (
    MAX_REMEMBERED,
    DhtMemory,
    read_peer,
    read_record,
    write_addrs,
    write_record,
)
from .net.errors import NetError

if TYPE_CHECKING:
    from .net.host import Host

MAX_BOOTSTRAP = 64
"""Bootstrap peers kept for joining again."""

REMEMBERED_LIFE = 24 * 3600.0
"""Seconds for which the addresses of a remembered peer are tried."""

SAVE_RECORDS_EVERY = 3600.0
"""Seconds between two savings of the provider records (all of them are written)."""


@immutable
class Joined:
    """How joining went."""

    reached: int
    """Peers that answered as servers of this DHT."""
    failures: tuple[str, ...]
    """For each other one: which, and why, in words."""


class Keeper:
    """The work that a node of the DHT does of its own accord.

    Args:
        environment: Clock, threads.
        host: Dials.
        contacts: The table and how to ask.
        providers: The records to expire and save.
        memory: Where they are saved.
        protocol: The DHT's protocol id; peers are remembered for each.
        look: Looks up what a key (a peer id or made-up bytes) hashes to, as a refresh.
        draw: Chooses the keys to refresh.
        config: Periods.
    """

    def __init__(
        self,
        environment: Environment,
        host: Host,
        contacts: Contacts,
        providers: ProviderStore,
        memory: DhtMemory,
        protocol: str,
        look: Callable[[bytes], Awaitable[object]],
        draw: Draw,
        config: UpkeepConfig,
    ) -> None:
        self._environment = environment
        self._host = host
        self._contacts = contacts
        self._providers = providers
        self._memory = memory
        self._protocol = protocol
        self._look = look
        self._draw = draw
        self._config = config
        self._bootstrap: dict[Multiaddr | PeerId, None] = {}
        self._remembered: dict[PeerId, RememberedPeer] = {}
        self._upkeep = Upkeep(0.0, config)
        self._records_saved = 0.0
        self._poked = trio.Event()
        self.last_join = Joined(0, ())

    @property
    def knows_anyone(self) -> bool:
        """Whether there is somebody to join through."""
        return bool(self._bootstrap or self._remembered)

    async def load(self) -> None:
        """Read what earlier runs remembered."""
        run_blocking = self._environment.run_blocking
        for row in await run_blocking(self._memory.peers, self._protocol):
            peer = read_peer(row)
            if peer is not None and len(self._remembered) < MAX_REMEMBERED:
                self._remembered[peer[0]] = row
        records = map(read_record, await run_blocking(self._memory.providers))
        now = self._environment.clock.now()
        self._providers.restore((r for r in records if r is not None), now)

    async def save(self, *, records: bool) -> None:
        """Write down the table, and what else was known as long as there is room."""
        now = self._environment.clock.now() - trio.current_time()
        for contact in self._contacts.table:
            self._remembered[contact.peer] = RememberedPeer(
                contact.peer.raw, write_addrs(contact.addrs), now + contact.seen
            )
        latest = sorted(self._remembered.values(), key=lambda row: -row.seen)[:MAX_REMEMBERED]
        self._remembered = {PeerId(row.peer): row for row in latest}
        run_blocking = self._environment.run_blocking
        await run_blocking(self._memory.save_peers, self._protocol, latest)
        if records:
            self._records_saved = trio.current_time()
            rows = [write_record(record) for record in self._providers.saved()]
            await run_blocking(self._memory.save_providers, rows)

    async def bootstrap(self, where: Iterable[Multiaddr | PeerId]) -> Joined:
        """Join through these peers; they are tried again whenever the table is empty."""
        given = list(where)
        for contact in given:
            if len(self._bootstrap) < MAX_BOOTSTRAP:
                self._bootstrap[contact] = None
        return await self._join(given)

    async def run(self) -> None:
        """Join through the remembered peers, then do what is due, for ever."""
        now = trio.current_time()
        self._upkeep = Upkeep(now, self._config)
        self._records_saved = now
        await self._join_again()
        rejoining = Rejoining()
        while True:
            self._poked = trio.Event()
            for job in self._upkeep.due(trio.current_time()):
                await self._do(job)
            if rejoining.due(
                trio.current_time(),
                empty=not len(self._contacts.table),
                knows_anyone=self.knows_anyone,
            ):
                await self._join_again()
                continue
            wake = self._upkeep.next_due()
            with trio.move_on_at(wake if rejoining.at is None else min(wake, rejoining.at)):
                await self._poked.wait()

    async def _join_again(self) -> None:
        """Try the bootstrap peers, then the remembered ones, the last seen first."""
        if self._bootstrap and (await self._join(list(self._bootstrap))).reached:
            return
        left = list(self._remembered.values())
        while left and len(self._contacts.table) < BETA:
            batch, left = left[:JOIN_AT_ONCE], left[JOIN_AT_ONCE:]
            await self._join([PeerId(row.peer) for row in batch])

    async def _join(self, where: Sequence[Multiaddr | PeerId]) -> Joined:
        """Ask these peers; if one answers, look for ourselves and have the buckets filled."""
        failures: list[str] = []
        reached: set[PeerId] = set()
        limit = trio.CapacityLimiter(JOIN_AT_ONCE)

        async def reach(contact: Multiaddr | PeerId) -> None:
            async with limit:
                try:
                    if isinstance(contact, PeerId):
                        peer = contact
                        self._recall(peer)
                    else:
                        peer = (await self._host.dial(contact)).peer_id
                except NetError as error:
                    failures.append(f"{contact}: {error}")
                    return
                if peer == self._host.peer_id:
                    failures.append(f"{contact}: that is this node itself")
                elif why := await self._contacts.check(peer):
                    failures.append(f"{contact}: {why}")
                else:
                    reached.add(peer)

        async with trio.open_nursery() as nursery:
            for contact in where:
                nursery.start_soon(reach, contact)
        if reached:
            await self._look(self._host.peer_id.raw)
            # At once, not behind the refresh: a node that is killed soon must find back.
            await self.save(records=False)
            self._upkeep.hasten(Job.REFRESH, trio.current_time())
        self._poked.set()
        self.last_join = Joined(len(reached), tuple(failures))
        return self.last_join

    def _recall(self, peer: PeerId) -> None:
        """Let the host know the addresses that an earlier run remembered of a peer."""
        row = self._remembered.get(peer)
        known = read_peer(row) if row is not None else None
        if known is not None:
            self._host.peerstore.add(peer, known[1], ttl=REMEMBERED_LIFE)

    async def _do(self, job: Job) -> None:
        now = trio.current_time()
        match job:
            case Job.FIND_OURSELVES:
                if len(self._contacts.table):
                    await self._look(self._host.peer_id.raw)
            case Job.REFRESH:
                await self._refresh(now)
            case Job.ASK_SILENT:
                self._contacts.examine_silent()
            case Job.EXPIRE:
                self._providers.expire(self._environment.clock.now())
            case Job.SAVE:
                await self.save(records=now - self._records_saved >= SAVE_RECORDS_EVERY)

    async def _refresh(self, now: float) -> None:
        for prefix in refresh_plan(self._contacts.table, now, self._config.refresh):
            # Searching a key with a given prefix takes up to 0.1 s of hashing.
            made = await self._environment.run_blocking(
                preimage, prefix.value, prefix.bits, self._draw
            )
            await self._look(made)
