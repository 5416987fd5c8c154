"""Peer ids and CIDs: published examples, all text forms, and hostile bytes and texts."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

import base58
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.wire import varint
from shoal.wire.errors import InvalidText, PeerFault
from shoal.wire.ids import (
    BLAKE3,
    DAG_PB,
    IDENTITY,
    LIBP2P_KEY,
    MAX_DIGEST_BYTES,
    RAW,
    SHA2_256,
    Cid,
    PeerId,
    multihash,
    split_multihash,
)

BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(data: bytes) -> str:
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 36)
        digits = BASE36[digit] + digits
    return "0" * (len(data) - len(data.lstrip(b"\0"))) + digits


def base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


peer_ids = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda d: multihash(SHA2_256, d)),
    st.binary(min_size=1, max_size=42).map(lambda d: multihash(IDENTITY, d)),
).map(PeerId)
cids = st.builds(
    Cid,
    st.sampled_from([RAW, DAG_PB, LIBP2P_KEY]),
    st.one_of(
        st.binary(min_size=32, max_size=32).map(lambda d: multihash(SHA2_256, d)),
        st.binary(min_size=32, max_size=32).map(lambda d: multihash(BLAKE3, d)),
        st.binary(max_size=128).map(lambda d: multihash(IDENTITY, d)),
    ),
)


def test_the_key_of_a_peer_in_the_dht() -> None:
    peer = PeerId.parse("12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS")
    assert peer.key.hex() == "e43d28f0996557c0d5571d75c62a57a59d7ac1d30a51ecedcdb9d5e4afa56100"


def test_the_key_of_a_content_in_the_dht() -> None:
    hashed = bytes.fromhex("1220e536c7f88d731f374dccb568aff6f56e838a19382e488039b1ca8ad2599e82fe")
    assert split_multihash(hashed) == (SHA2_256, hashed[2:])
    assert (
        hashlib.sha256(hashed).hexdigest()
        == "d623250f3f660ab4c3a53d3c97b3f6a0194c548053488d093520206248253bcb"
    )


def test_the_peer_id_specification_s_example_in_all_its_forms() -> None:
    # All of these stand in the libp2p peer-id specification.
    peer = PeerId.parse("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
    assert PeerId.parse("bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe") == peer
    assert str(peer) == "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
    assert PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA").raw[:2] == b"\0$"


@given(peer_ids)
def test_every_text_form_names_the_same_peer(peer: PeerId) -> None:
    binary = b"\x01" + varint.encode(LIBP2P_KEY) + peer.raw
    assert PeerId.from_bytes(peer.raw) == peer
    assert PeerId.parse(str(peer)) == peer
    for text in (
        "b" + base32(binary),
        "B" + base32(binary).upper(),
        "k" + base36(binary),
        "z" + base58.b58encode(binary).decode(),
        "f" + binary.hex(),
    ):
        assert PeerId.parse(text) == peer


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\x00",
        b"\x00\x01",
        b"\x12\x20" + bytes(31),
        b"\x12\x20" + bytes(33),
        b"\x12\x1f" + bytes(31),
        b"\x00\x2b" + bytes(43),
        b"\x1e\x20" + bytes(32),
        b"\x12\xa0\x00" + bytes(32),
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(32),
        bytes(1 << 20),
    ],
)
def test_other_bytes_are_no_peer_id(raw: bytes) -> None:
    with pytest.raises(PeerFault):
        PeerId.from_bytes(raw)


@given(st.one_of(st.binary(max_size=200), peer_ids.map(lambda p: p.raw[:-1])))
def test_garbage_is_a_whole_peer_id_or_a_fault(data: bytes) -> None:
    try:
        peer = PeerId.from_bytes(data)
    except PeerFault:
        return
    assert peer.raw == data
    assert PeerId.parse(str(peer)) == peer


# Section "Vectors" of the profile, reproduced with other tools.
CONTENTS = [
    (RAW, b"hello world", "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
    (RAW, b"", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
    (DAG_PB, b"\n\x02\x08\x01", "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
]


@pytest.mark.parametrize(("codec", "block", "text"), CONTENTS)
def test_the_names_that_other_tools_give(codec: int, block: bytes, text: str) -> None:
    assert str(Cid.of(codec, block)) == text
    assert Cid.parse(text) == Cid.of(codec, block)


def test_an_old_name_is_the_same_content() -> None:
    old = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"  # the empty directory
    assert Cid.parse(old) == Cid.of(DAG_PB, b"\n\x02\x08\x01")
    assert Cid.from_bytes(base58.b58decode(old)) == Cid.parse(old)


@given(cids)
def test_a_cid_survives_bytes_and_text(cid: Cid) -> None:
    data = bytes(cid)
    assert Cid.from_bytes(data) == cid
    assert Cid.parse(str(cid)) == cid
    assert split_multihash(cid.multihash) == (cid.hash_code, cid.digest)
    if len(data) != 34:
        assert Cid.parse("k" + base36(data)) == cid
        assert Cid.parse("F" + data.hex().upper()) == cid


@given(cids, st.integers(1, 20))
def test_a_cut_or_padded_cid_is_refused(cid: Cid, count: int) -> None:
    with pytest.raises(PeerFault):
        Cid.from_bytes(bytes(cid)[:-count] if cid.digest[count:] else b"\x01")
    with pytest.raises(PeerFault):
        Cid.from_bytes(bytes(cid) + bytes(count))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_a_canonical_cid_or_a_fault(data: bytes) -> None:
    try:
        cid = Cid.from_bytes(data)
    except PeerFault:
        return
    assert data in (bytes(cid), cid.multihash)


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=80), st.text("bBfFzkKQm1" + BASE36 + "=_-٣é ", max_size=80)))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (PeerId.parse, Cid.parse):
        with suppress(InvalidText):
            parse(text)


@pytest.mark.parametrize("text", ["", "k", "K", "k!", "kä", "k-1", "b", "z", "f", "f0", "Qm", "1"])
def test_a_bare_or_broken_prefix_is_refused(text: str) -> None:
    for parse in (PeerId.parse, Cid.parse):
        with pytest.raises(InvalidText, match=r"is not a (peer|content) id"):
            parse(text)


@pytest.mark.parametrize("prefix", ["b", "B", "f", "F", "z", "k", "K", "Qm", "1"])
def test_a_long_text_is_refused_at_once(prefix: str) -> None:
    for parse in (PeerId.parse, Cid.parse):
        with pytest.raises(InvalidText) as caught:
            parse(prefix + "a" * 1_000_000)
        assert len(str(caught.value)) < 300


def test_a_digest_has_bounds() -> None:
    split_multihash(multihash(IDENTITY, bytes(MAX_DIGEST_BYTES)))
    for code, length in ((IDENTITY, MAX_DIGEST_BYTES + 1), (SHA2_256, 19)):
        with pytest.raises(PeerFault, match="multihash-length"):
            split_multihash(multihash(code, bytes(length)))
