"""A network in memory: places with IP addresses, and the paths between them.

One heap of arrivals (time, turn) and one task that delivers them: what arrives when does not depend
on the scheduler. Nothing is ever lost on a stream; a fault holds bytes back or breaks the stream.
"""

from __future__ import annotations

import errno
import heapq
import ipaddress
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import trio
from multiaddr import Multiaddr

from ..node.environment import RandomSource
from ..wire.addresses import Scope, host_port, is_name, tcp_addr
from ..wire.scopes import scope_of_ip
from .dial import Dial, error_of
from .link import Link, Path, Pipe
from .nat_box import NatBox, Rule
from .stream import MemoryStream
from .trace import Trace

BACKLOG: Final = 128
"""Inbound streams that wait to be accepted; more are refused."""

FIRST_PORT: Final = 32768
LAST_PORT: Final = 60999
"""Ports of outbound streams and of listeners on port 0, as in Linux."""

LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
WILDCARD: Final = {"0.0.0.0": 4, "::": 6}


def global_addresses() -> Iterator[str]:
    """Yield distinct global IPv4 addresses, each in another /16 as long as there are any."""
    for low in range(1, 1 << 16):
        for high in range(5 << 8, 224 << 8):
            ip = ipaddress.IPv4Address(high << 16 | low)
            if scope_of_ip(ip) is Scope.GLOBAL and ip.is_global:
                yield str(ip)


class Place:
    """A machine in the network: its addresses, its access line and what listens there.

    Attributes:
        reachable: Whether others can open streams to it; False = behind a firewall that drops them,
            but for those from where a dial of ours to just that port is under way.
        behind: The router between it and the world; None = it has addresses of its own there.
        starts: How often a node was started again here.
    """

    def __init__(self, network: Network, name: str, ips: Sequence[str]) -> None:
        self.network = network
        self.name = name
        self.ips = tuple(ips)
        self.reachable = True
        self.behind: NatBox | None = None
        self.up = Pipe()
        self.down = Pipe()
        self.listeners: dict[tuple[str, int], MemoryListener] = {}
        self.streams: dict[MemoryStream, Place] = {}
        """Open ends here, and where the other end is."""
        self.dials: dict[tuple[Multiaddr, Multiaddr], Dial] = {}
        """Dials under way, by our end and the other."""
        self.starts = 0
        self._port = FIRST_PORT - 1

    def free_port(self) -> int:
        """Return a port that is not in use here."""
        taken = {port for _, port in self.listeners}
        while True:
            self._port = self._port + 1 if self._port < LAST_PORT else FIRST_PORT
            if self._port not in taken:
                return self._port

    def source_ip(self, target: str) -> str:
        """Return our IP towards another one."""
        ip = ipaddress.ip_address(target)
        if ip.is_loopback:
            return LOOPBACK[ip.version]
        same = [own for own in self.ips if ipaddress.ip_address(own).version == ip.version]
        if not same:
            raise error_of(errno.ENETUNREACH)
        scope = scope_of_ip(ip)
        return next(
            (own for own in same if scope_of_ip(ipaddress.ip_address(own)) is scope), same[0]
        )


class Network:
    """All places and paths; `run` must be running.

    Args:
        chance: Where jitter comes from, one source per path.
        default: Conditions between two places of which nothing else was said.
        trace: Where events are noted.
    """

    def __init__(
        self, chance: RandomSource, default: Link | None = None, trace: Trace | None = None
    ) -> None:
        self.default = default or Link()
        self.names: dict[str, list[Multiaddr]] = {}
        """What names (`/dns4/…`) stand for."""
        self.places: dict[str, Place] = {}
        self.trace = trace or Trace()
        self.bytes = 0
        """Bytes sent."""
        self._chance = chance
        self.link_of: Callable[[Place, Place], Link] | None = None
        """Conditions of a pair that meets for the first time, in place of `default`."""
        self._by_ip: dict[str, Place] = {}
        self._boxes: dict[str, NatBox] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._arrivals: list[tuple[float, int, Path, Callable[[], None]]] = []
        self._turn = 0
        self._sooner = trio.Event()
        self._addresses = global_addresses()

    def box(
        self,
        name: str,
        *,
        mapping: Rule = "endpoint-independent",
        filtering: Rule = "endpoint-dependent",
    ) -> NatBox:
        """Add a router with a global address of its own; what it is like see `NatBox`."""
        chance = self._chance.stream(f"router {name}")
        box = NatBox(self.place(name), mapping, filtering, chance)
        self._boxes[box.ip] = box
        return box

    def place(self, name: str, ips: Sequence[str] = (), behind: NatBox | None = None) -> Place:
        """Add a place; without `ips` it gets a global address of its own, or one of its router."""
        if name in self.places:
            raise ValueError(f"there is a place {name} already")
        if behind is not None and not ips:
            ips = [f"192.168.{len(self.places) >> 8}.{len(self.places) & 255}"]
        place = Place(self, name, ips or [next(self._addresses)])
        for ip in place.ips:
            if ip in self._by_ip:
                raise ValueError(f"{ip} belongs to {self._by_ip[ip].name}")
        self._by_ip.update((ip, place) for ip in place.ips)
        self.places[name] = place
        if behind is not None:
            place.behind = behind
            behind.members.append(place)
        return place

    def move(self, place: Place, ips: Sequence[str]) -> None:
        """Give a place other addresses; what went over those that it loses is stranded."""
        for ip in ips:
            if self._by_ip.get(ip, place) is not place:
                raise ValueError(f"{ip} belongs to {self._by_ip[ip].name}")
        gone = set(place.ips) - set(ips)
        for ip in gone:
            del self._by_ip[ip]
        self._by_ip.update((ip, place) for ip in ips)
        place.ips = tuple(ips)
        for listener in dict.fromkeys(place.listeners.values()):
            listener.follow()
        for stream in list(place.streams):
            pair = host_port(stream.local)
            if pair is not None and pair[0] in gone:
                stream.strand()

    def path(self, source: Place, target: Place) -> Path:
        """Return the path from one place to another."""
        key = (source.name, target.name)
        path = self._paths.get(key)
        if path is None:
            if source is target:
                link = Link(0.0)
            else:
                link = self.link_of(source, target) if self.link_of else self.default
            path = Path(link, self._chance.stream(f"path {key[0]} {key[1]}"))
            self._paths[key] = path
        return path

    def find(self, source: Place, ip: str) -> Place | None:
        """Return the place that an address leads to: a router for those behind it."""
        if ipaddress.ip_address(ip).is_loopback:
            return source
        found = self._by_ip.get(ip)
        if found is None or found.behind in (None, source.behind):
            return found
        return None  # behind another router

    def box_at(self, ip: str) -> NatBox | None:
        """Return the router whose outer address this is."""
        return self._boxes.get(ip)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver what arrives until cancelled."""
        task_status.started()
        while True:
            self._sooner = trio.Event()
            due = self._arrivals[0][0] if self._arrivals else math.inf
            with trio.move_on_at(due):
                await self._sooner.wait()
            now = trio.current_time()
            while self._arrivals and self._arrivals[0][0] <= now:
                _, _, path, deliver = heapq.heappop(self._arrivals)
                if path.cut:
                    path.held.append(deliver)
                else:
                    deliver()

    def deliver_at(self, at: float, path: Path, deliver: Callable[[], None]) -> None:
        """Call `deliver` at a time, or when the path is whole again."""
        self._turn += 1
        entry = (at, self._turn, path, deliver)
        heapq.heappush(self._arrivals, entry)
        if self._arrivals[0] is entry:
            self._sooner.set()

    def send(self, source: Place, target: Place, deliver: Callable[[], None]) -> None:
        """Send a packet without a body."""
        path = self.path(source, target)
        self.deliver_at(trio.current_time() + path.delay(), path, deliver)

    def after(
        self, seconds: float, source: Place, target: Place, deliver: Callable[[], None]
    ) -> None:
        """Send a packet without a body some time from now."""
        path = self.path(source, target)
        self.deliver_at(trio.current_time() + seconds + path.delay(), path, deliver)

    def release(self, path: Path) -> None:
        """Mend a path: what it held arrives one latency from now, in order."""
        path.cut = False
        held, path.held = path.held, []
        at = trio.current_time() + path.link.latency
        for deliver in held:
            self.deliver_at(at, path, deliver)

    def note(self, *facts: object) -> None:
        """Note an event in the trace."""
        self.trace.note(trio.current_time(), *facts)


class MemoryListener:
    """A listening address of a place; `host` may stand for all addresses of its family."""

    def __init__(self, place: Place, host: str, port: int, keys: list[tuple[str, int]]) -> None:
        self._place = place
        self._host = host
        self._port = port
        self._keys = keys
        self._waiting: deque[MemoryStream] = deque()
        self._changed = trio.Event()
        self._closed = False

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        """Concrete addresses that lead here."""
        keys = self._keys
        shown = [(ip, port) for ip, port in keys if len(keys) == 1 or ip not in LOOPBACK.values()]
        shown += [key for key in keys if key not in shown]
        return tuple(tcp_addr(ip, port) for ip, port in shown)

    def follow(self) -> None:
        """Listen where the place is now."""
        self._leave()
        self._keys = keys_of(self._place, self._host, self._port)
        self._place.listeners.update((key, self) for key in self._keys)

    @property
    def full(self) -> bool:
        """Whether no more streams can wait here."""
        return self._closed or len(self._waiting) >= BACKLOG

    def arrive(self, stream: MemoryStream) -> None:
        """Let a stream wait to be accepted."""
        self._waiting.append(stream)
        self._changed.set()

    async def accept(self) -> MemoryStream:
        """Wait for the next stream."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if self._waiting:
                return self._waiting.popleft()
            self._changed = trio.Event()
            await self._changed.wait()
        raise trio.ClosedResourceError

    async def aclose(self) -> None:
        """Stop listening; who was not accepted yet sees a reset."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._changed.set()
        self._leave()
        while self._waiting:
            self._waiting.popleft().break_off("nobody listens any more")

    def _leave(self) -> None:
        for key in self._keys:
            if self._place.listeners.get(key) is self:
                del self._place.listeners[key]


def keys_of(place: Place, host: str, port: int) -> list[tuple[str, int]]:
    """Return where a listener of a place is found; a wildcard stands for all of its family."""
    family = WILDCARD.get(host)
    if family is None:
        return [(host, port)]
    ips = [ip for ip in place.ips if ipaddress.ip_address(ip).version == family]
    return [(ip, port) for ip in (*ips, LOOPBACK[family])]


class MemoryTransport:
    """The `Transport` of one place."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def can_dial(self, addr: Multiaddr) -> bool:
        """Return whether it is a plain TCP address or a name."""
        return host_port(addr) is not None or is_name(addr)

    async def dial(self, addr: Multiaddr, *, source_port: int | None = None) -> MemoryStream:
        """Open a stream; takes one round trip, or for ever if nobody answers."""
        pair = host_port(addr)
        if pair is None:
            raise OSError(f"{addr} is no TCP address")
        await trio.lowlevel.checkpoint()
        return await Dial(self.place, *pair, source_port).wait()

    async def listen(self, addr: Multiaddr) -> MemoryListener:
        """Listen; port 0 takes a free one, a wildcard all addresses of its family."""
        pair = host_port(addr)
        if pair is None:
            raise OSError(f"{addr} is no TCP address")
        host, port = pair
        place = self.place
        port = port or place.free_port()
        keys = keys_of(place, host, port)
        if not all(ip in place.ips or ipaddress.ip_address(ip).is_loopback for ip, _ in keys):
            raise error_of(errno.EADDRNOTAVAIL)
        if any(key in place.listeners for key in keys):
            raise error_of(errno.EADDRINUSE)
        listener = MemoryListener(place, host, port, keys)
        place.listeners.update((key, listener) for key in keys)
        await trio.lowlevel.checkpoint()
        return listener

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Replace a name by what the network says that it stands for."""
        await trio.lowlevel.checkpoint()
        if not is_name(addr):
            return [addr]
        found = self.place.network.names.get(str(addr))
        if not found:
            raise OSError("the name does not resolve")
        return found
