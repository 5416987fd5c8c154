"""`copies.jsonl`: where our copies are, kept beside the database and simpler than it.

One JSON object a line, appended and synced. It is what a lost or damaged database is rebuilt from.
A new copy is written to the database first and here second, a removed one here first; so whatever
the two disagree on after a crash has one answer (`recovery.py`).
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from ..wire.ids import Cid
from ..wire.immutable import immutable
from .errors import disk_errors
from .filesystem import DiskFile, Folder
from .model import ORDERS, Announce, Copy, CopyState

JOURNAL_NAME: Final = "copies.jsonl"
_NEW_NAME: Final = "copies.jsonl.new"

MAX_JOURNAL_BYTES: Final = 256 << 20
"""Longer is no journal of ours: a million copies fit."""

MAX_ID: Final = 1 << 53
"""Ids beyond this are damage: SQLite counts from 1 and keeps 63 bits."""

_TAG: Final = re.compile(r"([a-z2-7]{8}-)?")
"""What may stand in a working name, see `model.tag_text`."""

SPARE_LINES: Final = 1000
"""The journal is written anew at start when it has so many lines more than twice its copies."""


@immutable
class JournalCopy:
    """A copy as the journal knows it."""

    id: int
    cid: str
    path: str
    state: CopyState
    """SHARED, FETCHING, PAUSED or COMPLETE."""
    added: float
    tag: str = ""
    """Part of the working name, see `Copy.tag`."""
    only: tuple[str, ...] | None = None
    order: str = "rarest"


class Journal:
    """The open journal.

    Attributes:
        copies: The copies that were added and not removed, by id.
        removed: Ids of copies that were removed.
        announce: How contents of copies are announced, by CID, where it is not the usual way.
        damaged: Lines that could not be read.
        database_damaged: The database was found damaged while it was used, and is to be replaced.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.copies: dict[int, JournalCopy] = {}
        self.removed: set[int] = set()
        self.announce: dict[str, Announce] = {}  # at most one for each copy
        self.damaged = 0
        self.database_damaged = False
        self._lines = 0
        with disk_errors(f"opening {JOURNAL_NAME}"):
            self._file, self._end = self._open()
        if self._lines > 2 * len(self.copies) + SPARE_LINES:
            self._compact()

    def added(self, copy: Copy, now: float) -> None:
        """Write down a new copy, or a new state of one."""
        state = _noted_state(copy.state)
        where = str(copy.cid), str(copy.path)
        known = JournalCopy(copy.id, *where, state, now, copy.tag, copy.only, copy.order)
        self._note(_added(known))

    def finished(self, copy_id: int) -> None:
        """Write down that a fetched copy is in its place."""
        if copy_id in self.copies:
            self._note({"event": "finished", "copy": copy_id})

    def paused(self, copy_id: int, paused: bool) -> None:
        """Write down that a user paused a fetch, or lets it go on."""
        known = self.copies.get(copy_id)
        before, after = CopyState.FETCHING, CopyState.PAUSED
        if not paused:
            before, after = after, before
        if known is not None and known.state is before:
            self._note({"event": "paused" if paused else "resumed", "copy": copy_id})

    def announced(self, cid: Cid, announce: Announce) -> None:
        """Write down under which name a content may be announced, if at all."""
        if self.announce.get(str(cid), Announce.BLINDED) is not announce:
            self._note({"event": "announce", "cid": str(cid), "as": announce.value})

    def drop(self, copy_id: int) -> None:
        """Write down that a copy is ours no more."""
        if copy_id in self.copies:
            self._note({"event": "removed", "copy": copy_id})

    def note_damage(self) -> None:
        """Write down that the database is damaged, for the next start."""
        self._note({"event": "database-damaged"})

    def note_replaced(self) -> None:
        """Write down that the damaged database was replaced."""
        if self.database_damaged:
            self._note({"event": "database-replaced"})

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> tuple[DiskFile, int]:
        try:
            file = self._folder.open(JOURNAL_NAME, writable=True)
        except FileNotFoundError:
            file = self._folder.create(JOURNAL_NAME, 0o600)
            self._folder.sync()
            return file, 0
        data = bytearray(min(file.fstat().size, MAX_JOURNAL_BYTES))
        del data[file.preadv([data], 0) :]
        end = data.rfind(b"\n") + 1  # a line that a crash cut off was never acted upon
        for line in bytes(data[:end]).splitlines():
            self._read(line)
        file.truncate(end)
        return file, end

    def _read(self, line: bytes) -> None:
        self._lines += 1
        try:
            record = json.loads(line)
            self._apply(record)
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            self.damaged += 1

    def _apply(self, record: dict[str, Any]) -> None:
        match record["event"]:
            case "added":
                copy = _read_added(record)
                self.copies[copy.id] = copy
                self.removed.discard(copy.id)
            case "finished":
                known = self.copies[_read_id(record)]
                self.copies[known.id] = replace(known, state=CopyState.COMPLETE)
            case "paused" | "resumed" as event:
                known = self.copies[_read_id(record)]
                state = CopyState.PAUSED if event == "paused" else CopyState.FETCHING
                self.copies[known.id] = replace(known, state=state)
            case "announce":
                announce = Announce(record["as"])
                self.announce[str(record["cid"])] = announce
                if announce is Announce.BLINDED:
                    del self.announce[str(record["cid"])]
            case "removed":
                gone = self.copies.pop(_read_id(record), None)
                self.removed.add(_read_id(record))
                if gone is not None and gone.cid in self.announce and not self._has(gone.cid):
                    del self.announce[gone.cid]
            case "database-damaged":
                self.database_damaged = True
            case "database-replaced":
                self.database_damaged = False
            case _:
                raise KeyError(record["event"])

    def _has(self, cid: str) -> bool:
        return any(copy.cid == cid for copy in self.copies.values())

    def _note(self, record: dict[str, Any]) -> None:
        """Append one record and return once it is durable."""
        line = _line(record)
        with disk_errors(f"writing {JOURNAL_NAME}"):
            try:
                self._file.pwrite(line, self._end)
                self._file.fdatasync()
            except OSError:
                self._file.truncate(self._end)
                raise
        self._end += len(line)
        self._lines += 1
        self._apply(record)

    def _compact(self) -> None:
        """Write the journal anew, with what still holds."""
        with disk_errors(f"writing {JOURNAL_NAME}"):
            if _NEW_NAME in self._folder.names():
                self._folder.remove(_NEW_NAME)
            file = self._folder.create(_NEW_NAME, 0o600)
            data = b"".join(_lines(self.copies.values(), self.removed, self.announce))
            if self.database_damaged:
                data += _line({"event": "database-damaged"})
            file.pwrite(data, 0)
            file.fdatasync()
            self._folder.rename(_NEW_NAME, self._folder, JOURNAL_NAME, replace=True)
            self._folder.sync()
        self._file.close()
        self._file, self._end, self._lines = file, len(data), len(self.copies)


def _lines(
    copies: Iterable[JournalCopy], removed: set[int], announce: Mapping[str, Announce]
) -> Iterable[bytes]:
    """Return the lines of a fresh journal; the highest id is kept so that none is used twice."""
    yield from (_line(_added(copy)) for copy in copies)
    for cid, how in announce.items():
        yield _line({"event": "announce", "cid": cid, "as": how.value})
    if removed:
        yield _line({"event": "removed", "copy": max(removed)})


def _read_id(record: dict[str, Any]) -> int:
    number = record["copy"]
    if type(number) is not int or not 0 < number <= MAX_ID:
        raise ValueError(number)
    return number


def _read_added(record: dict[str, Any]) -> JournalCopy:
    """Return a copy as a line tells it; a line that does not make sense raises."""
    path, added, tag = record["path"], float(record["time"]), record.get("tag", "")
    if not os.path.isabs(os.fsencode(path)) or b"\0" in os.fsencode(path):
        raise ValueError(path)
    if not math.isfinite(added) or _TAG.fullmatch(tag) is None:
        raise ValueError(record)
    state = CopyState(record["state"])
    state = _noted_state(state)
    only, order = record.get("only"), record.get("order", "rarest")
    if order not in ORDERS or not (only is None or all(isinstance(one, str) for one in only)):
        raise ValueError(record)
    wanted = tuple(only) if only else None
    return JournalCopy(_read_id(record), str(record["cid"]), path, state, added, tag, wanted, order)


def _noted_state(state: CopyState) -> CopyState:
    """Return the state to write down: whether files are missing is found out anew."""
    return CopyState.SHARED if state is CopyState.DEGRADED else state


def _added(copy: JournalCopy) -> dict[str, Any]:
    record = {
        "event": "added",
        "copy": copy.id,
        "cid": copy.cid,
        "path": copy.path,
        "state": copy.state.value,
        "time": copy.added,
        "tag": copy.tag,
    }
    if copy.only is not None:
        record["only"] = list(copy.only)
    if copy.order != "rarest":
        record["order"] = copy.order
    return record


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
