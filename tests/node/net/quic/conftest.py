"""Hosts that speak QUIC over datagrams in memory, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
import trio

from shoal.node.environment import Place
from shoal.node.net.bounds import Limits
from shoal.node.net.connection import Connection
from shoal.node.net.host import Host, HostConfig
from shoal.node.net.stream import Stream
from shoal.simulations.world import World
from shoal.wire.addresses import quic_addr, with_peer

from ..conftest import ECHO, echo, key_of

PORT = 4001
SINK = "/test/sink"
MAX_WAITING = 4096
"""Datagrams that a socket holds, as a kernel bounds them."""


@dataclass
class Air:
    """A network of datagrams: late, lost, doubled, out of order, or cut off."""

    latency: float = 0.02
    loss: float = 0.0
    jitter: float = 0.0
    """Up to so much later: so the order changes."""
    twice: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    cut: bool = False
    sent: int = 0
    """Bytes."""
    sockets: dict[tuple[str, int], MemorySocket] = field(default_factory=dict)
    _heap: list[tuple[float, int, bytes, Place, Place]] = field(default_factory=list)
    _count: itertools.count[int] = field(default_factory=itertools.count)
    _wake: trio.Event = field(default_factory=trio.Event)
    on_send: Callable[[bytes, Place, Place], bool] = lambda data, source, target: True
    """Asked for each datagram: may it pass?"""

    def send(self, data: bytes, source: Place, target: Place) -> None:
        self.sent += len(data)
        if self.cut or self.chance.random() < self.loss or not self.on_send(data, source, target):
            return
        for _ in range(1 + (self.chance.random() < self.twice)):
            at = trio.current_time() + self.latency + self.jitter * self.chance.random()
            heapq.heappush(self._heap, (at, next(self._count), data, source, target))
        self._wake.set()

    async def run(self) -> None:
        while True:
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                _, _, data, source, target = heapq.heappop(self._heap)
                socket = self.sockets.get((target[0], target[1]))
                if socket is not None and len(socket.waiting) < MAX_WAITING:
                    socket.waiting.append((data, len(data), source))
                    socket.came.set()
            with trio.move_on_at(self._heap[0][0] if self._heap else math.inf):
                await self._wake.wait()
            self._wake = trio.Event()


class MemorySocket:
    def __init__(self, air: Air, name: tuple[str, int]) -> None:
        self.air = air
        self.name: Place = name
        self.waiting: deque[tuple[bytes, int, Place]] = deque()
        self.came = trio.Event()
        self.closed = False

    async def wait_readable(self) -> None:
        while not self.waiting:
            if self.closed:
                raise trio.ClosedResourceError
            self.came = trio.Event()
            await self.came.wait()
        await trio.lowlevel.checkpoint()

    def receive(self) -> tuple[bytes, int, Place] | None:
        return self.waiting.popleft() if self.waiting else None

    async def send(self, datagrams: Sequence[bytes], place: Place) -> None:
        await trio.lowlevel.checkpoint()
        for datagram in datagrams:
            self.send_now(datagram, place)

    def send_now(self, datagram: bytes, place: Place) -> None:
        if not self.closed:
            self.air.send(datagram, self.name, place)

    def close(self) -> None:
        self.closed = True
        self.air.sockets.pop((self.name[0], self.name[1]), None)
        self.waiting.clear()
        self.came.set()


@dataclass
class Door:
    """One machine's UDP."""

    air: Air
    ip: str
    _ports: itertools.count[int] = field(default_factory=lambda: itertools.count(30000))

    async def bind(self, host: str, port: int) -> MemorySocket:
        await trio.lowlevel.checkpoint()
        name = (self.ip, port or next(self._ports))
        if name in self.air.sockets:
            raise OSError("in use")
        self.air.sockets[name] = MemorySocket(self.air, name)
        return self.air.sockets[name]


@pytest.fixture
async def air(world: World) -> Air:
    made = Air()
    world.nursery.start_soon(made.run)
    return made


MakeQuic = Callable[..., Awaitable[Host]]


@pytest.fixture
async def make_quic(world: World, air: Air) -> MakeQuic:
    """Start a host that listens with QUIC alone; it serves an echo and a sink."""
    ips = itertools.count(1)

    async def make(
        name: str, *, ip: str | None = None, listen: bool = True, limits: Limits | None = None
    ) -> Host:
        ip = ip or f"198.51.100.{next(ips)}"
        environment = replace(world.environment(name, [ip]), datagrams=Door(air, ip))
        host = Host(environment, key_of(name), HostConfig(limits=limits or Limits()))
        host.handle(ECHO, echo)
        host.handle(SINK, sink)
        await world.nursery.start(host.run, [quic_addr(ip, PORT)] if listen else [])
        return host

    return make


async def sink(stream: Stream) -> None:
    """Read all, and say how much it was."""
    total = 0
    while data := await stream.receive_some():
        total += len(data)
    await stream.send_all(str(total).encode())
    await stream.send_eof()


async def joined(a: Host, b: Host) -> tuple[Connection, Connection]:
    """Let `a` dial `b`; return both ends."""
    ours = await a.dial(with_peer(b.listen_addrs()[0], b.peer_id))
    await ours.identified()
    with trio.fail_after(10):
        while True:
            theirs = b.connection(a.peer_id)
            if theirs is not None and theirs.info is not None:
                return ours, theirs
            await trio.sleep(0.01)


async def read_all(stream: Stream) -> bytes:
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    return bytes(got)
