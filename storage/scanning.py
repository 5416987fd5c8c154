"""What lies at a path that is to be shared: names, kinds and stats, before any byte is read.

Every entry is looked at by lstat first, from its folder's handle, so that nothing is opened that
is not a plain file or folder and no link is followed. What peers would refuse is refused here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..wire.errors import ContentRefused
from ..wire.ids import Cid
from ..wire.names import safe_component
from ..wire.unixfs import check_target
from ..wire.walk import WalkLimits
from .errors import StorageError, disk_errors, storage_error
from .filesystem import Disk, FileKind, FileStat, Folder

_STAT: Final = struct.Struct("<Q4q")
_UNSIGNED: Final = (1 << 64) - 1


class Unshareable(StorageError):
    """Something at the path cannot be shared; the text names it."""


class ImportCancelled(Exception):
    """The caller gave up; nothing was registered."""


class FoundFile:
    """A plain file; kept small, since there may be a million."""

    __slots__ = ("_stat", "digest", "name")

    def __init__(self, name: str, stat: FileStat) -> None:
        self.name = name
        self.digest: bytes | None = None
        """Of the file's root, once it is hashed."""
        self.stat = stat

    @property
    def size(self) -> int:
        """Bytes."""
        size: int = _STAT.unpack(self._stat)[2]
        return size

    @property
    def stat(self) -> FileStat:
        """As it was when it was found, later: when it was hashed."""
        device, inode, size, mtime, ctime = _STAT.unpack(self._stat)
        return FileStat(FileKind.FILE, device, inode & _UNSIGNED, size, mtime, ctime)

    @stat.setter
    def stat(self, stat: FileStat) -> None:
        inode = stat.inode - (1 << 64) if stat.inode >> 63 else stat.inode
        self._stat = _STAT.pack(stat.device, inode, stat.size, stat.mtime_ns, stat.ctime_ns)


@dataclass(slots=True)
class FoundLink:
    """A symlink, kept as data."""

    name: str
    target: str
    cid: Cid | None = None
    """Once its node is built."""


@dataclass(slots=True)
class FoundFolder:
    """A folder, its entries sorted by name."""

    name: str
    children: list[Found] = field(default_factory=list)
    cid: Cid | None = None
    """Once its node is built; then the children are in the order of a walk."""


Found = FoundFile | FoundLink | FoundFolder


@dataclass(slots=True)
class Scan:
    """What was found."""

    parent: Folder
    """Handle of the folder that the root lies in."""
    root: Found
    entries: int = 0
    files: int = 0
    size: int = 0
    """Bytes of all files."""
    skipped: list[str] = field(default_factory=list)
    """Paths of special files that were left out (at most `MAX_SKIPPED`)."""


MAX_SKIPPED: Final = 1000


class Scanner:
    """Looks through one tree."""

    def __init__(
        self,
        path: Path,
        disk: Disk,
        *,
        hidden: bool = True,
        skip_special: bool = False,
        private: Path | None = None,
        limits: WalkLimits | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._path = path
        self._shown = str(path)
        self._disk = disk
        self._hidden = hidden
        self._skip_special = skip_special
        self._private = self._identity(private)
        self._limits = limits or WalkLimits()
        self._cancelled = cancelled

    def run(self) -> Scan:
        """Look through the tree.

        Raises:
            StorageError: Something is missing or unreadable, or cannot be shared (`Unshareable`).
            ImportCancelled: The caller gave up.
        """
        path = self._path
        with disk_errors(f"reading {path}"):
            parent = self._disk.folder(path.parent)
            stat = self._disk.stat(path)
        if stat.kind is FileKind.LINK:
            raise Unshareable(
                f"{path} is a symbolic link; share what it points to: {os.path.realpath(path)}"
            )
        self._scan = Scan(parent, FoundFolder(""))
        self._check_name(path.name, "")
        root = self._look(parent, path.name, "", 0)
        if root is None:
            raise Unshareable(f"{path} is a FIFO, socket or device, which cannot be shared")
        self._scan.root = root
        return self._scan

    def _look(self, folder: Folder, name: str, path: str, depth: int) -> Found | None:
        """Return what a name stands for; None for a special file that is left out.

        Args:
            folder: Handle of the folder that it is in.
            name: The name there.
            path: Its path below the root.
            depth: Names in `path`.
        """
        try:
            stat = folder.stat(name)
        except OSError as error:
            raise storage_error(error, f"reading {self._show(path)}") from error
        if stat.kind is FileKind.OTHER:
            if self._skip_special:
                if len(self._scan.skipped) < MAX_SKIPPED:
                    self._scan.skipped.append(path)
                return None
            raise Unshareable(
                f"{self._show(path)} is a FIFO, socket or device, which cannot be shared; "
                "remove it, or leave such files out with --skip-special"
            )
        self._scan.entries += 1
        self._check_limits(path, depth)
        match stat.kind:
            case FileKind.FILE:
                self._scan.files += 1
                self._scan.size += stat.size
                return FoundFile(name, stat)
            case FileKind.LINK:
                return self._look_at_link(folder, name, path)
            case _:
                return self._look_into(folder, name, path, depth)

    def _look_into(self, folder: Folder, name: str, path: str, depth: int) -> FoundFolder:
        if self._cancelled():
            raise ImportCancelled
        with disk_errors(f"reading {self._show(path)}"):
            inside = folder.folder(name)
            names = inside.names()
            stat = inside.fstat()
        if (stat.device, stat.inode) == self._private:
            raise Unshareable(
                f"{self._show(path)} is a home folder of shoal, and the key in it must stay "
                "private; share the folders beside it one by one"
            )
        found = FoundFolder(name)
        for child in sorted(names, key=os.fsencode):
            if not self._hidden and child.startswith("."):
                continue
            self._check_name(child, path)
            entry = self._look(inside, child, f"{path}/{child}" if path else child, depth + 1)
            if entry is not None:
                found.children.append(entry)
        inside.close()
        return found

    def _look_at_link(self, folder: Folder, name: str, path: str) -> FoundLink:
        with disk_errors(f"reading {self._show(path)}"):
            target = folder.read_link(name)
        try:
            check_target(os.fsencode(target))
        except ContentRefused as refused:
            raise Unshareable(f"{self._show(path)} cannot be shared: {refused}") from refused
        return FoundLink(name, target)

    def _check_name(self, name: str, folder: str) -> None:
        """Refuse a name that no peer would take."""
        try:
            name.encode()
        except UnicodeEncodeError:
            raise Unshareable(
                f"the name {os.fsencode(name)!r} in {self._show(folder)} is not UTF-8; rename it"
            ) from None
        try:
            safe_component(name)
        except ContentRefused as refused:
            raise Unshareable(f"{self._show(folder)}: {refused}; rename it") from refused

    def _check_limits(self, path: str, depth: int) -> None:
        limits = self._limits
        if self._scan.entries > limits.entries:
            raise Unshareable(f"{self._path} holds over {limits.entries} files and folders")
        if depth > limits.depth:
            raise Unshareable(f"{self._show(path)} lies deeper than {limits.depth} folders")
        if len(path) > limits.path or len(path.encode()) > limits.path:
            raise Unshareable(f"a path is over {limits.path} bytes long: {path[:80]}…")

    def _identity(self, path: Path | None) -> tuple[int, int] | None:
        """Return device and inode of the folder at a path, if there is one."""
        if path is None:
            return None
        try:
            stat = self._disk.folder(path).fstat()
        except OSError:
            return None
        return stat.device, stat.inode

    def _show(self, path: str) -> str:
        """Return a path below the root as its owner knows it."""
        return f"{self._shown}/{path}" if path else self._shown
