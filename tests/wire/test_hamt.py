from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire import hamt
from shoal.wire.dag import PBNode, decode_node, encode_link, encode_node
from shoal.wire.directory import MAX_FLAT_DIRECTORY, build_directory, build_in_order
from shoal.wire.errors import ContentRefused
from shoal.wire.hamt import Shard, build_shards, name_hash, read_shard, slot_path
from shoal.wire.ids import RAW, Cid
from shoal.wire.unixfs import Named, UnixFsData, UnixFsKind, decode_data, encode_data

X = Cid.of(RAW, b"x")
ALPHABET = b"abcdefghijklmnopqrstuvwxyz01234567890-_"


def fixture_names(last: int) -> list[bytes]:
    """Return the names of Kubo's test vector for the profile `unixfs-v1-2025`.

    4765 names of 11 letters and one of `last`, drawn from the ChaCha20 key stream under the
    SHA-256 of the profile's seed; each file holds the one byte "x".
    """
    key = hashlib.sha256(b"hamt-unixfs-v1-2025").digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    lengths = [11] * 4765 + [last]
    draws = [stream.update(bytes(length)) for length in lengths]
    return [bytes(ALPHABET[byte % len(ALPHABET)] for byte in draw) for draw in draws]


def children(names: list[bytes]) -> list[Named]:
    return [Named(name, X, 1) for name in names]


@pytest.mark.parametrize(
    ("last", "cid", "nodes"),
    [
        (21, "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4", 1),
        (22, "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu", 439),
    ],
)
def test_kubo_makes_the_same_folders_at_and_above_the_threshold(
    last: int, cid: str, nodes: int
) -> None:
    made: dict[Cid, bytes] = {}
    built = build_directory(children(fixture_names(last)), made.__setitem__)
    assert str(built.cid) == cid
    assert len(made) == nodes
    assert built.tsize == sum(map(len, made.values())) + 4766
    if nodes == 1:
        assert len(made[built.cid]) == MAX_FLAT_DIRECTORY


def test_the_published_slots_of_a_name() -> None:
    """In the specification's example folder `470.txt` stands in slot 00, there in slot 6E."""
    assert slot_path(b"470.txt", 8, 2) == 0x006E


def entries_of(root: Cid, made: dict[Cid, bytes]) -> list[bytes]:
    """Return the names in a trie in slot order, each checked to stand where it belongs."""
    names: list[bytes] = []

    def visit(cid: Cid, place: int, depth: int) -> None:
        node = decode_node(made[cid])
        shard = read_shard(node, decode_data(node.data))
        for slot in shard.children:
            here = place << shard.bits | slot.index
            if slot.name:
                assert slot_path(slot.name, shard.bits, depth + 1) == here
                names.append(slot.name)
            else:
                visit(slot.cid, here, depth + 1)

    visit(root, 0, 0)
    return names


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=400, unique=True))
def test_a_trie_holds_every_name_whatever_the_order(names: list[bytes]) -> None:
    made: dict[Cid, bytes] = {}
    built = build_shards(children(names), made.__setitem__)
    assert entries_of(built.cid, made) == sorted(names, key=name_hash)
    assert build_shards(children(sorted(names)), lambda cid, block: None) == built
    assert built.tsize == sum(map(len, made.values())) + len(names)


def test_the_order_of_a_large_folder_is_that_of_its_slots() -> None:
    made: dict[Cid, bytes] = {}
    built, ordered = build_in_order(children(fixture_names(22)), made.__setitem__)
    assert [child.name for child in ordered] == entries_of(built.cid, made)


def test_children_come_before_their_parents() -> None:
    order: list[Cid] = []
    build_shards(children(fixture_names(11)[:600]), lambda cid, _: order.append(cid))
    made: dict[Cid, bytes] = {}
    build_shards(children(fixture_names(11)[:600]), made.__setitem__)
    for cid in order:
        for link in decode_node(made[cid]).links:
            if link.cid in made:
                assert order.index(link.cid) < order.index(cid)


def test_names_with_one_hash_cannot_share_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hamt, "name_hash", lambda name: 7)
    with pytest.raises(ContentRefused, match="'a' and 'b' cannot stand in one directory"):
        build_shards(children([b"a", b"b"]), lambda cid, block: None)


def shard_node(
    names: list[bytes], field: bytes, fanout: int = 256, hash_type: int = 0x22
) -> PBNode:
    links = b"".join(encode_link(bytes(X), name, 1) for name in names)
    data = UnixFsData(UnixFsKind.SHARD, field, hash_type=hash_type, fanout=fanout)
    return decode_node(encode_node(links, encode_data(data)))


def read(node: PBNode) -> Shard:
    return read_shard(node, decode_data(node.data))


def test_a_node_reads_back() -> None:
    shard = read(shard_node([b"03", b"0Aname"], b"\x04\x08"))
    assert [(slot.index, slot.name) for slot in shard.children] == [(3, b""), (10, b"name")]
    assert shard.bits == 8
    wide = read(shard_node([b"3FFname"], (1 << 1023).to_bytes(128, "big"), 1024))
    assert (wide.children[0].index, wide.bits) == (1023, 10)


@pytest.mark.parametrize(
    ("names", "field", "fanout", "hash_type"),
    [
        ([b"03", b"0A"], b"\x04\x09", 256, 0x22),  # the bitfield has a slot without a link
        ([b"03", b"0A"], b"\x04\x00", 256, 0x22),  # and one link too many
        ([b"0A", b"03"], b"\x04\x08", 256, 0x22),  # out of order
        ([b"03", b"03x"], b"\x08", 256, 0x22),  # one slot twice
        ([b"0a"], b"\x04\x00", 256, 0x22),  # lower case
        ([b"3"], b"\x08", 256, 0x22),
        ([b""], b"", 256, 0x22),
        ([b"+3"], b"\x08", 256, 0x22),
        ([b"9"], b"\x02\x00", 8, 0x22),  # beyond the fanout
        ([b"3"], b"\x08", 4, 0x22),
        ([b"003"], b"\x08", 2048, 0x22),
        ([b"03"], b"\x08", 100, 0x22),
        ([b"03"], b"\x08", 0, 0x22),
        ([b"03"], b"\x08", 256, 0x12),
    ],
)
def test_nodes_that_contradict_themselves_are_refused(
    names: list[bytes], field: bytes, fanout: int, hash_type: int
) -> None:
    with pytest.raises(ContentRefused):
        read(shard_node(names, field, fanout, hash_type))
