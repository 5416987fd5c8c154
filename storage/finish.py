"""The last steps of a fetch: empty files, folders and links, and a look at every file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from ..wire.errors import ContentRefused
from ..wire.walk import Entry, EntryKind
from .choice import entries_of
from .copy_files import signed_stat
from .errors import FileMissing
from .filesystem import FileKind, FileStat
from .model import Copy
from .names import refuse_collisions, stays_inside
from .tree import Tree

if TYPE_CHECKING:
    from .store import Store

Links = Literal["inside", "all", "none"]
"""Which symbolic links are created: those that stay inside the content, all, or none."""

BATCH: Final = 1024
"""Entries handled for one commit."""


def build_rest(store: Store, copy: Copy, tree: Tree, links: Links) -> list[str]:
    """Create all that has no bytes, and record the stat of every file.

    Links come last, when no write of ours can pass through them any more. May be repeated.

    Returns:
        Paths of links that were not created.

    Raises:
        FileMissing: A file is not there or not as long as it should be; its bits are taken back.
        ContentRefused: The content is nothing but a link that may not be created.
    """
    if tree_is_folder(store, copy):
        refuse_collisions(tree.folder(""), entries_of(store, copy.cid, copy.only))
    with_links = False
    for batch in _batches(store, copy):
        found: list[tuple[int, FileStat]] = []
        reach = batch[-1].ordinal + 1 - batch[0].ordinal
        recorded = store.recorded_among(copy.id, batch[0].ordinal, reach)
        for entry in batch:
            match entry.kind:
                case EntryKind.DIRECTORY:
                    if entry.path:
                        tree.make_folder(entry.path)
                case EntryKind.FILE:
                    known = recorded.get(entry.ordinal)
                    stat = _file(store, copy, tree, entry, known[0] if known else None)
                    if known != (signed_stat(stat), False):
                        found.append((entry.ordinal, stat))
                case EntryKind.SYMLINK:
                    with_links = True
        if found:
            store.record_files(copy.id, found)
    return _make_links(store, copy, tree, links) if with_links else []


def tree_is_folder(store: Store, copy: Copy) -> bool:
    """Return whether the content's root is a directory."""
    return store.entries(copy.cid, 0, 1)[0].kind is EntryKind.DIRECTORY


def _batches(store: Store, copy: Copy) -> Iterator[list[Entry]]:
    wanted = entries_of(store, copy.cid, copy.only)
    while batch := list(islice(wanted, BATCH)):
        yield batch


def _file(
    store: Store, copy: Copy, tree: Tree, entry: Entry, recorded: FileStat | None
) -> FileStat:
    """Return the stat of a finished file; an empty one is created."""
    if entry.size == 0:
        if entry.path:
            tree.make_folder(entry.path.rpartition("/")[0])
        try:
            return tree.create(entry.path).fstat()
        except FileExistsError:
            pass  # from an earlier try
    try:
        stat = tree.stat(entry.path)
        right = stat.kind is FileKind.FILE and stat.size == entry.size
    except (FileNotFoundError, NotADirectoryError):
        right = False
    if not right or (recorded is not None and recorded.inode != signed_stat(stat).inode):
        last = entry.first_piece + entry.pieces
        store.clear_bits(copy.id, range(entry.first_piece, last))
        raise FileMissing(
            f"{copy.place / entry.path} was removed or changed while it was fetched: "
            "get the content again, the rest is kept"
        )
    return stat


def _make_links(store: Store, copy: Copy, tree: Tree, links: Links) -> list[str]:
    skipped: list[str] = []
    for entry in entries_of(store, copy.cid, copy.only):
        if entry.kind is not EntryKind.SYMLINK:
            continue
        if links == "none" or (links == "inside" and not stays_inside(entry.path, entry.target)):
            if not entry.path:
                raise ContentRefused(
                    f"the content is a symbolic link to {entry.target!r}: "
                    "--links all creates it, if you trust it"
                )
            skipped.append(entry.path)
            continue
        if entry.path:
            tree.make_folder(entry.path.rpartition("/")[0])
        try:
            tree.make_link(entry.path, entry.target)
        except FileExistsError:
            if tree.stat(entry.path).kind is not FileKind.LINK:
                raise
            if tree.read_link(entry.path) != entry.target:
                raise
    return skipped
