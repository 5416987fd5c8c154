from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.blocks import MAX_READ_BLOCK, check_cid, matches, node_cid
from shoal.wire.dag import PBLink, PBNode, decode_node, encode_link, encode_node
from shoal.wire.errors import ContentRefused
from shoal.wire.ids import BLAKE3, DAG_PB, RAW, SHA2_256, Cid, multihash

CID = Cid.of(RAW, b"hello")
LINK = encode_link(bytes(CID), b"a", 5)

cids = st.builds(
    lambda codec, code, digest: Cid(codec, multihash(code, digest)),
    st.sampled_from([RAW, DAG_PB, 0x71]),
    st.sampled_from([SHA2_256, BLAKE3]),
    st.binary(min_size=32, max_size=32),
)
links = st.builds(PBLink, cids, st.binary(max_size=300), st.integers(0, varint.MAX_VALUE))


def encode(node: PBNode) -> bytes:
    body = b"".join(encode_link(bytes(link.cid), link.name, link.tsize) for link in node.links)
    return encode_node(body, node.data or b"")


@given(st.lists(links, max_size=8), st.binary(max_size=300))
def test_what_is_written_is_read(found: list[PBLink], data: bytes) -> None:
    node = PBNode(tuple(found), data)
    assert decode_node(encode(node)) == node


def test_links_stand_before_data_and_empty_names_are_present() -> None:
    link = encode_link(bytes(CID), b"", 5)
    assert link == b"\x12\x2a\x0a\x24" + bytes(CID) + b"\x12\x00\x18\x05"
    assert encode_node(link, b"xy") == link + b"\x0a\x02xy"


def test_data_may_stand_first_but_not_between() -> None:
    data = b"\x0a\x01x"
    assert decode_node(data + LINK) == decode_node(LINK + data)
    with pytest.raises(ContentRefused, match="both sides"):
        decode_node(LINK + data + LINK)


def test_an_absent_name_reads_as_empty_and_an_absent_size_as_zero() -> None:
    body = b"\x0a\x24" + bytes(CID)
    node = decode_node(b"\x12" + bytes((len(body),)) + body)
    assert node == PBNode((PBLink(CID, b"", 0),), None)


def test_a_version_0_cid_is_read_as_dag_pb() -> None:
    old = Cid.of(DAG_PB, b"node")
    assert decode_node(encode_link(old.multihash, b"n", 1)).links[0].cid == old


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x0a\x01x\x0a\x01y", "field tag"),
        (b"\x1a\x01x", "field tag"),
        (b"\x12\x03\x12\x01a", "no hash"),
        (b"\x12\x00", "no hash"),
        (LINK[:-1], "cut off"),
        (b"\x0a\x05abc", "cut off"),
        (b"\x0a", "truncated"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cut off"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too-long"),
        (b"\x0a\x81\x00x", "not-minimal"),
        (b"\x12\x05\x0a\x03abc", "damaged"),
    ],
)  # fmt: skip
def test_damage_is_the_contents_fault(block: bytes, why: str) -> None:
    with pytest.raises(ContentRefused, match=why):
        decode_node(block)


def test_fields_in_a_link_have_one_order() -> None:
    body = b"\x18\x05\x0a\x24" + bytes(CID)
    with pytest.raises(ContentRefused):
        decode_node(b"\x12" + bytes((len(body),)) + body)
    body = b"\x0a\x24" + bytes(CID) + b"\x18\x05\x12\x00"
    with pytest.raises(ContentRefused, match="misplaced"):
        decode_node(b"\x12" + bytes((len(body),)) + body)


def test_names_and_blocks_are_bounded() -> None:
    with pytest.raises(ContentRefused, match="a name of 1025"):
        decode_node(encode_link(bytes(CID), b"n" * 1025, 0))
    with pytest.raises(ContentRefused, match="2 MiB"):
        decode_node(encode_node(b"", bytes(MAX_READ_BLOCK)))


def test_inline_data_in_a_cid_is_bounded_and_not_taken() -> None:
    with pytest.raises(ContentRefused, match="multihash-length"):
        decode_node(encode_link(bytes(Cid(RAW, multihash(0, bytes(129)))), b"", 0))
    small = Cid(RAW, multihash(0, b"tiny"))
    assert decode_node(encode_link(bytes(small), b"", 0)).links[0].cid == small
    with pytest.raises(ContentRefused, match="hash function"):
        check_cid(small)


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_read(block: bytes) -> None:
    with contextlib.suppress(ContentRefused):
        decode_node(block)


@given(st.lists(links, min_size=1, max_size=3), st.binary(max_size=20), st.data())
def test_truncated_nodes_never_read_as_the_whole(
    found: list[PBLink], data: bytes, draw: st.DataObject
) -> None:
    node = PBNode(tuple(found), data)
    block = encode(node)
    cut = block[: draw.draw(st.integers(0, len(block) - 1))]
    with contextlib.suppress(ContentRefused):
        assert decode_node(cut) != node


def test_only_our_hash_functions_and_codecs_are_read() -> None:
    assert check_cid(CID) == SHA2_256
    assert check_cid(Cid(DAG_PB, multihash(BLAKE3, bytes(32)))) == BLAKE3
    for strange in (
        Cid(RAW, multihash(0x13, bytes(64))),
        Cid(RAW, multihash(SHA2_256, bytes(20))),
        Cid(RAW, multihash(BLAKE3, bytes(64))),
    ):
        with pytest.raises(ContentRefused, match="hash function"):
            check_cid(strange)
    with pytest.raises(ContentRefused, match="neither a file nor a folder"):
        check_cid(Cid(0x71, CID.multihash))


@pytest.mark.parametrize("code", [SHA2_256, BLAKE3])
def test_blocks_match_their_cid_and_no_other(code: int) -> None:
    cid = node_cid(code, b"block")
    assert matches(cid, b"block")
    assert not matches(cid, b"blocc")
