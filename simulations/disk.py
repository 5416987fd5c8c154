"""A disk in memory, which can be full, fail, be slow, and lose what was not synced.

It keeps two states: what programs see, and what a power cut would leave. Names become durable when
their folder is synced, bytes when their file is; `crash` goes back to the durable state, with a
part of the newer writes if a source of chance is given (a torn write). It passes the same contract
test as the machine's disk.
"""

from __future__ import annotations

import errno
import itertools
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from ..storage.filesystem import DiskFile, FileKind, FileStat, Folder

MAX_LINKS: Final = 40
"""Symbolic links followed in one path, as in Linux."""

_NUMBERS = itertools.count(1)


class Chance(Protocol):
    """A source of chance, such as `random.Random`."""

    def random(self) -> float:
        """Return a number from 0 to 1."""
        ...


@dataclass(eq=False, slots=True)
class _Node:
    inode: int
    kind: FileKind
    mtime: int
    ctime: int
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    names: dict[str, _Node] = field(default_factory=dict)
    durable_names: dict[str, _Node] = field(default_factory=dict)
    target: str = ""
    locked_by: MemoryFile | None = None


class MemoryDisk:
    """A disk in memory; see the top of the file.

    Attributes:
        capacity: Bytes that fit; None = no end.
        on_operation: Called before each operation with its name (`pwrite`, `fdatasync`, `rename`,
            ...) and the file's name, and before each statement of a database (`sql` and the
            statement); what it raises (an OSError, or an error of sqlite3) is the outcome.
        bytes_per_second: For `delay`; None = infinitely fast.
        delay: Seconds that the operations so far would have taken; whoever models a slow disk
            waits for them and sets it to 0.
    """

    def __init__(self, capacity: int | None = None, ignore_case: bool = False) -> None:
        self.capacity = capacity
        self.on_operation: Callable[[str, str], None] | None = None
        self.bytes_per_second: float | None = None
        self.delay = 0.0
        self.ignore_case = ignore_case
        self._ticks = itertools.count(1_000_000_000)
        self._inodes = itertools.count(2)
        self._era = 0
        self._number = next(_NUMBERS)
        self._databases: dict[Path, list[sqlite3.Connection]] = {}
        self._root = self._node(FileKind.FOLDER)

    def folder(self, path: Path, create_mode: int | None = None) -> MemoryFolder:
        """As `Disk.folder`."""
        node = self._root
        place: list[_Node] = []
        ahead = list(reversed(PurePosixPath("/", path).parts[1:]))
        links = 0
        while ahead:
            name = ahead.pop()
            if name == "..":
                node = place.pop() if place else self._root
                continue
            child = node.names.get(self.folded(node, name))
            if child is None and create_mode is not None:
                child = self._node(FileKind.FOLDER)
                node.names[name] = child
                node.durable_names[name] = child
            if child is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            if child.kind is FileKind.LINK:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
                if child.target.startswith("/"):
                    node, place = self._root, []
                ahead += [p for p in reversed(PurePosixPath(child.target).parts) if p != "/"]
                continue
            if child.kind is not FileKind.FOLDER:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
            place.append(node)
            node = child
        return MemoryFolder(self, node)

    def stat(self, path: Path) -> FileStat:
        """As `Disk.stat`."""
        path = Path("/", path)
        parent = self.folder(path.parent)
        return parent.stat(path.name) if path.name else parent.fstat()

    def connect_database(self, path: Path) -> sqlite3.Connection:
        """As `Disk.connect_database`; what was committed outlives the connection and `crash`."""
        name = f"file:shoal-{self._number}-{path}?mode=memory&cache=shared"
        kept = self._databases.setdefault(path, [])
        if not kept:
            kept.append(sqlite3.connect(name, uri=True, check_same_thread=False))
        connection = sqlite3.connect(
            name,
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=0.0,
            factory=_Watched,
        )
        connection.disk = self
        kept.append(connection)
        return connection

    def close(self) -> None:
        """Free the databases."""
        for connections in self._databases.values():
            for connection in connections:
                connection.close()
        self._databases.clear()

    def crash(self, chance: Chance | None = None) -> None:
        """Cut the power: all handles are dead, only what is durable is left.

        With `chance` some of the writes since a file's last sync are kept, the last one in part.
        """
        self._era += 1
        for connections in self._databases.values():
            while len(connections) > 1:
                connections.pop().close()
        for node in self._nodes():
            node.locked_by = None
            if node.kind is FileKind.FILE:
                node.data = self._after_cut(node, chance)
                node.durable, node.writes = bytes(node.data), []
            node.names = dict(node.durable_names)

    def after_power_cut(self, chance: Chance | None = None) -> MemoryDisk:
        """Return the disk that a power cut now would leave; this one goes on (see `crash`)."""
        other = MemoryDisk(self.capacity, self.ignore_case)
        copied: dict[int, _Node] = {}
        other._root = other._durable_copy(self._root, chance, copied)
        other._inodes = itertools.count(max(copied) + 1)
        other._ticks = itertools.count(next(self._ticks))
        for path, connections in self._databases.items():
            if connections:
                connection = other.connect_database(path)
                connections[0].backup(connection)
                other._databases[path].remove(connection)
                connection.close()
        return other

    def _durable_copy(self, node: _Node, chance: Chance | None, copied: dict[int, _Node]) -> _Node:
        if node.inode in copied:
            return copied[node.inode]
        copy = copied[node.inode] = _Node(node.inode, node.kind, node.mtime, node.ctime)
        copy.target = node.target
        copy.data = self._after_cut(node, chance)
        copy.durable = bytes(copy.data)
        for name, child in node.durable_names.items():
            copy.names[name] = self._durable_copy(child, chance, copied)
        copy.durable_names = dict(copy.names)
        return copy

    def _after_cut(self, node: _Node, chance: Chance | None) -> bytearray:
        """Return what is left of a file: what is durable, and perhaps parts of newer writes."""
        data = bytearray(node.durable)
        for offset, written in node.writes:
            if chance is not None and chance.random() < 0.5:
                self._patch(data, written[: int(len(written) * chance.random())], offset)
        return data

    def drop_unsynced(self) -> None:
        """Forget what was not synced, as Linux does with pages that it could not write."""
        for node in self._nodes():
            if node.kind is FileKind.FILE:
                node.data[:] = node.durable[: len(node.data)].ljust(len(node.data), b"\0")
                node.writes = []

    def used(self) -> int:
        """Return the bytes of all files."""
        return sum(len(node.data) for node in self._nodes())

    # For the handles

    def begin(self, operation: str, name: str, era: int, size: int = 0) -> None:
        """Let the faults have their way before an operation."""
        if era != self._era:
            raise OSError(errno.EBADF, "the power was cut")
        if self.bytes_per_second:
            self.delay += size / self.bytes_per_second
        if self.on_operation is not None:
            self.on_operation(operation, name)

    def folded(self, node: _Node, name: str) -> str:
        """Return the name under which a folder holds `name`."""
        if self.ignore_case and name not in node.names:
            return next((n for n in node.names if n.casefold() == name.casefold()), name)
        return name

    def write(self, node: _Node, data: bytes, offset: int) -> None:
        """Write as much as fits; OSError if that is not all."""
        room = len(data)
        if self.capacity is not None:
            room = self.capacity - self.used() + len(node.data) - offset
        kept = data[: max(0, room)]
        self._patch(node.data, kept, offset)
        node.writes.append((offset, kept))
        node.mtime = node.ctime = next(self._ticks)
        if len(kept) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @staticmethod
    def _patch(into: bytearray, data: bytes, offset: int) -> None:
        if data and len(into) < offset:
            into.extend(bytes(offset - len(into)))
        into[offset : offset + len(data)] = data

    def touch(self, node: _Node) -> None:
        """Set the time of the last change."""
        node.mtime = node.ctime = next(self._ticks)

    def sync_all(self) -> None:
        """Make everything durable."""
        for node in self._nodes():
            settle(node)

    def stat_of(self, node: _Node) -> FileStat:
        """Return a node's stat."""
        return FileStat(node.kind, 1, node.inode, len(node.data), node.mtime, node.ctime)

    def new(self, kind: FileKind) -> _Node:
        """Return a new node."""
        return self._node(kind)

    @property
    def era(self) -> int:
        """How often the power was cut."""
        return self._era

    def _node(self, kind: FileKind) -> _Node:
        now = next(self._ticks)
        return _Node(next(self._inodes), kind, now, now)

    def _nodes(self) -> Iterator[_Node]:
        seen: set[int] = set()
        ahead = [self._root]
        while ahead:
            node = ahead.pop()
            if node.inode not in seen:
                seen.add(node.inode)
                yield node
                ahead += [*node.names.values(), *node.durable_names.values()]


def settle(node: _Node) -> None:
    """Make what a node holds durable."""
    node.durable, node.writes = bytes(node.data), []
    node.durable_names = dict(node.names)


class _Watched(sqlite3.Connection):
    """A connection whose statements can be made to fail."""

    disk: MemoryDisk | None = None

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.disk is not None and self.disk.on_operation is not None:
            self.disk.on_operation("sql", sql)
        return super().execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.disk is not None and self.disk.on_operation is not None:
            self.disk.on_operation("sql", sql)
        return super().executemany(sql, *values)


class MemoryFile:
    """An open file; see `DiskFile`."""

    def __init__(self, disk: MemoryDisk, node: _Node, name: str) -> None:
        self._disk = disk
        self._node = node
        self._name = name
        self._era = disk.era

    def _begin(self, operation: str, size: int = 0) -> None:
        self._disk.begin(operation, self._name, self._era, size)

    def preadv(
        self, buffers: Sequence[memoryview | bytearray], offset: int, nowait: bool = False
    ) -> int:
        """As `DiskFile.preadv`."""
        self._begin("preadv", sum(len(buffer) for buffer in buffers))
        done = 0
        for buffer in buffers:
            part = self._node.data[offset + done : offset + done + len(buffer)]
            buffer[: len(part)] = part
            done += len(part)
        return done

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """As `DiskFile.pwrite`."""
        self._begin("pwrite", len(data))
        self._disk.write(self._node, bytes(data), offset)

    def pwritev(self, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        """As `DiskFile.pwritev`."""
        for part in parts:
            self.pwrite(part, offset)
            offset += len(part)

    def fdatasync(self) -> None:
        """As `DiskFile.fdatasync`."""
        self._begin("fdatasync")
        settle(self._node)

    def fstat(self) -> FileStat:
        """As `DiskFile.fstat`."""
        self._begin("fstat")
        return self._disk.stat_of(self._node)

    def truncate(self, size: int) -> None:
        """As `DiskFile.truncate`; durable at once, for simplicity."""
        self._begin("truncate")
        data = self._node.data
        data.extend(bytes(max(0, size - len(data))))
        if len(data) != size:
            del data[size:]
        self._disk.touch(self._node)
        settle(self._node)

    def lock(self) -> bool:
        """As `DiskFile.lock`."""
        self._begin("lock")
        if self._node.locked_by not in (None, self):
            return False
        self._node.locked_by = self
        return True

    def close(self) -> None:
        """As `DiskFile.close`."""
        if self._node.locked_by is self:
            self._node.locked_by = None
        self._era = -1


class MemoryFolder:
    """An open directory; see `Folder`."""

    def __init__(self, disk: MemoryDisk, node: _Node) -> None:
        self._disk = disk
        self._node = node
        self._era = disk.era

    def names(self) -> list[str]:
        """As `Folder.names`."""
        self._begin("names", "")
        return list(self._node.names)

    def stat(self, name: str) -> FileStat:
        """As `Folder.stat`."""
        return self._disk.stat_of(self._find("stat", name))

    def fstat(self) -> FileStat:
        """As `Folder.fstat`."""
        self._begin("fstat", "")
        return self._disk.stat_of(self._node)

    def folder(self, name: str) -> MemoryFolder:
        """As `Folder.folder`."""
        node = self._find("folder", name)
        if node.kind is not FileKind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        return MemoryFolder(self._disk, node)

    def make_folder(self, name: str, mode: int = 0o777) -> MemoryFolder:
        """As `Folder.make_folder`."""
        return MemoryFolder(self._disk, self._add("make_folder", name, FileKind.FOLDER))

    def create(self, name: str, mode: int = 0o666) -> MemoryFile:
        """As `Folder.create`."""
        return MemoryFile(self._disk, self._add("create", name, FileKind.FILE), name)

    def create_filled(self, name: str, data: bytes | bytearray | memoryview) -> FileStat:
        """As `Folder.create_filled`."""
        file = self.create(name)
        try:
            file.pwrite(data, 0)
        except OSError:
            self.remove(name)
            raise
        return file.fstat()

    def read_part(self, name: str, offset: int, length: int) -> tuple[bytes, FileStat]:
        """As `Folder.read_part`."""
        file = self.open(name)
        buffer = bytearray(length)
        done = file.preadv([buffer], offset)
        return bytes(buffer[:done]), file.fstat()

    def open(self, name: str, writable: bool = False) -> MemoryFile:
        """As `Folder.open`."""
        node = self._find("open", name)
        if node.kind is not FileKind.FILE:
            code = errno.ELOOP if node.kind is FileKind.LINK else errno.EINVAL
            raise OSError(code, os.strerror(code), name)
        return MemoryFile(self._disk, node, name)

    def make_link(self, name: str, target: str) -> None:
        """As `Folder.make_link`."""
        self._add("make_link", name, FileKind.LINK).target = target

    def read_link(self, name: str) -> str:
        """As `Folder.read_link`."""
        node = self._find("read_link", name)
        if node.kind is not FileKind.LINK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        return node.target

    def rename(self, name: str, to: Folder, new_name: str, replace: bool = False) -> None:
        """As `Folder.rename`."""
        node = self._find("rename", name)
        assert isinstance(to, MemoryFolder)
        taken = to._disk.folded(to._node, _single(new_name))
        if taken in to._node.names and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new_name)
        to._node.names.pop(taken, None)
        self._node.names.pop(self._disk.folded(self._node, name), None)
        to._node.names[new_name] = node
        node.ctime += 1

    def remove(self, name: str) -> None:
        """As `Folder.remove`."""
        if self._find("remove", name).kind is FileKind.FOLDER:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        del self._node.names[self._disk.folded(self._node, name)]

    def remove_folder(self, name: str) -> None:
        """As `Folder.remove_folder`."""
        node = self._find("remove_folder", name)
        if node.kind is not FileKind.FOLDER:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name)
        if node.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), name)
        del self._node.names[self._disk.folded(self._node, name)]

    def make_private(self) -> None:
        """As `Folder.make_private`; there is one user only."""
        self._begin("make_private", "")

    def sync(self) -> None:
        """As `Folder.sync`."""
        self._begin("sync", "")
        settle(self._node)

    def sync_all(self) -> None:
        """As `Folder.sync_all`."""
        self._begin("sync_all", "")
        self._disk.sync_all()

    def free_space(self) -> int:
        """As `Folder.free_space`."""
        self._begin("free_space", "")
        if self._disk.capacity is None:
            return 1 << 62
        return max(0, self._disk.capacity - self._disk.used())

    def close(self) -> None:
        """As `Folder.close`."""
        self._era = -1

    def _begin(self, operation: str, name: str) -> None:
        self._disk.begin(operation, name, self._era)

    def _find(self, operation: str, name: str) -> _Node:
        self._begin(operation, name)
        node = self._node.names.get(self._disk.folded(self._node, _single(name)))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return node

    def _add(self, operation: str, name: str, kind: FileKind) -> _Node:
        self._begin(operation, name)
        if self._disk.folded(self._node, _single(name)) in self._node.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        node = self._disk.new(kind)
        self._node.names[name] = node
        self._disk.touch(self._node)
        return node


def _single(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise OSError(errno.EINVAL, "not a single file name", name)
    return name


_CHECKED: tuple[type[DiskFile], type[Folder]] = (MemoryFile, MemoryFolder)
