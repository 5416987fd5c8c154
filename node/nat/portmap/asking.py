"""Mappings over port 5351: the trio driver around a `Client`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio

from ....wire.scopes import IpAddress
from .client import Client, Grant
from .door import Datagrams, Route, Router
from .state import Via

PROBE_SECONDS: Final = 4.0
"""For a router to say that it is there: two tries of PCP, five of NAT-PMP."""

MAKE_SECONDS: Final = 3.5
"""For it to grant or refuse all mappings."""

MAX_PER_SECOND: Final = 64
"""Datagrams looked at in a second; the kernel drops what does not fit its buffer meanwhile."""

ERROR_PAUSE: Final = 1.0
"""Seconds before a socket is used again that failed."""


class Unavailable(Exception):
    """A protocol is of no use here; the text is a whole sentence for the reader."""


class Throttle:
    """Holds up a reader that finds too much."""

    def __init__(self) -> None:
        self._second = 0.0
        self._count = 0

    async def pass_one(self) -> None:
        """Count one datagram; sleep to the end of the second if there were too many."""
        now = trio.current_time()
        if now >= self._second + 1:
            self._second, self._count = now, 0
        self._count += 1
        if self._count > MAX_PER_SECOND:
            await trio.sleep_until(self._second + 1)


class Asking:
    """Keeps mappings over PCP or NAT-PMP.

    Args:
        via: Which of them.
        client: Its rules.
        router: The door.
        route: The way to the router.
        changed: Called when mappings may have changed.
    """

    def __init__(
        self,
        via: Via,
        client: Client,
        router: Router,
        route: Route,
        changed: Callable[[], None],
    ) -> None:
        self.via = via
        self._client = client
        self._router = router
        self._route = route
        self._changed = changed
        self._socket: Datagrams | None = None
        self._waiting: trio.CancelScope | None = None
        self._throttle = Throttle()

    @property
    def note(self) -> str:
        """What the router refused, as sentences; empty if nothing."""
        return "".join(f" The router refused a port: {why}." for why in self._client.refusals)

    def grants(self) -> tuple[Grant, ...]:
        """Return the mappings that exist."""
        return self._client.grants(trio.current_time())

    async def probe(self) -> None:
        """Ask whether the router speaks the protocol; Unavailable if not."""
        try:
            if self._socket is None:
                self._socket = await self._router.open(self._route)
            with trio.move_on_after(PROBE_SECONDS):
                await self._drive(lambda: self._client.speaks is not None, patient=False)
        except OSError as error:
            raise Unavailable(f"The router takes no requests: {_text(error)}.") from error
        if self._client.speaks is None:
            raise Unavailable("The router did not answer.")
        if self._client.refused:
            raise Unavailable(f"The router refuses: {self._client.refused}.")

    async def make(self, ports: Iterable[int]) -> None:
        """Map ports; Unavailable if not one was granted."""
        self._client.want(ports, trio.current_time())
        with trio.move_on_after(MAKE_SECONDS):
            await self._drive(lambda: self._client.is_settled)
        if not self.grants():
            why = "; ".join(self._client.refusals) or "it answers, but grants nothing"
            raise Unavailable(f"The router refuses: {why}.")

    async def keep(self) -> None:
        """Renew mappings until none is left."""
        await self._drive(lambda: not self.grants())

    async def remove(self) -> None:
        """Give all mappings back, and wait until the router has confirmed it."""
        if self._socket is not None:
            self._client.leave(trio.current_time())
            await self._drive(lambda: self._client.has_left)

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()

    def announced(self, data: bytes, source: tuple[IpAddress, int]) -> None:
        """Take what a router announced to all."""
        if self._client.speaks:
            self._client.receive(data, source, trio.current_time())
            if self._waiting is not None:
                self._waiting.cancel()

    async def _drive(self, done: Callable[[], bool], *, patient: bool = True) -> None:
        """Send what is due and take what comes until `done()`.

        Args:
            done: Looked at after every step.
            patient: Go on when the socket fails (the network may come back), else raise OSError.
        """
        while not done():
            try:
                await self._step()
            except OSError:
                if not patient:
                    raise
                await trio.sleep(ERROR_PAUSE)
            self._changed()

    async def _step(self) -> None:
        assert self._socket is not None
        for data in self._client.send(trio.current_time()):
            await self._socket.send(data)
        at = self._client.next_at
        with trio.CancelScope(deadline=at) as self._waiting:
            data, source = await self._socket.receive()
            self._client.receive(data, source, trio.current_time())
        self._waiting = None
        await self._throttle.pass_one()


def _text(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
