"""Hole punching over a relayed connection: the driver of `wire/dcutr.py`, both sides.

Who received the relayed connection begins: first it dials the other directly, if that shows public
addresses; else both dial each other at one moment, from the ports that they listen on, so that each
NAT takes the other's packets for answers. The relayed connection stays until streams have left it.

A dial that came to nothing leaves a trace in a NAT for minutes, and where the NAT watches sequence
numbers no connection between the same two ports gets past that. So what follows the first attempt
uses a fresh port, if our NAT keeps port numbers, and tells that one.
"""

from __future__ import annotations

import errno
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from multiaddr import Multiaddr

from ...wire.addresses import (
    Scope,
    host_port,
    ip_of,
    is_quic,
    is_relayed,
    place_of,
    scope_of,
    tcp_addr,
)
from ...wire.dcutr import ATTEMPTS, MAX_MESSAGE, PROTOCOL, Dial, Invited, Inviter
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ..net.connection import Connection
from ..net.errors import NetError, TooMany
from ..net.host import Host
from ..net.paths import Path
from ..net.stream import Stream
from .circuit import read_message, send_message
from .punch_quic import QuicPunch

STREAM_SECONDS: Final = 60.0
"""For one attempt (specification)."""

DIRECT_SECONDS: Final = 5.0
"""For dialling the other directly before anything is punched."""

DIAL_SECONDS: Final = 4.0
"""For the dials of one attempt (go: 10 s): the kernel sends SYN at 0, 1 and 3 s, and what does not
get through then needs another port rather than more patience."""

MAX_DIALS: Final = 4
"""Addresses dialled in one attempt: a peer must not make us knock at many doors."""

AGAIN_SECONDS: Final = 120.0
"""Until it is tried again while the connection stays relayed; doubles up to `AGAIN_MOST`."""

AGAIN_MOST: Final = 1800.0

AGAIN_WANTED: Final = 10.0
"""The same when content begins to flow over the relayed connection."""

FRESH_PORTS: Final = (49152, 65535)
"""Where fresh ports are taken from: the range for that (RFC 6335)."""

MAX_OUTCOMES: Final = 256
"""Peers whose last outcome is remembered."""

MAX_AT_ONCE: Final = 8
"""Attempts under way."""

SYNC_SECONDS: Final = 15.0
"""For the inviter to say that it is time: as long as that its addresses are expected."""

MAX_INVITATIONS: Final = 4 * ATTEMPTS
INVITATIONS_SECONDS: Final = 60.0
"""Invitations of one connection that are taken within so many seconds."""

MAX_DOORS: Final = 60
DOORS_SECONDS: Final = 60.0
"""Addresses that are dialled in a minute because others named them, whoever they are: made-up
relayed peers cost nothing, and none of them shall make us scan the net."""

TAKEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})


@immutable
class Outcome:
    """What came of trying to reach a peer without its relay."""

    path: Path | None
    """None = it stays relayed."""
    attempts: int
    text: str


@dataclass(slots=True)
class _Invitations:
    """Those that came over one connection."""

    count: int = 0
    lately: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_INVITATIONS))

    def another(self, now: float) -> int:
        """Count one more; return which one it is.

        Raises:
            PeerFault: There were too many lately.
        """
        if len(self.lately) == MAX_INVITATIONS and self.lately[0] > now - INVITATIONS_SECONDS:
            raise PeerFault("punch-too-often")
        self.lately.append(now)
        self.count += 1
        return self.count


class Puncher:
    """See the top of the file.

    Args:
        host: Connections.
        addrs: Returns our addresses as others see them, best first.
    """

    def __init__(self, host: Host, addrs: Callable[[], Sequence[Multiaddr]]) -> None:
        self._host = host
        self._addrs = addrs
        self._nursery: trio.Nursery | None = None
        self._limit = trio.CapacityLimiter(MAX_AT_ONCE)
        self._chance = host.environment.random.stream("punching")
        self._quic = QuicPunch(host, host.environment.random.stream("punching by QUIC"))
        self._wanted: dict[Connection, trio.Event] = {}
        self._invitations: dict[Connection, _Invitations] = {}
        self._doors: deque[float] = deque(maxlen=MAX_DOORS)
        self.outcomes: OrderedDict[PeerId, Outcome] = OrderedDict()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take invitations, and invite whoever reaches us over a relay, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._host.handle(PROTOCOL, self._invited, max_inbound=2)
            self._host.on_identified.append(self._identified)
            self._host.on_disconnected.append(self._gone)
            self._host.on_carrying.append(self._carries)
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._host.on_identified.remove(self._identified)
                self._host.on_disconnected.remove(self._gone)
                self._host.on_carrying.remove(self._carries)
                self._host.unhandle(PROTOCOL)

    def _identified(self, connection: Connection) -> None:
        if connection.path is not Path.RELAYED or self._nursery is None:
            return
        if connection.direction == "out":
            # The invitation is on its way, and what it is answered with must not wait for this.
            self._nursery.start_soon(self._quic.show, connection)
        elif not connection.upgrading:
            connection.upgrading = True
            self._nursery.start_soon(self._upgrade, connection)

    def _gone(self, connection: Connection) -> None:
        self._invitations.pop(connection, None)

    def _carries(self, connection: Connection) -> None:
        """Try again soon: content flows over a relayed connection."""
        wanted = self._wanted.get(connection)
        if wanted is not None:
            wanted.set()

    def _ports(self, attempt: int) -> tuple[list[Multiaddr], dict[bool, int]]:
        """Return the addresses to tell in an attempt, and the ports to dial from.

        The ports are by IP version (True: 6). The first attempt of each round uses the listening
        port. A NAT that shows that under its own number is taken to do the same with another.
        """
        told = list(self._addrs())
        ports: dict[bool, int] = {}
        for at, addr in enumerate(told):
            pair = host_port(addr)
            own = self._host.maker.listening_port(addr)
            if pair is None or own is None:
                continue
            version = ":" in pair[0]
            port = ports.setdefault(version, own)
            if attempt % ATTEMPTS != 1 and pair[1] == own:
                if port == own:
                    port = ports[version] = self._chance.randint(*FRESH_PORTS)
                told[at] = tcp_addr(pair[0], port)
        return told, ports

    # The side that was reached over a relay

    async def _upgrade(self, connection: Connection) -> None:
        """Try to do without the relay, as long as the connection lives."""
        self._wanted[connection] = trio.Event()
        async with trio.open_nursery() as nursery:

            async def until_closed() -> None:
                await connection.wait_closed()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_closed)
            try:
                await self._try_again_and_again(connection)
            finally:
                del self._wanted[connection]
            nursery.cancel_scope.cancel()

    async def _try_again_and_again(self, connection: Connection) -> None:
        pause, attempts = AGAIN_SECONDS, 0
        while True:
            async with self._limit:
                outcome = await self._try(connection, attempts)
            self._remember(connection.peer_id, outcome)
            better = self._better(connection.peer_id)
            if better is not None:
                await better.wait_closed()  # and then it is wanted again
                pause, attempts = AGAIN_SECONDS, 0
                continue
            attempts += outcome.attempts
            await trio.sleep(AGAIN_WANTED)
            with trio.move_on_after(pause - AGAIN_WANTED):
                await self._wanted[connection].wait()
            self._wanted[connection] = trio.Event()
            pause = min(2 * pause, AGAIN_MOST)

    def _remember(self, peer: PeerId, outcome: Outcome) -> None:
        self.outcomes.pop(peer, None)
        self.outcomes[peer] = outcome
        while len(self.outcomes) > MAX_OUTCOMES:
            self.outcomes.popitem(last=False)

    def _better(self, peer: PeerId) -> Connection | None:
        connection = self._host.connection(peer)
        better = connection is not None and connection.path < Path.RELAYED
        return connection if better else None

    async def _try(self, connection: Connection, before: int) -> Outcome:
        """Make some attempts, after those that were made before."""
        peer = connection.peer_id
        direct = await self._directly(peer)
        if direct is not None:
            dialled = "it can be dialled directly" if direct.path is Path.DIRECT else ""
            return Outcome(direct.path, 0, dialled)
        if connection.speaks(PROTOCOL) is False:
            return Outcome(None, 0, "it does not speak the protocol of hole punching")
        why = "nothing was tried"
        for attempt in range(1, ATTEMPTS + 1):
            if attempt > 1 and (direct := await self._directly(peer)) is not None:
                return Outcome(direct.path, attempt - 1, "it can be dialled directly by now")
            try:
                why = await self._invite(connection, before + attempt)
            except PeerFault as fault:
                connection.count(fault)
                why = str(fault)
            except (NetError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                why = str(error)
            except trio.TooSlowError:
                why = "it did not answer in time"
            made = self._better(peer)
            if made is not None:
                return Outcome(made.path, attempt, "")
        return Outcome(None, ATTEMPTS, why)

    async def _directly(self, peer: PeerId) -> Connection | None:
        addrs = self._host.peerstore.addrs(peer)
        if self._better(peer) is None and any(map(_is_public, addrs)):
            with trio.move_on_after(DIRECT_SECONDS):
                with suppress(NetError, PeerFault):  # then a hole has to be punched
                    # It has just said that it is there: what was tried before does not count.
                    await self._host.connect(peer, force=True, better=Path.RELAYED)
        return self._better(peer)

    async def _invite(self, connection: Connection, attempt: int) -> str:
        """Make one attempt; return why it failed, if it did."""
        await self._quic.show(connection)
        told, ports = self._ports(attempt)
        inviter = Inviter(told)
        with trio.fail_after(STREAM_SECONDS):
            async with await connection.open_stream([PROTOCOL]) as stream:
                await send_message(stream, inviter.start(trio.current_time()))
                answer = await read_message(stream, MAX_MESSAGE)
                sync, dial = inviter.receive(answer, trio.current_time())
                if not dial.addrs:
                    return "it does not know how it is seen from outside"
                with self._host.maker.expecting(dial.addrs, connection.peer_id, initiator=False):
                    await send_message(stream, sync)
                    await trio.sleep_until(dial.at)
                    return await self._dial(dial, connection.peer_id, ports)

    # The side that dialled over a relay

    async def _invited(self, stream: Stream) -> None:
        connection = stream.connection
        if connection.path is not Path.RELAYED or connection.direction != "out":
            raise PeerFault("punch-order", "not over a connection that we made by a relay")
        known = self._invitations.setdefault(connection, _Invitations())
        told, ports = self._ports(known.another(trio.current_time()))
        invited = Invited(told)
        with trio.fail_after(STREAM_SECONDS):
            first = invited.receive(await read_message(stream, MAX_MESSAGE), trio.current_time())
            assert isinstance(first, bytes)
            await send_message(stream, first)
            theirs = invited.addrs[:MAX_DIALS]
            with self._host.maker.expecting(theirs, connection.peer_id, initiator=True):
                with trio.fail_after(SYNC_SECONDS):
                    sync = await read_message(stream, MAX_MESSAGE)
                dial = invited.receive(sync, trio.current_time())
                assert isinstance(dial, Dial)
                why = await self._dial(dial, connection.peer_id, ports)
        made = self._better(connection.peer_id)
        outcome = Outcome(made.path if made is not None else None, 1, why)
        self._remember(connection.peer_id, outcome)

    # Both

    async def _dial(self, dial: Dial, peer: PeerId, ports: dict[bool, int]) -> str:
        """Dial all addresses at once from these ports; return why none worked."""
        why = ["no address can be dialled"]
        host = self._host

        async def reach(addr: Multiaddr) -> None:
            if not is_quic(addr):
                port = ports.get(":" in str(ip_of(addr)), host.maker.listening_port(addr))
                raw = await host.environment.transport.dial(addr, source_port=port)
                await host.maker.admit(raw, peer, initiator=dial.as_client, path=Path.PUNCHED)
            elif dial.as_client:
                await self._quic.dial(addr, peer)
            else:
                await self._quic.knock(addr)

        async def one(addr: Multiaddr) -> None:
            if not (host.uses_quic if is_quic(addr) else host.maker.listening_port(addr)):
                return
            try:
                self._knock()
                host.dials.begin(addr)
                # To knock is no dial that could fail.
                success = None if is_quic(addr) and not dial.as_client else False
                try:
                    await reach(addr)
                    success = True
                finally:
                    host.dials.end(addr, success)
                nursery.cancel_scope.cancel()
            except OSError as error:
                if error.errno in TAKEN:
                    # The other's packet came to our listener first: that is the connection.
                    await trio.sleep_forever()
                why.append(f"{addr}: {error.strerror or error}")
            except (NetError, PeerFault, trio.TooSlowError) as error:
                why.append(f"{addr}: {str(error) or 'no answer in time'}")

        async def until_it_comes() -> None:
            # It may come from another port than it listens on (js): no dial of ours meets that.
            await self._appears(peer)
            nursery.cancel_scope.cancel()

        with trio.move_on_after(DIAL_SECONDS) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_it_comes)
                async with trio.open_nursery() as dials:
                    for addr in dial.addrs[:MAX_DIALS]:
                        dials.start_soon(one, addr)
                nursery.cancel_scope.cancel()
        if self._better(peer) is not None:
            return ""
        return "no packet came through in time" if scope.cancelled_caught else why[-1]

    def _knock(self) -> None:
        """Count an address that is dialled because another named it.

        Raises:
            TooMany: There were too many lately.
        """
        now = trio.current_time()
        if len(self._doors) == MAX_DOORS and self._doors[0] > now - DOORS_SECONDS:
            self._host.faults["punch-doors"] += 1
            raise TooMany("too many holes were punched in the last minute")
        self._doors.append(now)

    async def _appears(self, peer: PeerId) -> None:
        """Wait until there is a better connection than the relayed one."""
        came = trio.Event()

        def connected(connection: Connection) -> None:
            if connection.peer_id == peer and connection.path < Path.RELAYED:
                came.set()

        self._host.on_connected.append(connected)
        try:
            if self._better(peer) is None:
                await came.wait()
        finally:
            self._host.on_connected.remove(connected)


def _is_public(addr: Multiaddr) -> bool:
    plain = not is_relayed(addr) and place_of(addr) is not None
    return plain and scope_of(addr) is Scope.GLOBAL
