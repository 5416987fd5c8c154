"""From a root CID to the list of a content's entries, node by node, trusting nothing.

A `Walk` asks for index nodes (`wanted`), checks each against its hash (`feed`) and gives out
entries in one order that all peers share (`drain`): depth first, links as they are serialised,
slot order in a HAMT. Pieces are numbered in that order, so bit i of a bitfield means the same
piece everywhere. Directories, HAMT shards, symlinks and the roots of files are walked; the nodes
inside a file are not (`leaves.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .ids import Cid


class EntryKind(IntEnum):
    """What an entry is on disk."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symlink of a content."""

    ordinal: int
    """Its place in the walk; the root has 0."""
    path: str
    """Names from the root, joined by `/`; empty for the root itself."""
    kind: EntryKind
    cid: Cid
    size: int
    """Bytes of a file; 0 for others; -1 for a raw root, whose length no node tells."""
    first_piece: int
    """Number of its first piece; for an entry without pieces, of the next one's."""
    pieces: int
    """Leaves of a file, at least 1 (an empty file has one piece of length 0); 0 for others."""
    target: str = ""
    """What a symlink points to, as it was written; nobody follows it."""


@dataclass(frozen=True, slots=True)
class WalkLimits:
    """What a content may cost at most; beyond, it is refused."""

    entries: int = 10_000_000
    """Files, directories and symlinks, counted as often as they occur."""
    pieces: int = 1 << 40
    """Leaves, counted as often as they occur."""
    path: int = 4096
    """Bytes of one path (PATH_MAX of Linux)."""
    depth: int = 32
    """Names in one path."""


class Walk:
    """The walk over one content; see the top of the file.

    Attributes:
        over: Every entry has been given to `drain`'s list.
        entries: Entries found so far.
        total_pieces: Pieces found so far.
        total_size: Bytes of all files found so far (a raw root counts 0).
        index_bytes: Bytes of the index nodes walked so far.
    """

    over: bool
    entries: int
    total_pieces: int
    total_size: int
    index_bytes: int

    def __init__(self, root: Cid, limits: WalkLimits | None = None) -> None:
        raise NotImplementedError

    def wanted(self, limit: int = 64) -> list[Cid]:
        """Return the next index nodes that are needed, the most urgent first.

        The same CIDs come again until they are fed; a node that occurs again much later is asked
        for again, so look into the store first.
        """
        raise NotImplementedError

    def feed(self, cid: Cid, block: bytes) -> None:
        """Take an index node; one that is not wanted (any more) changes nothing.

        Raises:
            PeerFault: The block is not what the CID names (`bad-index-hash`); the sender's fault.
            ContentRefused: The content is hostile or of another shape; nobody can deliver it.
        """
        raise NotImplementedError

    def drain(self) -> list[Entry]:
        """Return the entries found since the last call, in order."""
        raise NotImplementedError
