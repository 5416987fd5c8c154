"""From the root of a file to the hashes of its leaves, without holding the whole tree.

The size of a file fixes the shape of its tree: all leaves at one depth, every node full but those
on the right edge, every leaf 1 MiB but the last. A node of any other shape is refused: then the
place of each piece follows from its number, and two peers never count pieces differently.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from .blocks import CHUNK, DIGEST_BYTES, WIDTH, check_cid, pieces_of
from .dag import PBNode, decode_node, encode_link, encode_node
from .errors import ContentRefused, Misuse
from .ids import DAG_PB, RAW, Cid
from .immutable import immutable
from .unixfs import UnixFsData, UnixFsKind, decode_data, encode_data

_OTHER_PROFILE: Final = (
    "this content was made with another profile than unixfs-v1-2025, which shoal does not read; "
    "ask for it to be added again with that profile"
)

_ANY_CID: Final = bytes(36)
"""As long as each of our CIDs."""


@immutable
class Missing:
    """Inner nodes that must be had first."""

    cids: list[Cid]


def height_of(pieces: int) -> int:
    """Return how many levels of nodes stand above the leaves of a file."""
    height, held = 0, 1
    while held < pieces:
        held *= WIDTH
        height += 1
    return height


@lru_cache(4096)
def file_tsize(size: int, height: int | None = None) -> int:
    """Return the serialised bytes of a file's whole tree, from its size alone.

    Args:
        size: Bytes of the file, or of a part of it.
        height: Levels of nodes in that part; None for a whole file.
    """
    if height is None:
        height = height_of(pieces_of(size))
    if height == 0:
        return size
    span = CHUNK * WIDTH ** (height - 1)
    full, rest = divmod(size, span)
    parts = (span,) * full + ((rest,) if rest else ())
    below = [file_tsize(part, height - 1) for part in parts]
    links = b"".join(encode_link(_ANY_CID, b"", tsize) for tsize in below)
    data = UnixFsData(UnixFsKind.FILE, filesize=size, blocksizes=parts)
    return sum(below) + len(encode_node(links, encode_data(data)))


def file_links(node: PBNode, hash_code: int, size: int, height: int) -> list[Cid]:
    """Check a node inside a file and return its children.

    Args:
        node: The decoded node.
        hash_code: Hash function of the file's root; every link must use it.
        size: Bytes of the file below this node.
        height: Levels of nodes from this one to the leaves, at least 1.

    Raises:
        ContentRefused: The node does not have the profile's exact shape.
    """
    data = decode_data(node.data)
    span = CHUNK * WIDTH ** (height - 1)
    full, rest = divmod(size, span)
    expected = (span,) * full + ((rest,) if rest else ())
    if (
        data.kind is not UnixFsKind.FILE
        or data.data
        or data.filesize != size
        or data.blocksizes != expected
        or len(node.links) != len(expected)
        or len(expected) > WIDTH
    ):
        raise ContentRefused(_OTHER_PROFILE)
    codec = RAW if height == 1 else DAG_PB
    for link in node.links:
        if link.name or link.cid.codec != codec or check_cid(link.cid) != hash_code:
            raise ContentRefused(_OTHER_PROFILE)
    return [link.cid for link in node.links]


def check_file_root(node: PBNode, hash_code: int) -> int:
    """Check the root node of a file of more than one leaf and return the file's size.

    Raises:
        ContentRefused: It does not have the profile's exact shape.
    """
    size = decode_data(node.data).filesize
    if size <= CHUNK:
        raise ContentRefused(_OTHER_PROFILE)
    height = height_of(pieces_of(size))
    if len(node.links) != -(-size // (CHUNK * WIDTH ** (height - 1))):
        raise ContentRefused(_OTHER_PROFILE)
    file_links(node, hash_code, size, height)
    return size


def leaf_range(
    root: Cid, size: int, first: int, count: int, node: Callable[[Cid], bytes | None]
) -> list[bytes] | Missing:
    """Return the 32-byte digests of the leaves `first` to `first + count` of a file.

    All leaves have the hash function of the root (`root.hash_code`).

    Args:
        root: The file's CID; a raw one is its own only leaf.
        size: Bytes of the file, as its entry says (-1 for a raw root).
        first: Number of the first leaf within the file.
        count: How many leaves; the range must lie inside the file.
        node: Looks up a verified inner node by its CID; None if we do not have it.

    Returns:
        The digests in order, or the inner nodes that are missing, in order.

    Raises:
        ContentRefused: The file does not have the profile's exact shape.
    """
    pieces = pieces_of(size) if root.codec != RAW else 1
    if not 0 <= first <= first + count <= pieces:
        raise Misuse(f"leaves {first} to {first + count} of {pieces}")
    code = check_cid(root)
    # A level at a time: (CID, its first leaf, bytes below it) of the nodes over the range.
    level = [(root, 0, size)] if count else []
    missing: dict[Cid, None] = {}
    for height in range(height_of(pieces), 0, -1):
        below: list[tuple[Cid, int, int]] = []
        span = WIDTH ** (height - 1)
        for cid, start, length in level:
            block = node(cid)
            if block is None:
                missing[cid] = None
                continue
            children = file_links(decode_node(block), code, length, height)
            low = max(0, (first - start) // span)
            high = min(len(children), -(-(first + count - start) // span))
            for index in range(low, high):
                before = index * span * CHUNK
                child_size = min(span * CHUNK, length - before)
                below.append((children[index], start + index * span, child_size))
        level = below
    if missing:
        return Missing(list(missing))
    return [cid.multihash[-DIGEST_BYTES:] for cid, _, _ in level]
