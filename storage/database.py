"""The one SQLite connection of a home: settings, schema, transactions, errors in words.

WAL with `synchronous=FULL`: a commit that returned survives a power cut. One lock serialises all
threads. Rows are read and written with plain SQL on the hot paths; sqlite-utils brings
migrations and nested transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from ..wire.ids import BLAKE3, DAG_PB, RAW, SHA2_256, Cid
from .errors import Damaged, DiskFault, DiskFull, HomeBusy, StorageError
from .filesystem import Disk

if TYPE_CHECKING:
    from sqlite_utils import Database

DATABASE_NAME: Final = "shoal.db"

_COMMON: Final = {
    bytes((1, codec, code, 32)): codec for codec in (RAW, DAG_PB) for code in (SHA2_256, BLAKE3)
}
"""First bytes of nearly every CID."""

CACHE_KIB: Final = 16 * 1024
"""Memory for database pages."""

WAL_BYTES_KEPT: Final = 64 << 20
"""The write-ahead log is cut to this after a checkpoint."""

QUICK_CHECK_BYTES: Final = 32 << 20
"""A database up to this size is read whole at start (about 0.1 s); of a larger one the schema."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=OFF",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA mmap_size=0",
    f"PRAGMA cache_size=-{CACHE_KIB}",
    f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}",
)

_SCHEMA_1: Final = (
    """CREATE TABLE contents (
        id INTEGER PRIMARY KEY, cid BLOB NOT NULL UNIQUE, key BLOB NOT NULL, name TEXT,
        size INTEGER, pieces INTEGER, complete INTEGER NOT NULL DEFAULT 0,
        announce TEXT NOT NULL)""",
    "CREATE INDEX contents_key ON contents (key)",
    "CREATE TABLE nodes (id INTEGER PRIMARY KEY, cid BLOB NOT NULL UNIQUE, block BLOB NOT NULL)",
    # Links from node to node (not to raw leaves), so that what nothing leads to can be dropped.
    """CREATE TABLE links (parent INTEGER NOT NULL, child BLOB NOT NULL,
        PRIMARY KEY (parent, child)) WITHOUT ROWID""",
    "CREATE INDEX links_child ON links (child)",
    """CREATE TABLE entries (
        content INTEGER NOT NULL, ordinal INTEGER NOT NULL, path TEXT NOT NULL,
        kind INTEGER NOT NULL, cid BLOB NOT NULL, size INTEGER NOT NULL,
        first_piece INTEGER NOT NULL, pieces INTEGER NOT NULL, target BLOB NOT NULL,
        PRIMARY KEY (content, ordinal)) WITHOUT ROWID""",
    "CREATE INDEX entries_piece ON entries (content, first_piece) WHERE pieces > 0",
    "CREATE INDEX entries_cid ON entries (cid) WHERE pieces > 0",
    # AUTOINCREMENT: an id stands in the name of a working path and must never come again.
    """CREATE TABLE copies (
        id INTEGER PRIMARY KEY AUTOINCREMENT, content INTEGER NOT NULL, path BLOB NOT NULL,
        state TEXT NOT NULL, reason TEXT, recheck INTEGER NOT NULL DEFAULT 0,
        whole INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0, root_inode INTEGER,
        added REAL NOT NULL, UNIQUE (content, path))""",
    "CREATE INDEX copies_path ON copies (path)",
    """CREATE TABLE copy_files (
        copy INTEGER NOT NULL, ordinal INTEGER NOT NULL, device INTEGER NOT NULL,
        inode INTEGER NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL, bad INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (copy, ordinal)) WITHOUT ROWID""",
    "CREATE INDEX copy_files_bad ON copy_files (copy) WHERE bad",
    "CREATE TABLE bits (copy INTEGER NOT NULL, chunk INTEGER NOT NULL, bits BLOB NOT NULL, "
    "PRIMARY KEY (copy, chunk))",
    """CREATE TABLE hashed_files (
        device INTEGER NOT NULL, inode INTEGER NOT NULL, hash INTEGER NOT NULL,
        size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
        cid BLOB NOT NULL, used REAL NOT NULL, PRIMARY KEY (device, inode, hash)) WITHOUT ROWID""",
    "CREATE INDEX hashed_files_cid ON hashed_files (cid)",
    """CREATE TABLE routing_peers (
        protocol TEXT NOT NULL, peer BLOB NOT NULL, addrs BLOB NOT NULL, seen REAL NOT NULL,
        PRIMARY KEY (protocol, peer)) WITHOUT ROWID""",
    """CREATE TABLE providers (
        key BLOB NOT NULL, peer BLOB NOT NULL, addrs BLOB NOT NULL, ip_group BLOB,
        first REAL NOT NULL, renewed REAL NOT NULL, PRIMARY KEY (key, peer)) WITHOUT ROWID""",
    "CREATE TABLE announcements (multihash BLOB PRIMARY KEY, due REAL NOT NULL, taken INTEGER)",
    """CREATE TABLE bans (
        peer BLOB NOT NULL, cid BLOB NOT NULL, until REAL NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (peer, cid)) WITHOUT ROWID""",
    "CREATE TABLE totals (peer BLOB PRIMARY KEY, sent INTEGER NOT NULL, received INTEGER NOT NULL, "
    "seen REAL NOT NULL)",
)


def _schema_1(database: Database) -> None:
    for statement in _SCHEMA_1:
        database.execute(statement)


def _schema_2(database: Database) -> None:
    """Tell homes apart in working names; see damage in bits, which nothing else would show."""
    database.execute("ALTER TABLE copies ADD COLUMN tag TEXT NOT NULL DEFAULT ''")
    database.execute("ALTER TABLE bits ADD COLUMN sum INTEGER")
    database.execute("CREATE TABLE home (tag TEXT NOT NULL)")


def _schema_3(database: Database) -> None:
    """Remember which files of a content are wanted, and in which order its pieces come."""
    database.execute("ALTER TABLE copies ADD COLUMN only TEXT")
    database.execute("ALTER TABLE copies ADD COLUMN piece_order TEXT NOT NULL DEFAULT 'rarest'")
    database.execute("ALTER TABLE copies ADD COLUMN reopened INTEGER NOT NULL DEFAULT 0")


def _schema_4(database: Database) -> None:
    """Keep limits of bytes a second."""
    database.execute(
        "CREATE TABLE limits (scope TEXT NOT NULL, up INTEGER NOT NULL, rate INTEGER, "
        "PRIMARY KEY (scope, up)) WITHOUT ROWID"
    )


_MIGRATIONS: Final[tuple[Callable[[Database], None], ...]] = (
    _schema_1,
    _schema_2,
    _schema_3,
    _schema_4,
)
"""In order; one that was shipped is never edited. Each runs in a transaction of its own."""


class Connection:
    """The connection, its lock, and the translation of its errors."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = RLock()
        self.on_damage: Callable[[], None] | None = None
        """Called once, when a page that is not what it should be is met."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block did, durably, or nothing of it; blocks may be nested."""
        with self._lock, self._errors(), self._database.atomic():
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let several reads see one state."""
        with self._lock:
            yield

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""
        with self._lock, self._errors():  # rows are read from the disk while they are fetched
            return self._database.conn.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Return the first row of a query, or None."""
        with self._lock:
            return self._execute(sql, values).fetchone()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement; return how many rows it changed."""
        return self._execute(sql, values).rowcount

    def insert(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one INSERT; return the new row's id."""
        row_id = self._execute(sql, values).lastrowid
        assert row_id is not None
        return row_id

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row."""
        with self._lock, self._errors():
            self._database.conn.executemany(sql, rows)

    def _execute(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        with self._lock:
            try:
                return self._database.conn.execute(sql, values)
            except sqlite3.DatabaseError as error:
                raise (self._noted(error) or error) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise (self._noted(error) or error) from error

    def _noted(self, error: sqlite3.DatabaseError) -> StorageError | None:
        in_words = _in_words(error)
        if isinstance(in_words, Damaged):
            self._note_damage()
        return in_words

    def _note_damage(self) -> None:
        if self.on_damage is not None:
            tell, self.on_damage = self.on_damage, None
            tell()

    def damaged(self, what: str) -> Damaged:
        """Return the error for damage that we met ourselves; the next start mends it."""
        self._note_damage()
        return Damaged(f"the database is damaged ({what}): restart shoal")

    def close(self) -> None:
        """Close; a second call does nothing."""
        with self._lock:
            self._database.conn.close()


def open_database(disk: Disk, path: Path, size: int) -> Connection:
    """Open the database, bring its schema up to date and look for damage.

    Args:
        disk: Where it lies.
        path: The file.
        size: Its bytes now (0 = new).

    Raises:
        Damaged: It is not a database, or not whole.
        StorageError: It cannot be read or written, or is of a newer version of shoal.
    """
    from sqlite_utils import Database, Migrations

    with database_errors():
        raw = disk.connect_database(path)
    try:
        with database_errors():
            for pragma in _PRAGMAS:
                raw.execute(pragma)
            if 0 < size <= QUICK_CHECK_BYTES:
                verdict = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise Damaged(f"the database is damaged: {verdict}")
            database = Database(raw, execute_plugins=False)
            migrations = Migrations("shoal")
            for step in _MIGRATIONS:
                migrations(name=step.__name__.lstrip("_"))(step)
            known = {step.__name__.lstrip("_") for step in _MIGRATIONS}
            if any(done.name not in known for done in migrations.applied(database)):
                raise StorageError(
                    f"{path} was written by a newer version of shoal: use that version"
                )
            if migrations.pending(database):
                migrations.apply(database)
    except BaseException:
        raw.close()
        raise
    return Connection(database)


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn SQLite's errors into errors in words; mistakes in our SQL stay what they are."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise (_in_words(error) or error) from error


def _in_words(error: sqlite3.DatabaseError) -> StorageError | None:
    """Return what an error of SQLite means for the user; None for a mistake of ours."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return Damaged(f"the database is damaged ({error}): restart shoal")
        case sqlite3.SQLITE_FULL:
            return DiskFull("no room for the database in the home folder: make room")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN as code:
            return DiskFault(
                f"the database in the home folder cannot be used (code {code}, {error}): look "
                "after that disk, then try again"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return HomeBusy("another program uses the database of this home: close it, try again")
        case _:
            return None


def signed(number: int) -> int:
    """Return a 64-bit unsigned number (an inode of some file systems) as SQLite can keep it."""
    return number - (1 << 64) if number >= 1 << 63 else number


def read_cid(data: bytes) -> Cid:
    """Return a CID that we stored; the common forms need no parsing."""
    codec = _COMMON.get(data[:4]) if len(data) == 36 else None
    return Cid(codec, data[2:]) if codec is not None else Cid.from_bytes(data)
