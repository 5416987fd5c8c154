"""A request and what we know -> the answer. One synchronous step per request.

What is told: the k nearest servers of the table, without the asker and ourselves unless they are
what was asked for; providers; and the target of FIND_NODE if we know where it is, even if it is a
client. Only addresses that the asker may learn by the scope rule.

No value records are kept (there is no validator for them in our swarm): GET_VALUE is answered with
nearer peers alone, PUT_VALUE is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from multiaddr import Multiaddr

from ..wire.addresses import Scope, is_tellable
from ..wire.errors import PeerFault
from ..wire.ids import PeerId
from ..wire.immutable import immutable
from ..wire.kad import Connectedness, KadMessage, KadPeer, MessageType
from .keyspace import Draw, key_of
from .providers import MAX_KEY_BYTES, ProviderStore
from .table import Table, tellable

MAX_PROVIDERS = 32
"""Providers in an answer: with 8 addresses each and k nearer peers it stays near 16 KiB, which the
codec then holds by leaving out addresses."""


@immutable
class Asker:
    """Who asks, and over which connection."""

    peer: PeerId
    scope: Scope
    """Scope of the connection: what is told is at least as wide."""
    group: bytes | None
    """IP group of the connection's other end; None when not global."""


class Responder:
    """Answers the requests of the DHT protocol.

    Args:
        own: Our peer id.
        table: The servers that we know.
        providers: The provider records that we keep; announcements are put there.
        draw: Chooses among many providers.
        known: Gives the addresses of any peer that we know of or are connected with, and our own.
        provided: Gives our own addresses if we ourselves announce this multihash, else None.
    """

    def __init__(
        self,
        own: PeerId,
        table: Table,
        providers: ProviderStore,
        draw: Draw,
        known: Callable[[PeerId], Iterable[Multiaddr]],
        provided: Callable[[bytes], Iterable[Multiaddr] | None],
    ) -> None:
        self._own = own
        self._table = table
        self._providers = providers
        self._draw = draw
        self._known = known
        self._provided = provided

    def answer(self, request: KadMessage, asker: Asker, now: float) -> KadMessage | None:
        """Answer a request; None if the protocol has no answer to it (ADD_PROVIDER).

        Raises:
            PeerFault: The request breaks the protocol; the stream is to be reset.
        """
        match request.type:
            case MessageType.FIND_NODE:
                return KadMessage(request.type, request.key, closer=self._find(request.key, asker))
            case MessageType.GET_PROVIDERS:
                _check_key(request.key)
                return KadMessage(
                    request.type,
                    request.key,
                    closer=self._closer(key_of(request.key), asker),
                    providers=self._providers_of(request.key, asker, now),
                )
            case MessageType.ADD_PROVIDER:
                _check_key(request.key)
                self._take(request, asker, now)
                return None
            case MessageType.GET_VALUE:
                if not request.key:
                    raise PeerFault("kad-empty-key")
                closer = self._closer(key_of(request.key), asker)
                return KadMessage(request.type, request.key, closer=closer)
            case MessageType.PING:
                return KadMessage(request.type, request.key)
            case MessageType.PUT_VALUE:
                raise PeerFault("kad-put-value", "value records are not kept here")

    def _find(self, target: bytes, asker: Asker) -> tuple[KadPeer, ...]:
        if not target:
            raise PeerFault("kad-empty-key")
        closer = self._closer(key_of(target), asker)
        try:
            peer = PeerId.from_bytes(target)
        except PeerFault:
            return closer  # a walk towards a content: any bytes are a place
        if closer and closer[0].peer_id.raw == target:  # nothing is nearer to it
            return closer
        addrs = tellable(self._known(peer), asker.scope)
        if not addrs:
            return closer
        entry = KadPeer(peer, addrs, Connectedness.CAN_CONNECT)
        return (entry, *closer[: self._table.config.k - 1])

    def _closer(self, key: bytes, asker: Asker) -> tuple[KadPeer, ...]:
        without = None if asker.peer.key == key else asker.peer
        return tuple(self._table.named(key, asker.scope, without))

    def _providers_of(self, key: bytes, asker: Asker, now: float) -> tuple[KadPeer, ...]:
        entries = [
            # One whose addresses we forgot or may not tell is still named: it can be looked up.
            # Where it is now may be known better than when it announced itself.
            KadPeer(
                provider.peer_id,
                tellable(
                    dict.fromkeys((*self._known(provider.peer_id), *provider.addrs)), asker.scope
                ),
                Connectedness.NOT_CONNECTED,
            )
            for provider in self._providers.get(key, MAX_PROVIDERS, now, self._draw)
            if provider.peer_id != asker.peer
        ]
        ours = self._provided(key)
        if ours is not None:
            ourselves = KadPeer(self._own, tellable(ours, asker.scope), Connectedness.CONNECTED)
            entries.insert(0, ourselves)
        return tuple(entries[:MAX_PROVIDERS])

    def _take(self, request: KadMessage, asker: Asker, now: float) -> None:
        for entry in request.providers:
            # Nobody may speak for another; such entries are ignored, not punished (spec).
            if entry.peer_id == asker.peer:
                addrs = [addr for addr in entry.addrs if is_tellable(addr, asker.scope)]
                self._providers.add(request.key, asker.peer, addrs, asker.group, now)
                return


def _check_key(key: bytes) -> None:
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise PeerFault("kad-key-length", f"a key of {len(key)} bytes")
