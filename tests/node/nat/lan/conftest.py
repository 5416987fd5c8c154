"""A network of one machine: mDNS on the loopback interface, under a service name of the test."""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import pytest
import trio
from multiaddr import Multiaddr

from shoal.node.environment import real_environment
from shoal.node.nat.mdns import Mdns
from shoal.wire.ids import PeerId

GROUP = "224.0.0.251"
PORT = 5353
HERE = "127.0.0.1"


def group_socket(group: str, port: int) -> socket.socket:
    """A socket that hears a group on the loopback interface, beside others that do."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("", port))
    member = socket.inet_aton(group) + socket.inet_aton(HERE)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return sender(sock)


def sender(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, struct.pack("B", 255))
    return sock


@pytest.fixture(scope="session")
def multicast() -> None:
    """Skip where packets to a group do not come back."""
    try:
        with closing(group_socket(GROUP, PORT)) as listening:
            listening.settimeout(2)
            probe = b"\0" * 12 + secrets.token_bytes(8)  # to whoever else listens: an empty query
            with closing(sender(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))) as sending:
                sending.sendto(probe, (GROUP, PORT))
            while listening.recv(9000) != probe:
                pass
    except OSError as error:
        pytest.skip(f"MULTICAST DOES NOT WORK on the loopback interface, mDNS is untested: {error}")


@pytest.fixture
def service() -> str:
    return f"_shoal-{secrets.token_hex(4)}._udp.local."


@pytest.fixture
def listening(multicast: None) -> Iterator[trio.socket.SocketType]:
    """Hears what is sent to all, as rust does; it may also send from another port."""
    with closing(group_socket(GROUP, PORT)) as sock:
        yield trio.socket.from_stdlib_socket(sock)


@pytest.fixture
def asking(multicast: None) -> Iterator[trio.socket.SocketType]:
    """Sends from a port of its own, as rust does, and hears what is sent to that alone."""
    with closing(sender(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))) as sock:
        sock.bind((HERE, 0))
        yield trio.socket.from_stdlib_socket(sock)


class Neighbourhood:
    """One `Mdns` and what it found."""

    def __init__(
        self, peer: PeerId, service: str, addrs: Callable[[], Sequence[Multiaddr]]
    ) -> None:
        self.found: dict[PeerId, list[Multiaddr]] = {}
        self.calls = 0
        self._changed = trio.Event()
        self.mdns = Mdns(real_environment(), peer, addrs, self._find, service, interfaces=[HERE])

    def _find(self, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        self.calls += 1
        self.found.setdefault(peer, []).extend(addrs)
        self._changed.set()

    async def wait_found(self, peer: PeerId, addr: Multiaddr) -> None:
        while addr not in self.found.get(peer, []):
            self._changed = trio.Event()
            await self._changed.wait()


MakeNeighbourhood = Callable[..., Neighbourhood]


@pytest.fixture
def neighbourhood(multicast: None, service: str) -> MakeNeighbourhood:
    def make(peer: PeerId, *addrs: Multiaddr) -> Neighbourhood:
        return Neighbourhood(peer, service, lambda: addrs)

    return make
