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


def build_directory(children: Iterable[Named], emit: Emit, code: int = SHA2_256) -> Built:
    """Build a directory; names must differ.

    Raises:
        ContentRefused: Two names have the same hash, so that no HAMT can hold both.
    """
    return build_in_order(children, emit, code)[0]


def build_in_order(
    children: Iterable[Named], emit: Emit, code: int = SHA2_256
) -> tuple[Built, list[Named]]:
    """Build a directory; return with it the children in the order in which a walk meets them.

    By name while it is one node, by the names' hashes in a HAMT.
    """
    ordered = sorted(children, key=lambda child: child.name)
    block = b""
    if len(ordered) <= MAX_FLAT_DIRECTORY // _LEAST_LINK:
        links = (encode_link(bytes(child.cid), child.name, child.tsize) for child in ordered)
        block = encode_node(b"".join(links), _DATA)
    if not 0 < len(block) <= MAX_FLAT_DIRECTORY:
        built = build_shards(ordered, emit, code)
        ordered.sort(key=lambda child: name_hash(child.name))
        return built, ordered
    cid = node_cid(code, block)
    emit(cid, block)
    return Built(cid, len(block) + sum(child.tsize for child in ordered)), ordered
