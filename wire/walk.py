"""From a root CID to the list of a content's entries, node by node, trusting nothing.

A `Walk` asks for index nodes (`wanted`), checks each against its hash (`feed`) and gives out
entries in one order that all peers share (`drain`): depth first, links as they are serialised,
slot order in a HAMT. Pieces are numbered in that order, so bit i of a bitfield means the same
piece everywhere. Directories, HAMT shards, symlinks and the roots of files are walked; the nodes
inside a file are not (`leaves.py`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .blocks import CHUNK, EMPTY_MULTIHASHES, check_cid, matches
from .census import Census, is_entry
from .errors import ContentRefused, PeerFault
from .hamt import HASH_BITS, Shard, Slot, slot_path
from .ids import DAG_PB, Cid
from .immutable import immutable
from .index import FileRoot, Folder, IndexNode, Symlink, read_index_node
from .names import safe_component
from .unixfs import Named
from .walking import NodeCache, OpenFolder

INDEX_BASE: Final = 64 << 20
"""Bytes of index nodes that any content may have (2 MiB for each of 32 open folders)."""

INDEX_SHARE: Final = 10_000
"""Beyond that, one byte of index for so many bytes of files (the profile needs 1 in 20 000)."""

INDEX_PER_ENTRY: Final = 512
"""And so many bytes for each entry: a link with the longest name, and a node of its own."""

UNDRAINED: Final = 1 << 16
"""Entries that may wait for `drain`; then the walk rests."""

SCANNED: Final = 4096
"""Links that `wanted` looks at in one call."""


class EntryKind(IntEnum):
    """What an entry is on disk."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2


@immutable
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


@immutable
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
        entries: Entries found so far.
        total_pieces: Pieces found so far.
        total_size: Bytes of all files found so far (a raw root counts 0).
        index_bytes: Bytes of the index nodes walked so far, repeated ones each time.
    """

    def __init__(self, root: Cid, limits: WalkLimits | None = None) -> None:
        """Begin at `root`; ContentRefused if it names nothing that we can read."""
        check_cid(root)
        self.entries = 0
        self.total_pieces = 0
        self.total_size = 0
        self.index_bytes = 0
        self._limits = limits or WalkLimits()
        self._root: Cid | None = root
        self._open: list[OpenFolder] = []
        self._found: list[Entry] = []
        self._asked: set[Cid] = set()
        self._nodes = NodeCache()
        self._census = Census(self._limits.entries)
        self._advance()

    @property
    def found(self) -> int:
        """How many entries wait for `drain`."""
        return len(self._found)

    @property
    def over(self) -> bool:
        """Whether every entry has been given out by `drain`."""
        return self._root is None and not self._open and not self._found

    def wanted(self, limit: int = 64) -> list[Cid]:
        """Return the next index nodes that are needed, the most urgent first.

        The same CIDs come again until they are fed, and a node that occurs again much later is
        asked for again; so look into the store first. If there are none although the walk is not
        over, entries wait for `drain`.
        """
        found: dict[Cid, None] = {}
        if self._root is not None:
            found[self._root] = None
        seen: set[Cid] = set()
        ahead = [folder.rest() for folder in self._open]
        budget = SCANNED
        while ahead and budget and len(found) < limit:
            child = next(ahead[-1], None)
            if child is None:
                ahead.pop()
                continue
            budget -= 1
            cid = child.cid
            if cid.codec != DAG_PB or cid in seen:
                continue
            seen.add(cid)
            match self._nodes.get(cid):
                case None:
                    found[cid] = None
                case Folder() | Shard() as node:
                    ahead.append(iter(node.children))
                case _:
                    pass
        self._asked.update(found)
        return list(found)

    def feed(self, cid: Cid, block: bytes) -> None:
        """Take an index node; one that `wanted` has not named changes nothing.

        Raises:
            PeerFault: The block is not what the CID names (`bad-index-hash`): the sender's fault.
            ContentRefused: The content is hostile or of another shape; nobody can deliver it.
        """
        if cid not in self._asked:
            return
        check_cid(cid)
        if not matches(cid, block):
            raise PeerFault("bad-index-hash", f"a block that is not {cid}")
        self._asked.discard(cid)
        node = read_index_node(cid, block)
        self._nodes.put(cid, node, len(block))
        known = self._census.add(cid, node) if isinstance(node, Folder | Shard) else 0
        if known > self._limits.entries:
            raise _too_many(self._limits.entries, "files and folders")
        self._advance()

    def drain(self) -> list[Entry]:
        """Return the entries found since the last call, in order."""
        found, self._found = self._found, []
        self._advance()
        return found

    def _advance(self) -> None:
        """Find entries until a node is missing, enough entries wait, or the walk is over."""
        if self._root is not None:
            root = Named(b"", self._root, 0)
            if not self._reach(root):
                return
            self._root = None
            self._enter(root, "", 0)
            self._check_bounds()
        while self._open and len(self._found) < UNDRAINED:
            folder = self._open[-1]
            if folder.at == len(folder.children):
                self._open.pop()
                self._nodes.walked(folder.cid)
                continue
            child = folder.children[folder.at]
            if not self._reach(child):
                return
            folder.at += 1
            if is_entry(child):
                self._enter(child, self._path(folder, child), folder.depth + 1)
            else:
                self._enter_part(folder, child)
            self._check_bounds()

    def _reach(self, child: Named | Slot) -> bool:
        """Return whether a child can be walked now: it is a leaf, or its node is there."""
        codec = child.cid.codec
        return codec != DAG_PB or self._nodes.get(child.cid) is not None

    def _take(self, cid: Cid) -> IndexNode | None:
        """Return the node of a child that is walked now; None for a leaf."""
        check_cid(cid)
        node = self._nodes.get(cid)
        if node is not None:
            self.index_bytes += self._nodes.size(cid)
        return node

    def _enter(self, child: Named | Slot, path: str, depth: int) -> None:
        """Note an entry, and go down into it if it is a folder."""
        cid = child.cid
        match self._take(cid):
            case None:
                self._note(path, EntryKind.FILE, cid, self._raw_size(child, not depth), 1)
            case FileRoot(size, pieces):
                self._note(path, EntryKind.FILE, cid, size, pieces)
            case Symlink(target):
                self._note(path, EntryKind.SYMLINK, cid, 0, 0, target)
            case node:
                self._note(path, EntryKind.DIRECTORY, cid, 0, 0)
                self._push(OpenFolder(cid, node, path, depth))

    def _enter_part(self, folder: OpenFolder, child: Named | Slot) -> None:
        """Go down into a part of a large folder."""
        node = self._take(child.cid)
        if not isinstance(child, Slot) or not isinstance(node, Shard) or node.bits != folder.bits:
            raise ContentRefused("a part of a large folder is not what it should be")
        if folder.bits * (folder.level + 2) > HASH_BITS:
            raise ContentRefused("a large folder is nested deeper than its names' hashes reach")
        part = OpenFolder(child.cid, node, folder.path, folder.depth)
        part.level = folder.level + 1
        part.place = folder.place << folder.bits | child.index
        self._push(part)

    def _push(self, folder: OpenFolder) -> None:
        if any(above.cid == folder.cid for above in self._open):
            raise ContentRefused("a folder contains itself")
        self._open.append(folder)

    def _path(self, folder: OpenFolder, child: Named | Slot) -> str:
        """Check a child's name and return its path."""
        try:
            name = child.name.decode()
        except UnicodeDecodeError:
            raise ContentRefused(f"the name {child.name[:80]!r} is not UTF-8") from None
        safe_component(name)
        if isinstance(child, Slot):
            place = folder.place << folder.bits | child.index
            if slot_path(child.name, folder.bits, folder.level + 1) != place:
                raise ContentRefused(f"the name {name!r} stands in the wrong part of its folder")
        path = f"{folder.path}/{name}" if folder.path else name
        if folder.depth + 1 > self._limits.depth:
            raise ContentRefused(f"it has folders nested deeper than {self._limits.depth}")
        if len(path) > self._limits.path or len(path.encode()) > self._limits.path:
            raise ContentRefused(f"it has a path of over {self._limits.path} bytes")
        return path

    def _raw_size(self, child: Named | Slot, at_root: bool) -> int:
        """Return the length of a file that is one leaf; -1 if only the leaf itself tells it."""
        empty = child.cid.multihash in EMPTY_MULTIHASHES
        if at_root:
            return 0 if empty else -1
        if child.tsize > CHUNK or empty != (child.tsize == 0):
            raise ContentRefused(f"the file {child.name[:80]!r} has an impossible length")
        return child.tsize

    def _note(
        self, path: str, kind: EntryKind, cid: Cid, size: int, pieces: int, target: str = ""
    ) -> None:
        entry = Entry(self.entries, path, kind, cid, size, self.total_pieces, pieces, target)
        self._found.append(entry)
        self.entries += 1
        self.total_pieces += pieces
        self.total_size += max(0, size)

    def _check_bounds(self) -> None:
        limits = self._limits
        if self.entries > limits.entries:
            raise _too_many(limits.entries, "files and folders")
        if self.total_pieces > limits.pieces:
            raise _too_many(limits.pieces, "pieces")
        allowed = INDEX_BASE + self.total_size // INDEX_SHARE + self.entries * INDEX_PER_ENTRY
        if self.index_bytes > allowed:
            raise ContentRefused("its index is far larger than its files and folders need")


def _too_many(limit: int, things: str) -> ContentRefused:
    return ContentRefused(f"this content has over {limit} {things}")
