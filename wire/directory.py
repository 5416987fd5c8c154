"""Building directories: one node while it is small, a HAMT beyond (`hamt.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .blocks import node_cid
from .dag import encode_link, encode_node
from .hamt import build_shards
from .ids import SHA2_256
from .unixfs import Built, Emit, Named, UnixFsData, UnixFsKind, encode_data

MAX_FLAT_DIRECTORY: Final = 262_144
"""Serialised bytes up to which (inclusive) a directory is one node (profile)."""

_DATA: Final = encode_data(UnixFsData(UnixFsKind.DIRECTORY))


def build_directory(children: Iterable[Named], emit: Emit, code: int = SHA2_256) -> Built:
    """Build a directory; names must differ.

    Raises:
        ContentRefused: Two names have the same hash, so that no HAMT can hold both.
    """
    ordered = sorted(children, key=lambda child: child.name)
    links = b"".join(encode_link(bytes(child.cid), child.name, child.tsize) for child in ordered)
    block = encode_node(links, _DATA)
    if len(block) > MAX_FLAT_DIRECTORY:
        return build_shards(ordered, emit, code)
    cid = node_cid(code, block)
    emit(cid, block)
    return Built(cid, len(block) + sum(child.tsize for child in ordered))
