"""The files of one copy, reached from a folder's handle, name by name, never through a link.

A copy is a file or a folder in the folder that its user named. The same class serves finished
and unfinished copies; they differ only in the root's name.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import RLock
from typing import Final

from .filesystem import Disk, DiskFile, FileKind, FileStat, Folder

MAX_OPEN_FOLDERS: Final = 32
"""Folder handles that one tree keeps open."""

MAX_TREE_DEPTH: Final = 4096
"""Folders below each other that `delete_tree` enters (a path of PATH_MAX has no more)."""


class Tree:
    """A copy's root and what lies below it. Paths are those of the entries; "" is the root."""

    def __init__(self, disk: Disk, place: Path, create_parent: bool = False) -> None:
        self.parent: Folder = disk.folder(place.parent, 0o777 if create_parent else None)
        self.name = place.name
        self._folders: OrderedDict[str, Folder] = OrderedDict()
        self._lock = RLock()
        self._last: tuple[str, Folder] | None = None  # small files come folder by folder

    def stat(self, path: str) -> FileStat:
        """Return what is at a path."""
        folder, name = self.locate(path)
        return folder.stat(name)

    def open(self, path: str, writable: bool = False) -> DiskFile:
        """Open a file that exists."""
        folder, name = self.locate(path)
        return folder.open(name, writable)

    def create(self, path: str) -> DiskFile:
        """Create a file; its folder must exist."""
        folder, name = self.locate(path)
        return folder.create(name)

    def make_folder(self, path: str) -> bool:
        """Create a folder and those above it; return False if it was there already."""
        with self._lock:
            if path in self._folders:
                return False
            if path:
                self.make_folder(path.rpartition("/")[0])
            folder, name = self.locate(path)
            try:
                self._keep(path, folder.make_folder(name))
            except FileExistsError:
                self._keep(path, folder.folder(name))  # OSError if it is no folder
                return False
            return True

    def make_link(self, path: str, target: str) -> None:
        """Create a symbolic link."""
        folder, name = self.locate(path)
        folder.make_link(name, target)

    def read_link(self, path: str) -> str:
        """Return a symbolic link's target."""
        folder, name = self.locate(path)
        return folder.read_link(name)

    def remove(self, path: str) -> None:
        """Remove a file or link."""
        folder, name = self.locate(path)
        folder.remove(name)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        with self._lock:
            self._folders.pop(path, None)
            self._last = None
        folder, name = self.locate(path)
        folder.remove_folder(name)

    def folder_of(self, path: str) -> Folder:
        """Return the folder that a path's last name is in."""
        return self.locate(path)[0]

    def folder(self, path: str) -> Folder:
        """Return the folder at a path."""
        with self._lock:
            if (folder := self._folders.get(path)) is not None:
                self._folders.move_to_end(path)
                return folder
            above, name = self.locate(path)
            return self._keep(path, above.folder(name))

    def locate(self, path: str) -> tuple[Folder, str]:
        """Return the folder that a path's last name is in, and that name."""
        if not path:
            return self.parent, self.name
        above, _, name = path.rpartition("/")
        last = self._last
        if last is None or last[0] != above:
            last = self._last = (above, self.folder(above))
        return last[1], name

    def _keep(self, path: str, folder: Folder) -> Folder:
        self._folders[path] = folder
        if len(self._folders) > MAX_OPEN_FOLDERS:
            self._folders.popitem(last=False)  # closes when its last user lets go of it
        return folder


def delete_tree(parent: Folder, name: str) -> None:
    """Remove whatever has this name, with all that is below it; links are not followed."""
    if parent.stat(name).kind is not FileKind.FOLDER:
        parent.remove(name)
        return
    top = parent.folder(name)
    stack = [(parent, name, top, top.names())]
    while stack:
        above, own_name, folder, names = stack[-1]
        if not names:
            above.remove_folder(own_name)
            stack.pop()
            continue
        child = names.pop()
        if folder.stat(child).kind is not FileKind.FOLDER:
            folder.remove(child)
            continue
        if len(stack) == MAX_TREE_DEPTH:
            raise OSError(f"{name} is nested over {MAX_TREE_DEPTH} folders deep")
        inner = folder.folder(child)
        stack.append((folder, child, inner, inner.names()))
