"""Large directories: a trie over the hash of the names (HAMT), as IPFS tools build it.

Each node has `fanout` slots; a link's name is its slot in upper-case hex, and behind that the
entry's name, or nothing if the slot leads to a sub-shard. Slots are taken from murmur3-x64-64 of
the name, most significant bits first (so for fanout 256 byte by byte). Which slots are taken
stands in the node's data as one big-endian number without leading zero bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final

import mmh3

from .blocks import node_cid
from .dag import PBNode, encode_link, encode_node
from .errors import ContentRefused
from .ids import SHA2_256, Cid
from .immutable import immutable
from .unixfs import Built, Emit, Named, UnixFsData, UnixFsKind, encode_data

FANOUT: Final = 256
"""Slots of the nodes that we build (profile)."""

MAX_FANOUT: Final = 1024
"""Slots of the nodes that we read (CVE-2023-23625); a power of two, at least 8."""

MURMUR3_X64_64: Final = 0x22
"""Multicodec of the hash over the names."""

HASH_BITS: Final = 64


@immutable
class Slot:
    """One taken slot."""

    index: int
    name: bytes
    """Empty: the link leads to a sub-shard."""
    cid: Cid
    tsize: int


@immutable
class Shard:
    """A node of the trie as it was read."""

    bits: int
    """Of the hash that this node consumes: log2 of its fanout."""
    children: tuple[Slot, ...]


def name_hash(name: bytes) -> int:
    """Return the 64 bits by which a name is placed."""
    return mmh3.hash64(name, signed=False)[0]


def slot_path(name: bytes, bits: int, depth: int) -> int:
    """Return the first `depth` slots of a name as one number, `bits` bits each."""
    return name_hash(name) >> (HASH_BITS - bits * depth)


def build_shards(children: Sequence[Named], emit: Emit, code: int = SHA2_256) -> Built:
    """Build the trie over the children of a directory (names differ).

    Raises:
        ContentRefused: Two names have the same hash.
    """
    placed = sorted(
        ((name_hash(child.name), child) for child in children), key=lambda pair: pair[0]
    )
    return _build(placed, HASH_BITS, emit, code)


def _build(placed: Sequence[tuple[int, Named]], left: int, emit: Emit, code: int) -> Built:
    """Build the node for children that agree in all but the last `left` bits of their hash."""
    if left == 0:
        names = " and ".join(repr(child.name.decode(errors="replace")) for _, child in placed[:2])
        raise ContentRefused(f"the names {names} cannot stand in one directory: rename one")
    shift = left - 8
    links = bytearray()
    taken = 0
    below = 0
    for slot, group in _by_slot(placed, shift):
        taken |= 1 << slot
        if len(group) == 1:
            name, cid, tsize = group[0][1].name, group[0][1].cid, group[0][1].tsize
        else:
            shard = _build(group, shift, emit, code)
            name, cid, tsize = b"", shard.cid, shard.tsize
        links += encode_link(bytes(cid), b"%02X" % slot + name, tsize)
        below += tsize
    field = taken.to_bytes((taken.bit_length() + 7) // 8, "big")
    data = UnixFsData(UnixFsKind.SHARD, field, hash_type=MURMUR3_X64_64, fanout=FANOUT)
    block = encode_node(bytes(links), encode_data(data))
    cid = node_cid(code, block)
    emit(cid, block)
    return Built(cid, below + len(block))


def _by_slot(
    placed: Sequence[tuple[int, Named]], shift: int
) -> Iterator[tuple[int, Sequence[tuple[int, Named]]]]:
    """Cut a list sorted by hash into the runs that share their next slot."""
    start = 0
    while start < len(placed):
        slot = placed[start][0] >> shift & 0xFF
        stop = start + 1
        while stop < len(placed) and placed[stop][0] >> shift & 0xFF == slot:
            stop += 1
        yield slot, placed[start:stop]
        start = stop


def read_shard(node: PBNode, data: UnixFsData) -> Shard:
    """Read a node of a trie; where its names belong is checked on the way down.

    Raises:
        ContentRefused: Its hash function or fanout is not one that we read, or links, bitfield
            and slots do not agree.
    """
    fanout = data.fanout
    if data.hash_type != MURMUR3_X64_64:
        raise ContentRefused("a large folder is sorted by a hash function that shoal does not read")
    if not 8 <= fanout <= MAX_FANOUT or fanout & (fanout - 1):
        raise ContentRefused(f"a large folder has nodes with {fanout} slots")
    width = len(f"{fanout - 1:X}")
    numbers = _slot_numbers(fanout)
    slots: list[Slot] = []
    taken = 0
    previous = -1
    for link in node.links:
        index = numbers.get(link.name[:width], -1)
        if index <= previous:
            raise ContentRefused("a node of a large folder has slots out of order")
        previous = index
        taken |= 1 << index
        slots.append(Slot(index, link.name[width:], link.cid, link.tsize))
    if int.from_bytes(data.data, "big") != taken:
        raise ContentRefused("a node of a large folder has links that its bitfield denies")
    return Shard(fanout.bit_length() - 1, tuple(slots))


@cache
def _slot_numbers(fanout: int) -> dict[bytes, int]:
    """Return the slot for each text that may stand in front of a link's name."""
    width = len(f"{fanout - 1:X}")
    return {b"%0*X" % (width, index): index for index in range(fanout)}
