"""AutoNAT: bytes by hand from the specifications, both versions, and their bounds."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire.autonat import (
    MAX_ADDRS,
    MAX_ADDRS_V1,
    MAX_BACK_MESSAGE,
    MAX_DATA,
    MAX_MESSAGE,
    MOST_PRICE,
    AnswerV1,
    DataPart,
    DataRequest,
    DialRequest,
    DialResponse,
    DialStatus,
    DialV1,
    MessageV2,
    ResponseStatus,
    StatusV1,
    decode_back,
    decode_back_answer,
    decode_v1,
    decode_v2,
    encode_back,
    encode_back_answer,
    encode_v1,
    encode_v2,
)
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.keys import PrivateKey

PEER = PrivateKey(bytes(range(32))).peer_id
ADDR = Multiaddr("/ip4/192.0.2.1/tcp/4071")
RAW = ADDR.to_bytes()
NONCE = 0x0807060504030201
NONCE_BYTES = b"\x01\x02\x03\x04\x05\x06\x07\x08"

ports = st.lists(st.integers(1, 65535), unique=True, max_size=MAX_ADDRS)
addr_tuples = ports.map(lambda ns: tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{n}") for n in ns))
numbers = st.integers(0, (1 << 32) - 1)
messages = st.one_of(
    st.builds(DialRequest, addrs=addr_tuples, nonce=st.integers(0, (1 << 64) - 1)),
    st.builds(DialResponse, status=numbers, index=numbers, dial_status=numbers),
    st.builds(DataRequest, index=numbers, count=st.integers(1, MOST_PRICE)),
    st.builds(DataPart, length=st.integers(1, MAX_DATA)),
)


@given(message=messages)
def test_messages_of_version_2_come_back_as_they_were(message: MessageV2) -> None:
    data = encode_v2(message)
    assert len(data) <= MAX_MESSAGE
    assert decode_v2(data) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x13\x0a\x08" + RAW + b"\x11" + NONCE_BYTES, DialRequest((ADDR,), NONCE)),
        (
            b"\x12\x08\x08\xc8\x01\x10\x02\x18\xc8\x01",
            DialResponse(ResponseStatus.OK, 2, DialStatus.OK),
        ),
        (b"\x12\x02\x08\x65", DialResponse(ResponseStatus.E_DIAL_REFUSED)),
        (b"\x1a\x06\x08\x01\x10\xb0\xea\x01", DataRequest(1, 30_000)),
        (b"\x22\x05\x0a\x03abc", DataPart(3)),
    ],
)
def test_bytes_are_those_of_version_2(data: bytes, message: MessageV2) -> None:
    assert decode_v2(data) == message


def test_addresses_that_we_do_not_know_keep_their_place() -> None:
    unknown = b"\x0a\x02\xfe\x7f"
    data = unknown + b"\x0a\x08" + RAW + b"\x11" + NONCE_BYTES
    request = decode_v2(b"\x0a" + bytes([len(data)]) + data)
    assert request == DialRequest((None, ADDR), NONCE)
    many = DialRequest((ADDR,) * (MAX_ADDRS + 9), NONCE)
    read = decode_v2(encode_v2(many))
    assert isinstance(read, DialRequest)
    assert len(read.addrs) == MAX_ADDRS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\xff\xff\xff\xff\x7f",
        b"\x1a\x06\x08\x01\x10\xa1\x8d\x06",  # 100 001 bytes wanted
        b"\x1a\x02\x08\x01",  # nothing wanted
        b"\x22\x00",  # data without any
        b"\x22\x84\x20\x0a\x81\x20" + bytes(MAX_DATA + 1),
        bytes(MAX_MESSAGE + 1),
    ],
)
def test_what_is_no_message_of_version_2_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_v2(data)


def test_long_addresses_are_told_as_far_as_they_fit() -> None:
    long = Multiaddr("/dns/" + ".".join(["a" * 60] * 4) + "/tcp/1")
    for data in (encode_v2(DialRequest((long,) * 50, 1)), encode_v1(DialV1(PEER, (long,) * 50))):
        assert len(data) <= MAX_MESSAGE
    with pytest.raises(Misuse):
        encode_v2(DialRequest((None, ADDR), 1))


@given(message=messages)
def test_a_message_that_is_cut_off_is_refused_or_another(message: MessageV2) -> None:
    whole = encode_v2(message)
    for length in range(len(whole)):
        with suppress(PeerFault):
            assert decode_v2(whole[:length]) != message


def test_more_than_a_message_of_data_is_our_mistake() -> None:
    with pytest.raises(Misuse):
        encode_v2(DataPart(MAX_DATA + 1))


def test_a_dial_back_brings_its_nonce() -> None:
    assert encode_back(NONCE) == b"\x09" + NONCE_BYTES
    assert decode_back(b"\x09" + NONCE_BYTES) == NONCE
    assert decode_back_answer(encode_back_answer())
    assert decode_back_answer(b"")
    assert not decode_back_answer(b"\x08\x01")
    for bad in (b"", b"\x09\x01", bytes(MAX_BACK_MESSAGE + 1)):
        with pytest.raises(PeerFault):
            decode_back(bad)


@given(addrs=addr_tuples, status=numbers)
def test_messages_of_version_1_come_back_as_they_were(
    addrs: tuple[Multiaddr, ...], status: int
) -> None:
    assert decode_v1(encode_v1(DialV1(PEER, addrs))) == DialV1(PEER, addrs[:MAX_ADDRS_V1])
    for answer in (AnswerV1(status, "no way"), AnswerV1(StatusV1.OK, addr=ADDR)):
        assert decode_v1(encode_v1(answer)) == answer


def test_bytes_are_those_of_version_1() -> None:
    peer = b"\x0a" + bytes([len(PEER.raw)]) + PEER.raw + b"\x12\x08" + RAW
    dial = b"\x0a" + bytes([len(peer)]) + peer
    assert decode_v1(b"\x08\x00\x12" + bytes([len(dial)]) + dial) == DialV1(PEER, (ADDR,))
    answer = b"\x08\x01\x1a\x10\x08\x64\x12\x02no\x1a\x08" + RAW
    assert decode_v1(answer) == AnswerV1(StatusV1.E_DIAL_ERROR, "no", ADDR)


@pytest.mark.parametrize("data", [b"", b"\x08\x00", b"\x08\x01", b"\x08\x07", b"\x08\x00\x12\x00"])
def test_what_is_no_message_of_version_1_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_v1(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_fault(data: bytes) -> None:
    for decode in (decode_v1, decode_v2, decode_back, decode_back_answer):
        try:
            decode(data)
        except PeerFault:
            continue
