"""Identify: what js-libp2p writes, several messages, pushes, and what a peer may not do to us."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire import varint
from shoal.wire.envelope import PeerRecord
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.identify import (
    MAX_ADDRS,
    MAX_PROTOCOL_BYTES,
    MAX_PROTOCOLS,
    MAX_READ_BYTES,
    MAX_SENT_BYTES,
    MAX_TEXT,
    IdentifyInfo,
)
from shoal.wire.keys import PrivateKey

KEY = PrivateKey(bytes(range(32)))
ADDRS = (
    Multiaddr("/ip4/192.0.2.1/tcp/4071"),
    Multiaddr("/ip6/2001:db8::1/udp/4071/quic-v1"),
)
RECORD = PeerRecord(KEY.peer_id, 1_700_000_000, ADDRS).seal(KEY)
INFO = IdentifyInfo(
    public_key=KEY.public.message,
    listen_addrs=ADDRS,
    protocols=("/ipfs/id/1.0.0", "/shoal/kad/1.0.0"),
    observed_addr=ADDRS[0],
    protocol_version="ipfs/0.1.0",
    agent_version="js/1",
    signed_peer_record=RECORD,
)

# Written by @libp2p/identify (js-libp2p), which puts the fields in another order.
IDENTIFY = bytes.fromhex(
    "2a0a697066732f302e312e3032046a732f310a240801122003a107bff3ce10be1d70dd18e74bc09967e4d630"
    "9ba50d5f1ddc8664125531b8120804c0000201060fe712172920010db800000000000000000000000191020f"
    "e7cd03220804c0000201060fe71a0e2f697066732f69642f312e302e301a102f73686f616c2f6b61642f312e"
    "302e3042c3010a240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    "120203011a550a2600240801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc86641255"
    "31b81080e2cfaa061a0a0a0804c0000201060fe71a190a172920010db800000000000000000000000191020f"
    "e7cd032a40d7a8ad134cfe877569fbb939ce58695cbf0be44d77ca7be4ad829a317ae6cf99cdce95b3007359"
    "4d7dd0b11503ef21b9606bd2c00564e65ebb79700059d61c0d"
)

names = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters="\ufffd"),
    min_size=1,
    max_size=40,
)
infos = st.builds(
    IdentifyInfo,
    public_key=st.none() | st.binary(max_size=40),
    listen_addrs=st.lists(st.integers(1, 65535), unique=True, max_size=MAX_ADDRS).map(
        lambda ports: tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in ports)
    ),
    protocols=st.lists(names, unique=True, max_size=8).map(tuple),
    observed_addr=st.none() | st.sampled_from(ADDRS),
    protocol_version=st.none() | names,
    agent_version=st.none() | names,
    signed_peer_record=st.none() | st.binary(max_size=200),
)


def field(number: int, value: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(value)) + value


def test_the_bytes_that_js_libp2p_writes() -> None:
    assert IdentifyInfo.decode(IDENTIFY) == INFO
    assert sorted(INFO.encode()) == sorted(IDENTIFY)


@settings(max_examples=60)
@given(infos)
def test_a_message_comes_back(info: IdentifyInfo) -> None:
    assert IdentifyInfo.decode(info.encode()) == info


def test_absent_is_not_empty() -> None:
    assert IdentifyInfo.decode(b"") == IdentifyInfo()
    info = IdentifyInfo(public_key=b"", protocol_version="", agent_version="")
    assert IdentifyInfo.decode(info.encode()) == info


@settings(max_examples=40)
@given(infos)
def test_fields_over_several_messages_add_up(info: IdentifyInfo) -> None:
    parts = [
        IdentifyInfo(public_key=info.public_key, listen_addrs=info.listen_addrs[:3]),
        IdentifyInfo(protocols=info.protocols, agent_version=info.agent_version),
        IdentifyInfo(
            listen_addrs=info.listen_addrs[2:],  # one is named twice
            observed_addr=info.observed_addr,
            protocol_version=info.protocol_version,
            signed_peer_record=info.signed_peer_record,
        ),
    ]
    merged = IdentifyInfo()
    for part in parts:
        merged = merged.merged(IdentifyInfo.decode(part.encode()))
    assert merged == info


def test_a_push_replaces_what_it_names() -> None:
    push = IdentifyInfo(listen_addrs=ADDRS[:1], agent_version="js/2")
    updated = INFO.updated(push)
    assert updated.listen_addrs == ADDRS[:1]
    assert updated.agent_version == "js/2"
    assert updated.protocols == INFO.protocols
    assert updated.public_key == INFO.public_key
    assert INFO.updated(IdentifyInfo()) == INFO
    assert INFO.updated(IdentifyInfo(protocols=("/x",))).protocols == ("/x",)


def test_merging_for_ever_stays_bounded() -> None:
    info = IdentifyInfo()
    for number in range(20):
        addrs = tuple(Multiaddr(f"/ip4/10.0.{number}.{i}/tcp/1") for i in range(30))
        protocols = tuple(f"/{number}/{i}" for i in range(100))
        info = info.merged(IdentifyInfo(listen_addrs=addrs, protocols=protocols))
    assert len(info.listen_addrs) == MAX_ADDRS
    assert len(info.protocols) == MAX_PROTOCOLS


def test_what_is_sent_fits_in_4_kib() -> None:
    addrs = tuple(Multiaddr(f"/ip6/2001:db8::{i:x}/tcp/4071") for i in range(1000))
    protocols = tuple(f"/some/protocol/{i}" for i in range(40))
    long = IdentifyInfo(KEY.public.message, addrs, protocols, signed_peer_record=bytes(3000))
    data = long.encode()
    assert MAX_SENT_BYTES - 512 < len(data) <= MAX_SENT_BYTES
    info = IdentifyInfo.decode(data)
    assert info.protocols == protocols
    assert info.listen_addrs == addrs[:MAX_ADDRS]
    assert info.signed_peer_record is None  # it would have pushed the addresses out
    with pytest.raises(Misuse):
        IdentifyInfo(protocols=("x" * MAX_SENT_BYTES,)).encode()


def test_a_text_that_is_not_utf_8_does_no_harm() -> None:
    # The generated code hands such a text out as bytes.
    data = field(3, b"\xff\xfe") + field(3, b"/ok") + field(5, b"\xffx") + field(6, b"a\xc3")
    info = IdentifyInfo.decode(data)
    assert info.protocols == ("/ok",)
    assert (info.protocol_version, info.agent_version) == ("\ufffdx", "a\ufffd")


def test_a_text_cannot_steer_a_terminal() -> None:
    nasty = "shoal\x1b[2J\x07\r\n\u202e\u2028\x00" + "x" * 1000
    info = IdentifyInfo.decode(field(6, nasty.encode()) + field(3, nasty.encode()))
    assert info.agent_version is not None
    assert info.agent_version.startswith("shoal[2Jx")
    assert len(info.agent_version) == MAX_TEXT
    assert info.protocols == ()


def test_lists_are_bounded() -> None:
    protocols = b"".join(field(3, b"%d" % i) for i in range(1000))
    assert len(IdentifyInfo.decode(protocols).protocols) == MAX_PROTOCOLS
    addrs = b"".join(field(2, b"\x04\x01\x02" + i.to_bytes(2, "big")) for i in range(1000))
    assert len(IdentifyInfo.decode(addrs).listen_addrs) == MAX_ADDRS
    bad = field(2, b"\xff\x7f")
    assert IdentifyInfo.decode(bad * 50 + addrs[:7]).listen_addrs == (Multiaddr("/ip4/1.2.0.0"),)
    assert IdentifyInfo.decode(bad * 2000).listen_addrs == ()
    assert IdentifyInfo.decode(field(3, b"x" * (MAX_PROTOCOL_BYTES + 1))).protocols == ()
    assert IdentifyInfo.decode(field(4, b"\xff\x7f")).observed_addr is None


def test_a_long_message_is_refused() -> None:
    IdentifyInfo.decode(field(15, bytes(MAX_READ_BYTES - 3)))
    with pytest.raises(PeerFault, match="too long"):
        IdentifyInfo.decode(field(15, bytes(MAX_READ_BYTES)))


def test_every_cut_is_a_message_or_a_fault() -> None:
    for cut in range(len(IDENTIFY)):
        try:
            info = IdentifyInfo.decode(IDENTIFY[:cut])
        except PeerFault:
            continue
        assert info != INFO


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(st.builds(field, st.integers(1, 9), st.binary(max_size=20)), max_size=8).map(
            b"".join
        ),
        st.builds(
            lambda number, length, rest: (
                varint.encode(number << 3 | 2) + varint.encode(length) + rest
            ),
            st.integers(1, 9),
            st.integers(1 << 31, varint.MAX_VALUE),
            st.binary(max_size=8),
        ),
    )
)
def test_garbage_is_a_message_that_can_be_sent_again_or_a_fault(data: bytes) -> None:
    try:
        info = IdentifyInfo.decode(data)
    except PeerFault:
        return
    for text in (info.protocol_version, info.agent_version, *info.protocols):
        assert text is None or (text.isprintable() and len(text) <= MAX_PROTOCOL_BYTES)
    assert IdentifyInfo.decode(info.encode()) == info
