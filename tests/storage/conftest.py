from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shoal.simulations.disk import MemoryDisk
from shoal.storage.disk import Disk, RealDisk
from shoal.storage.model import PIECE_BYTES
from shoal.storage.store import Store
from shoal.storage.writer import CopyWriter
from shoal.wire.directory import build_directory
from shoal.wire.ids import Cid
from shoal.wire.unixfs import Built, Named, build_file, build_symlink
from shoal.wire.walk import Entry, EntryKind, Walk

PIECE = 1 << 20
HOME = Path("/home")


@dataclass
class Link:
    target: str


@dataclass
class Content:
    """A content made of a nested mapping: names to bytes, links or mappings."""

    cid: Cid
    entries: list[Entry]
    nodes: dict[Cid, bytes]
    files: dict[int, bytes]
    pieces: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))

    def place(self, piece: int) -> tuple[int, int]:
        """Return (ordinal, offset) of a piece."""
        for entry in self.entries:
            if entry.first_piece <= piece < entry.first_piece + entry.pieces:
                return entry.ordinal, (piece - entry.first_piece) * PIECE
        raise IndexError(piece)


class Maker:
    Link = Link

    def __call__(self, tree: Any) -> Content:
        nodes: dict[Cid, bytes] = {}
        raw: dict[Cid, bytes] = {}
        built = self._build(tree, nodes, raw)
        walk = Walk(built.cid)
        entries: list[Entry] = []
        while not walk.over:
            for cid in walk.wanted():
                walk.feed(cid, nodes[cid])
            entries += walk.drain()
        files = {entry.ordinal: raw[entry.cid] for entry in entries if entry.kind is EntryKind.FILE}
        content = Content(built.cid, entries, nodes, files)
        for data in files.values():
            content.pieces += [data[at : at + PIECE] for at in range(0, max(1, len(data)), PIECE)]
        return content

    def _build(self, tree: Any, nodes: dict[Cid, bytes], raw: dict[Cid, bytes]) -> Built:
        emit = nodes.__setitem__
        if isinstance(tree, bytes):
            leaves = [tree[at : at + PIECE] for at in range(0, max(1, len(tree)), PIECE)]
            built = build_file([(hashlib.sha256(x).digest(), len(x)) for x in leaves], emit)
            raw[built.cid] = tree
            return built
        if isinstance(tree, Link):
            return build_symlink(tree.target, emit)
        children = []
        for name, child in tree.items():
            made = self._build(child, nodes, raw)
            children.append(Named(name.encode(), made.cid, made.tsize))
        return build_directory(children, emit)


@pytest.fixture
def make_content() -> Maker:
    return Maker()


@pytest.fixture
def write_tree() -> Callable[[Path, Any], None]:
    def write(path: Path, tree: Any) -> None:
        if isinstance(tree, bytes):
            path.write_bytes(tree)
        elif isinstance(tree, Link):
            path.symlink_to(tree.target)
        else:
            path.mkdir()
            for name, child in tree.items():
                write(path / name, child)

    return write


@pytest.fixture
def read_tree() -> Callable[[Disk, Path], Any]:
    """Return what is at a path, in the form that contents are made of (a link: its target)."""

    def read(disk: Disk, path: Path) -> Any:
        folder = disk.folder(path.parent)
        return _read(folder, path.name)

    def _read(folder: Any, name: str) -> Any:
        stat = folder.stat(name)
        match stat.kind.name:
            case "FILE":
                data = bytearray(stat.size)
                assert folder.open(name).preadv([data], 0) == stat.size
                return bytes(data)
            case "LINK":
                return Link(folder.read_link(name))
            case _:
                inner = folder.folder(name)
                return {child: _read(inner, child) for child in sorted(inner.names())}

    return read


class Lab:
    """A store on a disk, and the steps of a fetch in short."""

    def __init__(self, disk: Disk, home: Path) -> None:
        self.disk = disk
        self.home = home
        self.now = 1000.0
        disk.folder(home, 0o700)
        self.store = Store.open(home, disk, self.now)

    def reopen(self) -> Store:
        self.store.close()
        self.store = Store.open(self.home, self.disk, self.now)
        return self.store

    def learn(self, content: Content) -> None:
        store = self.store
        store.ensure_content(content.cid)
        store.add_nodes(content.nodes.items())
        store.add_entries(content.cid, content.entries)
        unknown = content.entries[0].size < 0
        store.index_complete(content.cid, None if unknown else content.size, len(content.pieces))

    def begin(self, content: Content, path: Path) -> CopyWriter:
        copy = self.store.begin_fetch(content.cid, path, self.now)
        self.learn(content)
        writer = CopyWriter(self.store, copy.id)
        writer.prepare()
        return writer

    def copy_id(self, content: Content) -> int:
        return self.store.copies(content.cid)[-1].id

    def write(self, writer: CopyWriter, content: Content, pieces: Any) -> None:
        """Write, sync and claim pieces."""
        pieces = list(pieces)
        for piece in pieces:
            (ordinal, offset), data = content.place(piece), content.pieces[piece]
            if not offset and len(data) < PIECE_BYTES:  # as a fetch does with small files
                assert list(writer.write_files([(ordinal, memoryview(data))])) == [0]
            else:
                writer.write(ordinal, offset, data)
            if content.entries[0].size < 0:
                self.store.learn_size(content.cid, len(content.pieces[0]))
        writer.sync()
        self.store.set_bits(self.copy_id(content), pieces)

    def fetch(self, content: Content, path: Path, **options: Any) -> int:
        """Fetch all of a content; return the copy's id."""
        writer = self.begin(content, path)
        full = [piece for piece, data in enumerate(content.pieces) if data]
        self.write(writer, content, full)
        writer.finish(**options)
        return self.copy_id(content)

    def share(self, content: Content, path: Path) -> int:
        """Register what lies at a path as a shared copy; return its id."""
        self.learn(content)
        if content.entries[0].size < 0:
            self.store.learn_size(content.cid, len(content.pieces[0]))
        stats = [
            (entry.ordinal, self.disk.stat(path / entry.path if entry.path else path))
            for entry in content.entries
            if entry.kind is EntryKind.FILE
        ]
        return self.store.add_shared_copy(content.cid, path, stats, self.now).id

    def put(self, path: Path, tree: Mapping[str, Any] | bytes) -> None:
        """Write files without the store knowing."""
        folder = self.disk.folder(path.parent, 0o700)
        self._put(folder, path.name, tree)

    def _put(self, folder: Any, name: str, tree: Any) -> None:
        if isinstance(tree, bytes):
            folder.create(name).pwrite(tree, 0)
        elif isinstance(tree, Link):
            folder.make_link(name, tree.target)
        else:
            inner = folder.make_folder(name)
            for child, below in tree.items():
                self._put(inner, child, below)


@pytest.fixture
def memory() -> Iterator[MemoryDisk]:
    disk = MemoryDisk()
    yield disk
    disk.close()


@pytest.fixture
def lab(memory: MemoryDisk) -> Iterator[Lab]:
    """A store on a disk in memory."""
    lab = Lab(memory, HOME)
    yield lab
    lab.store.close()


@pytest.fixture
def real_lab(tmp_path: Path) -> Iterator[Lab]:
    """A store on the machine's disk."""
    lab = Lab(RealDisk(), tmp_path / "home")
    yield lab
    lab.store.close()


@pytest.fixture
def open_lab() -> Iterator[Callable[[Disk, Path], Lab]]:
    """Open a store on any disk; it is closed at the end."""
    labs: list[Lab] = []

    def make(disk: Disk, home: Path = HOME) -> Lab:
        labs.append(Lab(disk, home))
        return labs[-1]

    yield make
    for lab in labs:
        lab.store.close()
