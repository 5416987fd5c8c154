"""QUIC for one host: its endpoints, for listening and dialling."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
from multiaddr import Multiaddr

from ....wire.addresses import quic_place
from ....wire.keys import PrivateKey
from ....wire.tls_certificate import make_certificate
from ....wire.yamux_stream import Budget
from ...environment import Datagrams, Environment, Place
from .endpoint import Endpoint
from .link import Link


class QuicTransport:
    """Listens on and dials `/ip4|ip6/…/udp/…/quic-v1`.

    Args:
        environment: Where randomness, time and sockets come from.
        datagrams: Opens sockets.
        identity: Who we are.
        budget: Where windows come from.
        count: Counts something that went wrong, by a short reason.
    """

    def __init__(
        self,
        environment: Environment,
        datagrams: Datagrams,
        identity: PrivateKey,
        budget: Budget,
        count: Callable[[str], None],
    ) -> None:
        self._environment = environment
        self._datagrams = datagrams
        self._random = environment.random.secret
        self._now = environment.clock.now
        self._certificate = make_certificate(identity, self._random(32), self._now())
        self._budget = budget
        self._count = count
        self._start: Callable[[Callable[[], Awaitable[None]]], object] | None = None
        self.endpoints: list[Endpoint] = []

    @asynccontextmanager
    async def apart(self, identity: PrivateKey) -> AsyncGenerator[QuicTransport, None]:
        """Give a transport under another identity, from other ports; it ends with the block."""
        other = QuicTransport(
            self._environment, self._datagrams, identity, self._budget, self._count
        )
        async with trio.open_nursery() as nursery:
            other.begin(nursery.start_soon)
            try:
                yield other
            finally:
                other.close()
                nursery.cancel_scope.cancel()

    def begin(self, start: Callable[[Callable[[], Awaitable[None]]], object]) -> None:
        """Read the sockets from now on, each in a task that `start` begins."""
        self._start = start
        for endpoint in self.endpoints:
            start(endpoint.run)

    def close(self) -> None:
        """End everything."""
        self._start = None
        for endpoint in self.endpoints:
            endpoint.close()
        self.endpoints.clear()

    async def listen(self, addr: Multiaddr) -> Endpoint:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: The address is in use or not ours.
        """
        place = quic_place(addr)
        if place is None:
            raise OSError(f"{addr} is no QUIC address")
        endpoint = await self._open(*place)
        endpoint.accepting = True
        return endpoint

    async def _open(self, host: str, port: int) -> Endpoint:
        endpoint = Endpoint(
            await self._datagrams.bind(host, port),
            self._certificate,
            random=self._random,
            wall_clock=self._now,
            budget=self._budget,
            count=self._count,
        )
        self.endpoints.append(endpoint)
        if self._start is not None:
            self._start(endpoint.run)
        return endpoint

    def can_dial(self, addr: Multiaddr) -> bool:
        """Return whether it is a plain QUIC address."""
        return quic_place(addr) is not None

    async def dial(self, addr: Multiaddr) -> Link:
        """Begin a connection and wait for the first answer; the caller brings the deadline.

        It goes out from the port that we listen on, if we do: a NAT then shows us to this peer as
        it does to those who dial us.

        Raises:
            OSError: Nothing can be sent there.
            NetError, PeerFault: The answer was no.
        """
        host, port = self._target(addr)
        endpoint = self.endpoint_for(host)
        if endpoint is None:
            endpoint = await self._open("::" if ":" in host else "0.0.0.0", 0)
        link = endpoint.dial(_place(host, port))
        try:
            await link.first_answer()
        except BaseException:
            link.close(1, "")
            raise
        return link

    def endpoint_for(self, host: str) -> Endpoint | None:
        """Return the endpoint to dial an address from, those that listen first."""
        fitting = [e for e in self.endpoints if e.reaches(host)]
        return min(fitting, key=lambda e: not e.accepting, default=None)

    def stray(self, addr: Multiaddr, data: bytes) -> None:
        """Send a datagram that is none of QUIC, to open a NAT for what comes from there."""
        host, port = self._target(addr)
        endpoint = self.endpoint_for(host)
        if endpoint is not None:
            endpoint.send_stray(data, _place(host, port))

    def _target(self, addr: Multiaddr) -> tuple[str, int]:
        place = quic_place(addr)
        if place is None:
            raise OSError(errno.EAFNOSUPPORT, f"{addr} is no QUIC address")
        return place


def _place(host: str, port: int) -> Place:
    return (host, port, 0, 0) if ":" in host else (host, port)
