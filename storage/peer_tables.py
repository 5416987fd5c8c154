"""Small bounded tables: hashed files, the DHT's memory, bans and totals of peers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..wire import varint
from ..wire.ids import BLAKE3, SHA2_256, Cid
from .database import Connection, read_cid, signed
from .filesystem import FileStat
from .model import AnnouncementRow, Ban, PeerTotals, ProviderRow, RememberedPeer

MAX_HASHED_FILES: Final = 4_000_000
"""Files whose hash is remembered (about 150 bytes each); the least recently used go."""

MAX_INODES: Final = 500
"""Files that one statement looks for."""

MAX_ROUTING_PEERS: Final = 2048
"""Remembered peers of one DHT; the longest unseen go."""

MAX_PROVIDERS: Final = 100_000
"""Provider records (design: provider store)."""

MAX_BANS: Final = 10_000
"""Bans at a time; those that end first go."""

MAX_TOTALS: Final = 100_000
"""Peers whose traffic is counted; the longest unseen go."""


class HashCache:
    """CIDs of files that were hashed, found again by their stat."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def find(self, stats: Iterable[FileStat], hash_code: int = SHA2_256) -> list[Cid | None]:
        """Return the file CID for each stat, or None if it is new or was changed.

        The index nodes of a CID that is returned are kept by the store.
        """
        wanted = [
            (signed(s.device), signed(s.inode), s.size, s.mtime_ns, s.ctime_ns) for s in stats
        ]
        known: dict[tuple[int, ...], bytes] = {}
        with self._db.snapshot():
            for device in {row[0] for row in wanted}:
                inodes = [row[1] for row in wanted if row[0] == device]
                for at in range(0, len(inodes), MAX_INODES):
                    part = inodes[at : at + MAX_INODES]
                    rows = self._db.rows(
                        "SELECT device, inode, size, mtime_ns, ctime_ns, cid FROM hashed_files "
                        "WHERE device = ? AND hash = ? "
                        f"AND inode IN ({','.join('?' * len(part))})",
                        (device, hash_code, *part),
                    )
                    known.update((row[:5], row[5]) for row in rows)
        return [read_cid(known[row]) if row in known else None for row in wanted]

    def add(
        self, files: Iterable[tuple[FileStat, Cid]], now: float, hash_code: int = SHA2_256
    ) -> None:
        """Remember the CIDs of files (one commit). Their nodes must have been added before."""
        with self._db.transaction():
            self._db.run_many(
                "INSERT OR REPLACE INTO hashed_files "
                "(device, inode, hash, size, mtime_ns, ctime_ns, cid, used) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        signed(stat.device),
                        signed(stat.inode),
                        hash_code,
                        stat.size,
                        stat.mtime_ns,
                        stat.ctime_ns,
                        bytes(cid),
                        now,
                    )
                    for stat, cid in files
                ),
            )

    def add_copy(self, copy: int) -> None:
        """Remember the CIDs of all recorded files of a copy (one commit)."""
        with self._db.transaction():
            self._db.run(
                "INSERT OR REPLACE INTO hashed_files "
                "(device, inode, hash, size, mtime_ns, ctime_ns, cid, used) "
                "SELECT device, inode, CASE substr(entries.cid, 3, 1) WHEN ? THEN ? ELSE ? END, "
                "copy_files.size, mtime_ns, ctime_ns, entries.cid, mtime_ns / 1e9 "
                "FROM copies JOIN copy_files ON copy_files.copy = copies.id JOIN entries "
                "ON entries.content = copies.content AND entries.ordinal = copy_files.ordinal "
                "WHERE copies.id = ?",
                (bytes((SHA2_256,)), SHA2_256, BLAKE3, copy),
            )

    def trim(self, limit: int = MAX_HASHED_FILES) -> None:
        """Forget the least recently hashed files beyond the limit."""
        _keep_newest(self._db, "hashed_files", "used", limit)


class DhtTables:
    """What the DHT wants to know again after a restart."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def save_peers(self, protocol: str, peers: Iterable[RememberedPeer]) -> None:
        """Replace the remembered peers of a DHT (one commit)."""
        with self._db.transaction():
            self._db.run("DELETE FROM routing_peers WHERE protocol = ?", (protocol,))
            newest = sorted(peers, key=lambda peer: -peer.seen)[:MAX_ROUTING_PEERS]
            self._db.run_many(
                "INSERT OR REPLACE INTO routing_peers VALUES (?, ?, ?, ?)",
                ((protocol, peer.peer, _pack(peer.addrs), peer.seen) for peer in newest),
            )

    def peers(self, protocol: str) -> list[RememberedPeer]:
        """Return the remembered peers, the last seen first."""
        return [
            RememberedPeer(peer, _unpack(addrs), seen)
            for peer, addrs, seen in self._db.rows(
                "SELECT peer, addrs, seen FROM routing_peers WHERE protocol = ? ORDER BY seen DESC",
                (protocol,),
            )
        ]

    def save_providers(self, records: Iterable[ProviderRow]) -> None:
        """Replace the stored provider records (one commit)."""
        with self._db.transaction():
            self._db.run("DELETE FROM providers")
            self._db.run_many(
                "INSERT OR REPLACE INTO providers VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (row.key, row.peer, _pack(row.addrs), row.group, row.first, row.renewed)
                    for row in records
                ),
            )
            _keep_newest(self._db, "providers", "renewed", MAX_PROVIDERS)

    def providers(self) -> list[ProviderRow]:
        """Return the stored provider records."""
        return [
            ProviderRow(key, peer, _unpack(addrs), group, first, renewed)
            for key, peer, addrs, group, first, renewed in self._db.rows("SELECT * FROM providers")
        ]

    def save_announcement(self, multihash: bytes, due: float, taken: int | None) -> None:
        """Remember when a multihash is to be announced next."""
        self.save_announcements([AnnouncementRow(multihash, due, taken)])

    def save_announcements(self, rows: Iterable[AnnouncementRow]) -> None:
        """Remember when multihashes are to be announced next (one commit)."""
        with self._db.transaction():
            self._db.run_many(
                "INSERT OR REPLACE INTO announcements VALUES (?, ?, ?)",
                ((row.multihash, row.due, row.taken) for row in rows),
            )

    def drop_announcement(self, multihash: bytes) -> None:
        """Announce a multihash no more."""
        self._db.run("DELETE FROM announcements WHERE multihash = ?", (multihash,))

    def announcements(self) -> list[AnnouncementRow]:
        """Return the schedule, the most urgent first."""
        return [
            AnnouncementRow(*row)
            for row in self._db.rows("SELECT * FROM announcements ORDER BY due, multihash")
        ]


class PeerTables:
    """Bans and totals."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def ban(self, peer: bytes, cid: Cid, until: float, reason: str) -> None:
        """Take nothing of this content from this peer until then (Unix time)."""
        with self._db.transaction():
            self._db.run(
                "INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?)",
                (peer, bytes(cid), until, reason),
            )
            _keep_newest(self._db, "bans", "until", MAX_BANS)

    def banned(self, peer: bytes, cid: Cid, now: float) -> bool:
        """Return whether a ban holds."""
        row = self._db.row(
            "SELECT 1 FROM bans WHERE peer = ? AND cid = ? AND until > ?", (peer, bytes(cid), now)
        )
        return row is not None

    def bans(self, now: float, cid: Cid | None = None) -> list[Ban]:
        """Return the bans that hold (for one content); those that ended are dropped."""
        with self._db.transaction():
            self._db.run("DELETE FROM bans WHERE until <= ?", (now,))
            rows = self._db.rows("SELECT * FROM bans ORDER BY until DESC")
        bans = [Ban(peer, read_cid(name), until, why) for peer, name, until, why in rows]
        return [ban for ban in bans if cid is None or ban.cid == cid]

    def add_totals(self, amounts: Iterable[tuple[bytes, int, int]], now: float) -> None:
        """Add (peer, bytes sent, bytes received) to the totals (one commit)."""
        with self._db.transaction():
            self._db.run_many(
                "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (peer) DO UPDATE SET "
                "sent = sent + excluded.sent, received = received + excluded.received, "
                "seen = excluded.seen",
                ((peer, sent, received, now) for peer, sent, received in amounts),
            )
            _keep_newest(self._db, "totals", "seen", MAX_TOTALS)

    def totals(self) -> list[PeerTotals]:
        """Return the totals of all peers, the last seen first."""
        return [
            PeerTotals(*row) for row in self._db.rows("SELECT * FROM totals ORDER BY seen DESC")
        ]


def _keep_newest(db: Connection, table: str, column: str, limit: int) -> None:
    """Delete the rows with the smallest values of `column` beyond `limit` rows."""
    with db.transaction():
        if db.row(f"SELECT count(*) FROM {table}")[0] > limit:
            db.run(
                f"DELETE FROM {table} WHERE {column} <= "
                f"(SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1 OFFSET ?)",
                (limit,),
            )


def _pack(addrs: Iterable[bytes]) -> bytes:
    return b"".join(varint.encode(len(addr)) + addr for addr in addrs)


def _unpack(data: bytes) -> tuple[bytes, ...]:
    addrs = []
    at = 0
    while at < len(data):
        length, at = varint.decode(data, at)
        addrs.append(data[at : at + length])
        at += length
    return tuple(addrs)
