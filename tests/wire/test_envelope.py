"""Signed peer records: the bytes that js-libp2p writes, and every way to forge one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire import varint
from shoal.wire.envelope import (
    MAX_ADDRS,
    MAX_ENVELOPE_BYTES,
    MAX_SEQ,
    PEER_RECORD_DOMAIN,
    PEER_RECORD_TYPE,
    Envelope,
    PeerRecord,
)
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.keys import PrivateKey

KEY = PrivateKey(bytes(range(32)))
OTHER = PrivateKey(bytes(32))
ADDRS = (
    Multiaddr("/ip4/192.0.2.1/tcp/4071"),
    Multiaddr("/ip6/2001:db8::1/udp/4071/quic-v1"),
)

# Written by @libp2p/peer-record (js-libp2p) with the same key, addresses and sequence number.
RECORD = bytes.fromhex(
    "0a2600240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b81080e2cf"
    "aa061a0a0a0804c0000201060fe71a190a172920010db800000000000000000000000191020fe7cd03"
)
ENVELOPE = bytes.fromhex(
    "0a240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8120203011a55"
    "0a2600240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b81080e2cf"
    "aa061a0a0a0804c0000201060fe71a190a172920010db800000000000000000000000191020fe7cd032a40d7"
    "a8ad134cfe877569fbb939ce58695cbf0be44d77ca7be4ad829a317ae6cf99cdce95b30073594d7dd0b11503"
    "ef21b9606bd2c00564e65ebb79700059d61c0d"
)


def sealed(payload: bytes, key: PrivateKey = KEY) -> bytes:
    return Envelope.seal(key, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, payload).encode()


def test_a_record_has_the_bytes_that_js_libp2p_writes() -> None:
    record = PeerRecord(KEY.peer_id, 1_700_000_000, ADDRS)
    assert record.encode() == RECORD
    assert record.seal(KEY) == ENVELOPE
    assert PeerRecord.open(ENVELOPE) == record


@settings(max_examples=50)
@given(st.integers(0, MAX_SEQ), st.integers(0, MAX_ADDRS))
def test_a_record_survives_its_envelope(seq: int, count: int) -> None:
    addrs = tuple(Multiaddr(f"/ip4/192.0.2.{i}/tcp/{i + 1}") for i in range(count))
    record = PeerRecord(KEY.peer_id, seq, addrs)
    assert PeerRecord.open(record.seal(KEY)) == record


def test_any_flipped_bit_is_noticed() -> None:
    whole = PeerRecord.open(ENVELOPE)
    for at in range(len(ENVELOPE)):
        for bit in (0x01, 0x80):
            forged = bytearray(ENVELOPE)
            forged[at] ^= bit
            with pytest.raises(PeerFault):
                PeerRecord.open(bytes(forged))
    assert PeerRecord.open(ENVELOPE) == whole


def test_any_cut_is_noticed() -> None:
    for cut in range(len(ENVELOPE)):
        with pytest.raises(PeerFault):
            PeerRecord.open(ENVELOPE[:cut])


def test_a_record_of_somebody_else_is_refused() -> None:
    forged = Envelope.seal(OTHER, PEER_RECORD_DOMAIN, PEER_RECORD_TYPE, RECORD)
    with pytest.raises(PeerFault, match="signed by another peer"):
        PeerRecord.open(forged.encode())
    with pytest.raises(Misuse):
        PeerRecord(KEY.peer_id, 1).seal(OTHER)


@pytest.mark.parametrize(
    ("domain", "payload_type"),
    [
        (b"libp2p-routing-state", PEER_RECORD_TYPE),  # what the RFC's text says
        (PEER_RECORD_DOMAIN, b"/libp2p/routing-state-record"),
        (b"libp2p-relay-rsvp", b"\x03\x02"),
    ],
)
def test_a_signature_for_another_use_is_refused(domain: bytes, payload_type: bytes) -> None:
    envelope = Envelope.seal(KEY, domain, payload_type, RECORD)
    assert Envelope.decode(envelope.encode()).open(domain, payload_type) == RECORD
    with pytest.raises(PeerFault):
        PeerRecord.open(envelope.encode())


def test_parts_cannot_be_shifted_between_domain_type_and_payload() -> None:
    envelope = Envelope.seal(KEY, b"ab", b"cd", b"ef")
    moved = Envelope(KEY.public, b"cde", b"f", envelope.signature)
    with pytest.raises(PeerFault, match="envelope-signature"):
        moved.open(b"ab", b"cde")


def test_unreadable_addresses_are_left_out_and_the_rest_is_bounded() -> None:
    bad = b"\x1a\x04\x0a\x02\xff\x7f"
    many = b"".join(
        b"\x1a\x0a\x0a\x08\x04\x01\x02" + i.to_bytes(2, "big") + b"\x06\x00\x01" for i in range(60)
    )
    start = b"\x0a\x26" + KEY.peer_id.raw
    assert PeerRecord.open(sealed(start + bad * 2 + many[:12])).addrs == (
        Multiaddr("/ip4/1.2.0.0/tcp/1"),
    )
    assert len(PeerRecord.open(sealed(start + many)).addrs) == MAX_ADDRS
    assert PeerRecord.open(sealed(start + bad * 500)).addrs == ()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x10\x01",  # no peer
        b"\x0a\x26" + KEY.peer_id.raw + b"\x10" + varint.encode(MAX_SEQ)[:-1] + b"\xff\x01",
        b"\x0a" + varint.encode(varint.MAX_VALUE),
    ],
)
def test_a_signed_record_can_still_be_malformed(payload: bytes) -> None:
    with pytest.raises(PeerFault):
        PeerRecord.open(sealed(payload))


def test_bounds() -> None:
    with pytest.raises(PeerFault, match="too long"):
        Envelope.decode(bytes(MAX_ENVELOPE_BYTES + 1))
    with pytest.raises(PeerFault, match="the payload type is too long"):
        Envelope.decode(Envelope.seal(KEY, b"d", bytes(65), b"").encode())
    with pytest.raises(PeerFault, match="the signature is too long"):
        Envelope.decode(Envelope(KEY.public, b"t", b"", bytes(1025)).encode())
    with pytest.raises(Misuse):
        PeerRecord(KEY.peer_id, MAX_SEQ + 1).encode()
    with pytest.raises(Misuse):
        Envelope.seal(KEY, b"", PEER_RECORD_TYPE, b"")


@settings(max_examples=200)
@given(
    st.one_of(
        st.binary(max_size=100),
        st.builds(
            lambda at, piece: ENVELOPE[:at] + piece + ENVELOPE[at:],
            st.integers(0, len(ENVELOPE)),
            st.binary(min_size=1, max_size=12),
        ),
    )
)
def test_garbage_is_a_fault_or_leaves_what_was_signed(data: bytes) -> None:
    try:
        record = PeerRecord.open(data)
    except PeerFault:
        return
    assert record == PeerRecord.open(ENVELOPE)  # an unknown field was put in between
