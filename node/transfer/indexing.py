"""Fetching a content's index: directory nodes, links and the roots of files, node by node.

Every block is checked against its CID by the walk before it is kept. Nodes that are stored already
are not asked for again, so an interrupted walk goes on where it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

from ...wire.errors import PeerFault
from ...wire.ids import Cid, PeerId
from ...wire.walk import Walk, WalkLimits

if TYPE_CHECKING:
    from .link import Link
    from .transfers import Transfers

NODE_POLL_SECONDS = 1.0
"""How often it is looked whether a node must be asked of another peer."""

ASK_AT_ONCE = 64
"""Index nodes asked of one peer at a time."""

ENTRIES_AT_ONCE = 8192
"""Entries that wait for one commit: they cost much more memory than the nodes that name them."""

NODE_SECONDS = 5.0
"""After which a node is asked of another peer."""

FIRST_NODE_SECONDS = 2.0
"""The same for a peer that has never given one: it may be one that never will."""

MAX_IN_VAIN = 512
"""Peers that were asked in vain and are remembered."""

MISSING_SECONDS = 2.0
"""After which a peer that did not have a node is asked for it again: it may be fetching, too."""


class NodeFetcher:
    """Asks peers for index nodes and hands out the blocks, unverified."""

    def __init__(self, links: Callable[[], Iterable[Link]]) -> None:
        self._links = links
        self._asked: dict[Cid, tuple[Link, float]] = {}
        self._missing: dict[Link, dict[Cid, float]] = {}
        self._arrived: OrderedDict[Cid, tuple[Link, bytes]] = OrderedDict()
        self._gave: set[Link] = set()
        self._in_vain: dict[PeerId, float] = {}  # when; a new stream does not make it forgotten
        self.changed = trio.Event()
        self.received = 0
        """Bytes of index nodes received."""
        self.verified_at = trio.current_time()
        """When a node was last found right."""

    def came(self, link: Link, cid: Cid, block: bytes | None) -> None:
        """Take a node that the peer was asked for, or word that it does not have it."""
        asked = self._asked.get(cid)
        if asked is not None and (asked[0] is link or block is not None):
            del self._asked[cid]
        if block is None:
            self._missing.setdefault(link, {})[cid] = trio.current_time()
        elif asked is not None:  # else it came from another peer meanwhile
            self._gave.add(link)
            self._in_vain.pop(link.peer, None)
            self.received += len(block)
            self._arrived[cid] = (link, block)
        self.changed.set()

    def holds_some(self, link: Link) -> None:
        """A peer has got pieces, so it knows the index by now."""
        if self._missing.pop(link, None):
            self.changed.set()

    def left(self, link: Link) -> None:
        """Forget a peer: what was asked of it goes to others."""
        self._missing.pop(link, None)
        self._gave.discard(link)
        for cid in [c for c, (who, _) in self._asked.items() if who is link]:
            self._blame(link, trio.current_time())
            del self._asked[cid]
        self.changed.set()

    def ask(self, cids: Iterable[Cid], now: float) -> None:
        """Ask for nodes that are not asked for yet, or for too long."""
        links = [link for link in self._links() if not link.source.choked]
        if not links:
            return
        load = {link: sum(who is link for who, _ in self._asked.values()) for link in links}
        requests: dict[Link, list[Cid]] = {}
        for cid in cids:
            asked = self._asked.get(cid)
            if cid in self._arrived or (asked is not None and not self._late(*asked, now)):
                continue
            late = asked[0] if asked is not None else None
            if late is not None:
                self._blame(late, now)
            able = [
                link
                for link in links
                if load[link] < ASK_AT_ONCE
                and link is not late
                and now - self._missing.get(link, {}).get(cid, -MISSING_SECONDS) >= MISSING_SECONDS
            ]
            if not able:
                continue
            # All get their turn: silent peers must not be asked round and round.
            link = min(able, key=lambda one: (self._in_vain.get(one.peer, -1.0), load[one]))
            load[link] += 1
            self._asked[cid] = (link, now)
            requests.setdefault(link, []).append(cid)
        for link, wanted in requests.items():
            link.ask_nodes(wanted)

    def _late(self, link: Link, since: float, now: float) -> bool:
        return now - since >= (NODE_SECONDS if link in self._gave else FIRST_NODE_SECONDS)

    def _blame(self, link: Link, now: float) -> None:
        self._in_vain.pop(link.peer, None)
        self._in_vain[link.peer] = now
        if len(self._in_vain) > MAX_IN_VAIN:
            del self._in_vain[next(iter(self._in_vain))]

    def take(self) -> list[tuple[Cid, Link, bytes]]:
        """Return what has arrived since the last call."""
        arrived = [(cid, link, block) for cid, (link, block) in self._arrived.items()]
        self._arrived.clear()
        return arrived


async def fetch_index(
    transfers: Transfers, cid: Cid, nodes: NodeFetcher, wrong: Callable[[Link, PeerFault], None]
) -> None:
    """Walk a content's index to its end, from the store and from peers, into the store.

    Args:
        transfers: For the store.
        cid: The content.
        nodes: For the peers.
        wrong: Told of a peer that sent a wrong node.

    Raises:
        ContentRefused: The content is hostile or of another shape.
    """
    store = transfers.store
    walk = Walk(cid, WalkLimits())
    while not walk.over:
        await transfers.blocking(_feed_stored, transfers, walk, cid)
        wanted = walk.wanted(ASK_AT_ONCE)
        if not wanted:
            continue
        nodes.changed = trio.Event()
        nodes.ask(wanted, trio.current_time())
        arrived = nodes.take()
        if not arrived:  # else they came while the last ones were looked at
            with trio.move_on_after(NODE_POLL_SECONDS):
                await nodes.changed.wait()
            arrived = nodes.take()
        if not arrived:
            continue
        faults = await transfers.blocking(_feed_arrived, transfers, walk, cid, arrived)
        for link, fault in faults:
            wrong(link, fault)
        if len(faults) < len(arrived):
            nodes.verified_at = trio.current_time()
    await transfers.blocking(_drain, transfers, walk, cid)
    size = (
        None if walk.total_pieces == 1 and await _is_raw_root(transfers, cid) else walk.total_size
    )
    await transfers.blocking(store.index_complete, cid, size, walk.total_pieces)


async def _is_raw_root(transfers: Transfers, cid: Cid) -> bool:
    entries = await transfers.blocking(transfers.store.entries, cid, 0, 1)
    return bool(entries) and entries[0].size < 0


def _feed_stored(transfers: Transfers, walk: Walk, cid: Cid) -> None:
    """Feed the walk what the store holds, and store what it finds."""
    store = transfers.store
    while not walk.over:
        fed = False
        for wanted in walk.wanted(ASK_AT_ONCE):
            block = store.node(wanted)
            if block is not None:
                walk.feed(wanted, block)
                fed = True
        _drain(transfers, walk, cid)
        if not fed:
            return


def _feed_arrived(
    transfers: Transfers, walk: Walk, cid: Cid, arrived: Iterable[tuple[Cid, Link, bytes]]
) -> list[tuple[Link, PeerFault]]:
    """Feed the walk what peers sent, and store it; return the faults.

    A node names up to some thousands of entries, so this is no work for the trio thread.
    """
    faults: list[tuple[Link, PeerFault]] = []
    keep: list[tuple[Cid, bytes]] = []
    for node_cid, link, block in arrived:
        try:
            walk.feed(node_cid, block)
        except PeerFault as fault:
            faults.append((link, fault))
        else:
            keep.append((node_cid, block))
        if walk.found >= ENTRIES_AT_ONCE:
            _keep(transfers, walk, cid, keep)
    _keep(transfers, walk, cid, keep)
    return faults


def _keep(transfers: Transfers, walk: Walk, cid: Cid, nodes: list[tuple[Cid, bytes]]) -> None:
    """Store nodes, which are taken off the list, and what was found in them."""
    if nodes:
        transfers.store.add_nodes(nodes)
        nodes.clear()
        _drain(transfers, walk, cid)


def _drain(transfers: Transfers, walk: Walk, cid: Cid) -> None:
    entries = walk.drain()
    if entries:
        transfers.store.add_entries(cid, entries)
