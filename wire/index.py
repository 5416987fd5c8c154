"""What one verified index node says: a folder, a part of a large folder, a file, or a symlink."""

from __future__ import annotations

from .blocks import check_cid, pieces_of
from .dag import decode_node
from .errors import ContentRefused
from .hamt import Shard, read_shard
from .ids import Cid
from .immutable import immutable
from .leaves import check_file_root
from .unixfs import Named, UnixFsKind, check_target, decode_data


@immutable
class Folder:
    """A directory in one node, in the order of its links; of equal names the first counts."""

    children: tuple[Named, ...]


@immutable
class FileRoot:
    """A file of more than one leaf."""

    size: int
    pieces: int


@immutable
class Symlink:
    """A symlink."""

    target: str


IndexNode = Folder | Shard | FileRoot | Symlink


def read_index_node(cid: Cid, block: bytes) -> IndexNode:
    """Read a block that has been checked against its CID.

    Raises:
        ContentRefused: It is damaged, or not of a kind and shape that we take.
    """
    code = check_cid(cid)
    node = decode_node(block)
    data = decode_data(node.data)
    match data.kind:
        case UnixFsKind.DIRECTORY:
            first = {link.name: link for link in reversed(node.links)}
            return Folder(
                tuple(
                    Named(link.name, link.cid, link.tsize)
                    for link in node.links
                    if first[link.name] is link
                )
            )
        case UnixFsKind.SHARD:
            return read_shard(node, data)
        case UnixFsKind.FILE:
            size = check_file_root(node, code)
            return FileRoot(size, pieces_of(size))
        case UnixFsKind.SYMLINK:
            if node.links:
                raise ContentRefused("a symbolic link has further nodes below it")
            return Symlink(check_target(data.data))
        case _:
            raise ContentRefused(f"an index node is of the old kind {data.kind.name.lower()}")
