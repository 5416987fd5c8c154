"""Everything that a home remembers, behind one object.

All calls block and may come from any thread; a lock serialises them. The node calls them from
worker threads with one lane for writes. Commits that claim data are durable when the call
returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bitarray import bitarray

from ..wire.ids import Cid
from .filesystem import Disk, FileStat
from .model import (
    Announce,
    Content,
    Copy,
    LocalRun,
    MissingNodes,
    PieceTable,
    Removed,
    Verified,
)

if TYPE_CHECKING:
    from ..wire.walk import Entry
    from .peer_tables import DhtTables, HashCache, PeerTables


class Store:
    """The database of one home, its journal of copies, and the files that they name."""

    problems: list[str]
    """What was found wrong at start (lost files, a damaged database), a sentence each."""
    disk: Disk
    hashes: HashCache
    dht: DhtTables
    peers: PeerTables

    @classmethod
    def open(cls, home: Path, disk: Disk, now: float) -> Store:
        """Open the home's database, mend what can be mended, and look after every copy's place.

        Args:
            home: The home folder; the caller holds its lock.
            disk: Where it and all copies lie.
            now: Unix time in seconds.

        Raises:
            StorageError: The home cannot be read or written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        raise NotImplementedError

    # Index nodes

    def add_nodes(self, nodes: Iterable[tuple[Cid, bytes]]) -> None:
        """Keep index nodes (one commit); the caller has checked each against its CID.

        Add children before parents, or the index counts as complete too early for `has_nodes`.
        """
        raise NotImplementedError

    def node(self, cid: Cid) -> bytes | None:
        """Return an index node's block."""
        raise NotImplementedError

    def has_nodes(self, cid: Cid) -> bool:
        """Return whether the node and all inner nodes below it are kept (a raw leaf: True)."""
        raise NotImplementedError

    def sweep_nodes(self) -> int:
        """Drop nodes that no content and no cached hash leads to; return how many went."""
        raise NotImplementedError

    # Contents and their entries

    def ensure_content(self, cid: Cid, name: str | None = None) -> Content:
        """Return the content, remembering it (and a name for it) if it is new."""
        raise NotImplementedError

    def content(self, cid: Cid) -> Content | None:
        """Return what is known of a content."""
        raise NotImplementedError

    def content_by_key(self, key: bytes) -> Content | None:
        """Return the content with this blinded key (`content_key`)."""
        raise NotImplementedError

    def contents(self) -> list[Content]:
        """Return all contents, oldest first."""
        raise NotImplementedError

    def set_announce(self, cid: Cid, announce: Announce) -> None:
        """Set under which name the DHT is told of a content (a new one: BLINDED)."""
        raise NotImplementedError

    def add_entries(self, cid: Cid, entries: Iterable[Entry]) -> None:
        """Add entries in the order of their ordinals (one commit); known ordinals are skipped."""
        raise NotImplementedError

    def index_complete(self, cid: Cid, size: int | None, pieces: int) -> None:
        """Say that all entries are there; `size` is None for a raw root not yet fetched."""
        raise NotImplementedError

    def learn_size(self, cid: Cid, size: int) -> None:
        """Set the size of a raw root, once its one piece has arrived."""
        raise NotImplementedError

    def entries(self, cid: Cid, first: int = 0, limit: int = 1024) -> list[Entry]:
        """Return up to `limit` entries from ordinal `first` on."""
        raise NotImplementedError

    def entry_count(self, cid: Cid) -> int:
        """Return how many entries are stored."""
        raise NotImplementedError

    def forget(self, cid: Cid) -> None:
        """Forget a content without copies: entries, nodes that nothing else uses, schedule."""
        raise NotImplementedError

    # Pieces

    def piece_table(self, cid: Cid, block: int) -> PieceTable | MissingNodes:
        """Return the pieces [1024 block, 1024 (block + 1)) as far as they exist.

        Raises:
            ContentRefused: A file's nodes do not have the profile's shape.
            KeyError: The content, or that part of its entries, is unknown.
        """
        raise NotImplementedError

    def duplicates(self, cid: Cid, chunk: int) -> list[tuple[int, ...]] | MissingNodes:
        """Return groups of pieces with equal bytes among the 64 Ki pieces of a chunk.

        At most 65 536 pieces are named in all. Empty pieces are left out.
        """
        raise NotImplementedError

    def local_sources(self, copy_id: int, block: int) -> list[LocalRun]:
        """Return runs of a block's pieces that other copies of ours hold (claimed, not checked)."""
        raise NotImplementedError

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
        """
        raise NotImplementedError

    def begin_fetch(self, cid: Cid, destination: Path, now: float) -> Copy:
        """Return the copy of `cid` at `destination`, new or as far as an earlier fetch came.

        A finished copy whose files are all in place is returned as it is.

        Raises:
            DestinationExists: Something else is, or is being fetched to, there.
        """
        raise NotImplementedError

    def copies(self, cid: Cid | None = None) -> list[Copy]:
        """Return all copies (of one content), oldest first."""
        raise NotImplementedError

    def copy(self, copy_id: int) -> Copy | None:
        """Return a copy by its id."""
        raise NotImplementedError

    def pause(self, copy_id: int) -> None:
        """Mark an unfinished copy as paused by its user."""
        raise NotImplementedError

    def resume(self, copy_id: int) -> None:
        """Let a paused copy be fetched on."""
        raise NotImplementedError

    def remove_copy(self, copy_id: int, delete_data: bool = False) -> Removed:
        """Forget a copy and delete its working files; the last one takes its content along.

        Args:
            copy_id: Which.
            delete_data: Delete finished or shared files, too, as far as they are unchanged.
        """
        raise NotImplementedError

    def check_copy(self, copy_id: int) -> list[str]:
        """Compare a finished copy's files with what was recorded, by stat.

        What is missing or edited is marked (and no longer claimed by `bits`), what came back is
        taken back.

        Returns:
            A sentence for each file newly found missing or changed (at most 100).
        """
        raise NotImplementedError

    def mark_changed(self, copy_id: int, ordinal: int, why: str) -> tuple[int, int]:
        """Mark one file of a finished copy as changed; return its pieces (first, count)."""
        raise NotImplementedError

    def verify(self, copy_id: int) -> Iterator[Verified]:
        """Hash a copy's bytes again and set its bits to what is there; yields every 16 MiB.

        The index must be complete. The iterator may be left early: nothing is changed then but
        the bits of the pieces found wrong so far.
        """
        raise NotImplementedError

    # Bits

    def bits(self, copy_id: int) -> bitarray:
        """Return which pieces a copy holds (big-endian), as long as the content has pieces."""
        raise NotImplementedError

    def chunk_bits(self, copy_id: int, chunk: int) -> bitarray:
        """Return the bits of the 64 Ki pieces from 65 536 `chunk` on (the last: fewer)."""
        raise NotImplementedError

    def bit_counts(self, copy_id: int) -> list[int]:
        """Return how many pieces of each chunk the copy holds."""
        raise NotImplementedError

    def set_bits(self, copy_id: int, pieces: Iterable[int]) -> None:
        """Claim pieces (one durable commit). Their bytes must be durable: `CopyWriter.sync`."""
        raise NotImplementedError

    def clear_bits(self, copy_id: int, pieces: Iterable[int]) -> None:
        """Take back claims."""
        raise NotImplementedError
