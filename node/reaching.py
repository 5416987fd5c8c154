"""How a node comes to be reached: starting what `nat` has, and drawing the node's consequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ..wire.addresses import Scope, host_port, parse_multiaddr
from ..wire.errors import PeerFault
from ..wire.ids import PeerId
from .events_reach import Reachability, Rung
from .find import AMINO_PROTOCOL
from .nat.doctor import UNKNOWN, Facts, climb
from .nat.nat import Nat, NatSettings
from .nat.relay_server import RelayPolicy
from .net.errors import NetError
from .net.paths import Path
from .rates import parse_rate

if TYPE_CHECKING:
    from .config import Config
    from .find import Mode
    from .lifecycle import Lifecycle
    from .nat.mdns import Mdns
    from .nat.portmap.mapper import PortMapper
    from .nat.portmap.state import PortMapState

NEIGHBOUR_SECONDS = 360.0
"""Life of an address that a neighbour told by mDNS (rust: 6 min)."""

MAX_NEIGHBOURS_DIALLED = 8
"""Neighbours that are dialled at a time."""

ANNOUNCE_AGAIN_SECONDS = 10.0
ANNOUNCE_AGAIN_MOST = 600.0
"""Least time between two rounds of announcing everything because our addresses are others; it
doubles from the first to the longest, and starts anew after `ANNOUNCE_QUIET`."""

ANNOUNCE_QUIET = 1200.0

EXAMINE_STEP = 0.5
"""Between two looks of `examine`, in seconds."""

ANNOUNCE_SETTLE_SECONDS = 5.0
"""Addresses that change together are announced together."""


def settings_of(config: Config, purpose: str) -> NatSettings:
    """Return what the owner wants."""
    members = frozenset(map(PeerId.parse, config.relay_members)) or None
    quota = None if config.relay_quota is None else parse_rate(config.relay_quota)
    return NatSettings(
        serve=purpose != "get",
        relay=config.relay,
        own=RelayPolicy(limit=None, members=members, quota=quota),
        relays=tuple(map(parse_multiaddr, config.via)),
        announce=tuple(map(parse_multiaddr, config.announce)),
    )


class Reaching:
    """What a node does to be reached.

    Args:
        node: The node; its host exists and listens.
    """

    def __init__(self, node: Lifecycle) -> None:
        self._node = node
        settings = settings_of(node.config, node.purpose)
        self.nat = Nat(
            node.environment, node.host, settings, self._changed, self._moved, node.notice
        )
        self.mdns: Mdns | None = None
        self.mapper: PortMapper | None = None
        self._dialling: set[PeerId] = set()
        self._announce = trio.Event()
        self._told: Reachability | None = None

    async def start(self) -> None:
        """Start everything; what needs a real network only where there is one."""
        node = self._node
        await node.nursery.start(self.nat.run)
        node.nursery.start_soon(self._announce_again)
        if not node.environment.on_a_network:
            return
        listening = [pair for a in node.host.listen_addrs() if (pair := host_port(a)) is not None]
        open_to_others = [p for p in listening if not p[0].startswith("127.") and p[0] != "::1"]
        if node.config.mdns and open_to_others:
            node.nursery.start_soon(self._find_neighbours)
        if node.config.port_mapping and node.purpose != "get" and open_to_others:
            node.nursery.start_soon(self._map_ports, open_to_others)

    async def examine(self, seconds: float) -> list[Rung]:
        """Return the rungs of the ladder, when all are known or the time is over."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            rungs = climb(self._facts())
            if not any(rung.verdict == UNKNOWN for rung in rungs):
                break
            await trio.sleep(EXAMINE_STEP)
        return climb(self._facts())

    def _facts(self) -> Facts:
        host = self._node.host
        return Facts(
            host.listen_addrs(),
            self.nat,
            self.mdns.state if self.mdns is not None else None,
            self.mapper.state if self.mapper is not None else None,
            Counter(connection.path for connection in host.connections()),
            self._node.dht.statistics().contacts,
            None if find_spec("qh3") is None else host.uses_quic,
            sum(connection.transport == "quic" for connection in host.connections()),
        )

    # Consequences

    def _changed(self) -> None:
        """Our addresses or our reachability are others."""
        node, nat = self._node, self.nat
        if node.config.dht == "auto" and node.config.dht_protocol != AMINO_PROTOCOL:
            mode: Mode = "client" if nat.reachability == "private" else self._mode
            if nat.reachability != "unknown" or mode == "client":
                node.dht.set_mode(mode)
        told = Reachability(
            nat.reachability,
            nat.mapping,
            node.addrs(),
            tuple(str(place.relay) for place in nat.keeper.places()),
        )
        if self._told is None or told.addrs != self._told.addrs:
            self._announce.set()
        if told != self._told:
            self._told = told
            node.tell(told)

    def _moved(self) -> None:
        """Our network is another one: meet those again who are near to us in the DHT."""
        self._node.nursery.start_soon(self._node.join_again)

    @property
    def _mode(self) -> Mode:
        return "client" if self._node.purpose == "get" else "server"

    async def _announce_again(self) -> None:
        """Announce everything again when our addresses have changed, not too often."""
        pause, last = ANNOUNCE_AGAIN_SECONDS, trio.current_time()
        while True:
            await self._announce.wait()
            if trio.current_time() >= last + ANNOUNCE_QUIET:
                pause = ANNOUNCE_AGAIN_SECONDS
            if trio.current_time() >= last + ANNOUNCE_SETTLE_SECONDS:
                await trio.sleep(ANNOUNCE_SETTLE_SECONDS)
            self._announce, last = trio.Event(), trio.current_time()
            await self._node.announce_again()
            await trio.sleep(pause)
            pause = min(2 * pause, ANNOUNCE_AGAIN_MOST)

    # The local network

    async def _find_neighbours(self) -> None:
        from .nat.mdns import Mdns

        node = self._node
        self.mdns = Mdns(node.environment, node.peer_id, node.host.listen_addrs, self.found)
        await self.mdns.run()

    def found(self, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        """Connect with a neighbour; a worse path to it is replaced."""
        host = self._node.host
        taken = host.peerstore.add(peer, addrs, told_over=Scope.PRIVATE, ttl=NEIGHBOUR_SECONDS)
        connection = host.connection(peer)
        near = connection is not None and connection.path is Path.LAN
        if not taken or near or peer in self._dialling:
            return
        if len(self._dialling) < MAX_NEIGHBOURS_DIALLED:
            self._dialling.add(peer)
            self._node.nursery.start_soon(self._dial_neighbour, peer, taken)

    async def _dial_neighbour(self, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        try:
            await self._node.host.connect(peer, addrs, better=Path.DIRECT)
        except (NetError, PeerFault):
            pass  # it is told again when it is heard of again
        finally:
            self._dialling.discard(peer)

    # The router

    async def _map_ports(self, listening: Sequence[tuple[str, int]]) -> None:
        from .nat.portmap.mapper import PortMapper
        from .nat.portmap.system import SystemRouter

        self.mapper = PortMapper(
            self._node.environment,
            SystemRouter(),
            sorted({port for host, port in listening if ":" not in host}),
            pinholes=sorted({port for host, port in listening if ":" in host}),
            on_change=self._mapped,
        )
        await self.mapper.run()

    def _mapped(self, state: PortMapState) -> None:
        self.nat.set_mapped(state.public_addrs)
