"""The files of copies: what each was like when its bytes were right, and which are marked bad."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ..wire.walk import Entry
from .database import Connection, signed
from .filesystem import FileKind, FileStat
from .index import Index
from .model import Copy

FILE_BATCH: Final = 1024
"""Recorded files read from the database at once."""


class CopyFiles:
    """The rows of the files of all copies."""

    def __init__(self, connection: Connection, index: Index) -> None:
        self._db = connection
        self._index = index

    def record(self, copy_id: int, stats: Iterable[tuple[int, FileStat]]) -> None:
        """Remember (ordinal, stat) of files as the ones whose bytes the bits speak of."""
        with self._db.transaction():
            self._db.run_many(
                "INSERT OR REPLACE INTO copy_files VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (
                    (
                        copy_id,
                        ordinal,
                        signed(stat.device),
                        signed(stat.inode),
                        stat.size,
                        stat.mtime_ns,
                        stat.ctime_ns,
                    )
                    for ordinal, stat in stats
                ),
            )

    def get(self, copy_id: int, ordinal: int) -> tuple[FileStat, bool] | None:
        """Return what was recorded of a file, and whether it is marked bad."""
        row = self._db.row(
            "SELECT * FROM copy_files WHERE copy = ? AND ordinal = ?", (copy_id, ordinal)
        )
        return (_stat(row), bool(row[7])) if row else None

    def all(self, copy: Copy) -> Iterator[tuple[Entry, FileStat, bool]]:
        """Yield (entry, stat, bad) of all recorded files, in order."""
        first = 0
        while entries := self._index.entries(copy.cid, first, FILE_BATCH):
            found = self.among(copy.id, first, len(entries))
            for entry in entries:
                if (row := found.get(entry.ordinal)) is not None:
                    yield entry, *row
            if len(entries) < FILE_BATCH:
                break
            first += len(entries)

    def among(self, copy_id: int, first: int, count: int) -> dict[int, tuple[FileStat, bool]]:
        """Return what was recorded of files, by ordinal from `first` on, and which are bad."""
        rows = self._db.rows(
            "SELECT * FROM copy_files WHERE copy = ? AND ordinal >= ? AND ordinal < ?",
            (copy_id, first, first + count),
        )
        return {row[1]: (_stat(row), bool(row[7])) for row in rows}

    def places(self, copy: Copy, first: int, count: int) -> dict[int, tuple[str, FileStat | None]]:
        """Return paths and recorded stats of the entries from ordinal `first` on."""
        rows = self._db.rows(
            "SELECT e.ordinal, path, f.copy, f.ordinal, device, inode, f.size, mtime_ns, ctime_ns, "
            "bad FROM entries AS e LEFT JOIN copy_files AS f "
            "ON f.copy = ? AND f.ordinal = e.ordinal "
            "WHERE content = ? AND e.ordinal >= ? AND e.ordinal < ?",
            (copy.id, self._index.row_id(copy.cid), first, first + count),
        )
        return {row[0]: (row[1], None if row[2] is None else _stat(row[2:])) for row in rows}

    def ordinals(self, copy_id: int) -> list[int]:
        """Return which files are recorded."""
        rows = self._db.rows("SELECT ordinal FROM copy_files WHERE copy = ?", (copy_id,))
        return [ordinal for (ordinal,) in rows]

    def mark(self, copy_id: int, ordinals: Iterable[int], bad: bool) -> None:
        """Mark files as bad, or take that back."""
        self._db.run_many(
            "UPDATE copy_files SET bad = ? WHERE copy = ? AND ordinal = ?",
            ((bad, copy_id, ordinal) for ordinal in ordinals),
        )


def signed_stat(stat: FileStat) -> FileStat:
    """Return a stat as it comes back from the database."""
    if stat.inode < 1 << 63 and stat.device < 1 << 63:
        return stat
    return FileStat(
        stat.kind,
        signed(stat.device),
        signed(stat.inode),
        stat.size,
        stat.mtime_ns,
        stat.ctime_ns,
    )


def _stat(row: Any) -> FileStat:
    _, _, device, inode, size, mtime_ns, ctime_ns, _ = row
    return FileStat(FileKind.FILE, device, inode, size, mtime_ns, ctime_ns)
