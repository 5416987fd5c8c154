"""The routing table: up to k live servers for each distance from us, old ones first.

kademlia's `KBucket` and `Node` do the book-keeping; this is the one file that touches that package.
Changed here: buckets cover 256 bits, split only where our own key lies, hold no clock, and
nothing is pinged by a hidden task: a full bucket answers with the contact that is to be asked
first. The nearest contacts are found exactly, bucket by bucket.

Who comes in: a peer that answered a query of ours, if its IP group has room. Who goes: only one
that stopped answering. So a stranger can never push a live old contact out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, ValuesView
from enum import Enum
from functools import lru_cache
from typing import cast

from kademlia.node import Node
from kademlia.routing import KBucket
from multiaddr import Multiaddr

from ..wire.addresses import Scope, is_tellable
from ..wire.ids import PeerId
from ..wire.immutable import immutable
from ..wire.kad import Connectedness, KadPeer
from .keyspace import KEY_BITS, K
from .providers import MAX_ADDRS

SUB_PREFIX_BITS = 2
"""A refresh asks for keys in each quarter of a bucket, so that its contacts lie spread."""

MAX_FAILURES = 2
"""Failed requests in a row after which a contact goes even if nobody waits for its place."""

MAX_NAMED = 1 << 15
"""Names of contacts that are remembered, half a kilobyte each: a table has some hundred; those of
simulated nodes share them."""


@immutable
class TableConfig:
    """Bounds of the routing table."""

    k: int = K
    """Contacts in a bucket."""

    waiting: int = 1
    """Candidates that wait for a place in a full bucket, in multiples of k."""

    group_in_table: int = 3
    """Contacts of one global IP group (IPv4 /16, IPv6 /32) in the table (kad-dht, go)."""

    group_in_bucket: int = 2
    """Contacts of one global IP group in a bucket (kad-dht, go)."""

    silent_after: float = 300.0
    """Seconds without an answer after which a contact is asked whether it lives (spec: 5 min)."""


def tellable(addrs: Iterable[Multiaddr], scope: Scope) -> tuple[Multiaddr, ...]:
    """Return the addresses that may be told over a connection: at most 8, the shortest first."""
    told = [addr for addr in addrs if is_tellable(addr, scope)]
    return tuple(sorted(told, key=lambda addr: len(addr.to_bytes()))[:MAX_ADDRS])


@lru_cache(MAX_NAMED)
def _named(peer: PeerId, addrs: tuple[Multiaddr, ...], scope: Scope) -> KadPeer | None:
    """Return how a contact is named over a connection of this scope; None = not at all."""
    told = tellable(addrs, scope)
    return KadPeer(peer, told, Connectedness.NOT_CONNECTED) if told else None


class Contact(Node):
    """A server that has answered us.

    `group` is the IP group it was met at (None: not global, and then without limit), `seen` the
    time of its last answer, `failures` the failed requests since. There are hundreds in a table:
    so it has slots, and its id and number are those that the peer's id keeps.
    """

    __slots__ = ("addrs", "failures", "group", "id", "long_id", "peer", "seen")

    ip = port = None
    """What kademlia has beside; `addrs` stand for them."""

    def __init__(
        self, peer: PeerId, addrs: tuple[Multiaddr, ...], group: bytes | None, now: float
    ) -> None:
        self.id = peer.key
        self.long_id = peer.place
        self.peer = peer
        self.group = group
        self.seen = now
        self.failures = 0
        self.addrs = addrs
        """Where it can be reached, at most 8; only the table sets it."""


class Bucket(KBucket):
    """The contacts of one range of keys, the one heard from longest ago first."""

    def __init__(self, lower: int, upper: int, config: TableConfig) -> None:
        super().__init__(lower, upper, config.k, config.waiting)
        self.nodes = {}  # half the size of what kademlia takes
        self.config = config
        self.last_updated = 0.0
        self._named: tuple[Scope, list[int], list[KadPeer]] | None = None

    def touch_last_updated(self) -> None:
        """Do nothing: the clock is not ours; `Table.refreshed` sets the time."""

    def split(self) -> tuple[Bucket, Bucket]:
        """Cut the range in two halves of this class, without their edges lost."""
        middle = (self.range[0] + self.range[1]) // 2
        halves = (
            Bucket(self.range[0], middle, self.config),
            Bucket(middle + 1, self.range[1], self.config),
        )
        for half in halves:
            half.last_updated = self.last_updated
        for key, node in self.nodes.items():
            halves[node.long_id > middle].nodes[key] = node
        for key, node in self.replacement_nodes.items():
            halves[node.long_id > middle].replacement_nodes[key] = node
        return halves

    def contacts(self) -> ValuesView[Contact]:
        """Return the live contacts, the one heard from longest ago first."""
        return cast("ValuesView[Contact]", self.nodes.values())

    def named(self, scope: Scope) -> tuple[list[int], list[KadPeer]]:
        """Return the contacts that may be told over a connection of this scope, and their keys.

        They are kept until `changed`: each request has some twenty contacts named.
        """
        if self._named is None or self._named[0] is not scope:
            keys: list[int] = []
            entries: list[KadPeer] = []
            for contact in self.contacts():
                entry = _named(contact.peer, contact.addrs, scope)
                if entry is not None:
                    keys.append(contact.long_id)
                    entries.append(entry)
            self._named = (scope, keys, entries)
        return self._named[1:]

    def changed(self) -> None:
        """Take note that a contact came, went or moved."""
        self._named = None

    def waiting(self) -> list[Contact]:
        """Return who waits for a place, newest first."""
        return [n for n in reversed(self.replacement_nodes.values()) if isinstance(n, Contact)]


class Verdict(Enum):
    """What became of an offered contact."""

    ADDED = "added"
    KNOWN = "known"
    FULL = "full"
    GROUP_FULL = "group full"
    SPREAD = "sub-prefix full"
    OURSELVES = "ourselves"


@immutable
class Offer:
    """The verdict, and whom to ask whether it still lives (it loses its place if not)."""

    verdict: Verdict
    ask: Contact | None = None


class Table:
    """The contacts of one node."""

    def __init__(self, own: PeerId, config: TableConfig | None = None) -> None:
        self.config = config or TableConfig()
        self.own = own
        self._own_id = own.place
        self._contacts: dict[PeerId, Contact] = {}
        self._groups: Counter[bytes] = Counter()
        self.buckets: list[Bucket] = [Bucket(0, (1 << KEY_BITS) - 1, self.config)]
        self._ends: list[int] = [self.buckets[0].range[1]]
        """The last key of each bucket, to find one fast."""

    def __len__(self) -> int:
        return len(self._contacts)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._contacts

    def __iter__(self) -> Iterator[Contact]:
        return iter(list(self._contacts.values()))

    def get(self, peer: PeerId) -> Contact | None:
        """Return the contact of this peer."""
        return self._contacts.get(peer)

    def bucket_of(self, key: bytes) -> Bucket:
        """Return the bucket whose range holds the key."""
        return self._at(int.from_bytes(key, "big"))

    def _at(self, number: int) -> Bucket:
        return self.buckets[bisect_left(self._ends, number)]

    def answered(
        self,
        peer: PeerId,
        addrs: Iterable[Multiaddr],
        group: bytes | None,
        now: float,
        *,
        spread: bool = False,
    ) -> Offer:
        """Take note that a server answered a query of ours.

        Args:
            peer: Who answered.
            addrs: Where it can be reached; replaces what was known, if not empty.
            group: The IP group of the connection that it answered on; None when not global.
            now: Seconds on the clock of the waiting (monotonic).
            spread: Met while refreshing: take at most an even share for each sub-prefix.
        """
        kept = tuple(addrs)
        if peer == self.own:
            return Offer(Verdict.OURSELVES)
        contact = self._contacts.get(peer)
        if contact is not None:
            contact.seen = now
            contact.failures = 0
            self._move(contact, kept)
            self._regroup(contact, group)
            if contact.peer in self._contacts:
                nodes = self._at(contact.long_id).nodes
                nodes[contact.id] = nodes.pop(contact.id)
                return Offer(Verdict.KNOWN)
            return Offer(Verdict.GROUP_FULL)
        return self._place(Contact(peer, kept, group, now), now, spread)

    def moved(self, peer: PeerId, addrs: Iterable[Multiaddr]) -> None:
        """Take note of where a peer is now, if it is a contact and that is known."""
        contact = self._contacts.get(peer)
        if contact is not None:
            self._move(contact, tuple(addrs))

    def failed(self, peer: PeerId) -> bool:
        """Take note that a request to a contact failed; return whether it lost its place."""
        contact = self._contacts.get(peer)
        bucket = self.bucket_of(peer.key)
        if contact is None:
            bucket.replacement_nodes.pop(peer.key, None)
            return False
        contact.failures += 1
        if contact.failures < MAX_FAILURES and not bucket.replacement_nodes:
            return False
        self.remove(peer)
        return True

    def remove(self, peer: PeerId) -> None:
        """Drop a contact; the newest waiting one that the limits allow takes its place."""
        bucket = self.bucket_of(peer.key)
        bucket.replacement_nodes.pop(peer.key, None)
        contact = self._contacts.pop(peer, None)
        if contact is None:
            return
        del bucket.nodes[peer.key]
        bucket.changed()
        self._count(contact.group, -1)
        for candidate in bucket.waiting():
            if self._group_has_room(candidate.group, bucket):
                del bucket.replacement_nodes[candidate.id]
                # It has waited: it stands where the one heard from longest ago stands.
                bucket.nodes = {candidate.id: candidate, **bucket.nodes}
                self._insert(candidate, bucket)
                return

    def nearest(
        self, key: bytes, count: int | None = None, without: Collection[PeerId] = ()
    ) -> list[Contact]:
        """Return the `count` (default k) contacts nearest to the key, nearest first."""
        aim = int.from_bytes(key, "big")
        barred = {peer.key for peer in without}
        wanted = self.config.k if count is None else count
        found: list[Contact] = []
        for bucket in self._outwards(aim):
            near = {c.long_id ^ aim: c for c in bucket.contacts() if c.id not in barred}
            found += map(near.__getitem__, sorted(near))
            if len(found) >= wanted:
                break
        return found[:wanted]

    def named(self, key: bytes, scope: Scope, without: PeerId | None = None) -> list[KadPeer]:
        """Return the k contacts nearest to the key that may be told, as they are told.

        Args:
            key: Nearest to what.
            scope: Of the connection over which they are told.
            without: Who is left out.
        """
        aim = int.from_bytes(key, "big")
        found: list[KadPeer] = []
        for bucket in self._outwards(aim):
            keys, entries = bucket.named(scope)
            near = dict(zip(map(aim.__xor__, keys), entries, strict=True))
            if without is not None:
                near.pop(without.place ^ aim, None)
            found += map(near.__getitem__, sorted(near))
            if len(found) >= self.config.k:
                break
        return found[: self.config.k]

    def _outwards(self, aim: int) -> Iterator[Bucket]:
        """Yield the buckets so that every key of one is nearer than every key of the next."""
        nearest = self._at(aim)
        yield nearest
        for bucket in sorted(self.buckets, key=lambda bucket: bucket.range[0] ^ aim):
            if bucket is not nearest:
                yield bucket

    def silent(self, now: float) -> list[Contact]:
        """Return the contacts not heard from for `silent_after`, the longest silent first."""
        limit = now - self.config.silent_after
        return sorted((c for c in self._contacts.values() if c.seen <= limit), key=lambda c: c.seen)

    def refreshed(self, key: bytes, now: float) -> None:
        """Take note that the key's bucket was looked up."""
        self.bucket_of(key).last_updated = now

    def depth(self, bucket: Bucket) -> int:
        """Return how many leading bits the keys of a bucket share."""
        return KEY_BITS - (bucket.range[1] - bucket.range[0]).bit_length()

    def _place(self, contact: Contact, now: float, spread: bool) -> Offer:
        while True:
            bucket = self._at(contact.long_id)
            if not self._group_has_room(contact.group, bucket):
                return Offer(Verdict.GROUP_FULL)
            if len(bucket.nodes) < self.config.k:
                if spread and not self._sub_prefix_has_room(contact, bucket):
                    return Offer(Verdict.SPREAD)
                bucket.replacement_nodes.pop(contact.id, None)
                self._insert(contact, bucket)
                return Offer(Verdict.ADDED)
            if not bucket.range[0] <= self._own_id <= bucket.range[1]:
                break
            if bucket.range[0] == bucket.range[1]:
                break
            index = self.buckets.index(bucket)
            halves = bucket.split()
            self.buckets[index : index + 1] = halves
            self._ends[index : index + 1] = [half.range[1] for half in halves]
        bucket.add_node(contact)  # full: it joins those that wait
        oldest = next(iter(bucket.contacts()))
        if now - oldest.seen >= self.config.silent_after or oldest.failures:
            return Offer(Verdict.FULL, oldest)
        return Offer(Verdict.FULL)

    def _insert(self, contact: Contact, bucket: Bucket) -> None:
        bucket.nodes[contact.id] = contact
        bucket.changed()
        self._contacts[contact.peer] = contact
        self._count(contact.group, +1)

    def _move(self, contact: Contact, addrs: tuple[Multiaddr, ...]) -> None:
        if addrs and addrs != contact.addrs:
            contact.addrs = addrs
            self._at(contact.long_id).changed()

    def _regroup(self, contact: Contact, group: bytes | None) -> None:
        """Move a contact that was met at another place; it goes if that group has no room."""
        if group is None or group == contact.group:
            return
        bucket = self.bucket_of(contact.id)
        self._count(contact.group, -1)
        contact.group = None
        fits = self._group_has_room(group, bucket)
        contact.group = group
        self._count(group, +1)
        if not fits:
            self.remove(contact.peer)

    def _count(self, group: bytes | None, change: int) -> None:
        if group is not None:
            self._groups[group] += change
            if not self._groups[group]:
                del self._groups[group]

    def _group_has_room(self, group: bytes | None, bucket: Bucket) -> bool:
        if group is None or group not in self._groups:
            return True
        in_bucket = sum(contact.group == group for contact in bucket.contacts())
        return (
            in_bucket < self.config.group_in_bucket
            and self._groups[group] < self.config.group_in_table
        )

    def _sub_prefix_has_room(self, contact: Contact, bucket: Bucket) -> bool:
        share = max(1, self.config.k >> SUB_PREFIX_BITS)
        shift = KEY_BITS - self.depth(bucket) - SUB_PREFIX_BITS
        if shift < 0:  # a bucket of so few keys is never full
            return True
        prefix = contact.long_id >> shift
        return sum(other.long_id >> shift == prefix for other in bucket.contacts()) < share
