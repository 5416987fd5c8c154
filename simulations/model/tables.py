"""Routing tables: k contacts for each distance, as `dht/table.py` holds them.

Bucket `b` of a node holds nodes whose ids share exactly `b` leading bits with its own. (The shipped
table splits only the bucket of its own key, which comes to the same.) "Random" tables draw up to k
of those nodes for each bucket; they are the ideal that no network reaches, see `growth`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .compiled import Word, below, draw, entry, kernel, leading_zeros, mix, whole
from .ids import range_of
from .network import TABLE, Net

SCRATCH: Final = 64
"""Contacts gathered for one answer, in multiples of k: all buckets of a table."""

MAX_BUCKET_ENTRIES: Final = 65_535
"""Contacts of one node whose offsets fit into 16 bits."""

_ONE = np.uint64(1)


@kernel
def bucket_range(net: Net, node: int, bucket: int) -> tuple[int, int]:
    """Return the numbers [first, end) of all nodes that belong into a bucket of a node."""
    flipped = net.ids[node] ^ (_ONE << np.uint64(63 - bucket))
    return range_of(net.ids, net.directory, net.shift, flipped, bucket + 1)


@kernel
def drawn_members(net: Net, node: int, bucket: int, out: NDArray[np.int64], at: int) -> int:
    """Draw the contacts of a bucket from a hash; all nodes of it if they are at most k."""
    first, end = bucket_range(net, node, bucket)
    there = end - first
    k = net.k
    if there <= k:
        for number in range(there):
            out[at + number] = first + number
        return there
    word = draw(net.seed, TABLE, node, bucket)
    for taken in range(k):  # Floyd's sample: k different ones
        top = there - k + taken
        word = mix(word)
        chosen = first + below(word, top + 1)
        for other in range(taken):
            if out[at + other] == chosen:
                chosen = first + top
                break
        out[at + taken] = chosen
    return k


@kernel
def members(net: Net, node: int, bucket: int, out: NDArray[np.int64], at: int) -> int:
    """Write the contacts of a bucket into `out` from place `at`; return how many they are."""
    if net.counts.shape[0] > 0:
        if bucket >= net.counts.shape[1]:
            return 0
        held = whole(net.counts[node, bucket])
        first = (node * net.counts.shape[1] + bucket) * net.k
        for number in range(held):
            out[at + number] = net.contacts[first + number]
        return held
    if len(net.base) == 0:
        return drawn_members(net, node, bucket, out, at)
    if bucket + 1 >= net.offsets.shape[1]:
        return 0
    start = whole(net.offsets[node, bucket])
    count = whole(net.offsets[node, bucket + 1]) - start
    start += net.base[node]
    for number in range(count):
        out[at + number] = net.contacts[start + number]
    return count


@kernel
def _is_alone(net: Net, node: int, bits: int) -> Word:
    """Return whether nobody else shares so many leading bits with a node."""
    if net.counts.shape[0] > 0:
        return bits >= net.counts.shape[1]
    if len(net.base) > 0:
        return bits >= net.offsets.shape[1] - 1
    first, end = range_of(net.ids, net.directory, net.shift, net.ids[node], bits)
    return end - first <= 1


@kernel
def _without(out: NDArray[np.int64], at: int, count: int, unwanted: int) -> int:
    """Take one node out of a list; return how many are left."""
    for number in range(count):
        if out[at + number] == unwanted:
            out[at + number] = out[at + count - 1]
            return count - 1
    return count


@kernel
def _nearest_first(
    net: Net, target: Word, out: NDArray[np.int64], at: int, count: int, wanted: int
) -> int:
    """Move the `wanted` nearest of a list to its front, in order; return how many these are."""
    wanted = min(wanted, count)
    for place in range(wanted):
        best = place
        least = net.ids[out[at + place]] ^ target
        for number in range(place + 1, count):
            far = net.ids[out[at + number]] ^ target
            if far < least:
                least = far
                best = number
        swapped = out[at + place]
        out[at + place] = out[at + best]
        out[at + best] = swapped
    return wanted


@kernel
def closest_contacts(
    net: Net, node: int, target: Word, wanted: int, unwanted: int, out: NDArray[np.int64]
) -> int:
    """Write the `wanted` contacts of a node that are nearest to a target; return how many.

    The bucket that covers the target comes first, then all deeper ones together, then the others
    one by one from there to the farthest. Their order in `out` means nothing.

    Args:
        net: The network.
        node: Whose table.
        target: A place in the key space.
        wanted: How many at most.
        unwanted: A node to leave out (who asked), or -1.
        out: At least `SCRATCH` * k places.
    """
    bits = min(leading_zeros(net.ids[node] ^ target), 63)
    found = _without(out, 0, members(net, node, bits, out, 0), unwanted)
    if found >= wanted:
        return _nearest_first(net, target, out, 0, found, wanted) if found > wanted else found
    gathered = 0
    for bucket in range(bits + 1, 64):
        if _is_alone(net, node, bucket):
            break
        if found + gathered + net.k > len(out):
            break
        added = members(net, node, bucket, out, found + gathered)
        gathered += _without(out, found + gathered, added, unwanted)
    found += _nearest_first(net, target, out, found, gathered, wanted - found)
    bucket = bits - 1
    while bucket >= 0 and found < wanted:
        added = members(net, node, bucket, out, found)
        added = _without(out, found, added, unwanted)
        if found + added > wanted:
            _nearest_first(net, target, out, found, added, wanted - found)
            added = wanted - found
        found += added
        bucket -= 1
    return found


@kernel
def nearest_nodes(net: Net, target: Word, wanted: int, out: NDArray[np.int64]) -> int:
    """Write the `wanted` nodes nearest to a target, nearest first; return how many there are.

    Compares all nodes of the smallest range around the target that has enough of them.
    """
    bits = 0
    first, end = 0, len(net.ids)
    while bits < 64:
        lower, upper = range_of(net.ids, net.directory, net.shift, target, bits + 1)
        if upper - lower < wanted:
            break
        first, end = lower, upper
        bits += 1
    found = 0
    for node in range(first, end):
        far = net.ids[node] ^ target
        if found == wanted and far >= (net.ids[out[found - 1]] ^ target):
            continue
        place = found if found < wanted else wanted - 1
        while place > 0 and (net.ids[out[place - 1]] ^ target) > far:
            out[place] = out[place - 1]
            place -= 1
        out[place] = node
        if found < wanted:
            found += 1
    return found


@entry
def _count_drawn(net: Net, buckets: int) -> NDArray[np.uint16]:
    """Return where each bucket of each node begins in random tables."""
    count = len(net.ids)
    offsets = np.zeros((count, buckets + 1), np.uint16)
    for node in range(count):
        total = 0
        for bucket in range(buckets):
            first, end = bucket_range(net, node, bucket)
            total += min(net.k, end - first)
            offsets[node, bucket + 1] = total
    return offsets


@entry
def _fill_drawn(
    net: Net, base: NDArray[np.int64], offsets: NDArray[np.uint16], contacts: NDArray[np.int32]
) -> None:
    """Write the contacts of random tables."""
    out = np.empty(net.k + 1, np.int64)
    for node in range(len(net.ids)):
        for bucket in range(offsets.shape[1] - 1):
            if offsets[node, bucket + 1] == offsets[node, bucket]:
                continue
            count = drawn_members(net, node, bucket, out, 0)
            at = base[node] + whole(offsets[node, bucket])
            for number in range(count):
                contacts[at + number] = out[number]


def depth_of(ids: NDArray[np.uint64]) -> int:
    """Return how many buckets the deepest table of a network needs."""
    if len(ids) < 2:
        return 1
    shared = int(np.min(ids[1:] ^ ids[:-1]))
    return 64 - shared.bit_length() + 1


def with_random_tables(net: Net) -> Net:
    """Return the network with its random tables stored: the very ones that the hash gives."""
    if len(net.ids) >= 1 << 31:
        raise ValueError("stored contacts are numbers of 31 bits: use hashed tables")
    buckets = depth_of(net.ids)
    if buckets * net.k > MAX_BUCKET_ENTRIES:
        raise ValueError(f"k = {net.k} is too large for stored tables")
    offsets = _count_drawn(net, buckets)
    return with_contacts(net, offsets, None)


def with_contacts(net: Net, offsets: NDArray[np.uint16], contacts: NDArray[np.int32] | None) -> Net:
    """Return the network with stored tables; without `contacts` they are drawn from the hash."""
    base = np.zeros(len(net.ids) + 1, np.int64)
    np.cumsum(offsets[:, -1], dtype=np.int64, out=base[1:])
    if contacts is None:
        contacts = np.empty(int(base[-1]), np.int32)
        _fill_drawn(net, base, offsets, contacts)
    elif len(contacts) != base[-1]:
        raise ValueError("contacts and offsets do not fit together")
    return net._replace(base=base, offsets=offsets, contacts=contacts)
