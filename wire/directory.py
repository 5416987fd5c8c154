"""Building directories: one node while it is small, a HAMT beyond (`hamt.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .blocks import node_cid
from .dag import encode_link, encode_node
from .hamt import build_shards, name_hash
from .ids import SHA2_256
from .unixfs import Built, Emit, Named, UnixFsData, UnixFsKind, encode_data

MAX_FLAT_DIRECTORY: Final = 262_144
"""Serialised bytes up to which (inclusive) a directory is one node (profile)."""

_LEAST_LINK: Final = 45
"""Bytes of the shortest link: a name of one byte, a Tsize below 128."""

_DATA: Final = encode_data(UnixFsData(UnixFsKind.DIRECTORY))


def walk_order(children: Iterable[Named]) -> list[Named]:
    """Return the children of a directory in the order in which a walk meets them.

    By name while it is one node, by the names' hashes in a HAMT.
    """
    ordered = sorted(children, key=lambda child: child.name)
    if _flat_size(ordered) > MAX_FLAT_DIRECTORY:
        ordered.sort(key=lambda child: name_hash(child.name))
    return ordered


def build_directory(children: Iterable[Named], emit: Emit, code: int = SHA2_256) -> Built:
    """Build a directory; names must differ.

    Raises:
        ContentRefused: Two names have the same hash, so that no HAMT can hold both.
    """
    ordered = sorted(children, key=lambda child: child.name)
    if _flat_size(ordered) > MAX_FLAT_DIRECTORY:
        return build_shards(ordered, emit, code)
    block = encode_node(_links(ordered), _DATA)
    cid = node_cid(code, block)
    emit(cid, block)
    return Built(cid, len(block) + sum(child.tsize for child in ordered))


def _flat_size(children: list[Named]) -> int:
    """Return the bytes of a directory in one node."""
    if len(children) > MAX_FLAT_DIRECTORY // _LEAST_LINK:
        return MAX_FLAT_DIRECTORY + 1
    return len(encode_node(_links(children), _DATA))


def _links(children: list[Named]) -> bytes:
    return b"".join(encode_link(bytes(child.cid), child.name, child.tsize) for child in children)
