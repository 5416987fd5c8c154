"""What a node means: UnixFS data, and building files and symlinks.

The builders give the bytes that IPFS tools with the profile `unixfs-v1-2025` (IPIP-499) give, so
the CID is the one they print. Nodes come out children first, so that whoever has a node has, or
had, all below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final

from . import varint
from .blocks import CHUNK, WIDTH, cid_from, node_cid
from .dag import encode_link, encode_node, read_length, read_number
from .errors import ContentRefused, Misuse, PeerFault
from .ids import RAW, SHA2_256, Cid
from .immutable import immutable

MAX_LINK_TARGET: Final = 4096
"""Bytes of a symlink's target (PATH_MAX of Linux)."""

Emit = Callable[[Cid, bytes], None]
"""Takes a finished node."""


class UnixFsKind(IntEnum):
    """`Data.Type`."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    SHARD = 5


@immutable
class UnixFsData:
    """The data of a node; modes and times are not kept."""

    kind: UnixFsKind
    data: bytes = b""
    filesize: int = 0
    blocksizes: tuple[int, ...] = ()
    hash_type: int = 0
    fanout: int = 0


@immutable
class Built:
    """The root of a finished subtree."""

    cid: Cid
    tsize: int
    """Serialised bytes of the whole tree, repeated blocks counted as often as they occur."""
    size: int = 0
    """Bytes of a file."""
    pieces: int = 0
    """Leaves of a file."""


@immutable
class Named:
    """A child of a directory that is being built."""

    name: bytes
    cid: Cid
    tsize: int


def encode_data(data: UnixFsData) -> bytes:
    """Return the message as go's tools write it: fields by number, those at 0 left out."""
    out = bytearray((0x08, data.kind))
    if data.data:
        out += b"\x12" + varint.encode(len(data.data)) + data.data
    if data.kind is UnixFsKind.FILE:
        out += b"\x18" + varint.encode(data.filesize)
    for size in data.blocksizes:
        out += b"\x20" + varint.encode(size)
    if data.kind is UnixFsKind.SHARD:
        out += b"\x28" + varint.encode(data.hash_type) + b"\x30" + varint.encode(data.fanout)
    return bytes(out)


def decode_data(raw: bytes | None) -> UnixFsData:
    """Read a node's data; unknown fields are skipped, block sizes may be packed.

    Raises:
        ContentRefused: There is none, or it is damaged.
    """
    if raw is None:
        raise ContentRefused("an index node carries no UnixFS data")
    try:
        return _decode_data(raw)
    except PeerFault as fault:
        raise ContentRefused(f"the UnixFS data of an index node is damaged ({fault})") from fault


def _decode_data(raw: bytes) -> UnixFsData:
    numbers: dict[int, int] = {}
    data = b""
    sizes: list[int] = []
    at, end = 0, len(raw)
    while at < end:
        tag, at = read_number(raw, at)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = read_number(raw, at)
            if field == 4:
                sizes.append(value)
            else:
                numbers[field] = value
        elif wire_type == 2:
            length, at = read_length(raw, at, end)
            if field == 2:
                data = raw[at : at + length]
            elif field == 4:
                stop = at + length
                while at < stop:
                    value, at = read_number(raw, at)
                    sizes.append(value)
                length = stop - at
            at += length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            raise PeerFault("unixfs", f"wire type {wire_type}")
        if at > end or len(sizes) > WIDTH:
            raise PeerFault("unixfs", "cut off" if at > end else "over 1024 block sizes")
    try:
        kind = UnixFsKind(numbers[1])
    except (KeyError, ValueError):
        raise PeerFault("unixfs", f"unknown type {numbers.get(1)}") from None
    get = numbers.get
    return UnixFsData(kind, data, get(3, 0), tuple(sizes), get(5, 0), get(6, 0))


class TreeBuilder:
    """A file, leaf by leaf; holds at most 1024 links for each level of the tree."""

    def __init__(self, emit: Emit, hash_code: int = SHA2_256) -> None:
        self._emit = emit
        self._code = hash_code
        self._levels: list[_Level] = [_Level()]
        self.size = 0
        self.pieces = 0
        self._short = False
        self._prefix = bytes(cid_from(RAW, hash_code, bytes(32)))[:-32]
        self._full_link = encode_link(self._prefix + bytes(32), b"", CHUNK)

    def add_leaf(self, digest: bytes, length: int) -> None:
        """Append a leaf of `length` bytes (1 MiB, but for the last one)."""
        if self._short or not (0 < length <= CHUNK or (length == 0 and not self.pieces)):
            raise Misuse(f"a leaf of {length} bytes cannot stand here")
        self._short = length < CHUNK
        self.size += length
        self.pieces += 1
        self._levels[0].last = cid_from(RAW, self._code, digest), length
        if length == CHUNK:  # nearly all leaves: the same bytes around the digest
            at = 2 + 2 + len(self._prefix)
            link = self._full_link[:at] + digest + self._full_link[at + 32 :]
        else:
            link = encode_link(self._prefix + digest, b"", length)
        self._append(0, link, length, length)

    def finish(self) -> Built:
        """Return the root; a file of one leaf is that leaf.

        Raises:
            Misuse: There was no leaf (an empty file has one of length 0).
        """
        if not self.pieces:
            raise Misuse("a file has at least one leaf")
        level = 0
        while len(self._levels) > level + 1 or len(self._levels[level].sizes) > 1:
            if self._levels[level].sizes:
                self._close(level)
            level += 1
        cid, tsize = self._levels[level].last
        return Built(cid, tsize, self.size, self.pieces)

    def _append(self, level: int, link: bytes, size: int, tsize: int) -> None:
        if len(self._levels) == level:
            self._levels.append(_Level())
        here = self._levels[level]
        here.links += link
        here.sizes.append(size)
        here.tsize += tsize
        if len(here.sizes) == WIDTH:
            self._close(level)

    def _close(self, level: int) -> None:
        """Turn a level's links into a node, and link that one level up."""
        here = self._levels[level]
        size = sum(here.sizes)
        data = UnixFsData(UnixFsKind.FILE, filesize=size, blocksizes=tuple(here.sizes))
        block = encode_node(bytes(here.links), encode_data(data))
        cid = node_cid(self._code, block)
        self._emit(cid, block)
        tsize = here.tsize + len(block)
        self._levels[level] = _Level()
        if len(self._levels) == level + 1:
            self._levels.append(_Level())
        self._levels[level + 1].last = cid, tsize
        self._append(level + 1, encode_link(bytes(cid), b"", tsize), size, tsize)


class _Level:
    """The links that wait for their common parent."""

    __slots__ = ("last", "links", "sizes", "tsize")

    def __init__(self) -> None:
        self.links = bytearray()
        self.sizes: list[int] = []
        self.tsize = 0
        self.last: tuple[Cid, int]
        """CID and Tsize of the newest link."""


def build_file(leaves: Iterable[tuple[bytes, int]], emit: Emit, code: int = SHA2_256) -> Built:
    """Build a file from (digest, length) of its leaves."""
    builder = TreeBuilder(emit, code)
    for digest, length in leaves:
        builder.add_leaf(digest, length)
    return builder.finish()


def build_symlink(target: str, emit: Emit, code: int = SHA2_256) -> Built:
    """Build a symlink.

    Raises:
        ContentRefused: The target is empty or over 4096 bytes.
    """
    raw = target.encode()
    check_target(raw)
    block = encode_node(b"", encode_data(UnixFsData(UnixFsKind.SYMLINK, raw)))
    cid = node_cid(code, block)
    emit(cid, block)
    return Built(cid, len(block))


def check_target(raw: bytes) -> str:
    """Return a symlink's target as text.

    Raises:
        ContentRefused: It is empty, over 4096 bytes, has a NUL, or is not UTF-8.
    """
    if not 0 < len(raw) <= MAX_LINK_TARGET or 0 in raw:
        raise ContentRefused("a symbolic link has an empty, overlong or damaged target")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ContentRefused("the target of a symbolic link is not UTF-8") from None
