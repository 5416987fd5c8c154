"""Homes and folders that are large in one way, made without the work that they would take."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from shoal.storage.disk import RealDisk
from shoal.storage.home import Home
from shoal.storage.model import PIECE_BYTES, Copy
from shoal.storage.store import Store
from shoal.wire.blocks import cid_from
from shoal.wire.directory import build_directory
from shoal.wire.ids import RAW, SHA2_256, Cid
from shoal.wire.unixfs import Built, Named, build_file
from shoal.wire.walk import Entry, EntryKind

FILE_BYTES = 1 << 40
"""Of one file of a large content: a file system may hold at most 16 TiB in one."""

BARE_FILES = 2000
"""Made to see what the disk and the system alone take for one."""

SMALL_BYTES = 100
"""Of each of many contents."""


def write_files(folder: Path, count: int, size: int, per_folder: int) -> None:
    """Make `count` files of random bytes."""
    for first in range(0, count, per_folder):
        part = folder / f"part-{first // per_folder:04}"
        part.mkdir(parents=True)
        for number in range(first, min(count, first + per_folder)):
            (part / f"file-{number:07}.bin").write_bytes(os.urandom(size))


def create_microseconds(folder: Path) -> float:
    """Return what one small file costs at this place, written by a bare loop.

    ext4 does not take an inode again within minutes of its being freed, and looks at each such
    one: where many files were just removed, making one costs ten times as much.
    """
    data = os.urandom(4096)
    place = folder / "bare"
    place.mkdir()
    names = [place / str(number) for number in range(BARE_FILES)]
    began = time.perf_counter()
    for name in names:
        with name.open("xb", buffering=0) as file:
            file.write(data)
    return (time.perf_counter() - began) / BARE_FILES * 1e6


@contextmanager
def _store(home: Path) -> Iterator[Store]:
    """Open a home's store, with nothing synced: it is made for a benchmark."""
    disk = RealDisk()
    Home.open(home, disk).close()
    with patch("os.fdatasync"), patch("os.fsync"):
        store = Store.open(home, disk, time.time(), "abcdefgh-")
        try:
            yield store
        finally:
            store.close()


def fill_index(home: Path, data: Path, tebibytes: int, fetch_to: Path | None = None) -> str:
    """Make a home that holds a content of so many TiB at `data`, or fetches it; return the CID."""
    zeros = hashlib.sha256(bytes(PIECE_BYTES)).digest()
    nodes: dict[Cid, bytes] = {}
    pieces = FILE_BYTES // PIECE_BYTES
    leaves = ((zeros, PIECE_BYTES) for _ in range(pieces))
    file = build_file(leaves, nodes.__setitem__)
    names = [f"disk-{number:03}.img" for number in range(tebibytes)]
    root = build_directory(
        [Named(name.encode(), file.cid, file.tsize) for name in names], nodes.__setitem__
    )
    entries = [Entry(0, "", EntryKind.DIRECTORY, root.cid, 0, 0, 0)]
    for number, name in enumerate(names):
        first = number * pieces
        entries.append(Entry(number + 1, name, EntryKind.FILE, file.cid, FILE_BYTES, first, pieces))
    with _store(home) as store:
        store.add_nodes(nodes.items())
        store.ensure_content(root.cid, "large")
        store.add_entries(root.cid, entries)
        store.index_complete(root.cid, tebibytes * FILE_BYTES, tebibytes * pieces)
        if fetch_to is not None:
            store.begin_fetch(root.cid, fetch_to, time.time())
        else:
            data.mkdir()
            for name in names:
                with (data / name).open("wb") as made:
                    made.truncate(FILE_BYTES)
            stats = [(e.ordinal, store.disk.stat(data / e.path)) for e in entries[1:]]
            store.add_shared_copy(root.cid, data, stats, time.time())
    return str(root.cid)


def fill_contents(home: Path, data: Path, count: int) -> None:
    """Make a home that shares `count` small files at `data`, each a content of its own."""
    data.mkdir()
    now = time.time()
    with _store(home) as store, store.transaction():
        for number in range(count):
            path = data / f"content-{number:06}.bin"
            path.write_bytes(os.urandom(SMALL_BYTES))
            _share_small(store, path, now)


def _share_small(store: Store, path: Path, now: float) -> Copy:
    digest = hashlib.sha256(path.read_bytes()).digest()
    cid = Built(cid_from(RAW, SHA2_256, digest), SMALL_BYTES).cid
    store.ensure_content(cid, path.name)
    store.add_entries(cid, [Entry(0, "", EntryKind.FILE, cid, SMALL_BYTES, 0, 1)])
    store.index_complete(cid, SMALL_BYTES, 1)
    return store.add_shared_copy(cid, path, [(0, store.disk.stat(path))], now)
