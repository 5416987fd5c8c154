"""Forgetting a copy, and deleting exactly what is ours of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ..wire.walk import Entry, EntryKind
from .copy_files import signed_stat
from .errors import disk_errors
from .filesystem import FileKind, FileStat
from .model import Copy, Removed
from .tree import Tree, delete_tree

if TYPE_CHECKING:
    from .store import Store

BATCH: Final = 1024
"""Entries looked up at once."""


def delete_working(store: Store, copy: Copy) -> Removed:
    """Delete the working file or folder of an unfinished copy, if it is the one we made."""
    inode = store.working_inode(copy.id)
    with disk_errors(f"deleting {copy.place}"):
        try:
            tree = Tree(store.disk, copy.place)
            found = tree.stat("")
        except FileNotFoundError:
            return Removed((), ())
        if signed_stat(found).inode != inode and not copy.recheck:
            return Removed((), (copy.place,))
        if copy.reopened:  # what was complete is not ours to delete
            tree.parent.rename(tree.name, tree.parent, copy.path.name)
            tree.parent.sync()
            return Removed((), (copy.path,))
        delete_tree(tree.parent, tree.name)
        tree.parent.sync()
    return Removed((copy.place,), ())


def delete_finished(store: Store, copy: Copy) -> Removed:
    """Delete a finished copy's files as far as they are as recorded, and folders left empty."""
    with disk_errors(f"deleting {copy.path}"):
        try:
            tree = Tree(store.disk, copy.path)
            tree.stat("")
        except FileNotFoundError:
            return Removed((), ())
        complete = True
        for entry, recorded in _backwards(store, copy):
            try:
                complete &= _delete(tree, entry, recorded)
            except (FileNotFoundError, NotADirectoryError):
                continue
        tree.parent.sync()
    return Removed((copy.path,), ()) if complete else Removed((), (copy.path,))


def _delete(tree: Tree, entry: Entry, recorded: FileStat | None) -> bool:
    """Delete one entry; return False if something foreign had to stay."""
    found = tree.stat(entry.path)
    match entry.kind:
        case EntryKind.FILE:
            if recorded is None or not signed_stat(found).same_file(recorded):
                return False
            tree.remove(entry.path)
        case EntryKind.SYMLINK:
            if found.kind is not FileKind.LINK or tree.read_link(entry.path) != entry.target:
                return False
            tree.remove(entry.path)
        case EntryKind.DIRECTORY:
            if found.kind is not FileKind.FOLDER or tree.folder(entry.path).names():
                return False
            tree.remove_folder(entry.path)
    return True


def _backwards(store: Store, copy: Copy) -> Iterator[tuple[Entry, FileStat | None]]:
    """Yield the entries last to first (what is in a folder before the folder), and their stat."""
    last = store.entry_count(copy.cid)
    while last > 0:
        first = max(0, last - BATCH)
        recorded = store.recorded_among(copy.id, first, last - first)
        for entry in reversed(store.entries(copy.cid, first, last - first)):
            known = recorded.get(entry.ordinal)
            yield entry, known[0] if known else None
        last = first
