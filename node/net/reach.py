"""How a host reaches peers: which addresses are tried, and one dial to a peer at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio
from multiaddr import Multiaddr

from ...wire.addresses import is_relayed, peer_of, split_relayed, without_peer
from ...wire.ids import PeerId
from ..environment import Transport
from .connection import Connection
from .dialer import DialBook, dial_first, ranked
from .errors import StreamRefused, Unreachable, WrongPeer
from .paths import Path, path_to
from .peerstore import Peerstore

DIAL_SECONDS = 60.0
"""For reaching a peer, all addresses together (go)."""

LIMITED_AGAIN_SECONDS = 30.0
"""Until a peer that is reached over a relay which carries no content is met there once more: it
tries to punch a hole then."""


NO_CONTENT = "this relay carries no content, and no hole could be punched yet"


def _relay(addr: Multiaddr) -> PeerId | None:
    """Return the relay that an address leads over."""
    parts = split_relayed(addr)
    return parts[1] if parts is not None else None


def _met_lately(limited: Connection, addr: Multiaddr) -> bool:
    """Return whether an address leads over the relay where the peer was met a moment ago."""
    same = _relay(without_peer(addr)) == _relay(limited.remote)
    return same and limited.age < LIMITED_AGAIN_SECONDS


class Reach:
    """Finds addresses and dials them.

    Args:
        transport: Resolves names.
        peerstore: Where addresses of peers stand.
        dials: Back-off and limits.
        existing: The connection to use for a peer, if there is one.
        limited: Those with a peer over relays that carry no content.
        ours: Our own addresses; they are never dialled for a peer.
        make: Dials one address and upgrades the connection.
        can_dial: Says what can be dialled.
    """

    def __init__(
        self,
        transport: Transport,
        peerstore: Peerstore,
        dials: DialBook,
        *,
        existing: Callable[[PeerId], Connection | None],
        limited: Callable[[PeerId], list[Connection]],
        ours: Callable[[], Iterable[Multiaddr]],
        make: Callable[[Multiaddr, PeerId | None], Awaitable[Connection]],
        can_dial: Callable[[Multiaddr], bool],
    ) -> None:
        self._transport = transport
        self._peerstore = peerstore
        self._dials = dials
        self._existing = existing
        self._limited = limited
        self._ours = ours
        self._make = make
        self._can_dial = can_dial
        self._dialling: dict[PeerId, trio.Lock] = {}

    async def connect(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        *,
        force: bool,
        better: Path | None,
        carrying: bool,
    ) -> Connection:
        """Return the connection to a peer, or dial (see `Host.connect`)."""
        given = [without_peer(addr) for addr in addrs if peer_of(addr) in (None, peer)]
        lock = self._dialling.setdefault(peer, trio.Lock())
        try:
            async with lock:
                existing = self._existing(peer)
                good = better is None or (existing is not None and existing.path < better)
                if existing is not None and good and not (carrying and existing.limited):
                    return existing
                return await self._dial_peer(peer, given, force, better, carrying)
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._dialling.pop(peer, None)

    async def _dial_peer(
        self,
        peer: PeerId,
        given: Sequence[Multiaddr],
        force: bool,
        better: Path | None,
        carrying: bool,
    ) -> Connection:
        ours = set(self._ours())
        known = [*given, *await self._resolved(self._peerstore.addrs(peer))]
        # At one relay both may have a place: then the addresses differ in the peer only.
        others = (addr for addr in known if addr not in ours or is_relayed(addr))
        wanted = (addr for addr in others if better is None or path_to(addr) < better)
        candidates = ranked(wanted, self._can_dial)
        due: list[tuple[Multiaddr, float]] = []
        failures: list[tuple[str, str]] = []
        for addr, pause in candidates:
            wait = 0.0 if force else self._dials.waits(addr)
            if wait:
                failures.append((str(addr), f"tried lately, again in {wait:.0f} s"))
            else:
                due.append((addr, pause))
        for limited in self._limited(peer):
            due = [pair for pair in due if not _met_lately(limited, pair[0])]
            failures.append((str(limited.remote), NO_CONTENT))
        due = self._once_a_relay(due)
        connection = await self._first(due, peer, failures, [], carrying=carrying)
        if connection is None:
            raise Unreachable(str(peer), failures)
        return connection

    def _once_a_relay(self, addrs: list[tuple[Multiaddr, float]]) -> list[tuple[Multiaddr, float]]:
        """Leave out further addresses of a relay that we are connected with: they are the same."""
        kept: dict[Multiaddr | PeerId, tuple[Multiaddr, float]] = {}
        for addr, pause in addrs:
            relay = _relay(addr)
            known = relay is not None and self._existing(relay) is not None
            kept.setdefault(relay if known and relay is not None else addr, (addr, pause))
        return list(kept.values())

    async def dial(self, addr: Multiaddr) -> Connection:
        """Connect to an address that the user gave (see `Host.dial`)."""
        expected = peer_of(addr)
        existing = self._existing(expected) if expected is not None else None
        if existing is not None and not existing.limited:
            return existing
        if expected is not None and any(_met_lately(c, addr) for c in self._limited(expected)):
            raise Unreachable(str(expected), [(str(addr), NO_CONTENT)])
        try:
            found = await self._transport.resolve(without_peer(addr))
        except OSError as error:
            raise Unreachable(str(addr), [(str(addr), str(error))]) from error
        # A name may stand for several peers (dnsaddr): only the named one is asked for.
        wanted = [a for a in found if expected is None or peer_of(a) in (None, expected)]
        candidates = ranked(map(without_peer, wanted), self._can_dial)
        failures: list[tuple[str, str]] = []
        if not candidates:
            failures.append((str(addr), "this kind of address cannot be dialled"))
        wrong: list[WrongPeer] = []
        connection = await self._first(candidates, expected, failures, wrong)
        if connection is not None:
            return connection
        if wrong:
            raise wrong[0]
        raise Unreachable(str(expected or addr), failures)

    async def _resolved(self, addrs: Sequence[Multiaddr]) -> list[Multiaddr]:
        """Replace names by addresses (only the user can have named them); keep what fails."""
        found: list[Multiaddr] = []
        for addr in addrs:
            try:
                found += map(without_peer, await self._transport.resolve(addr))
            except OSError:
                found.append(addr)
        return found

    async def _first(
        self,
        candidates: Sequence[tuple[Multiaddr, float]],
        expected: PeerId | None,
        failures: list[tuple[str, str]],
        wrong: list[WrongPeer],
        *,
        carrying: bool = False,
    ) -> Connection | None:
        """Dial until one address works; what the others answered goes to the lists."""

        async def attempt(addr: Multiaddr) -> Connection:
            try:
                connection = await self._make(addr, expected)
            except WrongPeer as error:
                self._peerstore.forget(error.expected, addr)
                wrong.append(error)
                raise
            if carrying and connection.limited:  # it stays, for a hole to be punched
                raise StreamRefused(NO_CONTENT)
            return connection

        connection: Connection | None = None
        with trio.move_on_after(DIAL_SECONDS):
            connection = await dial_first(candidates, attempt, failures)
        return connection
