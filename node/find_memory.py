"""What the DHT writes down between two runs, and reads when it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar, TypeVarTuple

from multiaddr import Multiaddr

from ..dht.providers import SavedRecord
from ..storage.errors import StorageError
from ..storage.model import AnnouncementRow, ProviderRow, RememberedPeer
from ..wire.addresses import multiaddr_from_bytes
from ..wire.errors import PeerFault
from ..wire.ids import PeerId

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_REMEMBERED = 256
"""Peers remembered for rejoining: those of the table first, then the last seen."""


class DhtMemory(Protocol):
    """What is written down: `storage.peer_tables.DhtTables`, called where blocking is allowed."""

    def peers(self, protocol: str) -> list[RememberedPeer]:
        """Return the peers remembered for this DHT, the last seen first."""
        ...

    def save_peers(self, protocol: str, peers: Iterable[RememberedPeer]) -> None:
        """Replace the peers remembered for this DHT."""
        ...

    def providers(self) -> list[ProviderRow]:
        """Return the provider records kept for others."""
        ...

    def save_providers(self, rows: Iterable[ProviderRow]) -> None:
        """Replace the provider records kept for others."""
        ...

    def announcements(self) -> list[AnnouncementRow]:
        """Return what we announce and when it is due."""
        ...

    def save_announcements(self, rows: Iterable[AnnouncementRow]) -> None:
        """Add these or replace those of the same multihash."""
        ...

    def drop_announcement(self, multihash: bytes) -> None:
        """Announce it no more."""
        ...


class ShortMemory:
    """Remembers for as long as the process runs; for a node without a store, and for tests."""

    def __init__(self) -> None:
        self._peers: dict[str, list[RememberedPeer]] = {}
        self._providers: list[ProviderRow] = []
        self._announcements: dict[bytes, AnnouncementRow] = {}

    def peers(self, protocol: str) -> list[RememberedPeer]:
        """As in DhtMemory."""
        return list(self._peers.get(protocol, ()))

    def save_peers(self, protocol: str, peers: Iterable[RememberedPeer]) -> None:
        """As in DhtMemory."""
        self._peers[protocol] = list(peers)

    def providers(self) -> list[ProviderRow]:
        """As in DhtMemory."""
        return list(self._providers)

    def save_providers(self, rows: Iterable[ProviderRow]) -> None:
        """As in DhtMemory."""
        self._providers = list(rows)

    def announcements(self) -> list[AnnouncementRow]:
        """As in DhtMemory."""
        return list(self._announcements.values())

    def save_announcements(self, rows: Iterable[AnnouncementRow]) -> None:
        """As in DhtMemory."""
        self._announcements.update({row.multihash: row for row in rows})

    def drop_announcement(self, multihash: bytes) -> None:
        """As in DhtMemory."""
        self._announcements.pop(multihash, None)


class CarefulMemory:
    """A memory that may fail: what cannot be written down now is at the next time.

    Args:
        memory: Where things are written down.
        trouble: Told of an error; nothing else comes of it.
    """

    def __init__(self, memory: DhtMemory, trouble: Callable[[StorageError], None]) -> None:
        self._memory = memory
        self._trouble = trouble

    def peers(self, protocol: str) -> list[RememberedPeer]:
        """As in DhtMemory."""
        return self._try(self._memory.peers, protocol) or []

    def save_peers(self, protocol: str, peers: Iterable[RememberedPeer]) -> None:
        """As in DhtMemory."""
        self._try(self._memory.save_peers, protocol, peers)

    def providers(self) -> list[ProviderRow]:
        """As in DhtMemory."""
        return self._try(self._memory.providers) or []

    def save_providers(self, rows: Iterable[ProviderRow]) -> None:
        """As in DhtMemory."""
        self._try(self._memory.save_providers, rows)

    def announcements(self) -> list[AnnouncementRow]:
        """As in DhtMemory."""
        return self._try(self._memory.announcements) or []

    def save_announcements(self, rows: Iterable[AnnouncementRow]) -> None:
        """As in DhtMemory."""
        self._try(self._memory.save_announcements, rows)

    def drop_announcement(self, multihash: bytes) -> None:
        """As in DhtMemory."""
        self._try(self._memory.drop_announcement, multihash)

    def _try(self, function: Callable[[*Ts], T], *args: *Ts) -> T | None:
        try:
            return function(*args)
        except StorageError as error:
            self._trouble(error)
            return None


def read_peer(row: RememberedPeer) -> tuple[PeerId, tuple[Multiaddr, ...]] | None:
    """Return a remembered peer, or None if what was written down cannot be read."""
    try:
        return PeerId.from_bytes(row.peer), read_addrs(row.addrs)
    except PeerFault:
        return None


def read_addrs(addrs: Iterable[bytes]) -> tuple[Multiaddr, ...]:
    """Return addresses that were written down."""
    return tuple(multiaddr_from_bytes(addr) for addr in addrs)


def write_addrs(addrs: Iterable[Multiaddr]) -> tuple[bytes, ...]:
    """Return addresses as they are written down."""
    return tuple(addr.to_bytes() for addr in addrs)


def read_record(row: ProviderRow) -> SavedRecord | None:
    """Return a provider record, or None if what was written down cannot be read."""
    try:
        peer = PeerId.from_bytes(row.peer)
        return SavedRecord(row.key, peer, read_addrs(row.addrs), row.group, row.first, row.renewed)
    except PeerFault:
        return None


def write_record(record: SavedRecord) -> ProviderRow:
    """Return a provider record as it is written down."""
    addrs = write_addrs(record.addrs)
    peer = record.peer.raw
    return ProviderRow(record.key, peer, addrs, record.group, record.first, record.renewed)
