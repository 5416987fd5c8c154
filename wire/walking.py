"""What a walk holds in memory: the folders it is inside of, and nodes decoded ahead of need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .hamt import Shard, Slot
from .ids import Cid
from .index import Folder, IndexNode
from .unixfs import Named

CACHE_BYTES: Final = 32 << 20
"""Bytes, roughly, of decoded nodes that are kept until, or in case, they are needed again."""

NODE_COST: Final = 200
CHILD_COST: Final = 300
"""Size, roughly, of a decoded node and of each of its children."""

KEPT_COST: Final = 64 << 10
"""Nodes beyond this size are not kept when they were walked: they rarely occur twice, and the
store has them."""


class OpenFolder:
    """A folder, or a part of a large one, that is being walked."""

    __slots__ = ("at", "bits", "children", "cid", "depth", "level", "path", "place")

    def __init__(self, cid: Cid, node: Folder | Shard, path: str, depth: int) -> None:
        self.cid = cid
        self.children: tuple[Named, ...] | tuple[Slot, ...] = node.children
        self.at = 0
        """Index of the next child."""
        self.path = path
        self.depth = depth
        """Names in `path`."""
        self.bits = node.bits if isinstance(node, Shard) else 0
        """Of a name's hash that each level consumes; 0 in a folder of one node."""
        self.level = 0
        """Parts of the same large folder above this one."""
        self.place = 0
        """Their slots on the way here, as one number."""

    def rest(self) -> Iterator[Named | Slot]:
        """Return the children not yet walked."""
        return map(self.children.__getitem__, range(self.at, len(self.children)))


class NodeCache:
    """Decoded nodes by their CID; the oldest go first."""

    def __init__(self) -> None:
        self._nodes: dict[Cid, tuple[IndexNode, int]] = {}
        self._cost = 0

    def get(self, cid: Cid) -> IndexNode | None:
        """Return a node, if it is there."""
        found = self._nodes.get(cid)
        return None if found is None else found[0]

    def size(self, cid: Cid) -> int:
        """Return the bytes of a node that is there."""
        return self._nodes[cid][1]

    def put(self, cid: Cid, node: IndexNode, size: int) -> None:
        """Add a node of `size` bytes; it stays at least until the next one comes."""
        if cid in self._nodes:
            return
        self._nodes[cid] = node, size
        self._cost += _cost(node)
        while self._cost > CACHE_BYTES and len(self._nodes) > 1:
            self._drop(next(iter(self._nodes)))

    def walked(self, cid: Cid) -> None:
        """Let go of a large node that was walked to its end."""
        found = self._nodes.get(cid)
        if found is not None and _cost(found[0]) > KEPT_COST:
            self._drop(cid)

    def _drop(self, cid: Cid) -> None:
        self._cost -= _cost(self._nodes.pop(cid)[0])


def _cost(node: IndexNode) -> int:
    children = len(node.children) if isinstance(node, Folder | Shard) else 0
    return NODE_COST + CHILD_COST * children
