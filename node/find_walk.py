"""Drives a lookup over the network, and hands out providers as they are found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import trio
from multiaddr import Multiaddr

from ..dht.lookup import Lookup
from ..dht.providers import Provider
from ..dht.walks import MAX_FOUND, WALK_DEADLINE, FoundProviders
from ..wire.ids import PeerId
from ..wire.immutable import immutable
from ..wire.kad import KadMessage
from .find_rpc import Rpc, RpcFailed

if TYPE_CHECKING:
    from .net.connection import Connection


class NothingFound(StrEnum):
    """Why a search found nothing."""

    NO_PEERS_KNOWN = "no peer of the DHT is known; name one with --bootstrap"
    NONE_REACHABLE = "none of the peers of the DHT that were asked could be reached"
    NOBODY_HAD_IT = "nobody that was asked had it"


@immutable
class Walked:
    """How a walk went."""

    nearest: tuple[PeerId, ...]
    """The nearest peers that answered, nearest first."""
    asked: int
    """Peers that a request was sent to or tried."""
    answered: int
    """Peers that answered."""


def why_nothing(asked: int, answered: int) -> NothingFound:
    """Say why a search that asked so many found nothing."""
    if not asked:
        return NothingFound.NO_PEERS_KNOWN
    return NothingFound.NOBODY_HAD_IT if answered else NothingFound.NONE_REACHABLE


class Watch(Protocol):
    """What a walk tells the DHT: who answered with whom, and who did not."""

    def answered(
        self, peer: PeerId, answer: KadMessage, connection: Connection, *, spread: bool
    ) -> list[PeerId]:
        """Take note of an answer; return the nearer peers in it that can be reached."""
        ...

    def unanswered(self, peer: PeerId) -> None:
        """Take note of a request that failed."""
        ...


class Walk:
    """One lookup on the network."""

    def __init__(
        self,
        lookup: Lookup,
        request: KadMessage,
        rpc: Rpc,
        watch: Watch,
        *,
        on_answer: Callable[[PeerId, KadMessage, Connection], None] | None = None,
        spread: bool = False,
    ) -> None:
        self.lookup = lookup
        self._request = request
        self._rpc = rpc
        self._watch = watch
        self._on_answer = on_answer
        self._spread = spread
        self._stopped = False
        self._changed = trio.Event()

    def stop(self) -> None:
        """End the walk: what was sought is found."""
        self._stopped = True
        self._changed.set()

    async def run(self) -> Walked:
        """Ask until the lookup is over; never longer than a minute."""
        lookup = self.lookup
        with trio.move_on_after(WALK_DEADLINE):
            async with trio.open_nursery() as nursery:
                while not self._stopped:
                    self._changed = trio.Event()
                    for peer in lookup.next_peers(trio.current_time()):
                        nursery.start_soon(self._ask, peer)
                    if lookup.over:
                        break
                    change = lookup.next_change()
                    assert change is not None, "a lookup that is not over waits for somebody"
                    with trio.move_on_at(change):
                        await self._changed.wait()
                nursery.cancel_scope.cancel()
        return Walked(tuple(lookup.result), lookup.asked, lookup.answered)

    async def _ask(self, peer: PeerId) -> None:
        try:
            answer, connection = await self._rpc.ask(peer, self._request)
        except RpcFailed:
            self.lookup.failed(peer)
            self._watch.unanswered(peer)
        else:
            closer = self._watch.answered(peer, answer, connection, spread=self._spread)
            self.lookup.replied(peer, closer)
            if self._on_answer is not None:
                self._on_answer(peer, answer, connection)
        self._changed.set()


class ProviderSearch:
    """The providers of one content, as they are found: an async iterator.

    It ends when the walk is over. Leaving it early is allowed; `stop` (or the end of an `async
    with`) ends the walk at once, else it ends by itself within a minute. A provider comes again
    when an address of it that was not known turns up.
    """

    def __init__(self, multihash: bytes) -> None:
        self.multihash = multihash
        self.lookup: Lookup | None = None
        self.over = False
        """Whether the walk has ended."""
        self.scope = trio.CancelScope()
        self._found = FoundProviders()
        self._send, self._receive = trio.open_memory_channel[Provider](MAX_FOUND)

    @property
    def found(self) -> int:
        """Different providers found so far."""
        return len(self._found)

    @property
    def asked(self) -> int:
        """Peers asked so far."""
        return self.lookup.asked if self.lookup is not None else 0

    @property
    def answered(self) -> int:
        """Peers that answered so far."""
        return self.lookup.answered if self.lookup is not None else 0

    @property
    def nothing(self) -> NothingFound | None:
        """Why nothing was found, or None if something was or the search still runs."""
        if self.found or not self.over:
            return None
        return why_nothing(self.asked, self.answered)

    def __aiter__(self) -> ProviderSearch:
        return self

    async def __anext__(self) -> Provider:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> ProviderSearch:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the search."""
        self.scope.cancel()

    def offer(self, peer: PeerId, addrs: Iterable[Multiaddr]) -> None:
        """Hand out a provider if it, or one of its addresses, is new."""
        provider = self._found.offer(peer, addrs)
        if provider is not None:
            self._send.send_nowait(provider)

    def without_addrs(self) -> Sequence[PeerId]:
        """Return providers for which no address is known, at most 8."""
        return self._found.without_addrs()

    def finish(self) -> None:
        """End the iteration: nothing more will come."""
        self.over = True
        self._send.close()
