"""What the store tells: contents, copies of them, tables of pieces, and what peers left behind."""

from __future__ import annotations

import base64
from array import array
from enum import StrEnum
from pathlib import Path
from typing import Final

from ..wire.ids import Cid
from ..wire.immutable import immutable

PIECES_PER_BLOCK: Final = 1024
"""Pieces of one `PieceTable`: those of one full inner node of a file."""

BITS_PER_ROW: Final = 1 << 16
"""Pieces whose bits share one row (8 KiB); also a chunk of the swarm protocol's bitfield."""

PIECE_BYTES: Final = 1 << 20
"""The longest piece: a leaf of the profile `unixfs-v1-2025`."""

ORDERS: Final = ("rarest", "sequential")
"""Which pieces of a fetch come first."""

UNKNOWN_LENGTH: Final = 0xFFFFFFFF
"""Length of the piece of a raw root that has not arrived yet; at most `PIECE_BYTES`."""


def tag_text(drawn: bytes) -> str:
    """Return random bytes (at least 5) as the tag of a home, see `Copy.tag`."""
    return base64.b32encode(drawn[:5]).decode().lower() + "-"


class Announce(StrEnum):
    """Under which name the DHT is told that we have a content."""

    NONE = "none"
    BLINDED = "blinded"
    """Its key: DHT nodes cannot learn the CID."""
    PUBLIC = "public"
    """Its plain multihash."""


@immutable
class Content:
    """A content that we know of."""

    cid: Cid
    key: bytes
    """`content_key(cid)`."""
    name: str | None
    """What its copy or link called it; a hint."""
    size: int | None
    """Bytes of all files; None while the index is incomplete or a raw root's size is unknown."""
    pieces: int | None
    """Length of its bitfield; None while the index is incomplete."""
    index_complete: bool
    """All entries are stored (a file's inner nodes may still be missing)."""
    announce: Announce


class CopyState(StrEnum):
    """What a copy is for us."""

    SHARED = "shared"
    """Hashed where it lay."""
    FETCHING = "fetching"
    """Being written; goes on whenever a node of this home runs."""
    PAUSED = "paused"
    """Being written, stopped by its user."""
    COMPLETE = "complete"
    """Fetched, in its final place."""
    DEGRADED = "degraded"
    """Was shared or complete; files are missing or changed. What is left is served."""


@immutable
class Copy:
    """One copy of a content on this machine's disks."""

    id: int
    """Never used twice within a home."""
    cid: Cid
    path: Path
    """The final place: a file, or a folder with the content's entries inside."""
    state: CopyState
    reason: str | None
    """Why it is degraded, for people."""
    recheck: bool
    """Its bits were lost with the database: the files are to be hashed again (`Store.verify`, or
    importing the path again for a shared copy)."""
    tag: str = ""
    """Of the home that began the fetch: two homes may fetch one content into one folder. Copies
    from before there were tags have none."""
    only: tuple[str, ...] | None = None
    """Patterns of the wanted entries (`choice.py`); None = everything."""
    order: str = "rarest"
    """Which pieces come first: `rarest` or `sequential`."""
    reopened: bool = False
    """It was complete as far as it was wanted, and more is fetched now: what was there is its
    user's, and goes back to `path` whatever happens."""

    @property
    def working_name(self) -> str:
        """Name of the unfinished file or folder, in the folder of `path`."""
        digest = base64.b32encode(self.cid.digest[:10]).decode().lower()
        return f".shoal-{digest}-{self.tag}{self.id}"

    def wants(self, only: tuple[str, ...] | None) -> bool:
        """Return whether all that these patterns take is wanted already."""
        return self.only is None or (only is not None and set(only) <= set(self.only))

    @property
    def finished(self) -> bool:
        """Whether its bytes are at `path` rather than at the working path."""
        return self.state not in (CopyState.FETCHING, CopyState.PAUSED)

    @property
    def place(self) -> Path:
        """Where its bytes are now."""
        return self.path if self.finished else self.path.with_name(self.working_name)


@immutable
class PieceTable:
    """The pieces [first, first + count) of a content: what they are and where they go."""

    first: int
    count: int
    digests: bytes
    """32 bytes for each piece."""
    hash_codes: bytes
    """One byte for each piece: its multihash function (`SHA2_256` or `BLAKE3`)."""
    lengths: array[int]
    """Bytes of each piece (typecode I); `UNKNOWN_LENGTH` for a raw root that never arrived."""
    files: array[int]
    """Ordinal of each piece's entry (typecode I)."""
    offsets: array[int]
    """Place of each piece in its file (typecode Q)."""

    def part(self, at: int, count: int) -> PieceTable:
        """Return `count` of the pieces, from the one at `at` in this table on."""
        end = at + count
        return PieceTable(
            self.first + at,
            count,
            self.digests[32 * at : 32 * end],
            self.hash_codes[at:end],
            self.lengths[at:end],
            self.files[at:end],
            self.offsets[at:end],
        )

    def joined(self, after: PieceTable) -> PieceTable:
        """Return these pieces and those of another table that begins behind them."""
        return PieceTable(
            self.first,
            self.count + after.count,
            self.digests + after.digests,
            self.hash_codes + after.hash_codes,
            self.lengths + after.lengths,
            self.files + after.files,
            self.offsets + after.offsets,
        )

    def digest(self, piece: int) -> bytes:
        """Return the digest of a piece, by its index in the content."""
        at = 32 * (piece - self.first)
        return self.digests[at : at + 32]


@immutable
class MissingNodes:
    """The answer needs inner nodes that are not stored yet."""

    cids: tuple[Cid, ...]


@immutable
class LocalRun:
    """Pieces of a wanted content that another copy of ours holds."""

    first: int
    """First piece, in the wanted content."""
    count: int
    copy: int
    """The copy to read from."""
    copy_first: int
    """The first piece's index in that copy's content."""


@immutable
class Finished:
    """A fetch is complete and durable in its place."""

    path: Path
    skipped_links: tuple[str, ...]
    """Paths (within the content) of links that were not created."""


@immutable
class Removed:
    """What `rm` did."""

    deleted: tuple[Path, ...]
    kept: tuple[Path, ...]
    """Places that hold data which is not ours to delete."""


@immutable
class Verified:
    """How far re-hashing a copy has come."""

    done: int
    """Pieces looked at."""
    pieces: int
    good: int
    bad_files: tuple[str, ...]
    """Paths within the content of files with missing or wrong pieces (at most 1000)."""
    over: bool


@immutable
class RememberedPeer:
    """A peer of the DHT table, kept for rejoining after a restart."""

    peer: bytes
    """Raw bytes of its peer id."""
    addrs: tuple[bytes, ...]
    """Binary multiaddrs."""
    seen: float
    """Unix time at which it last answered."""


@immutable
class ProviderRow:
    """A provider record that we keep for the DHT; times are Unix seconds."""

    key: bytes
    """The multihash that is provided."""
    peer: bytes
    addrs: tuple[bytes, ...]
    group: bytes | None
    """IP group that the announcement came from."""
    first: float
    renewed: float


@immutable
class AnnouncementRow:
    """When a multihash is to be announced next."""

    multihash: bytes
    due: float
    taken: int | None
    """Peers that took the last announcement; None: never announced."""


@immutable
class Ban:
    """A peer that sent a wrong piece of a content."""

    peer: bytes
    cid: Cid
    until: float
    reason: str


@immutable
class PeerTotals:
    """Bytes of pieces exchanged with a peer, over all time."""

    peer: bytes
    sent: int
    received: int
    seen: float
