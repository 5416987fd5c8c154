"""The life of a node: its parts are made, wired and ended here, in one nursery.

A home with its store (storage), a host that holds connections (net), the DHT (find), the
transfers, and the control socket (api). What people and scripts call is in `app.py`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

import trio
from multiaddr import Multiaddr

from ..storage.errors import StorageError
from ..storage.home import Home, default_home
from ..storage.model import Copy, CopyState, tag_text
from ..storage.store import Store
from ..wire.addresses import with_peer
from ..wire.errors import InvalidText, PeerFault
from ..wire.ids import Cid
from ..wire.keys import PrivateKey
from . import limiting, sharing
from .client import Client, PathText, Purpose
from .config import Config, load_config
from .environment import Environment, real_environment
from .errors import NotFound, translate
from .events import (
    Announced,
    Event,
    Notice,
)
from .find import AMINO_PROTOCOL, Dht, DhtConfig
from .find_memory import CarefulMemory
from .find_walk import ProviderSearch
from .link import PeerHint, parse_peers
from .listening import listen
from .nat.nat import Nat
from .net.connection import Connection
from .net.errors import NetError, Unreachable
from .net.host import Host, HostConfig
from .reaching import Reaching
from .rehash import rehash_lost
from .transfer.transfers import Transfers

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FIRST_TRY_SECONDS = 5.0
LONGEST_TRY_SECONDS = 60.0
"""Pauses between tries to reach a `--peer` of share: doubling from the first to the longest."""

CHECK_IDS = 256
"""Copies looked after by one call, as long as they have few files."""

MAX_NOTICES = 100
"""Notices kept for those who ask for events later."""

EVENTS_WAITING = 256
"""Events that wait for one listener; a slower one misses some."""

CLOSE_SECONDS = 8.0
"""For everything to end properly; a node that was told to stop ends within 10 s."""


class Lifecycle:
    """One node of one home folder; use it as `async with`.

    Args:
        home: Its folder; None takes `SHOAL_HOME`, else the platform's data folder.
        config: Its settings; None reads the environment and the home's `config.toml`.
        purpose: What the defaults follow: `up` listens on the well-known port; `up` and `share`
            serve the DHT, `get` only asks it.
        offline: Open the home without a network.
        control: Serve the control socket.
        environment: What a simulation replaces.

    Entering raises `ShoalError`: the home is in use, the port is taken, a setting is wrong.
    """

    def __init__(
        self,
        home: PathText | None = None,
        *,
        config: Config | None = None,
        purpose: Purpose = "share",
        offline: bool = False,
        control: bool = True,
        environment: Environment | None = None,
    ) -> None:
        self.environment = environment or real_environment()
        path = Path(home) if home is not None else default_home(os.environ)
        self.home_path = Path(os.path.abspath(path))
        self.purpose: Purpose = purpose
        self.offline = offline
        self.started: float | None = None
        """Unix time since when it runs."""
        self.problems: deque[str] = deque(maxlen=MAX_NOTICES)
        """Sentences: what was found wrong."""
        self._config = config
        self._control = control and not offline
        self._stack = AsyncExitStack()
        self._lane = trio.CapacityLimiter(1)
        self._stopping = trio.Event()
        self._listeners: set[trio.MemorySendChannel[Event]] = set()
        self._in_touch: set[str] = set()

    def as_client(self) -> Client:
        """Return the object that answers on the control socket."""
        raise NotImplementedError

    # Life

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException as error:
            await self._close()
            told = translate(error) if isinstance(error, Exception) else None
            if told is None or told is error:
                raise
            raise told from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _start(self) -> None:
        environment, disk = self.environment, self.environment.disk
        home = await environment.run_blocking(Home.open, self.home_path, disk)
        self._stack.callback(home.close)
        self.config = self._config or load_config(self.home_path, os.environ)
        make = partial(_new_key, environment)
        secret = await environment.run_blocking(home.identity, make)
        try:
            self.identity = PrivateKey.from_message(secret)
        except InvalidText as why:
            raise home.damaged_key(str(why)) from why
        self.peer_id = self.identity.peer_id
        now = environment.clock.now()
        tag = tag_text(environment.random.secret(5))
        self.store = await environment.run_blocking(Store.open, self.home_path, disk, now, tag)
        self._stack.callback(self.store.close)
        for problem in self.store.problems:
            self.notice(problem)
        self.nursery = await self._stack.enter_async_context(trio.open_nursery())
        if self.offline:
            return
        await self._start_network()
        self.started = environment.clock.now()
        if self._control:
            from .api.server import serve_control

            path = await environment.run_blocking(home.control_socket)
            serve = partial(
                serve_control, self.as_client(), path, run_blocking=environment.run_blocking
            )
            await self.nursery.start(serve)
        self.nursery.start_soon(self._settle)

    async def _start_network(self) -> None:
        config = self.config
        self.host = Host(self.environment, self.identity, HostConfig(quic=config.quic))
        for said in await listen(self.host, self.config, self.purpose):
            self.notice(said)
        await self.nursery.start(self.host.run)
        server = config.dht == "server" or (config.dht == "auto" and self.purpose != "get")
        if config.dht_protocol == AMINO_PROTOCOL:
            server = False  # that DHT asks more of its servers than we can do
        self.dht = Dht(
            self.environment,
            self.host,
            DhtConfig(config.dht_protocol, "server" if server else "client"),
            CarefulMemory(self.store.dht, self._keep_problem),
        )
        self.transfers = Transfers(
            self.environment,
            self.host,
            self.store,
            lane=self._lane,
            find_providers=self._find_providers,
            reach=self.reach,
            notice=self.notice,
            remark=self.remark,
        )
        await limiting.load(self)
        self.dht.on_joined.append(self.transfers.look_again)
        await self.nursery.start(self.transfers.run)
        await self.nursery.start(self.dht.run)
        self.reaching = Reaching(self)
        await self.reaching.start()

    async def _settle(self) -> None:
        """Join the DHT, go on with unfinished fetches, announce what there is."""
        bootstrap = parse_peers(self.config.bootstrap)
        if bootstrap:
            self.nursery.start_soon(self._join, bootstrap)
        if self.purpose == "get":
            return
        copies, keys = await self.blocking(self._read_copies)
        if self.purpose == "up":
            for copy in copies:
                if copy.state is CopyState.FETCHING:
                    await self.transfers.fetch(copy)
        await self.dht.announce_soon(keys, again=True)
        await self._look_after_copies([copy.id for copy in copies if copy.finished])
        await rehash_lost(self)

    async def announce_again(self) -> None:
        """Announce all contents again: our addresses are others."""
        if self.purpose != "get":
            _, keys = await self.blocking(self._read_copies)
            await self.dht.announce_soon(keys, again=True)

    def _read_copies(self) -> tuple[list[Copy], list[bytes]]:
        """Return all copies, and what is announced of them (in a worker: there may be many)."""
        copies = self.store.copies()
        held = {copy.cid for copy in copies}
        told = (sharing.announced_as(c) for c in self.store.contents() if c.cid in held)
        return copies, [key for key in told if key is not None]

    async def _look_after_copies(self, ids: Sequence[int]) -> None:
        """Compare finished copies' files with what was recorded, and say what is missing."""
        at = 0
        while at < len(ids):
            done, problems = await self.blocking(self.store.check_copies, ids[at : at + CHECK_IDS])
            at += done
            for problem in problems:
                self.notice(problem)

    async def join_again(self) -> None:
        """Meet the nearest peers of the DHT again: the connections with them are gone."""
        bootstrap = parse_peers(self.config.bootstrap)
        if bootstrap:
            await self._join(bootstrap)
        await self.dht.nearest(self.peer_id.raw)

    async def _join(self, bootstrap: Sequence[PeerHint]) -> None:
        joined = await self.dht.bootstrap(bootstrap)
        if not joined.reached:
            why = "; ".join(joined.failures)
            self.notice(f"no bootstrap peer could be reached ({why}); they are tried again")

    async def _close(self) -> None:
        """End everything properly, within bounds; safe at any point of the start."""
        self._stopping.set()
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS):
            if hasattr(self, "transfers"):
                await self.transfers.aclose()
            for listener in list(self._listeners):
                listener.close()
            if hasattr(self, "host"):
                await self.host.aclose()
        if hasattr(self, "nursery"):
            self.nursery.cancel_scope.cancel()
        # No scope of ours around this: the nursery that it leaves was entered outside of any.
        await self._stack.aclose()

    async def stop(self) -> None:
        """Ask the owner of this node to end it (`wait_stopped`)."""
        self._stopping.set()
        await trio.lowlevel.checkpoint()

    async def wait_stopped(self) -> None:
        """Wait until somebody asks for the end."""
        await self._stopping.wait()

    async def blocking(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Call the store in its lane."""
        return await self.environment.run_blocking(function, *args, limiter=self._lane)

    # Telling

    @property
    def nat(self) -> Nat:
        """What is known of how others reach us."""
        return self.reaching.nat

    def tell(self, event: Event) -> None:
        """Tell those who listen now."""
        self._publish(event)

    def notice(self, text: str) -> None:
        """Tell the node's owner something that stops nothing."""
        self.problems.append(text)
        self._publish(Notice(text))

    def _keep_problem(self, error: StorageError) -> None:
        """Remember an error of a worker thread; those who listen already are not told."""
        if str(error) not in self.problems:
            self.problems.append(str(error))

    def remark(self, text: str) -> None:
        """Tell those who listen now something that need not be kept."""
        self._publish(Notice(text))

    def _publish(self, event: Event) -> None:
        for listener in list(self._listeners):
            with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                listener.send_nowait(event)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tell what happens from now on, the notices so far first."""
        send, receive = trio.open_memory_channel[Event](EVENTS_WAITING)
        for text in self.problems:
            yield Notice(text)
        self._listeners.add(send)
        try:
            if self._stopping.is_set():
                return
            async for event in receive:
                yield event
        finally:
            self._listeners.discard(send)
            send.close()
            receive.close()

    def addrs(self) -> tuple[str, ...]:
        """Return where this node can be reached."""
        if self.offline:
            return ()
        return tuple(str(with_peer(addr, self.peer_id)) for addr in self.host.told_addrs())

    # Reaching others

    async def reach(self, hint: PeerHint) -> Connection:
        """Connect to a named peer; a bare peer id is looked up in the DHT.

        Raises:
            NetError: It cannot be reached.
        """
        if isinstance(hint, Multiaddr):
            return await self.host.dial(hint)
        try:
            return await self.host.connect(hint, carrying=True)
        except NetError:
            found = await self.dht.look_for_peer(hint)
        if not found.addrs:
            why = f"no address of it was found ({found.asked} nodes asked)"
            raise Unreachable(str(hint), [("DHT", why)])
        return await self.host.connect(hint, found.addrs, force=True, carrying=True)

    def keep_in_touch(self, hint: PeerHint) -> None:
        """Stay connected with a peer, so that it can fetch from us over this connection."""
        if str(hint) not in self._in_touch:
            self._in_touch.add(str(hint))
            self.nursery.start_soon(self._keep_in_touch, hint)

    async def _keep_in_touch(self, hint: PeerHint) -> None:
        pause = FIRST_TRY_SECONDS
        told = False
        while True:
            try:
                connection = await self.reach(hint)
                pause, told = FIRST_TRY_SECONDS, False
                if isinstance(hint, Multiaddr):
                    self.nursery.start_soon(self._join, [hint])
                await connection.wait_closed()
            except (NetError, PeerFault) as error:
                if not told:
                    self.notice(f"{error}; it is tried again")
                    told = True
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_TRY_SECONDS)

    def refuse_hopeless(self, hints: Iterable[PeerHint]) -> None:
        """Refuse a fetch that has nobody to ask and no way to find anybody.

        Raises:
            NotFound: No peer is named, known or connected.
        """
        known = self.config.bootstrap or self.dht.knows_anyone or self.host.connections()
        neighbours = self.config.mdns and self.environment.on_a_network
        if not (any(True for _ in hints) or known or neighbours):
            raise NotFound(
                "there is nobody to ask: name a node of the network with --bootstrap ADDRESS, or "
                "a peer that has the content with --peer ADDRESS (whoever shares it sees the "
                "address in the output of shoal share or shoal id)"
            )

    def _find_providers(self, cid: Cid) -> ProviderSearch | None:
        public = self.config.dht_protocol == AMINO_PROTOCOL
        return self.dht.find_providers(sharing.announced_multihash(cid, public))

    async def announce(self, key: bytes) -> int:
        """Announce a multihash now and from now on; return how many peers took it."""
        return await self.dht.announce(key)

    async def announce_content(self, cid: Cid) -> None:
        """Announce a content as its owner wants it."""
        content = await self.blocking(self.store.content, cid)
        key = sharing.announced_as(content) if content is not None else None
        if key is not None:
            taken = await self.announce(key)
            self._publish(Announced(str(cid), taken))

    async def stop_fetch(self, copy_id: int) -> None:
        """Stop a fetch and wait until it has; what it has is kept."""
        fetch = self.transfers.stop_fetch(copy_id)
        if fetch is not None:
            await fetch.done.wait()


def _new_key(environment: Environment) -> bytes:
    return PrivateKey(environment.random.secret(32)).message
