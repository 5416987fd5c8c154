"""From a piece's number to its hash, file and place: a range lookup and arithmetic.

Only file roots and the nodes above the wanted leaves are read; no list of all pieces is ever held.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import Final

from ..wire.ids import RAW, Cid
from ..wire.leaves import Missing, leaf_range
from .bits import Bits
from .copies import Copies
from .database import read_cid
from .index import Index
from .model import (
    BITS_PER_ROW,
    PIECE_BYTES,
    PIECES_PER_BLOCK,
    UNKNOWN_LENGTH,
    LocalRun,
    MissingNodes,
    PieceTable,
)

MAX_DUPLICATES: Final = 1 << 16
"""Pieces that `duplicates` names at once."""

MAX_SAME_FILES: Final = 16 * PIECES_PER_BLOCK
"""Other places of the files of one block that are considered as local sources."""

_RAW: Final = bytes((1, RAW))
"""First bytes of the CID of a file that is one leaf."""


class Pieces:
    """What the pieces of all contents are, and which are to be had on this machine."""

    def __init__(self, index: Index, copies: Copies, bits: Bits) -> None:
        self._index = index
        self._copies = copies
        self._bits = bits

    def table(self, cid: Cid, block: int) -> PieceTable | MissingNodes:
        """See `Store.piece_table`."""
        first = block * PIECES_PER_BLOCK
        digests: list[bytes] = []
        codes = bytearray()
        lengths, files, offsets = array("I"), array("I"), array("Q")
        missing: list[Cid] = []
        for ordinal, name, size, first_piece, pieces in self._index.file_rows(
            cid, first, PIECES_PER_BLOCK
        ):
            if name[:2] == _RAW and len(name) == 36 and 0 <= size <= PIECE_BYTES:
                digests.append(name[4:])  # a small file is its own leaf: there may be very many
                codes.append(name[2])
                lengths.append(size)
                files.append(ordinal)
                offsets.append(0)
                continue
            start = max(first, first_piece)
            count = min(first + PIECES_PER_BLOCK, first_piece + pieces) - start
            leaf = start - first_piece
            root = read_cid(name)
            found = leaf_range(root, size, leaf, count, self._index.node)
            if isinstance(found, Missing):
                missing += found.cids
                continue
            digests += found
            codes += bytes((root.hash_code,)) * count
            lengths.extend(_lengths(size, pieces, leaf, count))
            files.extend(array("I", (ordinal,)) * count)
            offsets.extend(range(leaf * PIECE_BYTES, (leaf + count) * PIECE_BYTES, PIECE_BYTES))
        if missing:
            return MissingNodes(tuple(dict.fromkeys(missing)))
        if not digests:
            raise KeyError(f"{cid} has no pieces from {first} on, as far as is known")
        return PieceTable(
            first, len(digests), b"".join(digests), bytes(codes), lengths, files, offsets
        )

    def duplicates(self, cid: Cid, chunk: int) -> list[tuple[int, ...]] | MissingNodes:
        """See `Store.duplicates`."""
        content = self._index.content(cid)
        if content is None or content.pieces is None:
            raise KeyError(f"the index of {cid} is not complete")
        first = chunk * BITS_PER_ROW
        last = min(first + BITS_PER_ROW, content.pieces)
        places: defaultdict[bytes, list[int]] = defaultdict(list)
        for block in range(first // PIECES_PER_BLOCK, -(-last // PIECES_PER_BLOCK)):
            table = self.table(cid, block)
            if isinstance(table, MissingNodes):
                return table
            for at in range(table.count):
                if table.lengths[at]:
                    places[table.digests[32 * at : 32 * at + 32]].append(table.first + at)
        groups = []
        named = 0
        for pieces in places.values():
            if len(pieces) > 1 and named < MAX_DUPLICATES:
                groups.append(tuple(pieces))
                named += len(pieces)
        return groups

    def local_sources(self, copy_id: int, block: int) -> list[LocalRun]:
        """See `Store.local_sources`."""
        wanted = self._copies.get(copy_id)
        if wanted is None:
            raise KeyError(copy_id)
        first = block * PIECES_PER_BLOCK
        content = self._index.row_id(wanted.cid)
        copies = {content: self._copies.of_content(content)}
        runs = [
            LocalRun(at, length, other, at)
            for other in copies[content]
            if other != copy_id
            for at, length in self._bits.runs(other, first, PIECES_PER_BLOCK)
        ]
        same = self._index.same_files(wanted.cid, first, PIECES_PER_BLOCK, MAX_SAME_FILES)
        for its_first, pieces, content, there_first in same:
            start = max(first, its_first)
            count = min(first + PIECES_PER_BLOCK, its_first + pieces) - start
            there = there_first + start - its_first
            if content not in copies:
                copies[content] = self._copies.of_content(content)
            runs += [
                LocalRun(start + at - there, length, other, at)
                for other in copies[content]
                for at, length in self._bits.runs(other, there, count)
            ]
        return runs


def _lengths(size: int, pieces: int, leaf: int, count: int) -> array[int]:
    """Return the lengths of a file's leaves; all are full but the last."""
    if size < 0:
        return array("I", (UNKNOWN_LENGTH,))
    lengths = array("I", (PIECE_BYTES,)) * count
    if leaf + count == pieces:
        lengths[-1] = size - (pieces - 1) * PIECE_BYTES
    return lengths
