"""The host: a node's listeners and connections, one place to dial and to serve protocols.

At most one connection to a peer is used for new streams; when both sides dialled at once it is the
one that the smaller peer id dialled, and the other closes when it has been without streams for
10 s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from importlib.util import find_spec
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ...wire.addresses import is_quic
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ...wire.keys import PrivateKey
from ..environment import Environment, Listener
from .apart import apart
from .bounds import Budgets, Limits
from .connection import TOO_MANY_FAULTS, Connection
from .dialer import DialBook
from .errors import TooMany, Unreachable
from .identify import Identify, ping
from .keepalive import DOUBT_SECONDS
from .making import Maker
from .muxing import Carrier, Security
from .paths import Path
from .peerstore import Peerstore
from .reach import Reach
from .roster import SPARE_SECONDS, Roster
from .secure import NoiseKeys
from .serving import Handler, Service
from .stream import Stream

if TYPE_CHECKING:
    from .quic.endpoint import Endpoint
    from .quic.transport import QuicTransport

NO_QUIC = "QUIC is not there: install it with pip install 'shoal[quic]', and leave out --no-quic"

GOODBYE_SECONDS = 3.0
"""For all connections to end properly when the host does."""


@immutable
class HostConfig:
    """Settings of a host."""

    agent: str = "shoal/0.1.0"
    """Told to peers by identify."""

    limits: Limits = field(default_factory=Limits)
    """How many connections there may be."""

    quic: bool = True
    """Use QUIC, too, where its library and UDP are there."""


@immutable
class HostStatistics:
    """A snapshot of a host."""

    connections: int
    bytes_in: int
    bytes_out: int
    faults: dict[str, int]


class Host:
    """See the top of the file; `run` must be running for all else."""

    def __init__(
        self, environment: Environment, identity: PrivateKey, config: HostConfig | None = None
    ) -> None:
        self.environment = environment
        self.identity = identity
        self.peer_id = identity.peer_id
        self.config = config or HostConfig()
        self._random = environment.random
        self.peerstore = Peerstore(self.peer_id, trio.current_time)
        self.dials = DialBook(trio.current_time)
        self.faults: Counter[str] = Counter()
        """Faults of peers, by reason."""
        self.announced: list[Multiaddr] = []
        """Addresses to tell besides those that we listen on."""
        self.withheld: set[Multiaddr] = set()
        """Addresses that we listen on and that are not told, as nobody reaches us there."""
        self.on_connected: list[Callable[[Connection], None]] = []
        self.on_disconnected: list[Callable[[Connection], None]] = []
        self.on_identified: list[Callable[[Connection], None]] = []
        self.on_carrying: list[Callable[[Connection], None]] = []
        """Told of a connection over which content begins to flow."""
        self._services: dict[str, Service] = {}
        self._hidden: set[str] = set()
        self._listeners: list[Listener | Endpoint] = []
        self._roster = Roster(self.peer_id, self.config.limits)
        keys = NoiseKeys(identity, environment.random.secret(32))
        self.maker = Maker(self, keys, self._register)
        self._reach = Reach(
            environment.transport,
            self.peerstore,
            self.dials,
            existing=self._roster.get,
            limited=self._roster.limited,
            ours=self.told_addrs,
            make=self.maker.dial,
            can_dial=self.maker.can_dial,
        )
        self._nursery: trio.Nursery | None = None
        self._closing = False
        self._budgets = Budgets(environment.run_blocking, self._roster.relieve)
        there = environment.datagrams is not None and find_spec("qh3") is not None
        self.uses_quic = there and self.config.quic
        """Whether QUIC is used beside TCP."""
        self._quic: QuicTransport | None = None
        self._identify = Identify(self, self.config.agent)
        self._identify.serve()

    @property
    def quic(self) -> QuicTransport | None:
        """QUIC, made when it is asked for: its library takes 80 ms and 6 MiB; None = TCP alone."""
        if self._quic is None and self.uses_quic:
            from .quic.transport import QuicTransport

            def count(reason: str) -> None:
                self.faults[reason] += 1

            assert self.environment.datagrams is not None
            self._quic = QuicTransport(
                self.environment,
                self.environment.datagrams,
                self.identity,
                self._budgets.shared,
                count,
            )
            if self._nursery is not None:
                self._quic.begin(self._nursery.start_soon)
        return self._quic

    # Life

    async def run(
        self,
        listen: Sequence[Multiaddr] = (),
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on the addresses and run until cancelled or closed.

        Raises:
            OSError: One of the addresses cannot be listened on (before `task_status.started`).
        """
        try:
            for addr in listen:
                await self.listen(addr)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._quic is not None:
                    self._quic.begin(nursery.start_soon)
                for listener in self._listeners:
                    nursery.start_soon(self.maker.accept, listener, nursery)
                nursery.start_soon(self._identify.push_changes)
                nursery.start_soon(self._close_spares)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._closing = True
            with trio.CancelScope(shield=True):
                for listener in self._listeners:
                    await listener.aclose()
                if self._quic is not None:
                    self._quic.close()

    async def listen(self, addr: Multiaddr) -> None:
        """Listen on one more address, before or while `run` runs.

        Raises:
            OSError: The address is in use or not ours.
        """
        listener: Listener | Endpoint
        if not is_quic(addr):
            listener = await self.environment.transport.listen(addr)
        elif self.quic is None:
            raise OSError(NO_QUIC)
        else:
            listener = await self.quic.listen(addr)
        self._listeners.append(listener)
        if self._nursery is not None:
            self._nursery.start_soon(self.maker.accept, listener, self._nursery)

    async def aclose(self) -> None:
        """Stop listening and end all connections properly (at most 3 s)."""
        self._closing = True
        for listener in self._listeners:
            await listener.aclose()
        with trio.move_on_after(GOODBYE_SECONDS):
            async with trio.open_nursery() as nursery:
                for connection in self.connections():
                    nursery.start_soon(connection.aclose)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def listen_addrs(self) -> list[Multiaddr]:
        """Return the concrete addresses that we listen on, without `/p2p`."""
        return [addr for listener in self._listeners for addr in listener.addrs]

    def told_addrs(self) -> list[Multiaddr]:
        """Return the addresses that peers may be told, the announced ones first."""
        listening = (addr for addr in self.listen_addrs() if addr not in self.withheld)
        return list(dict.fromkeys([*self.announced, *listening]))

    def addrs_changed(self) -> None:
        """Tell connected peers soon that our addresses are others."""
        self._identify.changed()

    # Protocols

    @property
    def protocols(self) -> list[str]:
        """The protocols that we tell others we serve."""
        return [name for name in self._services if name not in self._hidden]

    def handle(
        self, protocol: str, handler: Handler, *, max_inbound: int = 64, advertise: bool = True
    ) -> None:
        """Serve a protocol; peers that are connected are told.

        Args:
            protocol: Its id.
            handler: Called with each inbound stream; the stream is closed when it returns. What
                it raises as `PeerFault`, `NetError` or for a broken stream resets the stream.
            max_inbound: Streams of one connection at a time.
            advertise: Tell it by identify.
        """
        self._services[protocol] = Service(handler, max_inbound)
        if not advertise:
            self._hidden.add(protocol)
        self._identify.changed()

    def unhandle(self, protocol: str) -> None:
        """Stop serving a protocol."""
        self._services.pop(protocol, None)
        self._hidden.discard(protocol)
        self._identify.changed()

    # Connections

    def connections(self) -> list[Connection]:
        """Return all open connections."""
        return list(self._roster)

    def connection(self, peer: PeerId) -> Connection | None:
        """Return the connection to use for new streams to a peer."""
        return self._roster.get(peer)

    async def connect(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr] = (),
        *,
        force: bool = False,
        better: Path | None = None,
        carrying: bool = False,
    ) -> Connection:
        """Return a connection to the peer, dialling known and given addresses if there is none.

        Args:
            peer: Whom.
            addrs: Further addresses to try.
            force: Dial also addresses whose back-off is not over.
            better: A connection over a better path than this one is wanted; others do not count.
            carrying: One that carries content is wanted: a relay's for meeting does not count.

        Raises:
            Unreachable: With what each address answered.
        """
        if peer == self.peer_id:
            raise Unreachable(str(peer), [("", "that is this node itself")])
        return await self._reach.connect(peer, addrs, force=force, better=better, carrying=carrying)

    async def dial(self, addr: Multiaddr) -> Connection:
        """Connect to an address that the user gave; names are resolved.

        Raises:
            WrongPeer: Another peer than the one in the address answers there.
            Unreachable: Nobody does.
        """
        return await self._reach.dial(addr)

    async def open_stream(
        self,
        peer: PeerId,
        protocols: Sequence[str],
        addrs: Iterable[Multiaddr] = (),
        *,
        lazy: bool = False,
    ) -> Stream:
        """Open a stream to a peer, connecting first if need be (see `Connection.open_stream`).

        Raises:
            NetError: It cannot be reached or speaks none of the protocols.
        """
        connection = await self.connect(peer, addrs)
        return await connection.open_stream(protocols, lazy=lazy)

    async def ping(self, peer: PeerId) -> float:
        """Ping a peer once; return the round trip in seconds."""
        source = self._random.stream(f"ping {peer}")
        return await ping(await self.connect(peer), source.randbytes)

    def statistics(self) -> HostStatistics:
        """Return a snapshot."""
        roster = self._roster
        count = len(self.connections())
        return HostStatistics(count, roster.bytes_in, roster.bytes_out, dict(self.faults))

    # Connections as they begin and end

    def apart(self, addr: Multiaddr, peer: PeerId) -> AbstractAsyncContextManager[Connection]:
        """Make a connection that counts as nobody's (see `apart.py`)."""
        return apart(self, addr, peer, self._budgets, self._faulted)

    def _register(
        self,
        raw: Carrier,
        secured: Security,
        initiator: bool,
        path: Path | None,
        limited: bool,
    ) -> Connection:
        if self._nursery is None or self._closing:
            raise TooMany("the node is closing")
        self._roster.make_room(secured.peer, raw.remote)
        connection = Connection(
            raw,
            secured,
            direction="out" if initiator else "in",
            services=self._services,
            budgets=self._budgets,
            faulted=self._faulted,
            now=self.environment.clock.now,
            path=path,
            limited=limited,
        )
        for older in self._roster.of(connection.peer_id):
            older.doubt(DOUBT_SECONDS)
        self._roster.add(connection)
        self._nursery.start_soon(self._run_connection, connection)
        return connection

    async def _run_connection(self, connection: Connection) -> None:
        for tell in self.on_connected:
            tell(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_who, connection)
            try:
                await connection.run()
            finally:
                nursery.cancel_scope.cancel()
                self._gone(connection)

    async def _ask_who(self, connection: Connection) -> None:
        await self._identify.ask(connection)
        if connection.info is not None:
            self.identified(connection)

    def identified(self, connection: Connection) -> None:
        """Tell who wants to know that a peer has identified itself, or has changed."""
        for tell in self.on_identified:
            tell(connection)

    def carries(self, connection: Connection) -> None:
        """Tell who wants to know that content begins to flow over a connection."""
        for tell in self.on_carrying:
            tell(connection)

    def _gone(self, connection: Connection) -> None:
        self._roster.remove(connection)
        self._identify.gone(connection)
        for tell in self.on_disconnected:
            tell(connection)

    async def _close_spares(self) -> None:
        while True:
            await trio.sleep(SPARE_SECONDS)
            self._roster.close_spares()

    def _faulted(self, connection: Connection, fault: PeerFault) -> None:
        self.faults[fault.reason] += 1
        if fault.reason == TOO_MANY_FAULTS:
            self._roster.shun(connection.peer_id)
