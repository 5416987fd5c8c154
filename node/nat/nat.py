"""All that a node does to be reached, in one place; `status` and `doctor` ask it.

Peers tell how they see us (`observed.py`), servers test it (`autonat.py`), and what follows from
that decides the rest: which addresses are told to others, whether places at relays are needed, and
whether we serve as a relay ourselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import trio
from multiaddr import Multiaddr

from ...wire.addresses import Scope, host_port, ip_group, is_quic, place_of, scope_of
from ...wire.autonat import DIAL_REQUEST, PROTOCOL_V1
from ...wire.errors import PeerFault
from ..environment import Environment
from ..net.connection import Connection
from ..net.host import Host
from ..net.paths import Path
from .autonat import AutoNatClient, AutoNatServer
from .observed import Mapping, Observations
from .punch import Puncher
from .reachability import REFRESH_SECONDS, AddressTests, Reachability, WholeTests
from .relay_client import RelayClient
from .relay_keeper import RelayKeeper
from .relay_server import RelayPolicy, RelayServer

RelayMode = Literal["auto", "off", "own"]

LOOK_SECONDS: Final = 2.0
"""Between two looks at what has changed."""

SETTLE_SECONDS: Final = 10.0
"""After the start: who cannot be reached is looked for a relay only when there was time to see."""

WHOLE_SECONDS: Final = 60.0
"""Between two questions of AutoNAT version 1 while it has no verdict."""

MAX_PUNCHABLE: Final = 4
"""Addresses of ours that others are asked to dial at one moment."""


@dataclass(frozen=True)
class NatSettings:
    """What the owner wants."""

    serve: bool = True
    """Serve others: test their addresses, and be a relay for meeting once we can be reached."""

    relay: RelayMode = "auto"
    """auto: a relay for meeting once we can be reached; own: a relay that carries transfers."""

    own: RelayPolicy = field(default_factory=lambda: RelayPolicy(limit=None))
    """Whom an own relay serves."""

    relays: tuple[Multiaddr, ...] = ()
    """Relays to have a place at, named by the owner."""

    announce: tuple[Multiaddr, ...] = ()
    """Addresses that the owner says are ours."""


def _kinds(addrs: Sequence[Multiaddr]) -> list[Iterator[Multiaddr]]:
    """Split addresses into those of TCP and those of QUIC, without empty lists."""
    kinds = [[addr for addr in addrs if is_quic(addr) == quic] for quic in (False, True)]
    return [iter(kind) for kind in kinds if kind]


class Nat:
    """See the top of the file.

    Args:
        environment: For randomness.
        host: Connections.
        settings: What the owner wants.
        changed: Called when the addresses that we tell, the reachability, the kind of NAT or our
            places at relays are others.
        moved: Called when this machine has other addresses; connections over those gone end.
        notice: Told sentences for the node's owner.
    """

    def __init__(
        self,
        environment: Environment,
        host: Host,
        settings: NatSettings,
        changed: Callable[[], None],
        moved: Callable[[], None] = lambda: None,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._host = host
        self.settings = settings
        self._tell_changed = changed
        self._tell_moved = moved
        self._own_ips = self._listening_ips()
        self._chance = environment.random.stream("autonat servers")
        self.observations = Observations()
        self.tests = AddressTests()
        self.whole = WholeTests()
        self.client = AutoNatClient(host, environment.random.stream("autonat client"))
        self.server: AutoNatServer | None = None
        if settings.serve:
            self.server = AutoNatServer(host, environment.random.stream("autonat server"))
        self.relays = RelayClient(host)
        self.keeper = RelayKeeper(
            host,
            self.relays,
            settings.relays,
            wanted=self._wants_relays,
            changed=self._look_soon,
            notice=notice,
        )
        self.puncher = Puncher(host, self.punchable)
        self.relay: RelayServer | None = None
        self.mapped: tuple[Multiaddr, ...] = ()
        """Addresses at which a router forwards to us."""
        self._started = trio.current_time()
        self._whole_due = self._started + SETTLE_SECONDS
        self._look = trio.Event()
        self._told: tuple[object, ...] = ()
        self._nursery: trio.Nursery | None = None
        self._testing: set[Multiaddr] = set()
        self._asking: dict[Connection, trio.Lock] = {}
        host.announced = list(settings.announce)

    # What is known

    @property
    def reachability(self) -> Reachability:
        """Whether others can reach us without a relay."""
        return self.tests.overall(self.whole.verdict)

    @property
    def mapping(self) -> Mapping:
        """How our NAT maps ports."""
        return self.observations.mapping(self._host.listen_addrs())

    def punchable(self) -> list[Multiaddr]:
        """Return our addresses as others see them, for a hole to be punched; best first."""
        reachable = self.tests.reachable()
        own = [a for a in self._host.listen_addrs() if scope_of(a) is Scope.GLOBAL]
        seen = self.observations.candidates()
        if self.mapping == "endpoint-dependent":
            # The port is another one next time: it is for the IP alone.
            seen = [next(of_kind) for of_kind in _kinds(seen)]
        found = dict.fromkeys([*reachable, *self.mapped, *seen, *own])
        return list(found)[:MAX_PUNCHABLE]

    def set_mapped(self, addrs: Sequence[Multiaddr]) -> None:
        """Take the addresses at which a router forwards to us."""
        if tuple(addrs) != self.mapped:
            self.mapped = tuple(addrs)
            self._look_soon()

    def look_again(self) -> None:
        """Test everything anew: the network is another one."""
        self.observations.forget()
        self.whole.forget()
        self.tests.recheck(trio.current_time())
        self._look_soon()

    def refused(self) -> dict[str, int]:
        """Return what we refused to do for others, how often by reason."""
        tests = self.server.refused if self.server is not None else {}
        places = self.relay.statistics().refused if self.relay is not None else {}
        found = {f"autonat-{why}": often for why, often in tests.items()}
        found |= {f"relay-{why}": often for why, often in places.items()}
        return dict(sorted(found.items()))

    # Life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do it all until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._host.on_identified.append(self._identified)
            await nursery.start(self.puncher.run)
            nursery.start_soon(self.keeper.run)
            self._follow()
            task_status.started()
            try:
                while True:
                    self._look = trio.Event()
                    self._watch_network()
                    self._test()
                    self._follow()
                    with trio.move_on_after(LOOK_SECONDS):
                        await self._look.wait()
            finally:
                self._nursery = None
                self._host.on_identified.remove(self._identified)

    def _listening_ips(self) -> set[str]:
        return {pair[0] for a in self._host.listen_addrs() if (pair := host_port(a)) is not None}

    def _watch_network(self) -> None:
        """End what used an address that is gone, and test anew if this machine has others now.

        Nothing tells the peers at its other ends: that would take them a minute to notice.
        """
        before, self._own_ips = self._own_ips, self._listening_ips()
        gone = before - self._own_ips
        if before == self._own_ips:
            return
        self.look_again()
        for connection in self._host.connections():
            local = host_port(connection.local)
            if local is not None and local[0] in gone:
                connection.close("this machine's address is another one now")
        self._tell_moved()

    def _look_soon(self) -> None:
        self._look.set()

    def _identified(self, connection: Connection) -> None:
        """Take how a peer sees us."""
        if connection.info is None or connection.path is Path.RELAYED:
            return
        local, quic = place_of(connection.local), is_quic(connection.local)
        own = (place_of(a) for a in self._host.listen_addrs() if is_quic(a) == quic)
        ports = {place[1] for place in own if place is not None}
        port = local[1] if local is not None and local[1] in ports else None
        self.observations.take(
            connection.peer_id,
            connection.info.observed_addr,
            remote=connection.remote,
            port=port,
            outbound=connection.direction == "out",
            now=trio.current_time(),
        )
        self._look_soon()

    # Testing

    def _candidates(self) -> list[Multiaddr]:
        """Return the addresses that may be ours: named, mapped, listened on, and as others see."""
        own = [a for a in self._host.listen_addrs() if scope_of(a) is Scope.GLOBAL]
        named = [a for a in self.settings.announce if place_of(a) is not None]
        found = [*named, *self.mapped, *own, *self.observations.candidates()]
        return list(dict.fromkeys(found))

    def _servers(self, protocol: str) -> list[Connection]:
        """Return peers on the internet that test addresses, one for each group, at random."""
        found = [
            c
            for c in self._host.connections()
            if c.usable and c.path is Path.DIRECT and c.speaks(protocol) and not c.limited
        ]
        self._chance.shuffle(found)
        by_group = {group: c for c in found if (group := ip_group(c.remote)) is not None}
        return list(by_group.values())

    def _test(self) -> None:
        """Begin the tests that are due."""
        now = trio.current_time()
        for connection in self._host.connections():
            if connection.path is not Path.RELAYED:
                self.observations.still(connection.peer_id, now)
        self.observations.expire(now)
        self.tests.candidates(self._candidates(), now)
        servers = self._servers(DIAL_REQUEST)
        due = [a for a in self.tests.due(now, len(servers)) if a not in self._testing]
        assert self._nursery is not None
        for number, addr in enumerate(due):
            if not servers:
                break
            self._testing.add(addr)
            # Another server for each address, and those first that have not judged it yet.
            turn = servers[number % len(servers) :] + servers[: number % len(servers)]
            judges = self.tests.judges(addr)
            turn.sort(key=lambda connection: ip_group(connection.remote) in judges)
            self._nursery.start_soon(self._test_addr, addr, turn)
        if now >= self._whole_due and self.reachability == "unknown" and not self._testing:
            self._whole_due = now + WHOLE_SECONDS
            self._nursery.start_soon(self._test_whole)

    async def _test_addr(self, addr: Multiaddr, servers: Sequence[Connection]) -> None:
        try:
            for connection in servers[:3]:
                group = ip_group(connection.remote) or b""
                result: tuple[Multiaddr, bool] | None = None
                lock = self._asking.setdefault(connection, trio.Lock())
                try:
                    async with lock:  # a server does one thing at a time for each of us
                        result = await self.client.test(connection, [addr])
                except PeerFault as fault:
                    connection.count(fault)
                finally:
                    if not lock.locked():
                        self._asking.pop(connection, None)
                reached = result[1] if result is not None else None
                now = trio.current_time()
                before = self.tests.verdict(addr)
                self.tests.result(addr, group, reached, now, len(servers))
                if reached is not None and self.tests.verdict(addr) != "unknown":
                    settled = self.tests.verdict(addr) == ("public" if reached else "private")
                    if settled or before == "unknown":
                        break
        finally:
            self._testing.discard(addr)
            self._look_soon()

    async def _test_whole(self) -> None:
        """Ask servers of version 1, if there are none of version 2."""
        servers = self._servers(PROTOCOL_V1)
        addrs = self._candidates() or [
            a for a in self._host.listen_addrs() if scope_of(a) is Scope.GLOBAL
        ]
        if not addrs or self._servers(DIAL_REQUEST):
            return
        for connection in servers[:4]:
            try:
                reached = await self.client.test_whole(connection, addrs)
            except PeerFault as fault:
                connection.count(fault)
                continue
            if reached is not None:
                group = ip_group(connection.remote) or b""
                self.whole.result(group, reached, len(servers))
        if self.whole.verdict != "unknown":
            self._whole_due = trio.current_time() + REFRESH_SECONDS
        self._look_soon()

    # What follows

    def _wants_relays(self) -> bool:
        """Whether places at relays of others are wanted: nobody is known to reach us otherwise."""
        if not self.settings.serve:
            return False
        state = self.reachability
        if state == "public":
            # Who has no IPv6 needs a way to us, too.
            return not any(":" not in p[0] for p in map(host_port, self._reaching()) if p)
        if state == "unknown":
            waited = trio.current_time() >= self._started + SETTLE_SECONDS
            own = self._host.listen_addrs()
            return waited and not any(scope_of(a) is Scope.GLOBAL for a in own)
        return True

    def _reaching(self) -> list[Multiaddr]:
        """Return the addresses at which others are known, or said by the owner, to reach us."""
        return [*self.settings.announce, *self.tests.reachable()]

    def _follow(self) -> None:
        """Draw the consequences of what is known; tell if anything is new."""
        host, verdict = self._host, self.tests.verdict
        confirmed = [a for a in self.observations.confirmed() if self._counts_untested(a)]
        direct = [*self.settings.announce, *self.mapped, *self.tests.reachable(), *confirmed]
        public = self.reachability == "public"
        relayed = self.keeper.addrs()
        host.announced = list(dict.fromkeys([*direct, *relayed]))
        host.withheld = {a for a in host.listen_addrs() if verdict(a) == "private"}
        self._serve_as_relay(public)
        addrs = tuple(host.told_addrs())
        told = (
            addrs,
            self.reachability,
            self.mapping,
            {place.relay for place in self.keeper.places()},
        )
        if told != self._told:
            before, self._told = self._told, told
            self.keeper.look_again()
            if before:
                if addrs != before[0]:
                    host.addrs_changed()
                self._tell_changed()

    def _counts_untested(self, addr: Multiaddr) -> bool:
        """Whether an address at which we are only seen is told: nobody is there to test it.

        Else others would dial it in vain, and what that leaves behind in NATs hinders punching.
        """
        if self.tests.verdict(addr) == "private" or self.whole.verdict == "private":
            return False
        return not self._servers(DIAL_REQUEST) or self.tests.given_up(addr)

    def _serve_as_relay(self, public: bool) -> None:
        mode = self.settings.relay
        wanted = mode == "own" or (mode == "auto" and public and self.settings.serve)
        if wanted and self.relay is None:
            policy = self.settings.own if mode == "own" else RelayPolicy()
            self.relay = RelayServer(self._host, policy)
        elif not wanted and self.relay is not None:
            self.relay.stop()
            self.relay = None
