"""The tables with which a simulated network begins: ideal ones, or those of a snapshot."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ...dht.keyspace import KEY_BITS
from .dht_node import Node

if TYPE_CHECKING:
    from ..snapshot import Snapshot


class KeyOrder:
    """The keys of some nodes in order, to find the nearest to any key."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        pairs = sorted((int.from_bytes(node.peer.key, "big"), node.number) for node in nodes)
        self._keys = [key for key, _ in pairs]
        self._numbers = [number for _, number in pairs]

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, node: Node) -> None:
        """Let a node be among them."""
        key = int.from_bytes(node.peer.key, "big")
        at = bisect_left(self._keys, key)
        self._keys.insert(at, key)
        self._numbers.insert(at, node.number)

    def remove(self, node: Node) -> None:
        """Let a node be among them no more."""
        at = bisect_left(self._keys, int.from_bytes(node.peer.key, "big"))
        del self._keys[at], self._numbers[at]

    def under(self, prefix: int, bits: int) -> range:
        """Return the places of the keys that begin with so many bits."""
        shift = KEY_BITS - bits
        return range(
            bisect_left(self._keys, prefix << shift), bisect_left(self._keys, (prefix + 1) << shift)
        )

    def numbers(self) -> Sequence[int]:
        """Return all of the nodes, by their keys."""
        return self._numbers

    def number(self, place: int) -> int:
        """Return the node at a place of the order."""
        return self._numbers[place]

    def nearest(self, key: bytes, count: int) -> list[int]:
        """Return the nodes nearest to a key, nearest first."""
        aim = int.from_bytes(key, "big")
        bits = 0
        places = range(len(self._keys))
        # The longest prefix of the key that enough of them share holds the nearest.
        while bits < KEY_BITS:
            deeper = self.under(aim >> (KEY_BITS - bits - 1), bits + 1)
            if len(deeper) < count:
                break
            places, bits = deeper, bits + 1
        nearest = sorted(places, key=lambda place: self._keys[place] ^ aim)[:count]
        return [self._numbers[place] for place in nearest]


def fill_randomly(node: Node, servers: KeyOrder, nodes: Sequence[Node]) -> None:
    """Give a node an ideal table: k random servers of each bucket, all of those with fewer."""
    own = int.from_bytes(node.peer.key, "big")
    fill(node, (nodes[number] for number in _ideal(node, own, servers)))


def _ideal(node: Node, own: int, servers: KeyOrder) -> Iterator[int]:
    """Yield the contacts of an ideal table, the nearest first."""
    k = node.rules.table.k
    found: list[int] = []
    for bits in range(1, KEY_BITS + 1):
        there = servers.under(own >> (KEY_BITS - bits) ^ 1, bits)
        chosen = node.draw.sample(there, k) if len(there) > k else list(there)
        found += [servers.number(place) for place in chosen]
        if len(servers.under(own >> (KEY_BITS - bits), bits)) <= node.serves:
            break
    yield from reversed(found)


def fill_from(node: Node, snapshot: Snapshot, nodes: Sequence[Node]) -> None:
    """Give a node the table that a snapshot holds."""
    fill(node, (nodes[number] for number in snapshot.of(node.number).tolist()))


def fill(node: Node, contacts: Iterable[Node]) -> None:
    """Put contacts into a table, each heard from at a random time before now."""
    now = node.network.time.now
    table = node.table
    silent, every = node.rules.table.silent_after, node.rules.upkeep.refresh
    chosen = [contact for contact in contacts if contact is not node]
    seen = sorted(now - silent * node.draw.random() for _ in chosen)
    for contact, at in zip(chosen, seen, strict=True):
        table.answered(contact.peer, contact.addrs, contact.group, at)
    for bucket in table.buckets:
        bucket.last_updated = now - every * node.draw.random()


def any_of(nodes: Sequence[Node], draw: random.Random, count: int) -> list[Node]:
    """Return some nodes at random, at most all."""
    return draw.sample(nodes, min(count, len(nodes)))
