"""All transfers of a node: one swarm for each content, serving whoever knows its hash.

Inbound streams are greeted here: nothing is told before the proof of the hash holds, and a wrong
proof is answered as an unknown content is.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

import trio

from ...storage.errors import StorageError
from ...storage.finish import Links
from ...storage.model import Copy
from ...storage.store import Store
from ...swarm.greeting import proves
from ...swarm.uplink import Uplink
from ...wire.errors import PeerFault
from ...wire.ids import Cid, PeerId
from ...wire.swarm import PROTOCOL
from ..environment import Environment
from ..link import PeerHint
from ..net.connection import Connection
from ..net.errors import ConnectionLost, NetError, StreamRefused
from ..net.host import Host
from ..net.stream import Stream
from .content import ContentSwarm
from .fetch import Fetch
from .limits import Limits
from .link import Link
from .pool import Pool
from .seeking import Seeker
from .waiting import Kind, Reason

if TYPE_CHECKING:
    from ..find_walk import ProviderSearch

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

GREETING_SECONDS = 10.0
"""Within which both proofs must be there."""

MAX_SWARMS = 4096
"""Contents with peers or a fetch at a time; idle ones are forgotten first."""

MAX_INBOUND = 64
"""Swarm streams that one connection may open."""

IO_THREADS = 8
"""Worker threads that read and write files."""


class Transfers:
    """See the top of the file.

    Args:
        environment: The five doors.
        host: Connections.
        store: What we hold.
        lane: Lets one thread at a time call the store.
        find_providers: Begins a search in the DHT; None = there is no DHT.
        reach: Connects to a named peer (an address, or a peer id that the DHT resolves).
        notice: Told sentences for the node's owner.
        remark: Told those that need not be kept, as they pass.
    """

    def __init__(
        self,
        environment: Environment,
        host: Host,
        store: Store,
        *,
        lane: trio.CapacityLimiter,
        find_providers: Callable[[Cid], ProviderSearch | None],
        reach: Callable[[PeerHint], Awaitable[Connection]],
        notice: Callable[[str], None],
        remark: Callable[[str], None] | None = None,
    ) -> None:
        self.environment = environment
        self.host = host
        self.store = store
        self.find_providers = find_providers
        self.reach = reach
        self.notice = notice
        self.remark = remark or notice
        self.pool = Pool()
        self.limits = Limits()
        self.uplink = Uplink()
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        self.swarms: dict[Cid, ContentSwarm] = {}
        self.fetches: dict[int, tuple[Fetch, Seeker]] = {}
        """By copy id."""
        self._lane = lane
        self._io = trio.CapacityLimiter(IO_THREADS)
        self._nursery: trio.Nursery | None = None
        self._last_trouble = ""
        self._scopes: dict[int, trio.CancelScope] = {}

    async def blocking(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call the store in its lane."""
        return await self.environment.run_blocking(function, *args, limiter=self._lane)

    async def blocking_io(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Read or write files in a worker thread."""
        return await self.environment.run_blocking(function, *args, limiter=self._io)

    def later(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Do something soon, in a task of its own."""
        if self._nursery is not None:
            self._nursery.start_soon(self._try, function, *args)

    async def _try(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Do something; that the store fails ends it, and nothing else."""
        try:
            await function(*args)
        except StorageError as error:
            self.trouble(error)

    def trouble(self, error: StorageError) -> None:
        """Say that the store failed, the same thing once."""
        text = str(error)
        if text != self._last_trouble:
            self._last_trouble = text
            self.notice(text)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve and fetch until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.limits.run)
            self.host.on_connected.append(self._move_links)
            self.host.handle(PROTOCOL, self._inbound, max_inbound=MAX_INBOUND)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self.host.on_connected.remove(self._move_links)
                self.host.unhandle(PROTOCOL)

    async def aclose(self) -> None:
        """Stop all fetches; what they have written is claimed first."""
        for copy_id in list(self.fetches):
            fetch = self.stop_fetch(copy_id)
            if fetch is not None:
                await fetch.done.wait()

    # Swarms

    async def swarm(self, cid: Cid) -> ContentSwarm:
        """Return the swarm of a content, with what we hold of it loaded."""
        swarm = self.swarms.get(cid)
        if swarm is None:
            self._make_room()
            swarm = self.swarms[cid] = ContentSwarm(self, cid)
        await swarm.load()
        return swarm

    def _make_room(self) -> None:
        if len(self.swarms) >= MAX_SWARMS:
            for cid, swarm in list(self.swarms.items()):
                if not swarm.links and swarm.fetch is None:
                    del self.swarms[cid]

    async def content_changed(self, cid: Cid) -> None:
        """A copy was added or removed: tell peers what we hold now."""
        swarm = self.swarms.get(cid)
        if swarm is not None:
            await swarm.reload()

    # Links

    async def open_link(self, connection: Connection, swarm: ContentSwarm) -> Link:
        """Open a swarm stream to a peer and greet.

        Raises:
            NetError: It does not speak the protocol, does not know the content, or is gone.
        """
        if connection.limited:
            raise StreamRefused(
                f"{connection.peer_id} is only reached over a relay that carries no content, and "
                "no hole could be punched yet"
            )
        stream = await connection.open_stream([PROTOCOL])
        link = Link(stream, swarm)
        try:
            link.greet(swarm.cid, swarm.pieces)
            with trio.fail_after(GREETING_SECONDS):
                await link.first.wait()
        except trio.TooSlowError:
            link.reset("no greeting")
            raise StreamRefused(f"{link.peer} did not greet in time") from None
        except BaseException:
            link.reset("cancelled")
            raise
        if link.greeted:
            return link
        link.reset("refused")
        if link.refused:
            raise StreamRefused(f"{link.peer} does not have this content")
        raise ConnectionLost(link.ended_reason or f"{link.peer} broke off")

    def _move_links(self, connection: Connection) -> None:
        """Move what runs over a worse path to the same peer to this connection.

        Who opened the old stream opens the new one; the old one ends when that is greeted, and what
        it was asked for and has not sent is asked again.
        """
        for swarm in self.swarms.values():
            link = swarm.links.get(connection.peer_id)
            if link is None or connection.path >= link.connection.path or connection.limited:
                continue
            if link.stream.direction == "out":
                self.later(self._move_link, connection, swarm)

    async def _move_link(self, connection: Connection, swarm: ContentSwarm) -> None:
        # If it does not work, the old link stays.
        with suppress(NetError, PeerFault):
            await self.open_link(connection, swarm)

    async def _inbound(self, stream: Stream) -> None:
        """Greet a peer that opened a stream, and serve it."""
        if stream.connection.limited:
            stream.reset("no content over a relay that carries little")
            return
        link = Link(stream, None)
        try:
            await self._greet(link)
        except StorageError as error:
            self.trouble(error)
            link.reset("the store failed")

    async def _greet(self, link: Link) -> None:
        with trio.move_on_after(GREETING_SECONDS):
            await link.first.wait()
        theirs = link.theirs
        if theirs is None:
            link.reset("no greeting")
            return
        content = await self.blocking(self.store.content_by_key, theirs.key)
        cid = content.cid if content is not None else None
        connection = link.connection
        known = proves(theirs, cid, connection.handshake_hash, not connection.is_initiator)
        if not known or cid is None or link.closed.is_set():
            link.refuse()
            return
        swarm = await self.swarm(cid)
        if link.closed.is_set():
            return
        link.swarm = swarm
        link.greet(cid, swarm.pieces)
        link.greeted = True
        swarm.joined(link)
        await link.closed.wait()

    def serve_link(self, swarm: ContentSwarm, link: Link) -> None:
        """Answer a link's requests until it ends."""
        self.later(self._serve, swarm, link)

    async def _serve(self, swarm: ContentSwarm, link: Link) -> None:
        # When the link has ended, whoever needs to know was told so.
        with suppress(NetError, trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                await swarm.serve(link)
            except StorageError as error:
                self.trouble(error)
                link.reset("the store failed")

    def close_link(self, link: Link) -> None:
        """End a link properly."""
        self.later(link.stream.aclose)
        link.closed.set()
        link.work.set()

    def blame(self, link: Link, cid: Cid, fault: PeerFault) -> None:
        """Count a fault of a peer and end its link."""
        link.connection.count(fault)
        link.reset(str(fault))

    def ban(self, peer: PeerId, cid: Cid, seconds: float, why: str) -> None:
        """Take nothing of this content from this peer for a while, also after a restart."""
        until = self.environment.clock.now() + seconds
        self.later(self._ban, peer, cid, until, why)
        self.notice(f"{peer} sent wrong bytes of {cid} and is not asked again for a day")

    async def _ban(self, peer: PeerId, cid: Cid, until: float, why: str) -> None:
        await self.blocking(self.store.peers.ban, peer.raw, cid, until, why)

    # Fetches

    async def fetch(
        self, copy: Copy, hints: Iterable[PeerHint] = (), links: Links = "inside"
    ) -> Fetch:
        """Begin to fetch a copy, or return the fetch that runs already.

        One that was begun with another choice of files or another order is stopped for a new one.
        """
        old: Fetch | None = None
        running = self.fetches.get(copy.id)
        if running is not None:
            known = running[0].copy
            if (known.only, known.order) == (copy.only, copy.order):
                running[1].add(hints)
                return running[0]
            old = running[0]
            hints = (*hints, *running[1].hints)
            old.replaced = old.replaced or trio.Event()
            self.stop_fetch(copy.id)
        try:
            if old is not None:
                await old.done.wait()
            fetch = await self._begin(copy, hints, links)
            if old is not None:
                old.successor = fetch
        finally:
            if old is not None and old.replaced is not None:
                old.replaced.set()
        return fetch

    async def _begin(self, copy: Copy, hints: Iterable[PeerHint], links: Links) -> Fetch:
        swarm = await self.swarm(copy.cid)
        running = self.fetches.get(copy.id)
        if running is not None:
            running[1].add(hints)
            return running[0]
        fetch = Fetch(self, swarm, copy, links)
        seeker = Seeker(self, fetch, hints)
        self.fetches[copy.id] = (fetch, seeker)
        self._scopes[copy.id] = trio.CancelScope()
        self.later(self._run_fetch, fetch, seeker)
        return fetch

    async def _run_fetch(self, fetch: Fetch, seeker: Seeker) -> None:
        try:
            with self._scopes[fetch.copy.id]:
                # Of two copies of one content the second waits: it will copy from the first.
                while isinstance(fetch.swarm.fetch, Fetch):
                    await fetch.wait_behind(fetch.swarm.fetch)
                fetch.swarm.fetch = fetch
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(seeker.run)
                    await fetch.run()
                    nursery.cancel_scope.cancel()
        finally:
            del self._scopes[fetch.copy.id]
            del self.fetches[fetch.copy.id]
            fetch.done.set()
            if fetch.failure is not None and not fetch.followers:
                self.notice(f"the fetch to {fetch.copy.path} ended: {fetch.failure}")
            if not self.fetches:
                self.pool.shrink()
            await self._try(self._remember_totals, fetch)

    async def _remember_totals(self, fetch: Fetch) -> None:
        amounts = [
            (PeerId.parse(name).raw, 0, count) for name, count, _ in fetch.snapshot().sources
        ]
        if amounts:
            now = self.environment.clock.now()
            with trio.CancelScope(shield=True):
                await self.blocking(self.store.peers.add_totals, amounts, now)

    def look_again(self) -> None:
        """Search for providers at once: there is somebody to ask now."""
        for _, seeker in self.fetches.values():
            seeker.look_again()

    def stop_fetch(self, copy_id: int) -> Fetch | None:
        """Stop a fetch; what it has is kept."""
        running = self.fetches.get(copy_id)
        scope = self._scopes.get(copy_id)
        if running is None or scope is None:
            return None
        scope.cancel()
        return running[0]

    def why_no_peers(self, fetch: Fetch) -> Reason:
        """Say why a fetch has no peers."""
        running = self.fetches.get(fetch.copy.id)
        return running[1].why() if running else Reason(Kind.NO_PROVIDER, "not connected to anyone")
