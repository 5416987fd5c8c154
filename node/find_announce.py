"""Announces our contents: one at once, many by sweep, all of them again before they expire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from ..dht.announcements import Announcements, Sweep, takers
from ..dht.keyspace import Draw, K
from ..dht.providers import MAX_ADDRS
from ..storage.model import AnnouncementRow
from ..wire.addresses import is_tellable
from ..wire.ids import PeerId
from ..wire.kad import Connectedness, KadMessage, KadPeer, MessageType
from .environment import Environment
from .find_memory import DhtMemory
from .find_rpc import Rpc, RpcFailed
from .find_walk import Walked

if TYPE_CHECKING:
    from .net.connection import Connection
    from .net.host import Host

TOLD_AT_ONCE = 10
"""Peers that are told of announcements at the same time."""

REST_EVERY = 256
"""Announcements after which others have their turn: there may be 100 000 of them."""

MAX_WAIT = 3600.0
"""Seconds between two looks at the schedule."""


class Finder(Protocol):
    """Finds the peers nearest to a key; the DHT itself does."""

    async def nearest(self, key: bytes, width: int = K) -> Walked:
        """Look up the `width` peers nearest to what `key` (a peer id or multihash) hashes to."""
        ...


class Announcer:
    """Our announcements: their schedule, and how they reach the peers that shall keep them."""

    def __init__(
        self,
        environment: Environment,
        host: Host,
        rpc: Rpc,
        finder: Finder,
        memory: DhtMemory,
        draw: Draw,
    ) -> None:
        self._environment = environment
        self._host = host
        self._rpc = rpc
        self._finder = finder
        self._memory = memory
        self._draw = draw
        self._added = trio.Event()
        self.schedule = Announcements()
        self.on_announced: list[Callable[[bytes, int], None]] = []
        """Called after each announcement with the multihash and how many peers took it."""

    async def load(self) -> None:
        """Read the schedule of earlier runs."""
        now = self._environment.clock.now()
        for row in await self._environment.run_blocking(self._memory.announcements):
            self.schedule.set(row.multihash, row.due, now)

    async def add(self, multihashes: Iterable[bytes], *, again: bool = False) -> None:
        """Put contents into the schedule, due at once; those in it already stay as they are.

        With `again` they are due at once, too: our addresses are others than last time.
        """
        now = self._environment.clock.now()
        rows: list[AnnouncementRow] = []
        for number, multihash in enumerate(multihashes):
            if number % REST_EVERY == REST_EVERY - 1:
                await trio.lowlevel.checkpoint()
            known = multihash in self.schedule and not again
            if not known and self.schedule.set(multihash, now, now):
                rows.append(AnnouncementRow(multihash, now, None))
        if rows:
            await self._environment.run_blocking(self._memory.save_announcements, rows)
            self._added.set()

    async def drop(self, multihash: bytes) -> None:
        """Announce a content no more; records that others hold expire by themselves."""
        self.schedule.drop(multihash)
        await self._environment.run_blocking(self._memory.drop_announcement, multihash)

    async def announce(self, multihash: bytes) -> int:
        """Announce one content now and put it into the schedule.

        Returns:
            How many peers took it.
        """
        now = self._environment.clock.now()
        # Due only after this try, so that the schedule does not announce it a second time.
        self.schedule.set(multihash, now + self.schedule.config.retry, now)
        joins = self.schedule.joins
        walked = await self._finder.nearest(multihash)
        taken = await self._tell({peer: [multihash] for peer in walked.nearest})
        await self._done({multihash: (taken.get(multihash, 0), len(walked.nearest))}, joins)
        return taken.get(multihash, 0)

    def joined(self) -> None:
        """Announce at once what found nobody to take it: now there is somebody."""
        self.schedule.joined(self._environment.clock.now())
        self._added.set()

    async def run(self) -> None:
        """Announce what is due, for ever."""
        while True:
            self._added = trio.Event()
            now = self._environment.clock.now()
            due = self.schedule.due(now)
            if due:
                await self.sweep(due)
                continue
            next_due = self.schedule.next_due()
            # At most an hour: a clock that was set must not delay announcements for long.
            patience = MAX_WAIT if next_due is None else min(max(next_due - now, 1.0), MAX_WAIT)
            with trio.move_on_after(patience):
                await self._added.wait()

    async def sweep(self, multihashes: Sequence[bytes]) -> None:
        """Announce contents, sorted by their keys, with one lookup for each region."""
        sweep = Sweep(multihash for multihash in multihashes if multihash in self.schedule)
        while lookup := sweep.next_lookup():
            joins = self.schedule.joins
            found = (await self._finder.nearest(*lookup)).nearest
            region = sweep.found(found)
            batches: dict[PeerId, list[bytes]] = {}
            for number, multihash in enumerate(region):
                for peer in takers(multihash, found):
                    batches.setdefault(peer, []).append(multihash)
                if number % REST_EVERY == REST_EVERY - 1:
                    await trio.lowlevel.checkpoint()
            taken = await self._tell(batches)
            wanted = min(K, len(found))
            await self._done({item: (taken.get(item, 0), wanted) for item in region}, joins)

    async def _tell(self, batches: dict[PeerId, list[bytes]]) -> dict[bytes, int]:
        """Send each peer its announcements; return how many peers took each."""
        taken: dict[bytes, int] = {}
        limit = trio.CapacityLimiter(TOLD_AT_ONCE)

        async def tell(peer: PeerId, batch: list[bytes]) -> None:
            async with limit:
                try:
                    await self._rpc.tell(peer, lambda over: self._messages(batch, over))
                except RpcFailed:
                    return
            for multihash in batch:
                taken[multihash] = taken.get(multihash, 0) + 1

        async with trio.open_nursery() as nursery:
            for peer, batch in batches.items():
                nursery.start_soon(tell, peer, batch)
        return taken

    def _messages(self, batch: Iterable[bytes], connection: Connection) -> Iterable[KadMessage]:
        """Make the announcements for one connection: its scope decides which addresses to tell."""
        addrs = [a for a in self._host.told_addrs() if is_tellable(a, connection.scope)]
        ourselves = KadPeer(self._host.peer_id, tuple(addrs[:MAX_ADDRS]), Connectedness.CAN_CONNECT)
        for multihash in batch:
            yield KadMessage(MessageType.ADD_PROVIDER, multihash, providers=(ourselves,))

    async def _done(self, outcome: dict[bytes, tuple[int, int]], joins: int) -> None:
        """Take note of who took what; `joins` is how often we had joined when it was begun."""
        now = self._environment.clock.now()
        rows = []
        for number, (item, (taken, wanted)) in enumerate(outcome.items()):
            if number % REST_EVERY == REST_EVERY - 1:
                await trio.lowlevel.checkpoint()
            due = self.schedule.outcome(item, taken, wanted, joins, now, self._draw)
            if due is None:
                continue
            if due <= now:
                self._added.set()
            rows.append(AnnouncementRow(item, due, taken))
        await self._environment.run_blocking(self._memory.save_announcements, rows)
        for item, (taken, _) in outcome.items():
            for tell in self.on_announced:
                tell(item, taken)
