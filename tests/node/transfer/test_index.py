"""The walk over an index whose nodes come from a peer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import trio

from shoal.node.transfer.indexing import NodeFetcher, fetch_index
from shoal.simulations.disk import MemoryDisk
from shoal.storage.store import Store
from shoal.wire.directory import build_directory
from shoal.wire.errors import PeerFault
from shoal.wire.ids import Cid
from shoal.wire.unixfs import Named, build_file

FOLDERS = 20
HOME = Path("/home")


def folders_of_files() -> tuple[Cid, dict[Cid, bytes]]:
    nodes: dict[Cid, bytes] = {}
    parts = []
    for number in range(FOLDERS):
        file = build_file([(bytes((number,)) * 32, 5)], nodes.__setitem__)
        part = build_directory([Named(b"file", file.cid, file.tsize)], nodes.__setitem__)
        parts.append(Named(b"%03d" % number, part.cid, part.tsize))
    return build_directory(parts, nodes.__setitem__).cid, nodes


class SlowStore:
    """Transfers whose calls of the store take so long that nodes arrive meanwhile."""

    def __init__(self, store: Store, nodes: dict[Cid, bytes]) -> None:
        self.store = store
        self.source = SimpleNamespace(choked=False)
        self.peer = "the only one"
        self.fetcher = NodeFetcher(lambda: [cast("Any", self)])
        self.wrong: list[PeerFault] = []
        self._nodes = nodes
        self._on_the_way: list[Cid] = []

    def ask_nodes(self, cids: Sequence[Cid]) -> None:
        self.send(cids[0])
        self._on_the_way += cids[1:]

    async def blocking(self, function: Callable[..., Any], *args: Any) -> Any:
        await trio.lowlevel.checkpoint()
        on_the_way, self._on_the_way = self._on_the_way, []
        for cid in on_the_way:
            self.send(cid)
        return function(*args)

    def send(self, cid: Cid) -> None:
        self.fetcher.came(cast("Any", self), cid, self._nodes[cid])

    async def fetch(self, root: Cid) -> None:
        self.store.ensure_content(root)
        transfers = cast("Any", self)
        await fetch_index(transfers, root, self.fetcher, lambda _, fault: self.blame(fault))

    def blame(self, fault: PeerFault) -> None:
        self.wrong.append(fault)
        self.source.choked = True  # else it would be asked again at once, and for ever


async def test_nodes_that_came_during_a_call_of_the_store_are_not_waited_for(
    autojump_clock: object,
) -> None:
    disk = MemoryDisk()
    disk.folder(HOME, 0o700)
    store = Store.open(HOME, disk, 1000.0)
    root, nodes = folders_of_files()
    peer = SlowStore(store, nodes)
    began = trio.current_time()
    await peer.fetch(root)
    assert trio.current_time() == began  # nothing waited for the next look at the clock
    assert store.entry_count(root) == 1 + 2 * FOLDERS
    store.close()


async def test_a_wrong_node_among_right_ones_is_told_and_asked_for_again(
    autojump_clock: object,
) -> None:
    disk = MemoryDisk()
    disk.folder(HOME, 0o700)
    store = Store.open(HOME, disk, 1000.0)
    root, nodes = folders_of_files()
    right = dict(nodes)
    bent = next(cid for cid in nodes if cid != root)
    nodes[bent] = b"not that node"
    peer = SlowStore(store, nodes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.fetch, root)
        await trio.sleep(0.5)
        assert [fault.reason for fault in peer.wrong] == ["bad-index-hash"]
        nodes[bent] = right[bent]
        peer.source.choked = False
    assert store.entry_count(root) == 1 + 2 * FOLDERS
    store.close()
