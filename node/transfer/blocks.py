"""Which pieces may be asked for: their place and hash must be known first.

Piece tables of 1024 pieces are loaded a bounded number at a time, in a random rotation, and dropped
when their pieces are there. A file's inner nodes are fetched just ahead of its pieces. What another
copy of ours holds, and what repeats, is copied here instead of fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from ...storage.errors import StorageError
from ...storage.model import PIECES_PER_BLOCK, UNKNOWN_LENGTH, LocalRun, MissingNodes, PieceTable
from ...storage.reader import CopyReader
from ...wire.errors import ContentRefused, PeerFault
from ...wire.ids import Cid
from ...wire.swarm import CHUNK_BITS, MAX_PIECE
from .saver import Place, digest_of

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

    def length(self, piece: int) -> int:
        """Return how many bytes a piece may bring."""
        length = self.known_length(piece)
        return MAX_PIECE if length is None or length == UNKNOWN_LENGTH else length

    def places(self, piece: int) -> tuple[Place, ...]:
        """Return every place where a piece's bytes belong, as far as tables are loaded."""
        engine = self._fetch.engine
        assert engine is not None
        places = []
        for one in (piece, *(p for p in self._repeats.get(piece, ()) if p != piece)):
            found = self.find(one)
            if found is not None and (one == piece or not engine.held[one]):
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
        while True:
            self._again = trio.Event()
            for block in self._rotation():
                table = await self._load(block)
                self._tables[block] = table
                await self._search_repeats(block)
                await self._copy_local(block)
                self._open(table)
                self._fetch.ask_all()
                while len(self._tables) >= MAX_BLOCKS:
                    self._drop_done()
                    if len(self._tables) >= MAX_BLOCKS:
                        await trio.sleep(NODE_POLL_SECONDS / 4)
            await self._again.wait()

    def lost(self, pieces: Sequence[int]) -> None:
        """Have pieces fetched again that could not be kept, each for itself."""
        engine = self._fetch.engine
        assert engine is not None
        for piece in pieces:
            self._repeats.pop(piece, None)
            engine.ready[piece] = 1
        self._again.set()

    def _rotation(self) -> Iterator[int]:
        """Yield the blocks with missing pieces, from a random one on."""
        engine = self._fetch.engine
        assert engine is not None
        count = -(-engine.pieces // PIECES_PER_BLOCK)
        transfers = self._fetch.transfers
        random = transfers.environment.random.stream(f"blocks {self._fetch.copy.id}")
        start = random.randrange(count) if count > MAX_BLOCKS else 0
        for number in range(count):
            block = (start + number) % count
            first = block * PIECES_PER_BLOCK
            if engine.held.find(0, first, min(first + PIECES_PER_BLOCK, engine.pieces)) >= 0:
                yield block

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
        with trio.move_on_after(NODE_POLL_SECONDS):
            await fetch.nodes.changed.wait()
        keep: list[tuple[Cid, bytes]] = []
        for cid, link, block in fetch.nodes.take():
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
        empty = [
            table.first + at
            for at in range(table.count)
            if table.lengths[at] == 0 and not engine.held[table.first + at]
        ]
        if empty:
            self._fetch.claim_empty(empty)
        engine.ready[table.first : table.first + table.count] = 1
        for piece, group in self._repeats.items():
            if table.first <= piece < table.first + table.count and group[0] != piece:
                engine.ready[piece] = 0  # comes with the group's first

    def _drop_done(self) -> None:
        for block, table in list(self._tables.items()):
            if self._fetch.block_saved(table):
                del self._tables[block]

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
            missing = tuple(piece for piece in group if not engine.held[piece])
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

        def read(first: int, count: int) -> list[tuple[int, memoryview]]:
            good = []
            for number in range(first, first + count):
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
            if engine.held.find(0, run.first + start, run.first + start + count) < 0:
                continue
            try:
                good = await transfers.blocking_io(read, start, count)
            except (ContentRefused, StorageError, KeyError):
                self._dead.add(run.copy)
                return
            for piece, data in good:
                code = table.hash_codes[piece - table.first]
                fetch.copied(self.places(piece), data, code)
            await fetch.wait_saved(2 * COPY_BATCH)


def _is(cid: Cid, block: bytes) -> bool:
    return digest_of(memoryview(block), cid.hash_code) == cid.digest
