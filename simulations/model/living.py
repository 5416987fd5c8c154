"""Tables that change, with the rules of `dht/table.py` and `dht/upkeep.py`.

Who answers comes in if its bucket has room; who does not fit waits; who fails twice goes, or at
once if somebody waits. Contacts stand in the order in which they were heard from, oldest first.
A refresh takes at most an even share of a bucket for each quarter of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiled import Word, kernel, leading_zeros, whole
from .network import ALIVE, Net, status_of
from .tables import with_contacts

SUB_PREFIX_BITS: Final = 2
"""Quarters of a bucket (dht.table)."""

MAX_FAILURES: Final = 2
"""Failed requests in a row after which a contact goes (dht.table)."""

SILENT_AFTER: Final = 300.0
"""Seconds without an answer after which a contact is asked (dht.table)."""

MAX_PREFIX_BITS: Final = 15
"""Deepest bucket that is refreshed (dht.keyspace)."""

SPARE_BUCKETS: Final = 2
"""Buckets beyond log2 N that each node has room for; nodes nearer than that share the last one."""


class Living(NamedTuple):
    """A network and what its nodes remember of their contacts."""

    net: Net
    """Its `contacts` and `counts` change."""
    heard_at: NDArray[np.float32]
    """When each contact answered last, placed as `contacts`."""
    failures: NDArray[np.uint8]
    waiting: NDArray[np.int32]
    """Up to k nodes that wait for a place in a bucket, newest last, placed as `contacts`."""
    waits: NDArray[np.uint8]
    """How many wait for each bucket of a node."""
    looked: NDArray[np.float64]
    """When a key of each bucket was last looked up."""
    silent_after: float
    """Seconds without an answer after which a contact is asked whether it lives."""


def empty_tables(net: Net, silent_after: float = SILENT_AFTER) -> Living:
    """Return the network with tables in which nobody is yet."""
    count = len(net.ids)
    buckets = count.bit_length() + SPARE_BUCKETS
    room = count * buckets * net.k
    status = net.status if len(net.status) else np.zeros(count, np.uint8)
    return Living(
        net._replace(
            base=np.empty(0, np.int64),
            offsets=np.empty((0, 0), np.uint16),
            contacts=np.zeros(room, np.int32),
            counts=np.zeros((count, buckets), np.uint8),
            status=status,
        ),
        np.zeros(room, np.float32),
        np.zeros(room, np.uint8),
        np.zeros(room, np.int32),
        np.zeros((count, buckets), np.uint8),
        np.full((count, buckets), -np.inf),
        silent_after,
    )


def stored(living: Living) -> Net:
    """Return the network with its tables of this moment stored, one after the other."""
    net = living.net
    count, buckets = net.counts.shape
    offsets = np.zeros((count, buckets + 1), np.uint16)
    np.cumsum(net.counts, axis=1, dtype=np.uint16, out=offsets[:, 1:])
    held = np.arange(net.k) < net.counts[:, :, None]
    contacts = net.contacts.reshape(count, buckets, net.k)[held]
    return with_contacts(net._replace(counts=np.empty((0, 0), np.uint8)), offsets, contacts)


@kernel
def bucket_of(living: Living, node: int, peer: int) -> Word:
    """Return the bucket of a node that a peer belongs into."""
    ids = living.net.ids
    return min(leading_zeros(ids[node] ^ ids[peer]), living.net.counts.shape[1] - 1)


@kernel
def own_depth(living: Living, node: int) -> int:
    """Return the first bucket of those that the shipped table holds as one: at most k in all."""
    counts = living.net.counts
    together = 0
    for bucket in range(counts.shape[1] - 1, -1, -1):
        together += whole(counts[node, bucket])
        if together > living.net.k:
            return bucket + 1
    return 0


@kernel
def _first(living: Living, node: int, bucket: int) -> Word:
    return (node * living.net.counts.shape[1] + bucket) * living.net.k


@kernel
def _find(living: Living, node: int, bucket: int, peer: int) -> int:
    """Return the place of a peer in a bucket, or -1."""
    first = _first(living, node, bucket)
    for place in range(first, first + whole(living.net.counts[node, bucket])):
        if living.net.contacts[place] == peer:
            return place
    return -1


@kernel
def _to_the_end(living: Living, node: int, bucket: int, place: int, now: float) -> None:
    """Move a contact behind all others: it was heard from."""
    last = _first(living, node, bucket) + whole(living.net.counts[node, bucket]) - 1
    peer = living.net.contacts[place]
    for at in range(place, last):
        living.net.contacts[at] = living.net.contacts[at + 1]
        living.heard_at[at] = living.heard_at[at + 1]
        living.failures[at] = living.failures[at + 1]
    living.net.contacts[last] = peer
    living.heard_at[last] = now
    living.failures[last] = 0


@kernel
def _stop_waiting(living: Living, node: int, bucket: int, peer: int) -> None:
    first = _first(living, node, bucket)
    count = whole(living.waits[node, bucket])
    for place in range(first, first + count):
        if living.waiting[place] == peer:
            for at in range(place, first + count - 1):
                living.waiting[at] = living.waiting[at + 1]
            living.waits[node, bucket] = count - 1
            return


@kernel
def _wait(living: Living, node: int, bucket: int, peer: int) -> None:
    """Let a peer wait as the newest; the oldest goes if too many do."""
    _stop_waiting(living, node, bucket, peer)
    first = _first(living, node, bucket)
    count = whole(living.waits[node, bucket])
    if count == living.net.k:
        for at in range(first, first + count - 1):
            living.waiting[at] = living.waiting[at + 1]
        count -= 1
    living.waiting[first + count] = peer
    living.waits[node, bucket] = count + 1


@kernel
def _quarter_has_room(living: Living, node: int, bucket: int, peer: int) -> bool:
    ids = living.net.ids
    share = max(1, living.net.k >> SUB_PREFIX_BITS)
    first = _first(living, node, bucket)
    alike = 0
    for place in range(first, first + whole(living.net.counts[node, bucket])):
        other = living.net.contacts[place]
        if leading_zeros(ids[peer] ^ ids[other]) >= bucket + 1 + SUB_PREFIX_BITS:
            alike += 1
    return alike < share


@kernel
def answered(living: Living, node: int, peer: int, now: float, spread: bool) -> int:
    """Take note that a peer answered a node; return how many others were asked because of it."""
    if node == peer:
        return 0
    net = living.net
    bucket = bucket_of(living, node, peer)
    place = _find(living, node, bucket, peer)
    if place >= 0:
        _to_the_end(living, node, bucket, place, now)
        return 0
    count = whole(net.counts[node, bucket])
    first = _first(living, node, bucket)
    if count < net.k:
        if (
            spread
            and bucket < own_depth(living, node)
            and not _quarter_has_room(living, node, bucket, peer)
        ):
            return 0
        _stop_waiting(living, node, bucket, peer)
        net.contacts[first + count] = peer
        living.heard_at[first + count] = now
        living.failures[first + count] = 0
        net.counts[node, bucket] = count + 1
        return 0
    _wait(living, node, bucket, peer)
    if (
        now - np.float64(living.heard_at[first]) >= living.silent_after
        or living.failures[first] > 0
    ):
        ask(living, node, whole(net.contacts[first]), now)
        return 1
    return 0


@kernel
def failed(living: Living, node: int, peer: int, now: float) -> None:
    """Take note that a request of a node to a peer failed."""
    net = living.net
    bucket = bucket_of(living, node, peer)
    place = _find(living, node, bucket, peer)
    if place < 0:
        _stop_waiting(living, node, bucket, peer)
        return
    living.failures[place] += 1
    waits = whole(living.waits[node, bucket])
    if living.failures[place] < MAX_FAILURES and waits == 0:
        return
    first = _first(living, node, bucket)
    if waits == 0:
        for at in range(place, first + whole(net.counts[node, bucket]) - 1):
            net.contacts[at] = net.contacts[at + 1]
            living.heard_at[at] = living.heard_at[at + 1]
            living.failures[at] = living.failures[at + 1]
        net.counts[node, bucket] -= 1
        return
    # The newest one that waits takes the place; it stands first, and is asked soon.
    for at in range(place, first, -1):
        net.contacts[at] = net.contacts[at - 1]
        living.heard_at[at] = living.heard_at[at - 1]
        living.failures[at] = living.failures[at - 1]
    net.contacts[first] = living.waiting[first + waits - 1]
    living.waits[node, bucket] = waits - 1
    living.heard_at[first] = now - living.silent_after
    living.failures[first] = 0


@kernel
def ask(living: Living, node: int, peer: int, now: float) -> None:
    """Ask a contact whether it lives."""
    if status_of(living.net, peer) == ALIVE:
        place = _find(living, node, bucket_of(living, node, peer), peer)
        if place >= 0:
            _to_the_end(living, node, bucket_of(living, node, peer), place, now)
    else:
        failed(living, node, peer, now)


@kernel
def ask_silent(living: Living, node: int, now: float) -> int:
    """Ask the contacts not heard from for a while; return how many were asked."""
    net = living.net
    asked = 0
    for bucket in range(net.counts.shape[1]):
        first = _first(living, node, bucket)
        # An answer moves a contact to the end, so each is looked at once in a full turn.
        turns = whole(net.counts[node, bucket])
        place = first
        for _ in range(turns):
            if place >= first + whole(net.counts[node, bucket]):
                break
            if now - np.float64(living.heard_at[place]) < living.silent_after:
                place += 1
                continue
            asked += 1
            peer = whole(net.contacts[place])
            lives = status_of(net, peer) == ALIVE
            before = whole(net.counts[node, bucket])
            ask(living, node, peer, now)
            if not lives and whole(net.counts[node, bucket]) == before:
                place += 1  # it stays for now, or another took its place
    return asked


@kernel
def forget(living: Living, node: int) -> None:
    """Empty the table of a node that starts anew."""
    for bucket in range(living.net.counts.shape[1]):
        living.net.counts[node, bucket] = 0
        living.waits[node, bucket] = 0
        living.looked[node, bucket] = -np.inf
