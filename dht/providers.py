"""Who told us that they have a content: bounded, expiring, hard to flood.

A record says "peer P has the content with multihash M", and only P itself may say so. Addresses are
kept once per peer, so a new announcement replaces them for all its records. When the store is
full, room is made at the cost of whoever fills most of it (counted by the IP group that the
announcements came from), so a flood displaces itself and not the records of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from multiaddr import Multiaddr

from ..wire.ids import PeerId
from ..wire.immutable import immutable
from .keyspace import Draw

MAX_KEY_BYTES = 80
"""Longest multihash taken (kad-dht specification and go)."""

MAX_ADDRS = 8
"""Addresses kept of one peer."""


@immutable
class ProviderConfig:
    """Bounds and lifetimes of provider records."""

    per_key: int = 128
    """Records of one content."""

    per_group_and_key: int = 2
    """Records of one content from one global IP group."""

    per_peer: int = 1024
    """Contents announced by one peer."""

    total: int = 100_000
    """Records in all."""

    record_life: float = 48 * 3600.0
    """Seconds until a record that is not renewed goes (kad-dht specification)."""

    addrs_life: float = 24 * 3600.0
    """Seconds for which a peer's addresses are told (IPFS kad-dht specification)."""


@immutable
class Provider:
    """A peer that has a content, and where it is (possibly unknown)."""

    peer_id: PeerId
    addrs: tuple[Multiaddr, ...]


@immutable
class SavedRecord:
    """One record as it is written down between two runs; times are Unix seconds."""

    key: bytes
    peer: PeerId
    addrs: tuple[Multiaddr, ...]
    group: bytes | None
    first: float
    renewed: float


@dataclass(slots=True)
class _Record:
    first: float
    renewed: float
    group: bytes | None


@dataclass(slots=True)
class _Announcer:
    addrs: tuple[Multiaddr, ...] = ()
    addrs_at: float = 0.0
    keys: dict[bytes, None] = field(default_factory=dict)


class ProviderStore:
    """The provider records that a server keeps for others."""

    def __init__(self, config: ProviderConfig | None = None) -> None:
        self.config = config or ProviderConfig()
        self._records: dict[bytes, dict[PeerId, _Record]] = {}
        self._peers: dict[PeerId, _Announcer] = {}
        self._owners: dict[bytes, dict[tuple[bytes, PeerId], None]] = {}
        self._by_size: dict[int, dict[bytes, None]] = {}
        self._largest = 0
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def keys(self) -> Iterator[bytes]:
        """Yield the multihashes with records."""
        yield from self._records

    def add(
        self,
        key: bytes,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        group: bytes | None,
        now: float,
    ) -> bool:
        """Take an announcement that came from `peer` itself; return whether it is kept.

        Args:
            key: The multihash of the content, 1 to 80 bytes.
            peer: Who has it and says so.
            addrs: Where it is; replaces what was known of it, if not empty.
            group: IP group of the connection that brought it; None (not global) has no limit.
            now: Unix time.
        """
        if not 0 < len(key) <= MAX_KEY_BYTES:
            return False
        holders = self._records.get(key, {})
        record = holders.get(peer)
        if record is None:
            if not self._make_room(key, peer, group, now):
                return False
            self._insert(key, peer, _Record(now, now, group))
        else:
            if not self._alive(record, now):
                record.first = now
            record.renewed = now
            if group != record.group and self._group_has_room(holders, group):
                self._disown(key, peer, record)
                record.group = group
                self._own(key, peer, record)
        self._move(peer, addrs, now)
        return True

    def get(self, key: bytes, count: int, now: float, draw: Draw) -> list[Provider]:
        """Return at most `count` providers: half by age, half at random.

        The first half are those that have announced it for longest and did so again within a day;
        newcomers, which anyone can make in any number, share the other half.
        """
        alive = [
            (record.first, peer, record)
            for peer, record in self._records.get(key, {}).items()
            if self._alive(record, now)
        ]
        fresh_since = now - self.config.addrs_life
        fresh = sorted(item for item in alive if item[2].renewed >= fresh_since)
        if len(alive) <= count:
            chosen = [peer for _, peer, _ in alive]
        else:
            chosen = [peer for _, peer, _ in fresh[: (count + 1) // 2]]
            taken = set(chosen)
            rest = [peer for _, peer, _ in alive if peer not in taken]
            chosen += draw.sample(rest, min(count - len(chosen), len(rest)))
        return [Provider(peer, self._addrs_of(peer, now)) for peer in chosen]

    def expire(self, now: float) -> int:
        """Drop the records that were not renewed in time; return how many."""
        late = [
            (key, peer)
            for key, holders in self._records.items()
            for peer, record in holders.items()
            if not self._alive(record, now)
        ]
        for key, peer in late:
            self._remove(key, peer)
        return len(late)

    def saved(self) -> Iterator[SavedRecord]:
        """Yield all records for the next run."""
        for key, holders in self._records.items():
            for peer, record in holders.items():
                addrs = self._peers[peer].addrs
                yield SavedRecord(key, peer, addrs, record.group, record.first, record.renewed)

    def restore(self, records: Iterable[SavedRecord], now: float) -> None:
        """Take back what an earlier run wrote down; a time in the future counts as now."""
        for saved in sorted(records, key=lambda item: item.renewed):
            renewed = min(saved.renewed, now)
            if not self.add(saved.key, saved.peer, saved.addrs, saved.group, renewed):
                continue
            self._records[saved.key][saved.peer].first = min(saved.first, renewed)
        self.expire(now)

    def _alive(self, record: _Record, now: float) -> bool:
        return now - record.renewed < self.config.record_life

    def _addrs_of(self, peer: PeerId, now: float) -> tuple[Multiaddr, ...]:
        announcer = self._peers[peer]
        return announcer.addrs if now - announcer.addrs_at < self.config.addrs_life else ()

    def _group_has_room(self, holders: dict[PeerId, _Record], group: bytes | None) -> bool:
        if group is None:
            return True
        held = sum(record.group == group for record in holders.values())
        return held < self.config.per_group_and_key

    def _make_room(self, key: bytes, peer: PeerId, group: bytes | None, now: float) -> bool:
        """Drop what a new record may displace; False if there is no room for it."""
        holders = self._records.get(key, {})
        for stale in [p for p, record in holders.items() if not self._alive(record, now)]:
            self._remove(key, stale)
        holders = self._records.get(key, {})
        if not self._group_has_room(holders, group):
            return False
        announcer = self._peers.get(peer)
        if announcer is not None and len(announcer.keys) >= self.config.per_peer:
            return False
        if len(holders) >= self.config.per_key:
            oldest = min(holders, key=lambda holder: holders[holder].renewed)
            if now - holders[oldest].renewed < self.config.addrs_life:
                return False
            self._remove(key, oldest)
        if self._total >= self.config.total:
            if len(self._owners.get(_owner(group, peer), ())) + 1 >= self._largest:
                return False
            largest = next(iter(self._by_size[self._largest]))
            self._remove(*next(iter(self._owners[largest])))
        return True

    def _insert(self, key: bytes, peer: PeerId, record: _Record) -> None:
        self._records.setdefault(key, {})[peer] = record
        self._peers.setdefault(peer, _Announcer()).keys[key] = None
        self._own(key, peer, record)
        self._total += 1

    def _remove(self, key: bytes, peer: PeerId) -> None:
        holders = self._records[key]
        self._disown(key, peer, holders.pop(peer))
        if not holders:
            del self._records[key]
        announcer = self._peers[peer]
        del announcer.keys[key]
        if not announcer.keys:
            del self._peers[peer]
        self._total -= 1

    def _own(self, key: bytes, peer: PeerId, record: _Record) -> None:
        owner = _owner(record.group, peer)
        held = self._owners.setdefault(owner, {})
        self._resize(owner, len(held), len(held) + 1)
        held[key, peer] = None

    def _disown(self, key: bytes, peer: PeerId, record: _Record) -> None:
        owner = _owner(record.group, peer)
        held = self._owners[owner]
        self._resize(owner, len(held), len(held) - 1)
        del held[key, peer]
        if not held:
            del self._owners[owner]

    def _resize(self, owner: bytes, old: int, new: int) -> None:
        """Keep the owners sorted by how many records they hold, in constant time."""
        if old:
            del self._by_size[old][owner]
            if not self._by_size[old]:
                del self._by_size[old]
        if new:
            self._by_size.setdefault(new, {})[owner] = None
        # Sizes change by one, so the largest does as well.
        if new > self._largest:
            self._largest = new
        elif self._largest not in self._by_size:
            self._largest = new if old == self._largest else 0

    def _move(self, peer: PeerId, addrs: Iterable[Multiaddr], now: float) -> None:
        kept = tuple(addrs)[:MAX_ADDRS]
        if kept:
            announcer = self._peers[peer]
            announcer.addrs = kept
            announcer.addrs_at = now


def _owner(group: bytes | None, peer: PeerId) -> bytes:
    """Return who is counted for a record: the IP group it came from, else the peer."""
    return peer.raw if group is None else group
