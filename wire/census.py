"""How many entries a content has at least, as far as its nodes are known.

A folder that holds another twice holds at least twice its entries. Counted over the nodes instead
of over the paths, this shows a content that doubles with each level as soon as its deepest node
is there, long before anyone could walk it.
"""

from __future__ import annotations

from typing import Final

from .hamt import Shard, Slot
from .ids import DAG_PB, Cid
from .index import Folder
from .unixfs import Named

MAX_LINKS: Final = 1 << 17
"""Links to further nodes that are remembered (about 40 MB); what comes later is not counted, and
only the walk itself stops at the limit."""


class Census:
    """Lower bounds for the number of entries below each folder."""

    def __init__(self, limit: int) -> None:
        """Counting stops beyond `limit`."""
        self._limit = limit
        self._least: dict[Cid, int] = {}
        self._above: dict[Cid, dict[Cid, int]] = {}
        """For each node: the folders that link to it, and how often."""
        self._counted: set[Cid] = set()
        self._links = 0

    def add(self, cid: Cid, node: Folder | Shard) -> int:
        """Count a folder (or a part of one) whose node is new; return the highest count reached.

        Every count is a lower bound for the whole content, since each folder is below the root.
        Beyond the limit the counts above are no longer kept right: the content is refused then.
        """
        if cid in self._counted or self._links > MAX_LINKS:
            return 0
        self._counted.add(cid)
        counts: dict[Cid, int] = {}
        for child in node.children:
            if child.cid.codec == DAG_PB:
                counts[child.cid] = counts.get(child.cid, 0) + 1
        self._links += 1 + len(counts)
        for below, times in counts.items():
            self._above.setdefault(below, {})[cid] = times
        own = sum(map(is_entry, node.children))
        return self._raise(cid, own + sum(self._least.get(c, 0) * n for c, n in counts.items()))

    def _raise(self, cid: Cid, gain: int) -> int:
        """Add to a folder's count and to those above it; return the highest count reached.

        Gains that meet on their way up are joined, so that each folder is visited at most once
        for each length of a path to it, not once for each path.
        """
        highest = 0
        gains = {cid: gain}
        while gains and highest <= self._limit:
            current = next(iter(gains))
            gain = gains.pop(current)
            count = self._least.get(current, 0) + gain
            self._least[current] = count
            highest = max(highest, count)
            for above, times in self._above.get(current, {}).items():
                gains[above] = gains.get(above, 0) + times * gain
        return highest


def is_entry(child: Named | Slot) -> bool:
    """Return whether a child is an entry; else it leads to a part of the same folder."""
    return not isinstance(child, Slot) or bool(child.name)
