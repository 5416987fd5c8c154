"""Nodes of a content's index: dag-pb, whose bytes are canonical and therefore written by hand.

`PBNode{Links = 2: {Hash = 1, Name = 2, Tsize = 3}*, Data = 1}`; on writing the links stand first.
A block that reaches `decode_node` has been checked against its hash, so what is wrong with it is
the content's fault and nobody else's: everything raises ContentRefused.
"""

from __future__ import annotations

from typing import Final

from . import varint
from .blocks import MAX_READ_BLOCK
from .errors import ContentRefused, PeerFault
from .ids import BLAKE3, DAG_PB, RAW, SHA2_256, Cid
from .immutable import immutable

MAX_NAME_FIELD: Final = 1024
"""Bytes of a link's name field; names of files are bounded tighter where they are used."""

_LINK: Final = 0x12
_DATA: Final = 0x0A
_HASH: Final = 0x0A
_NAME: Final = 0x12
_TSIZE: Final = 0x18

_COMMON: Final = {
    bytes((1, codec, code, 32)): codec for codec in (RAW, DAG_PB) for code in (SHA2_256, BLAKE3)
}
"""First bytes of nearly every CID, so that those need no parsing."""


@immutable
class PBLink:
    """A link of a node."""

    cid: Cid
    name: bytes
    """Empty if absent."""
    tsize: int
    """Serialised bytes of the whole tree below, as its maker says; a hint."""


@immutable
class PBNode:
    """A node as it was read."""

    links: tuple[PBLink, ...]
    data: bytes | None


def encode_link(cid: bytes, name: bytes, tsize: int) -> bytes:
    """Return one link as it stands in a node; an empty name is written, too."""
    body = (
        b"\x0a"
        + varint.encode(len(cid))
        + cid
        + b"\x12"
        + varint.encode(len(name))
        + name
        + b"\x18"
        + varint.encode(tsize)
    )
    return b"\x12" + varint.encode(len(body)) + body


def encode_node(links: bytes, data: bytes) -> bytes:
    """Return the node with these encoded links, one after the other, and this data."""
    return links + b"\x0a" + varint.encode(len(data)) + data


def decode_node(block: bytes) -> PBNode:
    """Read a node.

    Data may stand before or after the links (both occur), but not between them.

    Raises:
        ContentRefused: It is too large, cut off, or not canonical dag-pb.
    """
    if len(block) > MAX_READ_BLOCK:
        raise ContentRefused(f"an index node of {len(block)} bytes is over the limit of 2 MiB")
    try:
        return _decode_node(block)
    except PeerFault as fault:
        raise ContentRefused(f"an index node is damaged ({fault})") from fault


def _decode_node(block: bytes) -> PBNode:
    links: list[PBLink] = []
    data: bytes | None = None
    at, end = 0, len(block)
    links_ended = False
    while at < end:
        tag = block[at]
        length, at = read_length(block, at + 1, end)
        if tag == _LINK:
            if links_ended:
                raise PeerFault("dag-pb", "links stand on both sides of the data")
            links.append(_decode_link(block, at, at + length))
        elif tag == _DATA and data is None:
            data = block[at : at + length]
            links_ended = bool(links)
        else:
            raise PeerFault("dag-pb", f"field tag {tag:#x}")
        at += length
    return PBNode(tuple(links), data)


def _decode_link(block: bytes, at: int, end: int) -> PBLink:
    if at >= end or block[at] != _HASH:
        raise PeerFault("dag-pb", "a link has no hash")
    length, at = read_length(block, at + 1, end)
    hashed = block[at : at + length]
    codec = _COMMON.get(hashed[:4]) if length == 36 else None
    cid = Cid(codec, hashed[2:]) if codec is not None else Cid.from_bytes(hashed)
    at += length
    name = b""
    if at < end and block[at] == _NAME:
        length, at = read_length(block, at + 1, end)
        if length > MAX_NAME_FIELD:
            raise PeerFault("dag-pb", f"a name of {length} bytes")
        name = block[at : at + length]
        at += length
    tsize = 0
    if at < end and block[at] == _TSIZE:
        tsize, at = read_number(block, at + 1)
    if at != end:
        raise PeerFault("dag-pb", "unknown or misplaced fields in a link")
    return PBLink(cid, name, tsize)


def read_number(block: bytes, at: int) -> tuple[int, int]:
    """Read a varint: (value, offset behind it); the fast way for small ones.

    Raises:
        PeerFault: It is cut off or not in its shortest form.
    """
    if at < len(block) and block[at] < 0x80:
        return block[at], at + 1
    return varint.decode(block, at)


def read_length(block: bytes, at: int, end: int) -> tuple[int, int]:
    """Read the length of a field that ends at or before `end`: (length, start of the field).

    Raises:
        PeerFault: It is cut off.
    """
    length, start = read_number(block, at)
    if length > end - start:
        raise PeerFault("dag-pb", "a field is cut off")
    return length, start
