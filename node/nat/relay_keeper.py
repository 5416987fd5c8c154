"""Keeping places at relays while nobody can reach us otherwise: which ones, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from multiaddr import Multiaddr

from ...wire.addresses import Scope, ip_group, peer_of, relayed_addr
from ...wire.circuit import HOP
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.immutable import immutable
from ..net.connection import Connection
from ..net.errors import NetError
from ..net.host import Host
from ..net.paths import Path
from .relay_client import RelayClient, RelayRefused

RELAYS: Final = 2
"""Relays kept at a time."""

LOOK_SECONDS: Final = 5.0
"""Between two looks at what there is."""

RENEW_PART: Final = 0.5
"""Part of a reservation's life after which it is renewed."""

BACKOFF_SECONDS: Final = 60.0
BACKOFF_MOST: Final = 3600.0
"""Until a relay that refused is asked again; doubles."""

MAX_REFUSALS: Final = 1024
"""Relays whose refusals are remembered."""


@immutable
class PlaceState:
    """A place at a relay, as people see it."""

    relay: PeerId
    named: bool
    """The owner named it; else it was found."""
    carries: bool
    """It carries content; else it is for meeting only."""
    expires: float
    """Unix time."""


@dataclass(slots=True)
class _Kept:
    connection: Connection
    addrs: tuple[Multiaddr, ...]
    carries: bool
    expires: float
    renew_at: float
    """trio's clock."""


@dataclass(slots=True)
class _Refusal:
    until: float
    pause: float
    text: str


class RelayKeeper:
    """See the top of the file.

    Args:
        host: Connections.
        client: Makes the reservations.
        named: Relays that the owner named, best first; kept whatever the count.
        wanted: Says whether relays of others are wanted now.
        changed: Called when our relayed addresses are others.
        notice: Told what keeps us from a place at a relay that the owner named.
    """

    def __init__(
        self,
        host: Host,
        client: RelayClient,
        named: Sequence[Multiaddr],
        *,
        wanted: Callable[[], bool],
        changed: Callable[[], None],
        notice: Callable[[str], None],
    ) -> None:
        self._host = host
        self._client = client
        self._named = {peer: addr for addr in named if (peer := peer_of(addr)) is not None}
        self._wanted = wanted
        self._changed = changed
        self._notice = notice
        self._kept: dict[PeerId, _Kept] = {}
        self._refusals: dict[PeerId, _Refusal] = {}
        self._look = trio.Event()

    def addrs(self) -> list[Multiaddr]:
        """Return our relayed addresses, those of the owner's relays first."""
        order = sorted(self._kept.items(), key=lambda item: item[0] not in self._named)
        return [relayed_addr(addr) for _, kept in order for addr in kept.addrs]

    def places(self) -> list[PlaceState]:
        """Return the places that we have."""
        return [
            PlaceState(relay, relay in self._named, kept.carries, kept.expires)
            for relay, kept in self._kept.items()
        ]

    def failures(self) -> dict[PeerId, str]:
        """Return why relays gave no place, lately."""
        return {peer: refusal.text for peer, refusal in self._refusals.items()}

    def look_again(self) -> None:
        """Look at once: something has changed."""
        self._look.set()

    async def run(self) -> None:
        """Keep places until cancelled."""
        self._host.on_identified.append(self._identified)
        self._host.on_disconnected.append(self._gone)
        try:
            while True:
                self._look = trio.Event()
                await self._keep()
                with trio.move_on_after(LOOK_SECONDS):
                    await self._look.wait()
        finally:
            self._host.on_identified.remove(self._identified)
            self._host.on_disconnected.remove(self._gone)

    def _identified(self, connection: Connection) -> None:
        kept = self._kept.get(connection.peer_id)
        if connection.speaks(HOP):
            self._look.set()
        elif kept is not None and kept.connection is connection:
            self._drop(connection.peer_id)  # it is a relay no longer

    def _gone(self, connection: Connection) -> None:
        kept = self._kept.get(connection.peer_id)
        if kept is not None and kept.connection is connection:
            self._drop(connection.peer_id)

    def _drop(self, relay: PeerId) -> None:
        """Forget a place."""
        kept = self._kept.pop(relay, None)
        self._client.places.pop(relay, None)
        if kept is not None:
            kept.connection.fetching -= 1
            self._changed()
            self._look.set()

    async def _keep(self) -> None:
        now = trio.current_time()
        for relay in [r for r, kept in self._kept.items() if kept.renew_at <= now]:
            await self._reserve(self._kept[relay].connection)
        for relay, addr in self._named.items():
            if relay not in self._kept and self._may_ask(relay):
                await self._go_to(relay, addr)
        if not self._wanted():
            for relay in [r for r in self._kept if r not in self._named]:
                self._drop(relay)
            return
        while len(self._kept) < RELAYS and (choices := self._choices()):
            await self._reserve(choices[0])

    def _choices(self) -> list[Connection]:
        """Return relays that may be asked: new networks first, then by round trip."""
        found = [
            c
            for c in self._host.connections()
            if c.usable
            and c.path is Path.DIRECT
            and c.scope is Scope.GLOBAL
            and c.speaks(HOP)
            and c.peer_id not in self._kept
            and self._may_ask(c.peer_id)
        ]
        unique = {c.peer_id: c for c in found}
        taken = {ip_group(kept.connection.remote) for kept in self._kept.values()}
        return sorted(unique.values(), key=lambda c: (ip_group(c.remote) in taken, c.rtt))

    def _may_ask(self, relay: PeerId) -> bool:
        refusal = self._refusals.get(relay)
        return refusal is None or refusal.until <= trio.current_time()

    async def _go_to(self, relay: PeerId, addr: Multiaddr) -> None:
        try:
            connection = await self._host.dial(addr)
            if connection.path is Path.RELAYED:
                connection = await self._host.connect(relay, [addr], better=Path.RELAYED)
        except (NetError, PeerFault) as error:
            self._refused(relay, str(error))
            return
        await self._reserve(connection)

    async def _reserve(self, connection: Connection) -> None:
        relay = connection.peer_id
        try:
            given, carries = await self._client.reserve(connection)
        except (RelayRefused, NetError, PeerFault) as error:
            if isinstance(error, PeerFault):
                connection.count(error)
            self._refused(relay, str(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            self._refused(relay, f"relay {relay} did not answer")
        else:
            life = max(0.0, given.expires - self._host.environment.clock.now())
            renew_at = trio.current_time() + RENEW_PART * life
            known = self._kept.get(relay)
            if connection.closed:
                return
            kept = _Kept(connection, given.addrs, carries, given.expires, renew_at)
            if known is None or known.connection is not connection:
                connection.fetching += 1  # it is kept, as one with a transfer is
                if known is not None:
                    known.connection.fetching -= 1
            self._kept[relay] = kept
            self._client.places[relay] = given
            self._refusals.pop(relay, None)
            if known is None or known.addrs != kept.addrs:
                self._changed()

    def _refused(self, relay: PeerId, text: str) -> None:
        known = self._refusals.pop(relay, None)
        pause = BACKOFF_SECONDS if known is None else min(2 * known.pause, BACKOFF_MOST)
        if relay in self._named:
            pause = min(pause, BACKOFF_SECONDS)
            if known is None or known.text != text:
                self._notice(f"no place at {self._named[relay]}: {text}; it is asked again")
        self._refusals[relay] = _Refusal(trio.current_time() + pause, pause, text)
        while len(self._refusals) > MAX_REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        kept = self._kept.get(relay)
        if kept is not None and kept.renew_at <= trio.current_time():
            if kept.expires <= self._host.environment.clock.now() + BACKOFF_SECONDS:
                self._drop(relay)
            else:
                kept.renew_at = trio.current_time() + BACKOFF_SECONDS
