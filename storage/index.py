"""Contents, their entries and their index nodes, as rows.

A node is kept while something leads to it: a content whose root it is, another kept node, or the
hash cache. `links` holds the edges from node to node, so forgetting a content costs what the
content cost, not what the home holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..wire.dag import decode_node
from ..wire.ids import BLAKE3, DAG_PB, SHA2_256, Cid
from ..wire.swarm import content_key
from ..wire.walk import Entry, EntryKind
from .database import Connection, read_cid
from .model import Announce, Content

ENTRY_BATCH: Final = 1024
"""Entries read from the database at once."""

_CONTENT: Final = "SELECT id, cid, key, name, size, pieces, complete, announce FROM contents"
_ENTRY: Final = (
    "SELECT ordinal, path, kind, cid, size, first_piece, pieces, target FROM entries WHERE "
)


FileRow = tuple[int, bytes, int, int, int]
"""Ordinal, CID, size, first piece and pieces of a file."""

_KINDS: Final = tuple(EntryKind)
"""By number: looking up an enum's member by value takes as long as the rest of an entry."""

_NODE_CIDS: Final = tuple(bytes((1, DAG_PB, code, 32)) for code in (SHA2_256, BLAKE3))
"""First bytes of the CIDs of all inner nodes."""


class Index:
    """The rows of all contents."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def add_nodes(self, nodes: Iterable[tuple[Cid, bytes]]) -> None:
        """See `Store.add_nodes`."""
        with self._db.transaction():
            for cid, block in nodes:
                name = bytes(cid)
                if self._db.row("SELECT 1 FROM nodes WHERE cid = ?", (name,)):
                    continue
                row_id = self._db.insert(
                    "INSERT INTO nodes (cid, block) VALUES (?, ?)", (name, block)
                )
                self._db.run_many(
                    "INSERT OR IGNORE INTO links (parent, child) VALUES (?, ?)",
                    [(row_id, bytes(child)) for child in _children(cid, block)],
                )

    def node(self, cid: Cid) -> bytes | None:
        """See `Store.node`."""
        row = self._db.row("SELECT block FROM nodes WHERE cid = ?", (bytes(cid),))
        return row[0] if row else None

    def has_nodes(self, cid: Cid) -> bool:
        """See `Store.has_nodes`."""
        if cid.codec != DAG_PB:
            return True
        seen = {bytes(cid)}
        ahead = [bytes(cid)]
        with self._db.snapshot():
            while ahead:
                row = self._db.row("SELECT id FROM nodes WHERE cid = ?", (ahead.pop(),))
                if row is None:
                    return False
                for (child,) in self._db.rows("SELECT child FROM links WHERE parent = ?", row):
                    if child not in seen:
                        seen.add(child)
                        ahead.append(child)
        return True

    def sweep_nodes(self) -> int:
        """See `Store.sweep_nodes`."""
        with self._db.transaction():
            lone = self._db.rows(
                "SELECT cid FROM nodes WHERE "
                "NOT EXISTS (SELECT 1 FROM links WHERE child = nodes.cid) "
                "AND NOT EXISTS (SELECT 1 FROM contents WHERE cid = nodes.cid) "
                "AND NOT EXISTS (SELECT 1 FROM hashed_files WHERE cid = nodes.cid)"
            )
            return self._drop_nodes([cid for (cid,) in lone])

    def _drop_nodes(self, names: list[bytes]) -> int:
        """Drop nodes to which nothing leads, and in turn what only they led to."""
        dropped = 0
        while names:
            name = names.pop()
            row = self._db.row("SELECT id FROM nodes WHERE cid = ?", (name,))
            if row is None or self._led_to(name):
                continue
            names += [c for (c,) in self._db.rows("SELECT child FROM links WHERE parent = ?", row)]
            self._db.run("DELETE FROM links WHERE parent = ?", row)
            self._db.run("DELETE FROM nodes WHERE id = ?", row)
            dropped += 1
        return dropped

    def _led_to(self, name: bytes) -> bool:
        return any(
            self._db.row(f"SELECT 1 FROM {table} WHERE {column} = ? LIMIT 1", (name,))
            for table, column in (("links", "child"), ("contents", "cid"), ("hashed_files", "cid"))
        )

    def ensure_content(self, cid: Cid, name: str | None) -> Content:
        """See `Store.ensure_content`."""
        with self._db.transaction():
            self._db.run(
                "INSERT OR IGNORE INTO contents (cid, key, announce) VALUES (?, ?, ?)",
                (bytes(cid), content_key(cid), Announce.BLINDED.value),
            )
            if name is not None and name.isprintable():  # bytes that are no text are not
                self._db.run(
                    "UPDATE contents SET name = ? WHERE cid = ? AND name IS NULL",
                    (name, bytes(cid)),
                )
        content = self.content(cid)
        assert content is not None
        return content

    def content(self, cid: Cid) -> Content | None:
        """See `Store.content`."""
        row = self._db.row(f"{_CONTENT} WHERE cid = ?", (bytes(cid),))
        return _content(row) if row else None

    def content_by_key(self, key: bytes) -> Content | None:
        """See `Store.content_by_key`."""
        row = self._db.row(f"{_CONTENT} WHERE key = ? ORDER BY id", (key,))
        return _content(row) if row else None

    def contents(self) -> list[Content]:
        """See `Store.contents`."""
        return [_content(row) for row in self._db.rows(f"{_CONTENT} ORDER BY id")]

    def row_id(self, cid: Cid) -> int:
        """Return the number that a content has in other tables; KeyError if it is unknown."""
        row = self._db.row("SELECT id FROM contents WHERE cid = ?", (bytes(cid),))
        if row is None:
            raise KeyError(str(cid))
        return int(row[0])

    def set_announce(self, cid: Cid, announce: Announce) -> None:
        """See `Store.set_announce`."""
        self._db.run("UPDATE contents SET announce = ? WHERE cid = ?", (announce.value, bytes(cid)))

    def add_entries(self, cid: Cid, entries: Iterable[Entry]) -> None:
        """See `Store.add_entries`."""
        with self._db.transaction():
            content = self.row_id(cid)
            self._db.run_many(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        content,
                        entry.ordinal,
                        entry.path,
                        int(entry.kind),
                        bytes(entry.cid),
                        entry.size,
                        entry.first_piece,
                        entry.pieces,
                        entry.target.encode("utf-8", "surrogateescape"),
                    )
                    for entry in entries
                ),
            )

    def index_complete(self, cid: Cid, size: int | None, pieces: int) -> None:
        """See `Store.index_complete`."""
        with self._db.transaction():
            self._db.run(
                "UPDATE contents SET complete = 1, size = ifnull(?, size), pieces = ? "
                "WHERE cid = ?",
                (size, pieces, bytes(cid)),
            )

    def learn_size(self, cid: Cid, size: int) -> None:
        """See `Store.learn_size`."""
        with self._db.transaction():
            content = self.row_id(cid)
            self._db.run("UPDATE contents SET size = ? WHERE id = ?", (size, content))
            self._db.run(
                "UPDATE entries SET size = ? WHERE content = ? AND ordinal = 0 AND size < 0",
                (size, content),
            )

    def entries(self, cid: Cid, first: int, limit: int) -> list[Entry]:
        """See `Store.entries`."""
        rows = self._db.rows(
            _ENTRY + "content = ? AND ordinal >= ? ORDER BY ordinal LIMIT ?",
            (self.row_id(cid), first, limit),
        )
        return [_entry(row) for row in rows]

    def file_paths(self, cid: Cid, first: int, limit: int) -> list[tuple[int, str]]:
        """See `Store.file_paths`."""
        return self._db.rows(
            "SELECT ordinal, path FROM entries WHERE content = ? AND ordinal >= ? AND pieces > 0 "
            "ORDER BY ordinal LIMIT ?",
            (self.row_id(cid), first, limit),
        )

    def entry_count(self, cid: Cid) -> int:
        """See `Store.entry_count`; ordinals have no gaps."""
        row = self._db.row(
            "SELECT max(ordinal) FROM entries WHERE content = ?", (self.row_id(cid),)
        )
        return 0 if row[0] is None else int(row[0]) + 1

    def entry_of_piece(self, cid: Cid, piece: int) -> Entry | None:
        """Return the entry that a piece belongs to."""
        row = self._db.row(
            _ENTRY + "content = ? AND pieces > 0 AND first_piece <= ? "
            "ORDER BY first_piece DESC LIMIT 1",
            (self.row_id(cid), piece),
        )
        entry = _entry(row) if row else None
        return entry if entry and piece < entry.first_piece + entry.pieces else None

    def file_rows(self, cid: Cid, first: int, count: int) -> list[FileRow]:
        """Return the entries with pieces in the range, in order, as rows."""
        return self._db.rows(
            "SELECT ordinal, cid, size, first_piece, pieces FROM entries "
            "WHERE content = ?1 AND pieces > 0 AND first_piece < ?3 AND first_piece >= "
            "(SELECT max(first_piece) FROM entries WHERE content = ?1 AND pieces > 0 "
            "AND first_piece <= ?2) AND first_piece + pieces > ?2 ORDER BY first_piece",
            (self.row_id(cid), first, first + count),
        )

    def same_files(
        self, cid: Cid, first: int, count: int, limit: int
    ) -> list[tuple[int, int, int, int]]:
        """Find entries anywhere with the same file as one that has pieces in a range.

        Returns:
            (first piece and number of pieces of that one, content row and first piece of the
            other), up to `limit`.
        """
        return self._db.rows(
            "SELECT wanted.first_piece, wanted.pieces, other.content, other.first_piece "
            "FROM entries AS wanted "
            "JOIN entries AS other ON other.cid = wanted.cid AND other.pieces > 0 "
            "WHERE wanted.content = ?1 AND wanted.pieces > 0 AND wanted.first_piece < ?3 "
            "AND wanted.first_piece >= (SELECT max(first_piece) FROM entries "
            "WHERE content = ?1 AND pieces > 0 AND first_piece <= ?2) "
            "AND wanted.first_piece + wanted.pieces > ?2 "
            "AND NOT (other.content = ?1 AND other.ordinal = wanted.ordinal) LIMIT ?4",
            (self.row_id(cid), first, first + count, limit),
        )

    def forget(self, cid: Cid) -> None:
        """See `Store.forget`."""
        with self._db.transaction():
            content = self.row_id(cid)
            files = self._db.rows(
                "SELECT DISTINCT cid FROM entries WHERE content = ? AND pieces > 1", (content,)
            )
            self._db.run("DELETE FROM entries WHERE content = ?", (content,))
            self._db.run("DELETE FROM contents WHERE id = ?", (content,))
            self._db.run(
                "DELETE FROM announcements WHERE multihash = ? OR multihash = ?",
                (cid.multihash, bytes((0x12, 0x20)) + content_key(cid)),
            )
            # A cached hash would keep the nodes of a file that may never be shared again.
            self._db.run_many(
                "DELETE FROM hashed_files WHERE cid = ?1 "
                "AND NOT EXISTS (SELECT 1 FROM entries WHERE cid = ?1 AND pieces > 0)",
                files,
            )
            self._drop_nodes([bytes(cid)])


def _children(cid: Cid, block: bytes) -> set[Cid]:
    """Return the inner nodes that a node links to."""
    if cid.codec != DAG_PB or not any(first in block for first in _NODE_CIDS):
        return set()  # most nodes link to raw leaves only: these need not be decoded
    return {link.cid for link in decode_node(block).links if link.cid.codec == DAG_PB}


def _content(row: Any) -> Content:
    _, cid, key, name, size, pieces, complete, announce = row
    return Content(read_cid(cid), key, name, size, pieces, bool(complete), Announce(announce))


def _entry(row: Any) -> Entry:
    ordinal, path, kind, cid, size, first_piece, pieces, target = row
    shown = target.decode("utf-8", "surrogateescape") if target else ""
    return Entry(ordinal, path, _KINDS[kind], read_cid(cid), size, first_piece, pieces, shown)
