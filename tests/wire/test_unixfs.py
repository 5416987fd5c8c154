from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire.blocks import CHUNK, WIDTH, cid_from, digest_of, pieces_of
from shoal.wire.dag import decode_node, encode_link, encode_node
from shoal.wire.directory import build_directory
from shoal.wire.errors import ContentRefused, Misuse
from shoal.wire.ids import BLAKE3, DAG_PB, RAW, SHA2_256, Cid
from shoal.wire.leaves import Missing, check_file_root, file_tsize, height_of, leaf_range
from shoal.wire.unixfs import (
    Built,
    TreeBuilder,
    UnixFsData,
    UnixFsKind,
    build_file,
    build_symlink,
    decode_data,
    encode_data,
)

MAX_LEAVES = 3 * WIDTH


def nothing(cid: Cid, block: bytes) -> None:
    pass


def key_stream(seed: str, size: int) -> Iterator[bytes]:
    """Return the leaves of a published fixture: a ChaCha20 key stream (IPIP-499)."""
    key = hashlib.sha256(seed.encode()).digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    for start in range(0, size, CHUNK):
        yield stream.update(bytes(min(CHUNK, size - start)))


def import_bytes(leaves: Iterator[bytes], code: int = SHA2_256) -> Built:
    return build_file(((digest_of(code, leaf), len(leaf)) for leaf in leaves), nothing, code)


def no_node(cid: Cid) -> bytes | None:
    return None


def leaf(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def numbered_file(size: int, nodes: dict[Cid, bytes], code: int = SHA2_256) -> Built:
    """Build a file whose leaf i has the digest `leaf(i)`."""
    count = pieces_of(size)
    lengths = [CHUNK] * (count - 1) + [size - (count - 1) * CHUNK]
    return build_file(((leaf(i), n) for i, n in enumerate(lengths)), nodes.__setitem__, code)


# Published vectors (IPIP-499 and the tests of Kubo)


@pytest.mark.parametrize(
    ("seed", "size", "cid"),
    [
        ("chunk-v1-seed", CHUNK, "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"),
        ("chunk-v1-seed", CHUNK + 1, "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
    ],
)  # fmt: skip
def test_profile_fixtures(seed: str, size: int, cid: str) -> None:
    assert str(import_bytes(key_stream(seed, size)).cid) == cid


def test_small_vectors() -> None:
    hello = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
    assert str(import_bytes(iter([b"hello world"])).cid) == hello
    empty = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert str(import_bytes(iter([b""])).cid) == empty
    folder = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert str(build_directory([], nothing).cid) == folder


# UnixFS data


@given(
    st.builds(
        UnixFsData,
        st.just(UnixFsKind.FILE),
        st.binary(max_size=20),
        st.integers(0, 2**63 - 1),
        st.lists(st.integers(0, 2**63 - 1), max_size=20).map(tuple),
    )
    | st.builds(
        UnixFsData,
        st.just(UnixFsKind.SHARD),
        st.binary(max_size=32),
        hash_type=st.integers(0, 100),
        fanout=st.integers(0, 2000),
    )
    | st.builds(UnixFsData, st.just(UnixFsKind.SYMLINK), st.binary(max_size=20))
)
def test_data_round_trip(data: UnixFsData) -> None:
    assert decode_data(encode_data(data)) == data


def test_packed_block_sizes_and_unknown_fields_are_read() -> None:
    raw = b"\x08\x02\x18\x0c\x22\x02\x05\x07\x38\x24\x42\x02\x08\x01\x59" + bytes(8)
    assert decode_data(raw) == UnixFsData(UnixFsKind.FILE, b"", 12, (5, 7))


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "no UnixFS data"),
        (b"", "unknown type None"),
        (b"\x08\x09", "unknown type 9"),
        (b"\x08", "truncated"),
        (b"\x08\x02\x12\x05ab", "cut off"),
        (b"\x08\x02\x59\x00", "cut off"),
        (b"\x08\x02\x0b", "wire type 3"),
        (b"\x08\x02" + b"\x20\x01" * 1025, "1024 block sizes"),
    ],
)
def test_damaged_data_is_refused(raw: bytes | None, why: str) -> None:
    with pytest.raises(ContentRefused, match=why):
        decode_data(raw)


@given(st.binary(max_size=100))
def test_garbage_data_is_refused_or_read(raw: bytes) -> None:
    with contextlib.suppress(ContentRefused):
        decode_data(raw)


# Files


def test_a_file_beyond_one_full_node_gets_a_second_level() -> None:
    nodes: dict[Cid, bytes] = {}
    built = numbered_file((WIDTH + 1) * CHUNK, nodes)
    root = decode_node(nodes[built.cid])
    assert [len(decode_node(nodes[link.cid]).links) for link in root.links] == [WIDTH, 1]
    assert decode_data(root.data).blocksizes == (WIDTH * CHUNK, CHUNK)
    assert list(nodes)[-1] == built.cid  # children come first


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, MAX_LEAVES * CHUNK)
    | st.sampled_from([0, 1, CHUNK, CHUNK + 1, WIDTH * CHUNK, WIDTH * CHUNK + 1]),
    st.sampled_from([SHA2_256, BLAKE3]),
)
def test_size_pieces_and_tsize_follow_from_the_shape(size: int, code: int) -> None:
    nodes: dict[Cid, bytes] = {}
    built = numbered_file(size, nodes, code)
    assert (built.size, built.pieces) == (size, pieces_of(size))
    assert built.tsize == size + sum(map(len, nodes.values())) == file_tsize(size)
    assert built.cid.codec == (RAW if size <= CHUNK else DAG_PB)
    assert built.cid.hash_code == code


@settings(max_examples=25, deadline=None)
@given(st.integers(CHUNK + 1, MAX_LEAVES * CHUNK), st.data())
def test_leaf_ranges_name_exactly_the_leaves(size: int, data: st.DataObject) -> None:
    nodes: dict[Cid, bytes] = {}
    built = numbered_file(size, nodes)
    first = data.draw(st.integers(0, built.pieces))
    count = data.draw(st.integers(0, built.pieces - first))
    expected = [leaf(i) for i in range(first, first + count)]
    assert leaf_range(built.cid, size, first, count, nodes.get) == expected

    # With nothing at hand it asks for what is missing, level by level, and for nothing else.
    have: dict[Cid, bytes] = {}
    for _ in range(3):
        answer = leaf_range(built.cid, size, first, count, have.get)
        if isinstance(answer, list):
            break
        have |= {cid: nodes[cid] for cid in answer.cids}
    assert answer == expected
    spans = pieces_of(size) > WIDTH
    touched = range(first // WIDTH, -(-(first + count) // WIDTH)) if count else range(0)
    assert len(have) == (len(touched) if spans else 0) + (1 if count else 0)


def test_the_leaf_of_a_raw_file_is_itself() -> None:
    cid = cid_from(RAW, BLAKE3, leaf(0))
    assert leaf_range(cid, 5, 0, 1, no_node) == [leaf(0)]
    assert leaf_range(cid, -1, 0, 1, no_node) == [leaf(0)]
    with pytest.raises(Misuse):
        leaf_range(cid, 5, 0, 2, no_node)


def test_a_missing_node_is_named_once() -> None:
    nodes: dict[Cid, bytes] = {}
    same = build_file(((leaf(0), CHUNK) for _ in range(3 * WIDTH)), nodes.__setitem__)
    inner = decode_node(nodes[same.cid]).links[0].cid
    root = {same.cid: nodes[same.cid]}
    assert leaf_range(same.cid, same.size, 0, same.pieces, root.get) == Missing([inner])


def test_the_builder_holds_little() -> None:
    """A full tree of 2^30 leaves would be 1 PiB; only open levels are kept."""
    builder = TreeBuilder(nothing)
    for i in range(2 * WIDTH + 5):
        builder.add_leaf(leaf(i), CHUNK)
    assert sum(len(level.sizes) for level in builder._levels) == 7
    assert builder.finish().size == (2 * WIDTH + 5) * CHUNK


@pytest.mark.parametrize(
    ("before", "length"), [([], CHUNK + 1), ([5], CHUNK), ([CHUNK], 0), ([0], 0), ([], -1)]
)
def test_leaves_out_of_place_are_a_bug(before: list[int], length: int) -> None:
    builder = TreeBuilder(nothing)
    for earlier in before:
        builder.add_leaf(leaf(0), earlier)
    with pytest.raises(Misuse):
        builder.add_leaf(leaf(0), length)


def test_a_file_without_leaves_is_a_bug() -> None:
    with pytest.raises(Misuse):
        TreeBuilder(nothing).finish()


def node_of(size: int, sizes: list[int], links: list[bytes], **other: bytes) -> bytes:
    data = UnixFsData(UnixFsKind.FILE, other.get("data", b""), size, tuple(sizes))
    return encode_node(b"".join(links), encode_data(data))


def raw_link(name: bytes = b"", codec: int = RAW, code: int = SHA2_256) -> bytes:
    return encode_link(bytes(cid_from(codec, code, leaf(1))), name, CHUNK)


@pytest.mark.parametrize(
    "block",
    [
        node_of(2 * CHUNK, [CHUNK, CHUNK], [raw_link()]),
        node_of(2 * CHUNK, [CHUNK], [raw_link()] * 2),
        node_of(2 * CHUNK, [CHUNK, CHUNK - 1], [raw_link()] * 2),
        node_of(2 * CHUNK, [CHUNK - 1, CHUNK + 1], [raw_link()] * 2),
        node_of(2 * CHUNK + 1, [CHUNK, CHUNK], [raw_link()] * 2),
        node_of(2 * CHUNK, [CHUNK, CHUNK], [raw_link(), raw_link(b"x")]),
        node_of(2 * CHUNK, [CHUNK, CHUNK], [raw_link(), raw_link(codec=DAG_PB)]),
        node_of(2 * CHUNK, [CHUNK, CHUNK], [raw_link(), raw_link(code=BLAKE3)]),
        node_of(2 * CHUNK, [CHUNK, CHUNK], [raw_link()] * 2, data=b"inline"),
        node_of(CHUNK, [CHUNK], [raw_link()]),
        node_of(0, [], []),
        node_of(2**63 - 1, [2**60] * 8, [raw_link()] * 8),
        node_of(4 * 262144, [262144] * 4, [raw_link()] * 4),
        node_of(2**41, [CHUNK] * 1024, [raw_link()] * 1024),
    ],
)
def test_files_of_any_other_shape_are_refused(block: bytes) -> None:
    with pytest.raises(ContentRefused, match="another profile"):
        check_file_root(decode_node(block), SHA2_256)


def test_the_right_shape_is_taken() -> None:
    block = node_of(CHUNK + 7, [CHUNK, 7], [raw_link()] * 2)
    assert check_file_root(decode_node(block), SHA2_256) == CHUNK + 7


def test_an_inner_node_of_another_size_is_refused() -> None:
    nodes: dict[Cid, bytes] = {}
    built = numbered_file((WIDTH + 2) * CHUNK, nodes)
    small = decode_node(nodes[built.cid]).links[1].cid
    nodes[small] = node_of(2 * CHUNK - 1, [CHUNK, CHUNK - 1], [raw_link()] * 2)
    with pytest.raises(ContentRefused, match="another profile"):
        leaf_range(built.cid, built.size, WIDTH, 2, nodes.get)
    assert leaf_range(built.cid, built.size, 0, 1, nodes.get) == [leaf(0)]


@pytest.mark.parametrize(
    ("pieces", "height"),
    [(1, 0), (2, 1), (1024, 1), (1025, 2), (1024**2, 2), (1024**2 + 1, 3), (2**43, 5)],
)
def test_height(pieces: int, height: int) -> None:
    assert height_of(pieces) == height


# Symlinks


def test_a_symlink_is_one_small_node() -> None:
    nodes: dict[Cid, bytes] = {}
    built = build_symlink("../x", nodes.__setitem__)
    assert nodes == {built.cid: b"\x0a\x08\x08\x04\x12\x04../x"}
    assert built.tsize == 10


@pytest.mark.parametrize("target", ["", "a\0b", "x" * 4097])
def test_impossible_targets_are_refused(target: str) -> None:
    with pytest.raises(ContentRefused, match="target"):
        build_symlink(target, nothing)
