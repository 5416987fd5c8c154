"""Writing a copy as its pieces arrive, and putting it in its place when all are there.

The order that survives a crash: bytes are written, `sync` makes them durable, only then does
`Store.set_bits` claim them. Everything happens in a working file or folder of our own beside the
destination; nothing that exists already is ever opened, unless we recorded that we made it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Final

from bitarray import bitarray
from bitarray.util import zeros

from ..wire.errors import Misuse
from ..wire.walk import Entry, EntryKind
from .copy_files import signed_stat
from .errors import (
    DestinationExists,
    DiskFault,
    DiskFull,
    NameCollision,
    disk_errors,
    storage_error,
)
from .filesystem import DiskFile, FileKind, FileStat
from .finish import Links, build_rest, tree_is_folder
from .model import PIECE_BYTES, Copy, Finished
from .names import merges_names
from .tree import Tree

if TYPE_CHECKING:
    from .store import Store

MAX_OPEN_FILES: Final = 64
"""Files that one writer keeps open."""

SYNC_EACH_MAX: Final = 8
"""Up to so many files are synced one by one, more by one call for the whole file system."""

PATH_BATCH: Final = 256
"""Paths looked up at once; small files are mostly written in order."""

MAX_PATHS: Final = 16 * PATH_BATCH
"""Paths remembered: runs of small files come from several places."""


class CopyWriter:
    """The unfinished files of one copy; `write` may be called from several threads at once."""

    def __init__(self, store: Store, copy_id: int) -> None:
        copy = store.copy(copy_id)
        if copy is None or copy.finished:
            raise Misuse(f"copy {copy_id} is not being fetched")
        self._store = store
        self._copy: Copy = copy
        self._tree: Tree | None = None
        self._lock = Lock()
        self._files: OrderedDict[int, DiskFile] = OrderedDict()
        self._paths: OrderedDict[int, str] = OrderedDict()
        self._dirty: set[int] = set()
        self._new: dict[int, FileStat] = {}
        self._recording: dict[int, FileStat] = {}
        self._recorded = bitarray()
        self._one_sync = Lock()
        self._merges: bool | None = None

    def prepare(self) -> None:
        """Open the working path, or make it; call it once the root's entry is stored.

        What an earlier run wrote is taken over as far as it is there. The bits of files that are
        missing or too short are taken back. After the loss of the database (`Copy.recheck`) the
        index must be complete, and what the working path holds is hashed first, which takes long.

        Raises:
            DestinationExists: Something stands at the destination or at the working path.
            DiskFull: What is still to be fetched does not fit.
            StorageError: The destination's folder cannot be written.
        """
        place = self._copy.place
        with disk_errors(f"preparing {place}"):
            tree = Tree(self._store.disk, place, create_parent=True)
            self._refuse_destination(tree)
            root = self._root_entry()
            if not self._resume_root(tree, root):
                self._make_root(tree, root)
            self._tree = tree
        if self._copy.recheck:
            content = self._store.content(self._copy.cid)
            if content is None or not content.index_complete:
                raise Misuse("after the loss of the database the index comes first")
            for _ in self._store.verify(self._copy.id):
                pass
        else:
            self._check_files(tree)
        self._note_recorded(self._store.copy_rows.files.ordinals(self._copy.id))
        self.check_room()

    def check_room(self) -> None:
        """Raise DiskFull if what is still to be fetched does not fit, as far as that is known.

        The database may lie on another disk, and needs room, too.
        """
        self._store.copy_rows.probe(self._copy.id)
        content = self._store.content(self._copy.cid)
        if content is None or not content.size or not content.pieces:
            return
        size, pieces = content.size, content.pieces
        chosen = self._store.chosen(self._copy.id)
        if chosen is None:
            held = sum(self._store.bit_counts(self._copy.id))
        else:
            size, pieces = chosen.size, max(1, chosen.pieces.count())
            held = (chosen.pieces & self._store.bits(self._copy.id)).count()
        needed = size * (pieces - held) // pieces
        with disk_errors(f"asking for free space at {self._copy.path}"):
            free = self._opened().parent.free_space()
        if needed > free:
            raise DiskFull(
                f"{self._copy.path.parent} has {free} bytes free, "
                f"but {needed} are still to be fetched: make room or choose another place with -o"
            )

    def write(self, ordinal: int, offset: int, *parts: bytes | bytearray | memoryview) -> None:
        """Write verified bytes of a file at their place.

        Args:
            ordinal: The file's entry.
            offset: Where the first part goes.
            parts: The bytes; each part follows on the one before.

        Raises:
            DiskFull: There is no room; what was written before stays.
            StorageError: The disk fails, or something foreign is in the way.
        """
        try:
            if len(parts) > 1:
                self._file(ordinal).pwritev(parts, offset)
            else:
                self._file(ordinal).pwrite(parts[0], offset)
        except OSError as error:
            raise storage_error(error, f"writing {self._copy.path}") from error
        with self._lock:
            self._dirty.add(ordinal)  # after the write: a sync that runs meanwhile may miss it

    def write_files(self, files: Sequence[tuple[int, memoryview]]) -> Iterator[int]:
        """Write small files whole (entry, verified bytes); yield the index of each that is.

        New ones are made without holding others up, and nothing is kept open: folders of many
        small files are written so.

        Raises:
            DiskFull: There is no room; what was written before stays.
            StorageError: The disk fails, or something foreign is in the way.
        """
        with self._lock:
            paths = [self._path(ordinal) for ordinal, _ in files]
            ours = self._made({ordinal for ordinal, _ in files})
            new = [bool(p) and o not in ours for p, (o, _) in zip(paths, files, strict=True)]
        tree = self._opened()
        folder, above = None, ""
        try:
            for at, (ordinal, data) in enumerate(files):
                if new[at]:
                    place, _, name = paths[at].rpartition("/")
                    if folder is None or place != above:
                        tree.make_folder(place)
                        folder, above = tree.folder(place), place
                    try:
                        stat = folder.create_filled(name, data)
                    except FileExistsError:
                        new[at] = False
                    else:  # with its last stat, so that it need not be recorded again at the end
                        with self._lock:
                            self._new[ordinal] = stat
                            self._dirty.add(ordinal)
                if not new[at]:
                    self.write(ordinal, 0, data)
                yield at
        except OSError as error:
            raise storage_error(error, f"writing {self._copy.path}") from error

    def _made(self, ordinals: set[int]) -> set[int]:
        """Return which files we have made already, as far as we know."""
        made = (self._files, self._new, self._recording)
        known: set[int] = set().union(*(ordinals & some.keys() for some in made))
        end = len(self._recorded)
        return known | {o for o in ordinals if o < end and self._recorded[o]}

    def sync(self) -> None:
        """Return once all that `write` wrote before this call is durable.

        Then, and not earlier, its pieces may be claimed. More may be written meanwhile.

        Raises:
            StorageError: The disk failed or is full. What was written since the last sync that
                returned may be lost (a system drops pages that it could not write, and the next
                sync succeeds): write those pieces again before you claim them.
        """
        with self._one_sync:
            with self._lock:
                dirty, self._dirty = self._dirty, set()
                self._recording, self._new = self._new, {}
            try:
                with disk_errors(f"writing {self._copy.path}"):
                    self._sync(dirty, self._recording)
                if self._recording:
                    self._store.record_files(self._copy.id, self._recording.items())
                    with self._lock:
                        self._note_recorded(self._recording)
            except BaseException:
                with self._lock:
                    self._dirty |= dirty
                    self._new = {**self._recording, **self._new}
                raise
            finally:
                with self._lock:
                    self._recording = {}

    def _sync(self, dirty: set[int], new: dict[int, FileStat]) -> None:
        tree = self._opened()
        if len(dirty) + len(new) > SYNC_EACH_MAX:
            tree.parent.sync_all()
            return
        for ordinal in dirty:
            self._file(ordinal).fdatasync()
        if new:
            folders = {}
            for ordinal in new:
                path = self._path(ordinal)
                while path:  # a folder that is new itself must be durable, too
                    path = path.rpartition("/")[0]
                    if path not in folders:
                        folders[path] = tree.folder(path)
            for folder in folders.values():
                folder.sync()

    def finish(self, links: Links = "inside") -> Finished:
        """Make what is left (empty files, folders, links), and move all to the destination.

        Every piece but empty ones must be claimed. May be called again after it failed.

        Args:
            links: Which symbolic links to create: those that stay inside the content, all, none.

        Raises:
            DestinationExists: Something stands at the destination by now; the pieces are kept.
            StorageError: The disk fails, or a file is not as long as it was; call again.
        """
        self._refuse_unfinished()
        tree = self._opened()
        with disk_errors(f"finishing {self._copy.path}"):
            skipped: list[str] = []
            if not self._moved_already(tree):
                self.sync()
                skipped = build_rest(self._store, self._copy, tree, links)
                if tree_is_folder(self._store, self._copy):
                    tree.parent.sync_all()
                elif self._root_entry().kind is EntryKind.FILE:
                    self._file(0).fdatasync()
                self.close()
                self._move(tree)
            tree.parent.sync()
        self._store.finish_copy(self._copy.id)
        return Finished(self._copy.path, tuple(skipped))

    def _refuse_unfinished(self) -> None:
        content = self._store.content(self._copy.cid)
        if content is None or content.pieces is None:
            raise Misuse("the index is not complete")
        bits = self._store.bits(self._copy.id)
        chosen = self._store.chosen(self._copy.id)
        if chosen is not None:
            bits |= ~chosen.pieces
        while (hole := bits.find(0)) >= 0:
            entry = self._store.entry_of_piece(self._copy.cid, hole)
            if entry is None or entry.size != 0:
                raise Misuse(f"piece {hole} of {content.pieces} is not there yet")
            bits[hole] = True

    def _moved_already(self, tree: Tree) -> bool:
        """Return whether an earlier try failed behind the move."""
        ours = self._store.working_inode(self._copy.id)
        if ours is None or _there(tree, tree.name):
            return False
        return (
            _there(tree, self._copy.path.name)
            and signed_stat(tree.parent.stat(self._copy.path.name)).inode == ours
        )

    def _move(self, tree: Tree) -> None:
        try:
            tree.parent.rename(tree.name, tree.parent, self._copy.path.name)
        except FileExistsError:
            raise DestinationExists(
                f"{self._copy.path} has appeared while it was fetched: move it away, "
                "then get the content again (what was fetched is kept)"
            ) from None

    def close(self) -> None:
        """Close all files; nothing is synced."""
        with self._lock:
            self._files.clear()

    # The working path

    def _root_entry(self) -> Entry:
        entries = self._store.entries(self._copy.cid, 0, 1)
        if not entries:
            raise Misuse("the root's entry must be stored first")
        return entries[0]

    def _refuse_destination(self, tree: Tree) -> None:
        if self._moved_already(tree):
            # More is wanted of what was complete, or a crash came right behind the move.
            tree.parent.rename(self._copy.path.name, tree.parent, tree.name)
            tree.parent.sync()
        elif _there(tree, self._copy.path.name):
            raise DestinationExists(
                f"{self._copy.path} exists already: move it away or choose another place with -o"
            )

    def _resume_root(self, tree: Tree, root: Entry) -> bool:
        """Take over the working path of an earlier run; False if there is none."""
        try:
            found = tree.stat("")
        except FileNotFoundError:
            self._store.lose_working(self._copy.id)
            return False
        expected = FileKind.FOLDER if root.kind is EntryKind.DIRECTORY else FileKind.FILE
        ours = self._store.working_inode(self._copy.id)
        known = ours == signed_stat(found).inode or (ours is None and self._copy.recheck)
        if found.kind is expected and known:
            self._store.set_working(self._copy.id, found)
            return True
        if ours is None and found.kind is expected and self._empty(tree, found):
            self._store.set_working(self._copy.id, found)
            return True  # a crash came between making it and remembering it
        raise DestinationExists(
            f"{self._copy.place} is not the unfinished download that was there: remove it"
        )

    @staticmethod
    def _empty(tree: Tree, found: FileStat) -> bool:
        if found.kind is FileKind.FOLDER:
            return not tree.folder("").names()
        return found.size == 0

    def _make_root(self, tree: Tree, root: Entry) -> None:
        match root.kind:
            case EntryKind.DIRECTORY:
                tree.make_folder("")
            case EntryKind.FILE:
                file = tree.create("")
                self._files[0] = file
                self._new[0] = file.fstat()
            case EntryKind.SYMLINK:
                return
        self._store.set_working(self._copy.id, tree.stat(""))
        tree.parent.sync()

    def _check_files(self, tree: Tree) -> None:
        """Take back the bits of recorded files that are gone, replaced or cut short."""
        held = self._store.bits(self._copy.id)
        if not held.any():
            return
        lost: list[int] = []
        for entry, recorded, _ in self._store.recorded_files(self._copy.id):
            last = entry.first_piece + entry.pieces
            if not held[entry.first_piece : last].any():
                continue
            try:
                found = signed_stat(tree.stat(entry.path))
            except (FileNotFoundError, NotADirectoryError):
                found = None
            ours = found is not None and found.inode == recorded.inode
            reach = found.size if found is not None and ours else 0
            start = entry.first_piece + _whole_pieces(entry, reach)
            lost += [piece for piece in range(start, last) if held[piece]]
        if lost:
            self._store.clear_bits(self._copy.id, lost)

    # Files

    def _file(self, ordinal: int) -> DiskFile:
        """Return a file, opened again or made."""
        with self._lock:
            if (file := self._files.get(ordinal)) is not None:
                self._files.move_to_end(ordinal)
                return file
            file = self._open(ordinal)
            self._files[ordinal] = file
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)
            return file

    def _open(self, ordinal: int) -> DiskFile:
        tree = self._opened()
        path = self._path(ordinal)
        inode = self._made_inode(ordinal, path)
        if inode is not None:
            try:
                file = tree.open(path, writable=True)
            except FileNotFoundError:
                pass
            else:
                if signed_stat(file.fstat()).inode == inode:
                    return file
                raise DiskFault(f"{self._copy.place / path} was replaced by another file")
        if "/" in path:
            tree.make_folder(path.rpartition("/")[0])
        try:
            file = tree.create(path)
        except FileExistsError:
            self._remove_leftover(tree, path)
            file = tree.create(path)
        self._new[ordinal] = file.fstat()
        return file

    def _made_inode(self, ordinal: int, path: str) -> int | None:
        """Return the inode of a file that we made, as far as we know."""
        made = self._new.get(ordinal) or self._recording.get(ordinal)
        if made is not None:
            return signed_stat(made).inode
        if not path:
            return self._store.working_inode(self._copy.id)
        if ordinal < len(self._recorded) and self._recorded[ordinal]:
            recorded = self._store.recorded_file(self._copy.id, ordinal)
            return recorded[0].inode if recorded else None
        return None

    def _note_recorded(self, ordinals: Iterable[int]) -> None:
        """Remember which files the store has recorded: a bit each, and no question for new ones."""
        known = sorted(ordinals)
        if known and known[-1] >= len(self._recorded):
            self._recorded.extend(zeros(known[-1] + 1 - len(self._recorded)))
        self._recorded[known] = True

    def _remove_leftover(self, tree: Tree, path: str) -> None:
        """Remove a file made just before a crash; no piece is claimed in it.

        Where the file system takes two names for one it may be another entry's, and stays.
        """
        if self._merges is None:
            self._merges = bool(path) and merges_names(tree.folder(""))
        if self._merges or tree.stat(path).kind is FileKind.FOLDER:
            raise NameCollision(
                f"{path!r} and another entry of the content would be one file on this disk: "
                "choose another disk with -o"
            )
        tree.remove(path)

    def _path(self, ordinal: int) -> str:
        """Return the path of a file's entry."""
        if (path := self._paths.get(ordinal)) is None:
            self._paths.update(self._store.file_paths(self._copy.cid, ordinal, PATH_BATCH))
            while len(self._paths) > MAX_PATHS:
                self._paths.popitem(last=False)
            path = self._paths.get(ordinal)
            if path is None:
                raise Misuse(f"entry {ordinal} of {self._copy.cid} is not a known file")
        return path

    def _opened(self) -> Tree:
        if self._tree is None:
            raise Misuse("prepare() comes first")
        return self._tree


def _there(tree: Tree, name: str) -> bool:
    try:
        tree.parent.stat(name)
    except FileNotFoundError:
        return False
    return True


def _whole_pieces(entry: Entry, reach: int) -> int:
    """Return how many of a file's pieces lie wholly in its first `reach` bytes."""
    complete = reach >= entry.size if entry.size >= 0 else reach > 0
    return entry.pieces if complete and reach else reach // PIECE_BYTES
