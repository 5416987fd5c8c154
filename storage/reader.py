"""Reading pieces of our copies: for serving, for copying locally, for verifying.

A file is handed out together with a check that it is still the one that was hashed. What is found
changed or missing is marked in the store at once, so that it is claimed no more.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from .copy_files import signed_stat
from .errors import FileChanged, FileMissing, storage_error
from .filesystem import DiskFile, FileStat
from .model import Copy, PieceTable
from .tree import Tree

if TYPE_CHECKING:
    from .store import Store

_NOT_THE_FILES_FAULT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of opening that say nothing about the file."""

MAX_OPEN_FILES: Final = 256
"""Files that all readers of a store keep open together."""

PLACES_AT_ONCE: Final = 256
"""Entries that are looked up at once; small files are read in order."""

Unchanged = Callable[[], bool]


class OpenFiles:
    """The open files of all copies; the least recently used are let go of."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int], tuple[DiskFile, Unchanged]] = OrderedDict()
        self._lock = Lock()

    def get(self, copy: int, ordinal: int) -> tuple[DiskFile, Unchanged] | None:
        """Return an open file."""
        with self._lock:
            found = self._files.get((copy, ordinal))
            if found is not None:
                self._files.move_to_end((copy, ordinal))
            return found

    def put(self, copy: int, ordinal: int, file: DiskFile, unchanged: Unchanged) -> None:
        """Keep a file open; one that is dropped closes when nobody reads it any more."""
        with self._lock:
            self._files[copy, ordinal] = (file, unchanged)
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)

    def drop(self, copy: int, ordinal: int | None = None) -> None:
        """Let go of a copy's files, or of one of them."""
        with self._lock:
            for key in [k for k in self._files if k[0] == copy and ordinal in (None, k[1])]:
                del self._files[key]


class CopyReader:
    """The files of one copy, finished or not; usable from several threads."""

    def __init__(self, store: Store, copy_id: int) -> None:
        self._store = store
        self._id = copy_id
        self._tree: tuple[Path, Tree] | None = None

    def file(self, ordinal: int) -> tuple[DiskFile, Unchanged]:
        """Return an open file of the copy, and a check that it is still what was hashed.

        Hold the file as long as you read it, and call the check before and after each run of
        reads. It may block: call from a worker thread.

        Raises:
            FileMissing: It is gone or cannot be opened; it has been marked.
            FileChanged: It is not the file that was hashed; it has been marked.
            StorageError: There is no telling now: too many open files, or the database fails.
            KeyError: There is no such copy, or it has no such file.
        """
        if (known := self._store.open_files.get(self._id, ordinal)) is not None:
            return known
        copy = self._copy()
        entries = self._store.entries(copy.cid, ordinal, 1)
        if not entries or entries[0].ordinal != ordinal:
            raise KeyError(ordinal)
        path = entries[0].path
        recorded = self._store.recorded_file(copy.id, ordinal)
        try:
            file = self._tree_at(copy.place).open(path)
        except OSError as error:
            if error.errno in _NOT_THE_FILES_FAULT:
                raise storage_error(error, f"opening {copy.place / path}") from error
            self.mark_changed(ordinal)
            raise FileMissing(f"{copy.place / path}: {error.strerror}") from error
        unchanged = _always
        if copy.finished and recorded is not None:
            unchanged = _still(file, recorded[0])
            if not unchanged():
                self.mark_changed(ordinal)
                raise FileChanged(f"{copy.place / path} was changed since it was hashed")
        self._store.open_files.put(copy.id, ordinal, file, unchanged)
        return file, unchanged

    def read_small(self, wanted: Sequence[tuple[int, int, int]]) -> list[bytes]:
        """Read pieces (ordinal, offset, length) of a finished or unfinished copy.

        Their files are open only for this call. The bytes are not hashed here.

        Returns:
            As many as can be read, from the first on: what stands in the way of the next one is
            for `file` to find out and to mark.

        Raises:
            StorageError: The database fails.
            KeyError: There is no such copy.
        """
        copy = self._copy()
        tree: Tree | None = None
        found: list[bytes] = []
        first, end = 0, 0
        places: dict[int, tuple[str, FileStat | None]] = {}
        for ordinal, offset, length in wanted:
            if not first <= ordinal < end:
                first, end = ordinal, ordinal + PLACES_AT_ONCE
                places = self._store.copy_rows.files.places(copy, first, PLACES_AT_ONCE)
            try:
                path, recorded = places[ordinal]
                tree = tree or self._tree_at(copy.place)
                data = _read_whole(tree, path, offset, length, recorded if copy.finished else None)
            except (OSError, KeyError):
                break
            if data is None:
                break
            found.append(data)
        return found

    def read(self, table: PieceTable, piece: int, buffer: memoryview) -> int:
        """Read one piece into the buffer's start; return its bytes.

        The bytes are not hashed here.

        Raises:
            FileMissing: As `file`; also if the file is too short.
            FileChanged: As `file`; also if it was changed while it was read.
        """
        at = piece - table.first
        length = min(table.lengths[at], len(buffer))
        file, unchanged = self.file(table.files[at])
        done = file.preadv([buffer[:length]], table.offsets[at])
        if not unchanged():
            self.mark_changed(table.files[at])
            raise FileChanged(f"a file of {self._copy().place} was changed since it was hashed")
        if done < length:
            raise FileMissing(f"a file of {self._copy().place} is shorter than it should be")
        return done

    def mark_changed(self, ordinal: int) -> tuple[int, int]:
        """Mark a file that its check found changed; return its pieces (first, count).

        The files of an unfinished copy are ours alone and are not marked: (0, 0).
        """
        if not self._copy().finished:
            return 0, 0
        return self._store.mark_changed(self._id, ordinal)

    def _copy(self) -> Copy:
        copy = self._store.copy(self._id)
        if copy is None:
            raise KeyError(self._id)
        return copy

    def _tree_at(self, place: Path) -> Tree:
        """Return the tree at a copy's place, which moves when it is finished."""
        if self._tree is None or self._tree[0] != place:
            self._tree = (place, Tree(self._store.disk, place))
        return self._tree[1]


def _read_whole(
    tree: Tree, path: str, offset: int, length: int, recorded: FileStat | None
) -> bytes | None:
    """Open, read and close a file; None if it is too short or not the one that was recorded."""
    folder, name = tree.locate(path)
    data, stat = folder.read_part(name, offset, length)
    if len(data) < length:
        return None
    # One look behind the read is enough: what changed before it shows as well.
    if recorded is not None and not signed_stat(stat).same_file(recorded):
        return None
    return data


def _still(file: DiskFile, recorded: FileStat) -> Unchanged:
    def unchanged() -> bool:
        return signed_stat(file.fstat()).same_file(recorded)

    return unchanged


def _always() -> bool:
    return True
