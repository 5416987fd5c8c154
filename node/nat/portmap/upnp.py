"""Mappings over UPnP (Internet Gateway Device, versions 1 and 2): which port, which lease, when.

The messages are the library's; this is what it is asked to do. A lease is renewed at half its
life by adding the same mapping again.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import trio

from ....wire.scopes import IpAddress
from .asking import Unavailable
from .client import IMPOSSIBLE, MAX_PORTS, RENEW_AT, Grant, is_external
from .door import Igd, IgdError, IgdMissing, Route, Router
from .state import Via

LEASE: Final = 3600
"""Seconds."""

CHECK_EVERY: Final = 300.0
"""Seconds between looks at the router's address and table: they show a restart."""

MAX_TRIES: Final = 6
"""External ports that are tried for one of ours."""

RANDOM_PORTS: Final = (20_000, 60_000)
"""Where another external port is taken from if the wished one is in use."""

PERMANENT_ONLY: Final = "OnlyPermanentLeasesSupported"
"""Error 725 of WANIPConnection."""

OCCUPIED: Final = frozenset({"ConflictInMappingEntry", "ConflictWithOtherMechanisms"})
"""Errors 718 and 729."""


@dataclass(slots=True)
class _Kept:
    """A mapping that the router has made."""

    port: int
    external_port: int
    lease: int
    """0 = for ever."""
    renew_at: float
    until: float | None


class Upnp:
    """Keeps mappings over UPnP.

    Args:
        router: The door.
        route: Our address, and the router's if it is known.
        chance: For jitter and ports.
        changed: Called when mappings may have changed.
    """

    via = Via.UPNP

    def __init__(
        self, router: Router, route: Route, chance: random.Random, changed: Callable[[], None]
    ) -> None:
        self._router = router
        self._route = route
        self._chance = chance
        self._changed = changed
        self._found: Igd | None = None
        self._external_ip: IpAddress | None = None
        self._kept: dict[int, _Kept] = {}
        self._asked: dict[int, int] = {}
        """{external port: ours} that the router may have mapped, even if its answer was lost."""
        self._refusals: dict[int, str] = {}

    @property
    def note(self) -> str:
        """What the router refused, as sentences; empty if nothing."""
        return "".join(
            f" The router refused a port: {why}." for why in sorted(set(self._refusals.values()))
        )

    def grants(self) -> tuple[Grant, ...]:
        """Return the mappings that exist."""
        now, ip = trio.current_time(), self._external_ip
        return tuple(
            Grant(kept.port, kept.external_port, ip, kept.until)
            for kept in self._kept.values()
            if ip is not None and (kept.until is None or kept.until > now)
        )

    async def probe(self) -> None:
        """Look for a router; Unavailable if there is none that is ours."""
        try:
            found = await self._router.find_igd(self._route.source)
        except IgdMissing as error:
            raise Unavailable(f"{error.reason}.") from error
        except IgdError as error:
            raise Unavailable(f"No UPnP router was found: {error.reason}.") from error
        gateway = self._route.gateway
        # What comes in through another router could not be answered through it: our answers go
        # to the gateway. Besides, any machine may claim to be a router.
        if gateway is not None and found.host != str(gateway):
            raise Unavailable(f"An UPnP router answered, but it is not the gateway {gateway}.")
        if found.our_ip != str(self._route.source):
            raise Unavailable("An UPnP router answered, but not on our way to the internet.")
        self._found = found

    @property
    def _igd(self) -> Igd:
        assert self._found is not None
        return self._found

    async def make(self, ports: Iterable[int]) -> None:
        """Map ports; Unavailable if not one was granted."""
        try:
            self._external_ip = await self._ask_external_ip()
        except IgdError as error:
            raise Unavailable(f"The router tells no address of its own: {error.reason}.") from error
        for port in sorted(set(ports))[:MAX_PORTS]:
            await self._make_one(port)
        if not self._kept:
            why = "; ".join(sorted(set(self._refusals.values()))) or "no port was asked for"
            raise Unavailable(f"The router refuses: {why}.")

    async def _ask_external_ip(self) -> IpAddress:
        text = await self._igd.external_ip()
        try:
            ip = ipaddress.ip_address(text)
        except ValueError:
            raise IgdError(IMPOSSIBLE) from None
        if not is_external(ip):
            raise IgdError(IMPOSSIBLE)
        return ip

    async def _make_one(self, port: int) -> None:
        """Map one port, on another external port or for ever if need be."""
        before = self._kept.get(port)
        lease = before.lease if before else LEASE
        external = before.external_port if before else port
        why = "every port that was tried is in use"
        for _ in range(MAX_TRIES):
            try:
                if await self._is_taken(external, port):
                    external = self._chance.randrange(*RANDOM_PORTS)
                    continue
                self._asked[external] = port
                await self._igd.add(external, port, lease)
            except IgdError as error:
                if error.reason == PERMANENT_ONLY and lease:
                    lease = 0
                elif error.reason in OCCUPIED:
                    del self._asked[external]
                    external = self._chance.randrange(*RANDOM_PORTS)
                else:
                    why = error.reason
                    break
            else:
                self._keep(port, external, lease)
                return
        self._refusals[port] = why
        if before:  # it may live on until its lease ends
            before.renew_at = trio.current_time() + CHECK_EVERY

    async def _is_taken(self, external: int, port: int) -> bool:
        """Return whether the port leads to another machine: some routers would overwrite that."""
        try:
            entry = await self._igd.entry(external)
        except IgdError:
            return False  # most say so if there is no such entry
        return entry is not None and (entry.host, entry.port) != (self._igd.our_ip, port)

    def _keep(self, port: int, external: int, lease: int) -> None:
        now = trio.current_time()
        life = lease or LEASE  # a permanent one is asked for again as well: it restarts no worse
        renew_at = now + life * self._chance.uniform(*RENEW_AT)
        until = now + lease if lease else None
        self._refusals.pop(port, None)
        self._kept[port] = _Kept(port, external, lease, renew_at, until)
        self._changed()

    async def keep(self) -> None:
        """Renew mappings until none is left."""
        check_at = trio.current_time() + CHECK_EVERY
        while self.grants():
            ends = [kept.until for kept in self._kept.values() if kept.until is not None]
            renewals = [kept.renew_at for kept in self._kept.values()]
            await trio.sleep_until(min(check_at, *renewals, *ends))
            if trio.current_time() >= check_at:
                await self._check()
                check_at = trio.current_time() + CHECK_EVERY
            now = trio.current_time()
            for kept in list(self._kept.values()):
                if kept.until is not None and kept.until <= now:
                    del self._kept[kept.port]
                elif kept.renew_at <= now:
                    await self._make_one(kept.port)
            self._changed()

    async def _check(self) -> None:
        """Notice another address, and entries that are gone: these are made again at once."""
        try:
            self._external_ip = await self._ask_external_ip()
        except IgdError as error:
            if error.reason == IMPOSSIBLE:  # its connection is down
                self._external_ip = None
        for kept in self._kept.values():
            if await self._is_gone(kept):
                kept.renew_at = trio.current_time()

    async def _is_gone(self, kept: _Kept) -> bool:
        try:
            entry = await self._igd.entry(kept.external_port)
        except IgdError as error:
            return error.reason == "NoSuchEntryInArray"
        return entry is None or (entry.host, entry.port) != (self._igd.our_ip, kept.port)

    async def remove(self) -> None:
        """Delete all mappings that lead to us."""
        for external, port in self._asked.items():
            try:
                if not await self._is_taken(external, port):
                    await self._igd.remove(external)
            except IgdError:
                pass  # there is none, or its lease will end
        self._kept.clear()

    def close(self) -> None:
        """Hold nothing open."""
