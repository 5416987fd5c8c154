"""Which pieces may be asked for: their place and hash must be known first.

Piece tables of 1024 pieces are loaded a bounded number at a time, in the order in which the engine
wants them, and dropped when their pieces are there or nobody has them. A file's inner nodes are
fetched just ahead of its pieces. What another copy of ours holds, and what repeats, is copied here
instead of fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from ...storage.errors import StorageError
from ...storage.model import PIECES_PER_BLOCK, UNKNOWN_LENGTH, LocalRun, MissingNodes, PieceTable
from ...storage.reader import CopyReader
from ...wire.errors import ContentRefused, PeerFault
from ...wire.ids import Cid
from ...wire.swarm import CHUNK_BITS, MAX_PIECE
from .saver import Arrived, Place, digest_of

if TYPE_CHECKING:
    from .fetch import Fetch

MAX_BLOCKS = 64
"""Tables loaded at a time (48 KiB each): pieces are picked among these 64 Ki."""

NODE_POLL_SECONDS = 1.0
"""How often missing nodes are asked for again."""

MAX_DUPLICATE_CHUNKS = 16
"""Chunks of 64 Ki pieces that are searched for repeated blocks; beyond, they are fetched."""

COPY_BATCH = 16
"""Pieces copied from another copy by one call in a worker thread."""


class BlockFeeder:
    """See the top of the file."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._tables: dict[int, PieceTable] = {}
        self._opened: set[int] = set()  # of the tables: those whose pieces may be asked for
        self._seen: set[int] = set()  # blocks that were loaded once: what is here is copied
        self._repeats: dict[int, tuple[int, ...]] = {}
        self._searched: set[int] = set()
        self._dead: set[int] = set()  # copies that could not be read
        self._again = trio.Event()

    # Facts about loaded blocks

    def find(self, piece: int) -> tuple[PieceTable, int] | None:
        """Return the table of a piece and its place there, if it is loaded."""
        table = self._tables.get(piece // PIECES_PER_BLOCK)
        return None if table is None else (table, piece - table.first)

    def known_length(self, piece: int) -> int | None:
        """Return a piece's length, if its table is loaded."""
        found = self.find(piece)
        return None if found is None else found[0].lengths[found[1]]

    def part(self, first: int, count: int) -> PieceTable | None:
        """Return the pieces from `first` on as a table of their own, if all are loaded."""
        found = self.find(first)
        if found is None:
            return None
        table, at = found
        if at + count <= table.count:
            return table.part(at, count)
        rest = table.count - at
        after = self.part(first + rest, count - rest)
        return None if after is None else table.part(at, rest).joined(after)

    def repeats(self, first: int, count: int) -> dict[int, tuple[Place, ...]]:
        """Return the other places of those pieces that occur more than once."""
        if not self._repeats:
            return {}
        places = {piece: self.places(piece)[1:] for piece in range(first, first + count)}
        return {piece: others for piece, others in places.items() if others}

    def length(self, piece: int) -> int:
        """Return how many bytes a piece may bring."""
        length = self.known_length(piece)
        return MAX_PIECE if length is None or length == UNKNOWN_LENGTH else length

    def lengths(self, first: int, count: int) -> list[int]:
        """Return the same for pieces that follow one another."""
        table = self.part(first, count)
        if table is None or UNKNOWN_LENGTH in table.lengths:
            return [self.length(piece) for piece in range(first, first + count)]
        return table.lengths.tolist()

    def places(self, piece: int) -> tuple[Place, ...]:
        """Return every place where a piece's bytes belong, as far as tables are loaded."""
        if piece not in self._repeats:
            found = self.find(piece)
            if found is None:
                return ()
            table, at = found
            return (Place(piece, table.files[at], table.offsets[at]),)
        engine = self._fetch.engine
        assert engine is not None
        places = []
        for one in (piece, *(p for p in self._repeats.get(piece, ()) if p != piece)):
            found = self.find(one)
            if found is not None and (one == piece or engine.missing(one, 1).any()):
                table, at = found
                places.append(Place(one, table.files[at], table.offsets[at]))
        return tuple(places)

    # Loading

    async def run(self) -> None:
        """Load blocks until cancelled, and copy what is to be had here.

        Raises:
            ContentRefused: An inner node has not the profile's shape.
            StorageError: The store failed.
        """
        engine = self._fetch.engine
        assert engine is not None
        while True:
            self._again = trio.Event()
            block = engine.next_block(PIECES_PER_BLOCK, self._opened, self._seen)
            if block is None:
                with trio.move_on_after(NODE_POLL_SECONDS):
                    await self._again.wait()
                self._drop_done()
            elif len(self._tables) < MAX_BLOCKS or self._drop_done() or self._drop_idle():
                await self._take(block)
            else:
                await trio.sleep(NODE_POLL_SECONDS / 4)

    async def _take(self, block: int) -> None:
        """Load a block and let its pieces be asked for, but for what is to be had here."""
        table = await self._load(block)
        self._tables[block] = table
        self._seen.add(block)
        await self._search_repeats(block)
        await self._copy_local(block)
        self._open(table)
        self._fetch.ask_all()

    def lost(self, pieces: Sequence[int]) -> None:
        """Have pieces fetched again that could not be kept, each for itself."""
        for piece in pieces:
            self._repeats.pop(piece, None)
        for block in {piece // PIECES_PER_BLOCK for piece in pieces} & self._opened:
            self._open(self._tables[block])
        self._again.set()

    def wanted_more(self) -> None:
        """Take note that other pieces are wanted than before."""
        self._seen.clear()
        for block in list(self._opened):
            self._open(self._tables[block])
        self._again.set()

    async def _load(self, block: int) -> PieceTable:
        """Return a table, fetching the nodes that it needs."""
        fetch = self._fetch
        transfers = fetch.transfers
        while True:
            found = await transfers.blocking(transfers.store.piece_table, fetch.cid, block)
            if isinstance(found, PieceTable):
                return found
            await self._fetch_nodes(found)

    async def _fetch_nodes(self, missing: MissingNodes) -> None:
        fetch = self._fetch
        transfers = fetch.transfers
        fetch.nodes.changed = trio.Event()
        fetch.nodes.ask(missing.cids, trio.current_time())
        arrived = fetch.nodes.take()
        if not arrived:  # else they came while the last ones were looked at
            with trio.move_on_after(NODE_POLL_SECONDS):
                await fetch.nodes.changed.wait()
            arrived = fetch.nodes.take()
        keep: list[tuple[Cid, bytes]] = []
        for cid, link, block in arrived:
            if Cid(cid.codec, cid.multihash) in missing.cids and _is(cid, block):
                keep.append((cid, block))
            else:
                fetch.wrong_node(link, PeerFault("bad-index-hash", str(cid)))
        if keep:
            await transfers.blocking(transfers.store.add_nodes, keep)

    def _open(self, table: PieceTable) -> None:
        """Let the pieces of a table be asked for, but for empty and repeated ones."""
        engine = self._fetch.engine
        assert engine is not None
        missing = engine.missing(table.first, table.count)
        empty = [
            table.first + at for at in range(table.count) if table.lengths[at] == 0 and missing[at]
        ]
        if empty:
            self._fetch.claim_empty(empty)
        self._opened.add(table.first // PIECES_PER_BLOCK)
        engine.know(table.first, table.count)
        for piece, group in self._repeats.items():
            if table.first <= piece < table.first + table.count and group[0] != piece:
                engine.forget(piece, 1)  # comes with the group's first

    def _drop_done(self) -> bool:
        """Let go of blocks that are claimed; return whether there is room for more."""
        for table in list(self._tables.values()):
            if self._fetch.block_saved(table):
                self._drop(table)
        return len(self._tables) < MAX_BLOCKS

    def _drop_idle(self) -> bool:
        """Let go of a block that nobody has anything of; return whether there was one."""
        engine = self._fetch.engine
        assert engine is not None
        for block, table in self._tables.items():
            first, count = table.first, table.count
            idle = not engine.reachable(first, count) and not engine.under_way(first, count)
            if idle and block in self._opened and not self._repeats:
                self._drop(table)
                return True
        return False

    def _drop(self, table: PieceTable) -> None:
        engine = self._fetch.engine
        assert engine is not None
        engine.forget(table.first, table.count)
        del self._tables[table.first // PIECES_PER_BLOCK]
        self._opened.discard(table.first // PIECES_PER_BLOCK)

    # Pieces that need not be fetched

    async def _search_repeats(self, block: int) -> None:
        """Find repeated blocks; of each group only the first missing one is asked for."""
        fetch, engine = self._fetch, self._fetch.engine
        assert engine is not None
        chunk = block * PIECES_PER_BLOCK // CHUNK_BITS
        small = -(-engine.pieces // PIECES_PER_BLOCK) <= MAX_BLOCKS
        if chunk in self._searched or not small or len(self._searched) >= MAX_DUPLICATE_CHUNKS:
            return
        found = await fetch.transfers.blocking(fetch.transfers.store.duplicates, fetch.cid, chunk)
        if isinstance(found, MissingNodes):
            return
        self._searched.add(chunk)
        for group in found:
            missing = tuple(
                piece for piece in group if engine.wanted[piece] and not engine.held[piece]
            )
            if len(missing) < 2:
                continue
            # All their tables must be loaded when the first arrives, to know the places.
            for piece in missing:
                self._repeats[piece] = missing
                number = piece // PIECES_PER_BLOCK
                if number not in self._tables:
                    self._tables[number] = await self._load(number)

    async def _copy_local(self, block: int) -> None:
        """Copy what other copies of ours hold, verified like anything else."""
        fetch = self._fetch
        transfers = fetch.transfers
        runs = await transfers.blocking(transfers.store.local_sources, fetch.copy.id, block)
        for run in runs:
            if run.copy not in self._dead:
                await self._copy_run(run, self._tables[block])

    async def _copy_run(self, run: LocalRun, table: PieceTable) -> None:
        fetch, engine = self._fetch, self._fetch.engine
        transfers, store = fetch.transfers, fetch.transfers.store
        assert engine is not None
        copy = await transfers.blocking(store.copy, run.copy)
        if copy is None:
            return
        reader = CopyReader(store, run.copy)

        def read(numbers: list[int]) -> list[tuple[int, memoryview]]:
            good = []
            for number in numbers:
                theirs = run.copy_first + number
                source = store.piece_table(copy.cid, theirs // PIECES_PER_BLOCK)
                if isinstance(source, MissingNodes):
                    continue
                buffer = memoryview(bytearray(MAX_PIECE))
                data = buffer[: reader.read(source, theirs, buffer)]
                at = run.first + number - table.first
                if digest_of(data, table.hash_codes[at]) == table.digest(run.first + number):
                    good.append((run.first + number, data))
            return good

        for start in range(0, run.count, COPY_BATCH):
            count = min(COPY_BATCH, run.count - start)
            missing = engine.missing(run.first + start, count)
            if not missing.any():
                continue
            try:
                good = await transfers.blocking_io(
                    read, [start + at for at in range(count) if missing[at]]
                )
            except (ContentRefused, StorageError, KeyError):
                self._dead.add(run.copy)
                return
            for piece, data in good:
                part = table.part(piece - table.first, 1)
                fetch.copied(Arrived(part, data, None, self.repeats(piece, 1), checked=True))
            await fetch.wait_saved(2 * COPY_BATCH)


def _is(cid: Cid, block: bytes) -> bool:
    return digest_of(memoryview(block), cid.hash_code) == cid.digest
