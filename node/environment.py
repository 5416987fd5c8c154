"""What a simulation replaces: the five doors through which a node reaches the world.

Nothing else in the project reads a clock, draws a random number, opens a socket or a file, or
starts a thread. Waiting is trio's own (a simulation brings a virtual clock for it).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, TypeVarTuple, runtime_checkable

import trio
from multiaddr import Multiaddr

from ..storage.disk import Disk, RealDisk

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@runtime_checkable
class RawStream(Protocol):
    """One byte stream to one peer, as the transport gives it; a `trio.abc.HalfCloseableStream`."""

    @property
    def remote(self) -> Multiaddr:
        """The other end's address, without a peer id."""
        ...

    @property
    def local(self) -> Multiaddr:
        """Our end's address, without a peer id."""
        ...

    async def receive_into(self, buffer: memoryview) -> int:
        """Wait for bytes and put them at the buffer's start; 0 = the peer sends no more."""
        ...

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As `trio.abc.ReceiveStream.receive_some`."""
        ...

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`."""
        ...

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        ...

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`."""
        ...


class Listener(Protocol):
    """An open listening address."""

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        """Concrete addresses: port 0 is replaced, a wildcard is expanded to the interfaces."""
        ...

    async def accept(self) -> RawStream:
        """Wait for the next inbound stream; one caller at a time."""
        ...

    async def aclose(self) -> None:
        """Stop listening."""
        ...


class Transport(Protocol):
    """The network: dial, listen, resolve names."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Return whether this kind of address can be dialled here (after names are resolved)."""
        ...

    async def dial(self, addr: Multiaddr, *, source_port: int | None = None) -> RawStream:
        """Connect to the address (a `/p2p` part is ignored).

        Args:
            addr: Where.
            source_port: A port that we listen on: a NAT then shows us to this peer as it does to
                those who dial us.

        Raises:
            OSError: Refused, unreachable, or the source port cannot be used (`EADDRINUSE`,
                `EADDRNOTAVAIL`); the caller brings the deadline.
        """
        ...

    async def listen(self, addr: Multiaddr) -> Listener:
        """Listen on the address.

        Raises:
            OSError: The address is in use or not ours.
        """
        ...

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Replace `dns`, `dns4`, `dns6` and `dnsaddr` parts by what they stand for (bounded)."""
        ...


Place = tuple[str, int] | tuple[str, int, int, int]
"""A socket address, as the socket module has it."""


class DatagramSocket(Protocol):
    """A bound UDP socket."""

    @property
    def name(self) -> Place:
        """The address that it is bound to; port 0 is replaced."""
        ...

    async def wait_readable(self) -> None:
        """Wait for a datagram (trio.ClosedResourceError: the socket was closed)."""
        ...

    def receive(self) -> tuple[bytes, int, Place] | None:
        """Return bytes, the size of each datagram in them, and the sender; None = nothing there."""
        ...

    async def send(self, datagrams: Sequence[bytes], place: Place) -> None:
        """Send datagrams to one address, in order; any of them may get lost."""
        ...

    def send_now(self, datagram: bytes, place: Place) -> None:
        """Send one datagram if that is possible without waiting."""
        ...

    def close(self) -> None:
        """Close it; who waits for it is woken."""
        ...


class Datagrams(Protocol):
    """The network's other half: UDP."""

    async def bind(self, host: str, port: int) -> DatagramSocket:
        """Open a socket on an address; port 0 takes a free one (OSError: in use, not ours)."""
        ...


class Clock(Protocol):
    """Wall-clock time; waiting is trio's."""

    def now(self) -> float:
        """Return the Unix time in seconds."""
        ...


class RandomSource(Protocol):
    """Randomness: one stream per peer, link or purpose, so that two tasks never share one."""

    def stream(self, name: str) -> random.Random:
        """Return a source for `name`; in a simulation the same seed and name give the same."""
        ...

    def secret(self, count: int) -> bytes:
        """Return `count` bytes for a key or nonce."""
        ...


class RunBlocking(Protocol):
    """How blocking work runs: in a worker thread, or inline in a simulation."""

    async def __call__(
        self,
        function: Callable[[*Ts], T],
        *args: *Ts,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Call `function(*args)` and return its result; it is not abandoned when cancelled."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> float:
        """Return the Unix time in seconds."""
        return time.time()


class SystemRandom:
    """The randomness of the operating system."""

    def stream(self, name: str) -> random.Random:
        """Return a source seeded by the system; the name only matters in simulations."""
        return random.Random(os.urandom(32))

    def secret(self, count: int) -> bytes:
        """Return `count` bytes fit for keys."""
        return os.urandom(count)


async def run_in_thread(
    function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Run blocking work in a worker thread."""
    return await trio.to_thread.run_sync(function, *args, limiter=limiter)


async def run_abandonable(
    function: Callable[[*Ts], T], *args: *Ts, limiter: trio.CapacityLimiter
) -> T:
    """Run blocking work that changes nothing of ours; when cancelled, it is left to itself.

    For libraries that wait for the network without a bound. The limiter's token is given back
    when the work has ended.
    """
    return await trio.to_thread.run_sync(function, *args, limiter=limiter, abandon_on_cancel=True)


@dataclass(frozen=True)
class Environment:
    """The five doors of one node."""

    transport: Transport
    clock: Clock
    random: RandomSource
    run_blocking: RunBlocking
    disk: Disk
    on_a_network: bool = False
    """Whether there is a real local network around it: neighbours to call to by multicast, and a
    router to ask. A simulation has none."""
    datagrams: Datagrams | None = None
    """UDP, the transport's other half, for QUIC; None = TCP alone (a simulation: QUIC's library
    draws randomness of its own)."""


def real_environment() -> Environment:
    """Return the environment of a real node: TCP, UDP, the system's clock, randomness, threads."""
    from .net.tcp import TcpTransport
    from .net.udp import UdpDoor

    return Environment(
        TcpTransport(),
        SystemClock(),
        SystemRandom(),
        run_in_thread,
        RealDisk(),
        on_a_network=True,
        datagrams=UdpDoor(),
    )
