"""Everything that a home remembers, behind one object.

All calls block and may come from any thread; a lock serialises them. The node calls them from
worker threads with one lane for writes. Commits that claim data are durable when the call
returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from bitarray import bitarray

from ..wire.errors import Misuse
from ..wire.ids import Cid
from ..wire.walk import Entry, EntryKind
from .bits import Bits
from .choice import Choice, Chosen, chosen_of
from .copies import Copies
from .database import Connection
from .errors import Damaged, disk_errors
from .filesystem import Disk, FileStat, Folder
from .index import Index
from .journal import Journal
from .limit_table import LimitTable
from .model import (
    Announce,
    Content,
    Copy,
    CopyState,
    LocalRun,
    MissingNodes,
    PieceTable,
    Removed,
    Verified,
)
from .peer_tables import DhtTables, HashCache, PeerTables
from .pieces import Pieces
from .reader import OpenFiles
from .recovery import check_unfinished, open_or_set_aside, reconcile
from .removal import delete_finished, delete_working
from .verify import Verification

CHECK_FILES: Final = 1000
"""Files that one call of `check_copies` looks at, or one copy: others wait for the store."""


class Store:
    """The database of one home, its journal of copies, and the files that they name.

    Attributes:
        problems: What was found wrong at start (lost files, a damaged database), a sentence each.
        hashes: CIDs of files that were hashed.
        dht: What the DHT wants to know again.
        peers: Bans and totals.
        limits: Bytes a second that the owner set.
        disk: Where all copies lie.
        journal: The list of copies outside of the database.
        open_files: Files that readers keep open.
        copy_rows: The rows of copies, for the other files of this folder.
    """

    def __init__(self, connection: Connection, journal: Journal, disk: Disk) -> None:
        """Use `Store.open`."""
        self.disk = disk
        self.journal = journal
        self.problems: list[str] = []
        self.open_files = OpenFiles()
        self.hashes = HashCache(connection)
        self.dht = DhtTables(connection)
        self.peers = PeerTables(connection)
        self.limits = LimitTable(connection)
        self._connection = connection
        self._index = Index(connection)
        self._bits = Bits(connection)
        self.copy_rows = Copies(connection, self._index, self._bits, journal, disk)
        self._pieces = Pieces(self._index, self.copy_rows, self._bits)

    @classmethod
    def open(cls, home: Path, disk: Disk, now: float, tag: str = "") -> Store:
        """Open the home's database, mend what can be mended, and look after every copy's place.

        Args:
            home: The home folder; the caller holds its lock.
            disk: Where it and all copies lie.
            now: Unix time in seconds.
            tag: A tag newly drawn (`model.tag_text`), kept if the home has none yet.

        Raises:
            StorageError: The home cannot be read or written.
        """
        with disk_errors(f"opening the home folder {home}"):
            folder = disk.folder(home)
        journal = Journal(folder)
        try:
            try:
                return cls._begin(home, folder, disk, journal, now, tag)
            except Damaged:
                if not journal.database_damaged:
                    raise
                return cls._begin(home, folder, disk, journal, now, tag)  # it is set aside now
        except BaseException:
            journal.close()
            raise

    @classmethod
    def _begin(
        cls, home: Path, folder: Folder, disk: Disk, journal: Journal, now: float, tag: str
    ) -> Store:
        connection, problems = open_or_set_aside(disk, home, folder, journal.database_damaged)
        try:
            journal.note_replaced()
            connection.on_damage = journal.note_damage
            store = cls(connection, journal, disk)
            with connection.transaction():
                store.copy_rows.keep_tag(tag)
                store.problems = problems + reconcile(store, now)
            store.sweep_nodes()
            store.hashes.trim()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        self.journal.close()
        self._connection.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make one commit of all that the block does; other threads wait meanwhile."""
        return self._connection.transaction()

    # Index nodes

    def add_nodes(self, nodes: Iterable[tuple[Cid, bytes]]) -> None:
        """Keep index nodes (one commit); the caller has checked each against its CID.

        Add children before parents, or the index counts as complete too early for `has_nodes`.
        """
        self._index.add_nodes(nodes)

    def node(self, cid: Cid) -> bytes | None:
        """Return an index node's block."""
        return self._index.node(cid)

    def has_nodes(self, cid: Cid) -> bool:
        """Return whether the node and all inner nodes below it are kept (a raw leaf: True)."""
        return self._index.has_nodes(cid)

    def sweep_nodes(self) -> int:
        """Drop nodes that no content and no cached hash leads to; return how many went."""
        return self._index.sweep_nodes()

    # Contents and their entries

    def ensure_content(self, cid: Cid, name: str | None = None) -> Content:
        """Return the content, remembering it (and a name for it) if it is new."""
        return self._index.ensure_content(cid, name)

    def content(self, cid: Cid) -> Content | None:
        """Return what is known of a content."""
        return self._index.content(cid)

    def content_by_key(self, key: bytes) -> Content | None:
        """Return the content with this blinded key (`content_key`)."""
        return self._index.content_by_key(key)

    def contents(self) -> list[Content]:
        """Return all contents, oldest first."""
        return self._index.contents()

    def set_announce(self, cid: Cid, announce: Announce) -> None:
        """Set under which name the DHT is told of a content (a new one: BLINDED)."""
        self._index.set_announce(cid, announce)
        self.journal.announced(cid, announce)

    def add_entries(self, cid: Cid, entries: Iterable[Entry]) -> None:
        """Add entries in the order of their ordinals (one commit); known ordinals are skipped."""
        self._index.add_entries(cid, entries)

    def index_complete(self, cid: Cid, size: int | None, pieces: int) -> None:
        """Say that all entries are there; `size` is None for a raw root not yet fetched."""
        self._index.index_complete(cid, size, pieces)

    def learn_size(self, cid: Cid, size: int) -> None:
        """Set the size of a raw root, once its one piece has arrived."""
        self._index.learn_size(cid, size)

    def entries(self, cid: Cid, first: int = 0, limit: int = 1024) -> list[Entry]:
        """Return up to `limit` entries from ordinal `first` on."""
        return self._index.entries(cid, first, limit)

    def file_paths(self, cid: Cid, first: int, limit: int) -> list[tuple[int, str]]:
        """Return (ordinal, path) of up to `limit` files from ordinal `first` on."""
        return self._index.file_paths(cid, first, limit)

    def entry_count(self, cid: Cid) -> int:
        """Return how many entries are stored."""
        return self._index.entry_count(cid)

    def forget(self, cid: Cid) -> None:
        """Forget a content without copies: entries, nodes that nothing else uses, schedule."""
        if self.copies(cid):
            raise Misuse(f"{cid} has copies")
        self._index.forget(cid)

    # Pieces

    def piece_table(self, cid: Cid, block: int) -> PieceTable | MissingNodes:
        """Return the pieces [1024 block, 1024 (block + 1)) as far as they exist.

        Raises:
            ContentRefused: A file's nodes do not have the profile's shape.
            KeyError: The content, or that part of its entries, is unknown.
        """
        return self._pieces.table(cid, block)

    def duplicates(self, cid: Cid, chunk: int) -> list[tuple[int, ...]] | MissingNodes:
        """Return groups of pieces with equal bytes among the 64 Ki pieces of a chunk.

        At most 65 536 pieces are named in all. Empty pieces are left out.
        """
        return self._pieces.duplicates(cid, chunk)

    def local_sources(self, copy_id: int, block: int) -> list[LocalRun]:
        """Return runs of a block's pieces that other copies of ours hold (claimed, not checked)."""
        return self._pieces.local_sources(copy_id, block)

    # Copies

    def add_shared_copy(
        self, cid: Cid, path: Path, stats: Iterable[tuple[int, FileStat]], now: float
    ) -> Copy:
        """Register files that were hashed where they lie; again for the same (cid, path): renew.

        Args:
            cid: A content whose index is complete.
            path: The absolute path of its root.
            stats: (ordinal, stat) of every file entry, as it was when hashed.
            now: Unix time.

        Raises:
            Damaged: Nodes of its index are not (any more) in the store.
        """
        path = path.absolute()
        known = self.copy_rows.at(cid, path)
        if known is not None and not known.finished:
            delete_working(self, known)
        with self.transaction():
            if not self.has_nodes(cid):  # a content with the same files was forgotten meanwhile
                raise Damaged(f"a part of the index of {path} was removed: share it again")
            copy = self.copy_rows.share(cid, path, stats, now)
        self.copy_rows.note(copy, now)
        self.open_files.drop(copy.id)
        return copy

    def begin_fetch(
        self,
        cid: Cid,
        destination: Path,
        now: float,
        only: tuple[str, ...] | None = None,
        order: str = "rarest",
    ) -> Copy:
        """Return the copy of `cid` at `destination`, new or as far as an earlier fetch came.

        A finished copy whose files are all in place, and of which no more is wanted than there
        was, is returned as it is.

        Args:
            cid: Of what.
            destination: Where it is to be.
            now: Unix time.
            only: Patterns of what is wanted of it (`choice.py`), besides what was wanted before;
                None = everything.
            order: Which pieces come first: one of `ORDERS`.

        Raises:
            DestinationExists: Something else is, or is being fetched to, there.
            InvalidText: A pattern cannot be.
            NothingMatches: A pattern takes nothing; not known before the index is complete.
        """
        if only is not None:
            Choice(only)
            chosen_of(self, cid, only)
        destination = destination.absolute()
        self.ensure_content(cid, destination.name)
        known = self.copy_rows.at(cid, destination)
        if known is not None and not known.finished:
            check_unfinished(self, known)
        return self.copy_rows.begin_fetch(cid, destination, now, only, order)

    def choose(self, copy_id: int, only: tuple[str, ...] | None, order: str, now: float) -> None:
        """Set what of an unfinished copy is wanted, and in which order it comes."""
        copy = self.copy(copy_id)
        if copy is None or copy.finished:
            raise Misuse(f"copy {copy_id} is not being fetched")
        self.copy_rows.choose(copy, only, order, now)

    def chosen(self, copy_id: int) -> Chosen | None:
        """Return what is wanted of a copy; None = everything, or its index is not complete.

        Raises:
            NothingMatches: A pattern takes nothing.
        """
        copy = self.copy(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        return chosen_of(self, copy.cid, copy.only)

    def copies(self, cid: Cid | None = None) -> list[Copy]:
        """Return all copies (of one content), oldest first."""
        return self.copy_rows.all(cid)

    def copy(self, copy_id: int) -> Copy | None:
        """Return a copy by its id."""
        return self.copy_rows.get(copy_id)

    def pause(self, copy_id: int) -> None:
        """Mark an unfinished copy as paused by its user."""
        self._set_unfinished(copy_id, CopyState.PAUSED)

    def resume(self, copy_id: int) -> None:
        """Let a paused copy be fetched on."""
        self._set_unfinished(copy_id, CopyState.FETCHING)

    def remove_copy(self, copy_id: int, delete_data: bool = False) -> Removed:
        """Forget a copy and delete its working files; the last one takes its content along.

        Args:
            copy_id: Which.
            delete_data: Delete finished or shared files, too, as far as they are unchanged.
        """
        copy = self.copy(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        self.journal.drop(copy_id)
        self.open_files.drop(copy_id)
        removed = Removed((), ())
        if not copy.finished:
            removed = delete_working(self, copy)
        elif delete_data:
            removed = delete_finished(self, copy)
        self.copy_rows.delete(copy_id)
        if not self.copies(copy.cid):
            self.forget(copy.cid)
        return removed

    def check_copy(self, copy_id: int) -> list[str]:
        """Compare a finished copy's files with what was recorded, by stat.

        What is missing or edited is marked (and no longer claimed by `bits`), what came back is
        taken back.

        Returns:
            A sentence for each file newly found missing or changed (at most 100).
        """
        return self.copy_rows.check(copy_id)

    def check_copies(self, ids: Iterable[int]) -> tuple[int, list[str]]:
        """Do the same for several copies, until about 1000 files were looked at.

        Copies that are gone, unfinished or to be hashed again are passed over.

        Returns:
            How many of `ids` were done (at least one), and the sentences.
        """
        sentences: list[str] = []
        done = files = 0
        for copy_id in ids:
            done += 1
            copy = self.copy(copy_id)
            if copy is not None and copy.finished and not copy.recheck:
                sentences += self.copy_rows.check(copy_id)
                files += self.entry_count(copy.cid)
            if files >= CHECK_FILES:
                break
        return done, sentences

    def mark_changed(self, copy_id: int, ordinal: int) -> tuple[int, int]:
        """Mark one file of a finished copy as changed; return its pieces (first, count)."""
        copy = self.copy(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        self.open_files.drop(copy_id, ordinal)
        self.copy_rows.files.mark(copy_id, [ordinal], True)
        self.copy_rows.refresh_reason(copy_id)
        entry = self.entries(copy.cid, ordinal, 1)[0]
        return entry.first_piece, entry.pieces

    def verify(self, copy_id: int) -> Iterator[Verified]:
        """Hash a copy's bytes again and set its bits to what is there; yields every 16 MiB.

        The index must be complete. The iterator may be left early: nothing is changed then but
        the bits of the pieces found wrong so far.
        """
        copy = self.copy(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        return Verification(self, self.copy_rows, self._bits, copy).run()

    # Bits

    def bits(self, copy_id: int) -> bitarray:
        """Return which pieces a copy holds (big-endian), as long as the content has pieces."""
        return self._bits.all(copy_id)

    def chunk_bits(self, copy_id: int, chunk: int) -> bitarray:
        """Return the bits of the 64 Ki pieces from 65 536 `chunk` on (the last: fewer)."""
        return self._bits.chunk(copy_id, chunk)

    def bit_counts(self, copy_id: int) -> list[int]:
        """Return how many pieces of each chunk the copy holds."""
        return self._bits.counts(copy_id)

    def set_bits(self, copy_id: int, pieces: Iterable[int]) -> None:
        """Claim pieces (one durable commit). Their bytes must be durable: `CopyWriter.sync`."""
        self._bits.set(copy_id, pieces)

    def clear_bits(self, copy_id: int, pieces: Iterable[int]) -> None:
        """Take back claims."""
        self._bits.clear(copy_id, pieces)

    # For the writer and reader of copies

    def recorded_file(self, copy_id: int, ordinal: int) -> tuple[FileStat, bool] | None:
        """Return the recorded stat of a copy's file, and whether it is marked as changed."""
        return self.copy_rows.files.get(copy_id, ordinal)

    def recorded_among(
        self, copy_id: int, first: int, count: int
    ) -> dict[int, tuple[FileStat, bool]]:
        """Return the same for the files among `count` entries, by ordinal."""
        return self.copy_rows.files.among(copy_id, first, count)

    def recorded_files(self, copy_id: int) -> Iterator[tuple[Entry, FileStat, bool]]:
        """Yield (entry, recorded stat, marked as changed) of a copy's files, in order."""
        copy = self.copy(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        return self.copy_rows.files.all(copy)

    def record_files(self, copy_id: int, stats: Iterable[tuple[int, FileStat]]) -> None:
        """Remember (ordinal, stat) of files as those whose bytes the bits speak of (one commit)."""
        self.copy_rows.files.record(copy_id, stats)

    def working_inode(self, copy_id: int) -> int | None:
        """Return the inode of the working file or folder that was made for a copy."""
        return self.copy_rows.root_inode(copy_id)

    def set_working(self, copy_id: int, root: FileStat) -> None:
        """Remember the working file or folder that was made for a copy."""
        self.copy_rows.set_root(copy_id, root)

    def lose_working(self, copy_id: int) -> int:
        """Note that the working path is gone; return how many pieces went with it."""
        return self.copy_rows.lose_root(copy_id)

    def held_runs(self, copy_id: int, first: int, count: int) -> list[tuple[int, int]]:
        """Return the runs (first piece, length) of held pieces in a range."""
        return self._bits.runs(copy_id, first, count)

    def entry_of_piece(self, cid: Cid, piece: int) -> Entry | None:
        """Return the file entry that a piece belongs to."""
        return self._index.entry_of_piece(cid, piece)

    def finish_copy(self, copy_id: int) -> None:
        """Say that a fetched copy is in its place, whole and durable; its files' stats stand.

        Its hashes go into the cache, so that sharing it from there reads nothing.
        """
        copy = self.copy(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        if self.entries(copy.cid, 0, 1)[0].kind is EntryKind.FILE:
            with disk_errors(f"looking at {copy.path}"):
                moved = self.disk.stat(copy.path)
            self.record_files(copy_id, [(0, moved)])  # the move set its ctime
        self.copy_rows.finish(copy_id)
        self.open_files.drop(copy_id)
        self.hashes.add_copy(copy_id)

    def _set_unfinished(self, copy_id: int, state: CopyState) -> None:
        copy = self.copy(copy_id)
        if copy is None or copy.finished:
            raise Misuse(f"copy {copy_id} is not being fetched")
        self.copy_rows.set_state(copy_id, state)
