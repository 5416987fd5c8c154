"""Copies: where the bytes of a content are, in which state, and which files are still right.

A row keeps what the copy is for (`shared`, `fetching`, `paused`, `complete`); that it is degraded
follows from `reason`, which tells why, and goes when the files come back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ..wire.ids import Cid
from .bits import Bits
from .choice import chosen_of
from .copy_files import CopyFiles, signed_stat
from .database import Connection, read_cid, signed
from .errors import DestinationExists, StorageError
from .filesystem import Disk, FileKind, FileStat
from .index import Index
from .journal import Journal
from .model import Copy, CopyState
from .tree import Tree

MAX_SENTENCES: Final = 100
"""Changed files that are named one by one."""

_COPY: Final = (
    "SELECT copies.id, contents.cid, path, state, reason, recheck, tag, only, "
    "piece_order, reopened FROM copies "
    "JOIN contents ON contents.id = copies.content"
)
_INSERT: Final = (
    "INSERT INTO copies (content, path, state, added, tag, only, piece_order) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_UNFINISHED: Final = (CopyState.FETCHING.value, CopyState.PAUSED.value)


class Copies:
    """The rows of all copies.

    Attributes:
        files: Those of their files.
    """

    def __init__(
        self, connection: Connection, index: Index, bits: Bits, journal: Journal, disk: Disk
    ) -> None:
        self._db = connection
        self._index = index
        self._bits = bits
        self._journal = journal
        self._disk = disk
        self.files = CopyFiles(connection, index)

    def get(self, copy_id: int) -> Copy | None:
        """See `Store.copy`."""
        row = self._db.row(f"{_COPY} WHERE copies.id = ?", (copy_id,))
        return _copy(row) if row else None

    def all(self, cid: Cid | None = None) -> list[Copy]:
        """See `Store.copies`."""
        if cid is None:
            rows = self._db.rows(f"{_COPY} ORDER BY copies.id")
        else:
            rows = self._db.rows(
                f"{_COPY} WHERE contents.cid = ? ORDER BY copies.id", (bytes(cid),)
            )
        return [_copy(row) for row in rows]

    def of_content(self, content: int) -> list[int]:
        """Return the ids of the copies of a content row that may hold something."""
        rows = self._db.rows("SELECT id FROM copies WHERE content = ? AND NOT lost", (content,))
        return [copy_id for (copy_id,) in rows]

    def at(self, cid: Cid, path: Path) -> Copy | None:
        """Return the copy of a content at a path."""
        row = self._db.row(
            f"{_COPY} WHERE contents.cid = ? AND path = ?", (bytes(cid), os.fsencode(path))
        )
        return _copy(row) if row else None

    def insert(
        self,
        cid: Cid,
        path: Path,
        state: CopyState,
        now: float,
        only: tuple[str, ...] | None = None,
        order: str = "rarest",
    ) -> Copy:
        """Add a copy, to the database and then to the journal."""
        with self._db.transaction():
            row = (
                *(self._index.row_id(cid), os.fsencode(path), state.value, now, self.tag()),
                *(_as_text(only), order),
            )
            while True:
                copy = self._known(self._db.insert(_INSERT, row))
                if copy.finished or self._kind(copy.place) is None:
                    break
                # A working path of a copy that the database and the journal have lost.
                self._db.run("DELETE FROM copies WHERE id = ?", (copy.id,))
        try:
            self._journal.added(copy, now)
        except StorageError:
            self.delete(copy.id)
            raise
        return copy

    def tag(self) -> str:
        """Return what tells working names of this home from those of others."""
        row = self._db.row("SELECT tag FROM home")
        return row[0] if row else ""

    def keep_tag(self, drawn: str) -> None:
        """Use this tag if the home has none yet."""
        if drawn and not self.tag():
            self._db.run("INSERT INTO home (tag) VALUES (?)", (drawn,))

    def insert_known(self, copy: Copy, state: CopyState, now: float) -> None:
        """Add a copy that only the journal knows, under the id that it had."""
        with self._db.transaction():
            self._db.run(
                "INSERT INTO copies (id, content, path, state, recheck, reason, added, tag, only, "
                "piece_order) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?)",
                (
                    copy.id,
                    self._index.row_id(copy.cid),
                    os.fsencode(copy.path),
                    state.value,
                    copy.reason,
                    now,
                    copy.tag,
                    _as_text(copy.only),
                    copy.order,
                ),
            )

    def share(
        self, cid: Cid, path: Path, stats: Iterable[tuple[int, FileStat]], now: float
    ) -> Copy:
        """See `Store.add_shared_copy`; the journal is left to `note`."""
        with self._db.transaction():
            copy = self.at(cid, path)
            copy_id = (
                self._db.insert(
                    "INSERT INTO copies (content, path, state, added) VALUES (?, ?, ?, ?)",
                    (
                        self._index.row_id(cid),
                        os.fsencode(path),
                        CopyState.SHARED.value,
                        now,
                    ),
                )
                if copy is None
                else copy.id
            )
            self._db.run(
                "UPDATE copies SET reason = NULL, recheck = 0, lost = 0, "
                "state = iif(state = 'complete', state, 'shared') WHERE id = ?",
                (copy_id,),
            )
            self._db.run("DELETE FROM copy_files WHERE copy = ?", (copy_id,))
            self.files.record(copy_id, stats)
            self._bits.set_whole(copy_id)
        return self._known(copy_id)

    def note(self, copy: Copy, now: float) -> None:
        """Write a copy into the journal if it is not there; its row must be committed."""
        if copy.id not in self._journal.copies:
            self._journal.added(copy, now)

    def begin_fetch(
        self,
        cid: Cid,
        path: Path,
        now: float,
        only: tuple[str, ...] | None,
        order: str,
    ) -> Copy:
        """See `Store.begin_fetch`."""
        copy = self.at(cid, path)
        if copy is not None and not copy.finished:
            self.choose(copy, _both(copy.only, only), order, now)
            self.set_state(copy.id, CopyState.FETCHING)
            return self._known(copy.id)
        if copy is not None:
            self.check(copy.id)
            copy = self._known(copy.id)
            if copy.state is not CopyState.DEGRADED:
                if copy.wants(only):
                    return copy
                return self._reopen(copy, _both(copy.only, only), order, now)
        for other in self._db.rows(
            f"{_COPY} WHERE path = ? AND state IN (?, ?)", (os.fsencode(path), *_UNFINISHED)
        ):
            raise DestinationExists(
                f"{path} is being fetched already, for {_copy(other).cid}: "
                "choose another place with -o, or remove that fetch with shoal rm"
            )
        if self._kind(path) is not None:
            what = "was changed since it was complete" if copy else "exists already"
            raise DestinationExists(f"{path} {what}: move it away or choose another place with -o")
        if copy is None:
            return self.insert(cid, path, CopyState.FETCHING, now, only, order)
        with self._db.transaction():
            self._start_over(copy.id)
            self._choose(copy.id, only, order)
            self._db.run("UPDATE copies SET tag = ? WHERE id = ?", (self.tag(), copy.id))
            self.set_state(copy.id, CopyState.FETCHING)
        self._journal.added(self._known(copy.id), now)
        return self._known(copy.id)

    def choose(self, copy: Copy, only: tuple[str, ...] | None, order: str, now: float) -> None:
        """Set what of an unfinished copy is wanted."""
        if (only, order) != (copy.only, copy.order):
            self._choose(copy.id, only, order)
            self._journal.added(self._known(copy.id), now)

    def _choose(self, copy_id: int, only: tuple[str, ...] | None, order: str) -> None:
        self._db.run(
            "UPDATE copies SET only = ?, piece_order = ? WHERE id = ?",
            (_as_text(only), order, copy_id),
        )

    def _reopen(self, copy: Copy, only: tuple[str, ...] | None, order: str, now: float) -> Copy:
        """Want more of a copy that is complete as far as it was wanted."""
        wider = replace(copy, only=only, order=order, state=CopyState.FETCHING)
        # The journal first: were it behind, the copy would count as finished (`recovery.py`).
        self._journal.added(wider, now)
        with self._db.transaction():
            self._choose(copy.id, only, order)
            self._db.run(
                "UPDATE copies SET state = ?, reopened = 1 WHERE id = ?",
                (CopyState.FETCHING.value, copy.id),
            )
        return self._known(copy.id)

    def _start_over(self, copy_id: int) -> None:
        """Forget what a copy held."""
        self._bits.set_none(copy_id)
        self._db.run("DELETE FROM copy_files WHERE copy = ?", (copy_id,))
        self._db.run(
            "UPDATE copies SET reason = NULL, recheck = 0, lost = 0, root_inode = NULL "
            "WHERE id = ?",
            (copy_id,),
        )

    def set_state(self, copy_id: int, state: CopyState) -> None:
        """Set what a copy is for."""
        self._db.run("UPDATE copies SET state = ? WHERE id = ?", (state.value, copy_id))
        if state.value in _UNFINISHED:
            self._journal.paused(copy_id, state is CopyState.PAUSED)

    def finish(self, copy_id: int) -> None:
        """Say that an unfinished copy is in its final place, whole and durable."""
        with self._db.transaction():
            if self._known(copy_id).only is None:
                self._bits.set_whole(copy_id)
            self._db.run(
                "UPDATE copies SET state = ?, recheck = 0, lost = 0, reopened = 0, reason = NULL "
                "WHERE id = ?",
                (CopyState.COMPLETE.value, copy_id),
            )
        self._journal.finished(copy_id)

    def finish_unseen(self, copy_id: int, reason: str) -> None:
        """Say that a copy is in its final place, and that its files are to be hashed again."""
        with self._db.transaction():
            self._start_over(copy_id)
            self._db.run(
                "UPDATE copies SET state = ?, recheck = 1, reason = ? WHERE id = ?",
                (CopyState.COMPLETE.value, reason, copy_id),
            )

    def probe(self, copy_id: int) -> None:
        """Make a commit that changes nothing, to see whether there is room for one."""
        with self._db.transaction():
            self._db.run("UPDATE copies SET state = state WHERE id = ?", (copy_id,))

    def ask_recheck(self, copy_id: int) -> None:
        """Say that what an unfinished copy's working path holds is to be hashed."""
        self._db.run("UPDATE copies SET recheck = 1 WHERE id = ?", (copy_id,))

    def delete(self, copy_id: int) -> None:
        """Forget a copy: in the journal, then in the database."""
        self._journal.drop(copy_id)
        with self._db.transaction():
            for table in ("copy_files", "bits"):
                self._db.run(f"DELETE FROM {table} WHERE copy = ?", (copy_id,))
            self._db.run("DELETE FROM copies WHERE id = ?", (copy_id,))

    # The root of an unfinished copy

    def root_inode(self, copy_id: int) -> int | None:
        """Return the inode of the working file or folder that we made, as `signed` gives it."""
        row = self._db.row("SELECT root_inode FROM copies WHERE id = ?", (copy_id,))
        return row[0] if row else None

    def set_root(self, copy_id: int, root: FileStat) -> None:
        """Remember the working file or folder that was made for a copy."""
        self._db.run("UPDATE copies SET root_inode = ? WHERE id = ?", (signed(root.inode), copy_id))

    def lose_root(self, copy_id: int) -> int:
        """Note that a copy's working path is gone; return how many pieces went with it."""
        with self._db.transaction():
            held = sum(self._bits.counts(copy_id))
            self._start_over(copy_id)
        return held

    # Are the files of a finished copy as they were?

    def check(self, copy_id: int) -> list[str]:
        """See `Store.check_copy`."""
        copy = self._known(copy_id)
        if not copy.finished or copy.recheck or not self.check_root(copy):
            return []  # a copy without its root says so itself
        sentences: list[str] = []
        tree = Tree(self._disk, copy.path)
        changes: list[tuple[int, bool]] = []
        for entry, recorded, was_bad in self.files.all(copy):
            why = _difference(tree, entry.path, recorded)
            if (why is not None) == was_bad:
                continue
            changes.append((entry.ordinal, why is not None))
            if why is not None and len(sentences) < MAX_SENTENCES:
                sentences.append(f"{copy.path / entry.path} {why}: its pieces are not served")
        if changes:
            with self._db.transaction():
                for bad in (True, False):
                    self.files.mark(copy_id, (o for o, was in changes if was is bad), bad)
                self._set_reason(copy_id)
        return sentences

    def lost(self) -> set[int]:
        """Return the ids of the copies whose root was gone when it was last looked for."""
        return {copy_id for (copy_id,) in self._db.rows("SELECT id FROM copies WHERE lost")}

    def check_root(self, copy: Copy, was_lost: bool | None = None) -> bool:
        """Look whether a finished copy's root exists; note that it went or came back.

        Args:
            copy: Which.
            was_lost: What is noted so far, if that is known: then nothing is written in vain.
        """
        lost = self._kind(copy.path) is None
        if lost is not was_lost and self._db.run(
            "UPDATE copies SET lost = ? WHERE id = ? AND lost != ?", (lost, copy.id, lost)
        ):
            self._set_reason(copy.id)
        return not lost

    def end_recheck(self, copy_id: int) -> None:
        """Note that a copy's files have been hashed again."""
        with self._db.transaction():
            self._db.run("UPDATE copies SET recheck = 0, lost = 0 WHERE id = ?", (copy_id,))
            self._set_reason(copy_id)

    def skip_ids(self, highest: int) -> None:
        """Let new copies have ids above `highest`."""
        with self._db.transaction():
            row = self._db.row("SELECT seq FROM sqlite_sequence WHERE name = 'copies'")
            if row is None and highest:
                self._db.run("INSERT INTO sqlite_sequence VALUES ('copies', ?)", (highest,))
            elif row is not None and row[0] < highest:
                self._db.run("UPDATE sqlite_sequence SET seq = ? WHERE name = 'copies'", (highest,))

    def refresh_reason(self, copy_id: int) -> None:
        """Say anew why a finished copy is degraded, if it is."""
        with self._db.transaction():
            self._set_reason(copy_id)

    def _set_reason(self, copy_id: int) -> None:
        lost, whole, recheck = self._db.row(
            "SELECT lost, whole, recheck FROM copies WHERE id = ?", (copy_id,)
        )
        bad = self._db.row("SELECT count(*) FROM copy_files WHERE copy = ? AND bad", (copy_id,))[0]
        reason: str | None
        if lost:
            reason = "it is gone"
        elif recheck:
            return
        elif bad:
            reason = f"{bad} of its files are missing or changed"
        else:
            reason = None if whole or self.holds_chosen(copy_id) else "some of its pieces are wrong"
        self._db.run(
            "UPDATE copies SET reason = ? WHERE id = ? AND reason IS NOT ?",
            (reason, copy_id, reason),
        )

    def holds_chosen(self, copy_id: int) -> bool:
        """Return whether a copy of which not all is wanted holds what is."""
        copy = self._known(copy_id)
        if copy.only is None:
            return False
        chosen = chosen_of(self._index, copy.cid, copy.only)
        return chosen is not None and not (chosen.pieces & ~self._bits.all(copy_id)).any()

    def _kind(self, path: Path) -> FileKind | None:
        try:
            return self._disk.stat(path).kind
        except OSError:
            return None

    def _known(self, copy_id: int) -> Copy:
        copy = self.get(copy_id)
        if copy is None:
            raise KeyError(copy_id)
        return copy


def _difference(tree: Tree, path: str, recorded: FileStat) -> str | None:
    """Say how a file differs from what was recorded, or None."""
    try:
        found = tree.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if signed_stat(found).same_file(recorded) else "was changed"


def _copy(row: Any) -> Copy:
    copy_id, name, path, state, reason, recheck, tag, only, order, reopened = row
    cid = read_cid(name)
    shown = CopyState(state)
    if reason is not None and state not in _UNFINISHED:
        shown = CopyState.DEGRADED
    return Copy(
        copy_id,
        cid,
        Path(os.fsdecode(path)),
        shown,
        reason,
        bool(recheck),
        tag,
        tuple(json.loads(only)) if only is not None else None,
        order,
        bool(reopened),
    )


def _as_text(only: tuple[str, ...] | None) -> str | None:
    return json.dumps(only) if only is not None else None


def _both(old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the patterns that take what either takes."""
    return tuple(dict.fromkeys((*old, *new))) if old is not None and new is not None else None
