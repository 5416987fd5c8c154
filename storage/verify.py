"""Hashing a copy's bytes again, and setting its bits to what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..wire.blocks import digest_of
from .bits import Bits
from .copies import Copies
from .copy_files import signed_stat
from .errors import Damaged
from .filesystem import DiskFile, FileStat
from .model import PIECE_BYTES, PIECES_PER_BLOCK, Copy, MissingNodes, PieceTable, Verified
from .tree import Tree

if TYPE_CHECKING:
    from .store import Store

STEP: Final = 16
"""Pieces between two reports."""

MAX_BAD_FILES: Final = 1000
"""Files named as missing or wrong."""


@dataclass(slots=True)
class _File:
    """The file that is being hashed."""

    ordinal: int
    path: str
    size: int
    pieces: tuple[int, int]
    file: DiskFile | None
    before: FileStat | None
    wrong: bool = False


@dataclass(slots=True)
class Verification:
    """One run over a copy."""

    store: Store
    copies: Copies
    bits: Bits
    copy: Copy
    tree: Tree | None = None
    current: _File | None = None
    done: int = 0
    good: int = 0
    bad_files: list[str] = field(default_factory=list)
    records: list[tuple[int, FileStat]] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(PIECE_BYTES)))

    def run(self) -> Iterator[Verified]:
        """See `Store.verify`."""
        content = self.store.content(self.copy.cid)
        if content is None or content.pieces is None:
            raise KeyError(f"the index of {self.copy.cid} is not complete")
        chosen = self.store.chosen(self.copy.id)
        wanted = chosen.pieces if chosen is not None else None
        pieces = wanted.count() if wanted is not None else content.pieces
        try:
            self.tree = Tree(self.store.disk, self.copy.place)
        except OSError:
            self.tree = None  # its folder is gone: nothing is there
        for block in range(-(-content.pieces // PIECES_PER_BLOCK)):
            table = self.store.piece_table(self.copy.cid, block)
            if isinstance(table, MissingNodes):
                raise Damaged(
                    f"the index of {self.copy.cid} is not complete: share the path again, or get "
                    "the content again"
                )
            right: list[int] = []
            wrong: list[int] = []
            for piece in range(table.first, table.first + table.count):
                if wanted is not None and not wanted[piece]:
                    continue
                if self._check(table, piece):
                    right.append(piece)
                elif not (self.copy.finished and self._absent()):
                    wrong.append(piece)
                self.done += 1
                if self.done % STEP == 0 and self.done < pieces:
                    yield self._report(pieces, False)
            self.good += len(right)
            self._commit(right, wrong)
        self._leave_file()
        self._commit([], [])
        if self.copy.finished and self.good == pieces and wanted is None:
            self.bits.set_whole(self.copy.id)
        self.copies.end_recheck(self.copy.id)
        yield self._report(pieces, True)

    def _check(self, table: PieceTable, piece: int) -> bool:
        at = piece - table.first
        file = self._enter_file(table.files[at])
        length = min(table.lengths[at], PIECE_BYTES)
        if file.file is None:
            file.wrong = True
            return length == 0 and not self.copy.finished
        view = self.buffer[:length]
        try:
            read = file.file.preadv([view], table.offsets[at]) if length else 0
        except OSError:  # unreadable sectors are what verifying is there to find
            read = -1
        good = read == length or (table.lengths[at] > PIECE_BYTES and read >= 0)
        good = good and digest_of(table.hash_codes[at], view[:read]) == table.digest(piece)
        file.wrong |= not good
        return good

    def _absent(self) -> bool:
        """Return whether the file is not there: its mark covers the bits until it comes back."""
        return self.current is not None and self.current.file is None

    def _enter_file(self, ordinal: int) -> _File:
        if self.current is not None and self.current.ordinal == ordinal:
            return self.current
        self._leave_file()
        entry = self.store.entries(self.copy.cid, ordinal, 1)[0]
        file, before = None, None
        try:
            if self.tree is not None:
                file = self.tree.open(entry.path)
                before = file.fstat()
        except OSError:
            pass  # missing, a link, unreadable: all its pieces are wrong
        self.current = _File(
            ordinal, entry.path, entry.size, (entry.first_piece, entry.pieces), file, before
        )
        return self.current

    def _leave_file(self) -> None:
        """Record the file's stat as that of the bytes just hashed."""
        file, self.current = self.current, None
        if file is None:
            return
        if file.file is None or file.before is None:
            if self.copy.finished:
                self.marks.append(file.ordinal)
        else:
            after = file.file.fstat()
            self.records.append((file.ordinal, after))
            if self.copy.finished and (
                not signed_stat(after).same_file(signed_stat(file.before))
                or (after.size != file.size and file.size >= 0)
            ):
                file.wrong = True
                self.marks.append(file.ordinal)
            self.store.open_files.drop(self.copy.id, file.ordinal)
        if file.wrong and len(self.bad_files) < MAX_BAD_FILES:
            self.bad_files.append(file.path)

    def _commit(self, right: list[int], wrong: list[int]) -> None:
        """Write down what a block's pieces and the files that ended in it are."""
        with self.store.transaction():
            self.copies.files.record(self.copy.id, self.records)
            self.copies.files.mark(self.copy.id, self.marks, True)
            self.bits.set(self.copy.id, right)
            if wrong:
                self.bits.clear(self.copy.id, wrong)
        self.records, self.marks = [], []

    def _report(self, pieces: int, over: bool) -> Verified:
        return Verified(self.done, pieces, self.good, tuple(self.bad_files), over)
