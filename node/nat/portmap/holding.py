"""Getting and keeping mappings in one IP family, by the best protocol that the router speaks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

from ....wire.addresses import Scope
from ....wire.scopes import IpAddress, scope_of_ip
from ...environment import Environment
from .asking import Asking, Unavailable
from .client import Client, Grant
from .dialects import Dialect, NatPmp, Pcp
from .door import Route, Router
from .state import Verdict, Via
from .upnp import Upnp

BETTER_SECONDS: Final = 1.0
"""How long a better protocol may still answer once one has."""

FIND_SECONDS: Final = 9.0
"""For all probes; a library that hangs is left behind."""

AGAIN_SECONDS: Final = 10.0
"""Until a router that gave nothing is asked again (datagrams get lost); doubles each time."""

MAX_AGAIN_SECONDS: Final = 600.0

AGAIN_JITTER: Final = 0.1
"""Of that time."""

LEAST_PAUSE: Final = 20.0
"""Seconds between two searches, whatever is announced; also until one after mappings were lost."""

REMOVE_SECONDS: Final = 3.0
"""For giving all mappings back at the end."""


class Keeper(Protocol):
    """One protocol at work; see `Asking` and `Upnp`."""

    @property
    def via(self) -> Via:
        """Which protocol it is."""
        ...

    @property
    def note(self) -> str:
        """What the router refused, as sentences; empty if nothing."""
        ...

    def grants(self) -> tuple[Grant, ...]:
        """Return the mappings that exist."""
        ...

    async def probe(self) -> None:
        """Find out whether the router speaks it, changing nothing; Unavailable if not."""
        ...

    async def make(self, ports: Iterable[int]) -> None:
        """Map ports; Unavailable if not one was granted."""
        ...

    async def keep(self) -> None:
        """Renew mappings until none is left."""
        ...

    async def remove(self) -> None:
        """Give all mappings back."""
        ...

    def close(self) -> None:
        """Give sockets back."""
        ...


class Holding:
    """Mappings through one router.

    Args:
        environment: Chance and secrets.
        router: The door.
        route: The way to the router.
        ports: Our TCP ports.
        changed: Called when anything here may have changed.
    """

    def __init__(
        self,
        environment: Environment,
        router: Router,
        route: Route,
        ports: Iterable[int],
        changed: Callable[[], None],
    ) -> None:
        self._environment = environment
        self._chance = environment.random.stream(f"portmap-{route.source.version}")
        self._router = router
        self._route = route
        self._ports = tuple(ports)
        self._changed = changed
        self._verdicts: dict[Via, tuple[bool, str]] = {}
        self._keeper: Keeper | None = None
        self._asking: list[Asking] = []
        self._again = trio.Event()

    @property
    def route(self) -> Route:
        """The way to the router."""
        return self._route

    @property
    def via(self) -> Via | None:
        """The protocol in use."""
        return None if self._keeper is None else self._keeper.via

    def grants(self) -> tuple[Grant, ...]:
        """Return the mappings that exist."""
        return () if self._keeper is None else self._keeper.grants()

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return what came of each protocol."""
        where = "" if self._route.source.version == 4 else " (IPv6)"
        return tuple(
            Verdict(via + where, *self._verdicts[via]) for via in Via if via in self._verdicts
        )

    def announced(self, data: bytes, source: tuple[IpAddress, int]) -> None:
        """Take what came to the port for announcements."""
        if source[0] != self._route.gateway:
            return
        for asking in self._asking:
            asking.announced(data, source)
        self._again.set()  # a router that has just started may speak more than before

    async def run(self) -> None:
        """Get mappings and keep them; give them back when cancelled."""
        pause = AGAIN_SECONDS
        while True:
            has_held = await self._once()
            self._again = trio.Event()
            await trio.sleep(LEAST_PAUSE)
            if has_held:
                pause = AGAIN_SECONDS
                continue
            with trio.move_on_after(pause * self._chance.uniform(1, 1 + AGAIN_JITTER)):
                await self._again.wait()
            pause = min(2 * pause, MAX_AGAIN_SECONDS)

    async def _once(self) -> bool:
        """Try all protocols, and hold what one of them gives until it is lost.

        Returns:
            Whether there was anything to hold.
        """
        version, source = self._route.source.version, self._route.source
        if version == 4 and scope_of_ip(source) is Scope.GLOBAL:
            for via in Via:
                self._tell(via, False, f"Not asked: our own address {source} is public.")
            return False
        keepers = self._keepers()
        unknown = list(keepers)
        try:
            while unknown:
                for keeper in await self._find(unknown):
                    if await self._hold(keeper):
                        return True
            return False
        finally:
            self._asking = []
            for keeper in keepers:
                keeper.close()

    def _keepers(self) -> list[Keeper]:
        """Return the protocols to try, the best first."""
        keepers: list[Keeper] = []
        dialects: list[Dialect] = [Pcp(self._route.source)]
        if self._route.source.version == 4:
            dialects.append(NatPmp())
        for dialect in dialects:
            if self._route.gateway is None:
                self._tell(dialect.via, False, "Not asked: the default gateway is not known here.")
                continue
            client = Client(
                dialect,
                self._route.gateway,
                self._chance,
                self._environment.random.secret,
                trio.current_time(),
            )
            asking = Asking(dialect.via, client, self._router, self._route, self._changed)
            self._asking.append(asking)
            keepers.append(asking)
        if self._route.source.version == 4:
            keepers.append(Upnp(self._router, self._route, self._chance, self._changed))
        return keepers

    async def _find(self, unknown: list[Keeper]) -> list[Keeper]:
        """Return those that answer, the best first; the others get their verdicts.

        Args:
            unknown: The best first. Those that the search was ended for remain in it: they are
                asked if the better ones grant nothing.
        """
        order = list(unknown)
        found: list[Keeper] = []

        async def probe(keeper: Keeper) -> None:
            try:
                await keeper.probe()
            except Unavailable as error:
                self._tell(keeper.via, False, str(error))
            else:
                found.append(keeper)
                self._tell(keeper.via, False, "The router speaks it; another one is in use.")
            unknown.remove(keeper)
            if found:
                best = min(map(order.index, found))
                is_best = not any(order.index(other) < best for other in unknown)
                within = 0 if is_best else BETTER_SECONDS
                scope.deadline = min(scope.deadline, trio.current_time() + within)

        for keeper in order:
            self._tell(keeper.via, False, "It was not asked to the end.")
        with trio.move_on_after(FIND_SECONDS) as scope:
            async with trio.open_nursery() as nursery:
                for keeper in order:
                    nursery.start_soon(probe, keeper)
        if not found:
            unknown.clear()
        return sorted(found, key=order.index)

    async def _hold(self, keeper: Keeper) -> bool:
        """Map the ports and keep them; False if the router grants nothing."""
        try:
            await keeper.make(self._ports)
            self._keeper = keeper
            self._tell(keeper.via, True, f"The router forwards our ports.{keeper.note}")
            await keeper.keep()
            self._tell(keeper.via, False, "The router has not renewed what it granted.")
            return True
        except Unavailable as error:
            self._tell(keeper.via, False, str(error))
            return False
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + REMOVE_SECONDS):
                await keeper.remove()
            self._keeper = None
            self._changed()

    def _tell(self, via: Via, works: bool, sentence: str) -> None:
        self._verdicts[via] = works, sentence
        self._changed()


def unix_end(grant: Grant, offset: float) -> float | None:
    """Return when a mapping ends as Unix time, whole seconds."""
    return None if grant.until is None else float(math.floor(grant.until + offset))
