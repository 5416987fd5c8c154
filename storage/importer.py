"""Sharing in place: hash what lies at a path and register it, without copying a byte.

Three passes: look at everything (`scanning.py`), hash what the cache does not know
(`hashing.py`), then build folders from the leaves up and list the entries in the order of a walk.
Index nodes go to the store in batches, children first. The content is registered at the very end,
so a failure or a cancelled import leaves nothing behind but hashes that save work the next time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from ..wire.blocks import CHUNK, cid_from, pieces_of
from ..wire.directory import build_in_order
from ..wire.errors import ContentRefused
from ..wire.ids import DAG_PB, RAW, SHA2_256, Cid
from ..wire.immutable import immutable
from ..wire.leaves import file_tsize
from ..wire.unixfs import Built, Named, build_symlink
from ..wire.walk import Entry, EntryKind
from .filesystem import Disk, FileStat
from .hashing import BATCH_BYTES, BATCH_FILES, Lanes, LargeFile, Place, hash_batch, worker_count
from .model import Copy
from .scanning import (
    Found,
    FoundFile,
    FoundFolder,
    FoundLink,
    ImportCancelled,
    Scan,
    Scanner,
    Unshareable,
)
from .store import Store

__all__ = ["ImportCancelled", "ImportOptions", "Imported", "Progress", "Unshareable", "hash_path"]

T = TypeVar("T")

Progress = Callable[[int, int, int], None]
"""Takes bytes done, bytes in all, files done; called after each piece of work."""

NODE_BATCH: Final = 4 << 20
"""Bytes of index nodes that wait for one commit."""

HASHED_BATCH: Final = 4096
"""Hashed files that wait for one commit."""

ENTRY_BATCH: Final = 16_384
"""Entries of one commit."""

LOOKUP_BATCH: Final = 512
"""Files that are looked up in the hash cache at once."""

RACY_SECONDS: Final = 0.02
"""A file changed later than this before the import began is not cached: a further change within
one tick of the file system's clock would not show in its stat (Linux: 4 to 10 ms)."""


@immutable
class ImportOptions:
    """How to share."""

    hidden: bool = True
    """Take entries whose name begins with a dot; without, the CID is that of a default Kubo."""
    skip_special: bool = False
    """Leave out FIFOs, sockets and devices instead of refusing."""
    hash_code: int = SHA2_256
    """Hash function of leaves and nodes: `SHA2_256` or `BLAKE3`."""
    private: Path | None = None
    """A folder that must not be shared with what lies around it: the home, with its key."""
    workers: int = 0
    """Hashing threads; 0 = one for each core, 1 = none but the caller's."""


@immutable
class Imported:
    """What was shared."""

    cid: Cid
    name: str
    """The last component of the path."""
    path: Path
    """The absolute path."""
    size: int
    """Bytes of all files."""
    pieces: int
    files: int
    entries: int
    """Files, folders and symlinks, the root included."""
    skipped: tuple[str, ...]
    """Special files that were left out, by their paths below the root (at most 1000)."""
    copy: Copy | None
    """None if only the hash was asked for."""


def hash_path(
    path: Path,
    store: Store | None,
    *,
    disk: Disk,
    now: float,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Imported:
    """Hash the file or folder at `path` and register it as a shared copy.

    Blocks for as long as it takes, so it belongs into a thread of its own (not the store's lane);
    the callbacks run in that thread.

    Args:
        path: What to share; its last component must not be a symlink.
        store: Where to register it; None only hashes and writes nothing anywhere.
        disk: Where the path lies.
        now: Unix time in seconds.
        options: What to take and how to hash.
        progress: Told how far it has come.
        cancelled: Asked now and then; True ends the import.

    Raises:
        StorageError: Something is missing, unreadable, changing or not to be shared; nothing was
            registered.
        ImportCancelled: `cancelled` said so.
    """
    work = _Import(
        Path(os.path.abspath(path)),
        store,
        disk,
        now,
        options or ImportOptions(),
        progress or (lambda done, total, files: None),
        cancelled or (lambda: False),
    )
    return work.run()


class _Import:
    """One import under way."""

    def __init__(
        self,
        path: Path,
        store: Store | None,
        disk: Disk,
        now: float,
        options: ImportOptions,
        progress: Progress,
        cancelled: Callable[[], bool],
    ) -> None:
        self._path = path
        self._store = store
        self._disk = disk
        self._now = now
        self._options = options
        self._code = options.hash_code
        self._progress = progress
        self._cancelled = cancelled
        self._scan: Scan
        self._done_bytes = 0
        self._done_files = 0
        self._size = 0
        self._pieces = 0
        self._nodes: list[tuple[Cid, bytes]] = []
        self._node_bytes = 0
        self._hashed: list[tuple[FileStat, Cid]] = []

    def run(self) -> Imported:
        options = self._options
        self._scan = Scanner(
            self._path,
            self._disk,
            hidden=options.hidden,
            skip_special=options.skip_special,
            private=options.private,
            cancelled=self._cancelled,
        ).run()
        self._tell()
        lanes = Lanes(options.workers or worker_count())
        try:
            self._hash_all(lanes)
            lanes.finish()
        finally:
            lanes.close()
        try:
            root = self._build(self._scan.root)
        except ContentRefused as refused:
            raise Unshareable(f"{self._path}: {refused}") from refused
        self._flush()
        return self._register(root.cid)

    # Hashing

    def _hash_all(self, lanes: Lanes) -> None:
        """Bring every file's digest about, from the cache or through the lanes."""
        batch: list[tuple[Place, FoundFile]] = []
        batch_bytes = 0
        for place, file in self._unknown_files():
            size = file.size
            if size > CHUNK:
                self._hash_large(lanes, place, file)
                continue
            batch.append((place, file))
            batch_bytes += size
            if len(batch) == BATCH_FILES or batch_bytes >= BATCH_BYTES:
                self._hash_batch(lanes, batch)
                batch, batch_bytes = [], 0
        if batch:
            self._hash_batch(lanes, batch)

    def _unknown_files(self) -> Iterator[tuple[Place, FoundFile]]:
        """Give out the files that the cache does not know; fill in the others."""
        base = str(self._path.parent)
        for group in _groups(_files(self._scan.root, ()), LOOKUP_BATCH):
            known: list[Cid | None] = [None] * len(group)
            if self._store is not None:
                stats = [file.stat for _, file in group]
                known = self._store.hashes.find(stats, self._code)
            for (names, file), cid in zip(group, known, strict=True):
                if cid is None:
                    yield Place(base, names), file
                else:
                    file.digest = cid.multihash[2:]
                    self._count(file.size)
                    self._done_bytes += file.size
            self._tell()

    def _hash_batch(self, lanes: Lanes, batch: list[tuple[Place, FoundFile]]) -> None:
        places = [(place, file.stat) for place, file in batch]

        def done(results: list[tuple[FileStat, bytes] | None]) -> None:
            for (place, file), result in zip(batch, results, strict=True):
                if result is not None:
                    self._note(file, *result)
                else:  # it has grown beyond one leaf since it was looked at
                    large = LargeFile(self._scan.parent, place, self._code, self._emit)
                    for run in large.runs():
                        self._done_bytes += large.take(run())
                    self._note_large(file, large)
            self._tell()

        lanes.run(lambda: hash_batch(self._scan.parent, places, self._code), done)

    def _hash_large(self, lanes: Lanes, place: Place, file: FoundFile) -> None:
        large = LargeFile(self._scan.parent, place, self._code, self._emit)

        def took(digests: list[bytes] | None) -> None:
            self._done_bytes += large.take(digests)
            self._tell()

        for run in large.runs():
            lanes.run(run, took)
        lanes.run(lambda: None, lambda _: self._note_large(file, large))

    def _note_large(self, file: FoundFile, large: LargeFile) -> None:
        stat, built = large.finish()
        self._note(file, stat, built.cid.multihash[2:], counted=True)

    def _note(self, file: FoundFile, stat: FileStat, digest: bytes, counted: bool = False) -> None:
        """Keep a file's hash."""
        file.stat = stat
        file.digest = digest
        self._count(stat.size)
        self._done_bytes += 0 if counted else stat.size
        if self._store is not None and stat.ctime_ns < (self._now - RACY_SECONDS) * 1e9:
            self._hashed.append((stat, self._file_cid(file)))
            if len(self._hashed) >= HASHED_BATCH:
                self._flush()

    def _count(self, size: int) -> None:
        self._size += size
        self._pieces += pieces_of(size)
        self._done_files += 1

    def _tell(self) -> None:
        if self._cancelled():
            raise ImportCancelled
        self._progress(self._done_bytes, self._scan.size, self._done_files)

    # Building

    def _build(self, found: Found) -> Named:
        """Build the nodes of an entry and all below it (at most 32 levels)."""
        match found:
            case FoundFile():
                built = Built(self._file_cid(found), file_tsize(found.size))
            case FoundLink():
                built = build_symlink(found.target, self._emit, self._code)
                found.cid = built.cid
            case FoundFolder():
                children = {child.name.encode(): child for child in found.children}
                named = map(self._build, found.children)
                built, ordered = build_in_order(named, self._emit, self._code)
                found.children = [children[child.name] for child in ordered]
                found.cid = built.cid
        return Named(found.name.encode(), built.cid, built.tsize)

    def _file_cid(self, file: FoundFile) -> Cid:
        assert file.digest is not None
        return cid_from(RAW if file.size <= CHUNK else DAG_PB, self._code, file.digest)

    def _emit(self, cid: Cid, block: bytes) -> None:
        if self._store is not None:
            self._nodes.append((cid, block))
            self._node_bytes += len(block)
            if self._node_bytes >= NODE_BATCH:
                self._flush()

    def _flush(self) -> None:
        """Hand nodes and hashes to the store, in this order: a cached hash implies its nodes."""
        if self._store is None:
            return
        nodes, hashed = self._nodes, self._hashed
        self._nodes, self._hashed, self._node_bytes = [], [], 0
        if nodes:
            self._store.add_nodes(nodes)
        if hashed:
            self._store.hashes.add(hashed, self._now, self._code)

    # Registering

    def _register(self, cid: Cid) -> Imported:
        scan = self._scan
        copy: Copy | None = None
        if self._store is not None:
            store = self._store
            content = store.ensure_content(cid, scan.root.name)
            if not content.index_complete:
                for group in _groups(self._entries(), ENTRY_BATCH):
                    store.add_entries(cid, group)
                store.index_complete(cid, self._size, self._pieces)
            elif content.size is None:
                store.learn_size(cid, self._size)
            walk = enumerate(_walk(self._scan.root, ()))
            stats = ((at, found.stat) for at, (_, found) in walk if isinstance(found, FoundFile))
            copy = store.add_shared_copy(cid, self._path, stats, self._now)
        return Imported(
            cid,
            scan.root.name,
            self._path,
            self._size,
            self._pieces,
            scan.files,
            scan.entries,
            tuple(scan.skipped),
            copy,
        )

    def _entries(self) -> Iterator[Entry]:
        """Give out the entries in the order of a walk."""
        piece = 0
        for ordinal, (names, found) in enumerate(_walk(self._scan.root, ())):
            path = "/".join(names[1:])
            match found:
                case FoundFile():
                    cid, size = self._file_cid(found), found.size
                    pieces = pieces_of(size)
                    yield Entry(ordinal, path, EntryKind.FILE, cid, size, piece, pieces)
                    piece += pieces
                case FoundLink(_, target, link_cid):
                    assert link_cid is not None
                    kind = EntryKind.SYMLINK
                    yield Entry(ordinal, path, kind, link_cid, 0, piece, 0, target)
                case FoundFolder(_, _, folder_cid):
                    assert folder_cid is not None
                    kind = EntryKind.DIRECTORY
                    yield Entry(ordinal, path, kind, folder_cid, 0, piece, 0)


def _walk(found: Found, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Found]]:
    """Give out an entry and all below it, each with its names from the root's own on."""
    names = (*above, found.name)
    yield names, found
    if isinstance(found, FoundFolder):
        for child in found.children:
            yield from _walk(child, names)


def _files(found: Found, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], FoundFile]]:
    for names, entry in _walk(found, above):
        if isinstance(entry, FoundFile):
            yield names, entry


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of at most `size`."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group
