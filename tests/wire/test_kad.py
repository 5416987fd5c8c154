"""DHT messages: what js-libp2p writes, what fits, and what a hostile peer may send."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire import varint
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.ids import PeerId
from shoal.wire.kad import (
    MAX_ADDRS,
    MAX_MESSAGE_BYTES,
    MAX_NODE_KEY_BYTES,
    MAX_PEERS,
    MAX_PROVIDER_KEY_BYTES,
    MAX_READ_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORD_KEY_BYTES,
    Connectedness,
    KadMessage,
    KadPeer,
    MessageType,
    Record,
)

ME = PeerId.parse("12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB")
OTHER = PeerId.parse("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
CONTENT = bytes.fromhex("1220e536c7f88d731f374dccb568aff6f56e838a19382e488039b1ca8ad2599e82fe")
ADDRS = (
    Multiaddr("/ip4/192.0.2.1/tcp/4071"),
    Multiaddr("/ip6/2001:db8::1/udp/4071/quic-v1"),
)

# Written by @libp2p/kad-dht (js-libp2p).
FIND = bytes.fromhex("0804122212209dff3b17d74cf4d38a50d8b6383e92d181a10395a5e73a726dcccbd21bf6f0b9")
FINDANSWER = bytes.fromhex(
    "0804122212209dff3b17d74cf4d38a50d8b6383e92d181a10395a5e73a726dcccbd21bf6f0b9424d0a260024"
    "0801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8120804c000020106"
    "0fe712172920010db800000000000000000000000191020fe7cd03180142470a2212209dff3b17d74cf4d38a"
    "50d8b6383e92d181a10395a5e73a726dcccbd21bf6f0b9120804c0000201060fe712172920010db800000000"
    "000000000000000191020fe7cd03"
)
ADD = bytes.fromhex(
    "080212221220e536c7f88d731f374dccb568aff6f56e838a19382e488039b1ca8ad2599e82fe4a4b0a260024"
    "0801122003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8120804c000020106"
    "0fe712172920010db800000000000000000000000191020fe7cd03"
)
GET = bytes.fromhex("080312221220e536c7f88d731f374dccb568aff6f56e838a19382e488039b1ca8ad2599e82fe")
PUT = bytes.fromhex(
    "12052f706b2f781a2e0a052f706b2f78120576616c75652a1e323032362d30312d30325430333a30343a3035"
    "2e3030303030303030365a"
)

peers = st.builds(
    KadPeer,
    st.binary(min_size=32, max_size=32).map(lambda digest: PeerId(b"\x12\x20" + digest)),
    st.lists(st.integers(1, 65535), unique=True, max_size=MAX_ADDRS).map(
        lambda ports: tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in ports)
    ),
    st.sampled_from(Connectedness),
)
messages = st.builds(
    KadMessage,
    st.sampled_from(MessageType),
    st.binary(max_size=MAX_PROVIDER_KEY_BYTES),
    st.lists(peers, max_size=5).map(tuple),
    st.lists(peers, max_size=5).map(tuple),
    st.none()
    | st.builds(
        Record,
        st.binary(max_size=40),
        st.binary(max_size=200),
        st.just("2026-01-02T03:04:05.000000006Z"),
    ),
)


def field(number: int, value: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(value)) + value


def peer_entry(peer: PeerId, *addrs: bytes) -> bytes:
    return field(1, peer.raw) + b"".join(field(2, addr) for addr in addrs)


def test_requests_have_the_bytes_that_js_libp2p_writes() -> None:
    find = KadMessage(MessageType.FIND_NODE, OTHER.raw)
    get = KadMessage(MessageType.GET_PROVIDERS, CONTENT)
    assert (find.encode(), get.encode()) == (FIND, GET)
    assert (KadMessage.decode(FIND), KadMessage.decode(GET)) == (find, get)


def test_messages_with_peers_and_records_from_js_libp2p() -> None:
    answer = KadMessage(
        MessageType.FIND_NODE,
        OTHER.raw,
        closer=(KadPeer(ME, ADDRS, Connectedness.CONNECTED), KadPeer(OTHER, ADDRS)),
    )
    add = KadMessage(MessageType.ADD_PROVIDER, CONTENT, providers=(KadPeer(ME, ADDRS),))
    put = KadMessage(
        MessageType.PUT_VALUE,
        b"/pk/x",
        record=Record(b"/pk/x", b"value", "2026-01-02T03:04:05.000000006Z"),
    )
    for message, data in ((answer, FINDANSWER), (add, ADD), (put, PUT)):
        assert KadMessage.decode(data) == message
        assert KadMessage.decode(message.encode()) == message
    # Ours says "not connected" outright, which protobuf may leave out.
    assert answer.encode() == FINDANSWER.replace(b"\x42\x47", b"\x42\x49") + b"\x18\x00"


@settings(max_examples=60)
@given(messages)
def test_a_message_comes_back(message: KadMessage) -> None:
    data = message.encode()
    assert len(data) <= MAX_MESSAGE_BYTES
    assert KadMessage.decode(data) == message


def test_an_answer_fits_and_providers_go_first() -> None:
    addrs = tuple(Multiaddr(f"/dns4/{'a' * 60}.example/tcp/{i + 1}/ws") for i in range(MAX_ADDRS))
    many = tuple(KadPeer(PeerId(b"\x12\x20" + bytes([i] * 32)), addrs) for i in range(40))
    data = KadMessage(MessageType.GET_PROVIDERS, CONTENT, closer=many, providers=many[:9]).encode()
    assert MAX_MESSAGE_BYTES - 1024 < len(data) <= MAX_MESSAGE_BYTES
    message = KadMessage.decode(data)
    assert message.providers == many[:9]
    assert message.closer == many[: len(message.closer)]
    assert 0 < len(message.closer) < 20
    with pytest.raises(Misuse):
        KadMessage(MessageType.PUT_VALUE, record=Record(b"", bytes(MAX_MESSAGE_BYTES))).encode()


def test_at_most_8_addresses_are_sent_the_shortest_first() -> None:
    long = [Multiaddr(f"/ip6/2001:db8::{i:x}/udp/1/quic-v1") for i in range(1, 9)]
    short = [Multiaddr(f"/ip4/192.0.2.{i}/tcp/1") for i in range(3)]
    message = KadMessage(MessageType.FIND_NODE, closer=(KadPeer(ME, (*long, *short)),))
    (peer,) = KadMessage.decode(message.encode()).closer
    assert set(peer.addrs) == {*short, *long[:5]}


def test_of_many_addresses_those_that_we_can_dial_are_kept() -> None:
    quic = [Multiaddr(f"/ip4/192.0.2.1/udp/{i}/quic-v1").to_bytes() for i in range(1, 13)]
    tcp = [Multiaddr(f"/ip4/192.0.2.1/tcp/{i}").to_bytes() for i in range(1, 4)]
    data = b"\x08\x04" + field(8, peer_entry(ME, *quic, *tcp))
    (peer,) = KadMessage.decode(data).closer
    assert [addr.to_bytes() for addr in peer.addrs] == tcp + quic[:5]


def test_addresses_come_without_the_peer_and_never_with_another() -> None:
    plain = ADDRS[0].to_bytes()
    own = Multiaddr(f"{ADDRS[0]}/p2p/{ME}").to_bytes()
    foreign = Multiaddr(f"/ip4/192.0.2.9/tcp/1/p2p/{OTHER}").to_bytes()
    bare = Multiaddr(f"/p2p/{ME}").to_bytes()
    data = b"\x08\x04" + field(8, peer_entry(ME, own, plain, foreign, bare, b"\xff", b""))
    assert KadMessage.decode(data).closer == (KadPeer(ME, ADDRS[:1]),)


def test_an_entry_with_a_bad_peer_id_is_left_out() -> None:
    good = field(9, peer_entry(ME))
    bad = field(9, field(1, b"\x12\x20short")) + field(9, b"")
    assert KadMessage.decode(b"\x08\x03" + bad + good).providers == (KadPeer(ME),)


def test_an_unknown_connection_state_counts_as_none() -> None:
    for number in (4, 1 << 31, varint.MAX_VALUE):
        entry = peer_entry(ME) + b"\x18" + varint.encode(number)
        (peer,) = KadMessage.decode(b"\x08\x04" + field(8, entry)).closer
        assert peer.connection is Connectedness.NOT_CONNECTED


@pytest.mark.parametrize("number", [6, 7, 255, 1 << 31, (1 << 32) - 1, varint.MAX_VALUE])
def test_an_unknown_type_is_a_fault(number: int) -> None:
    with pytest.raises(PeerFault, match="kad-message: type"):
        KadMessage.decode(b"\x08" + varint.encode(number))


def test_no_type_is_the_first_one() -> None:
    assert KadMessage.decode(b"").type is MessageType.PUT_VALUE


@pytest.mark.parametrize(
    ("kind", "longest"),
    [
        (MessageType.ADD_PROVIDER, MAX_PROVIDER_KEY_BYTES),
        (MessageType.GET_PROVIDERS, MAX_PROVIDER_KEY_BYTES),
        (MessageType.FIND_NODE, MAX_NODE_KEY_BYTES),
        (MessageType.GET_VALUE, MAX_RECORD_KEY_BYTES),
        (MessageType.PUT_VALUE, MAX_RECORD_KEY_BYTES),
    ],
)
def test_keys_are_bounded(kind: MessageType, longest: int) -> None:
    assert KadMessage.decode(KadMessage(kind, bytes(longest)).encode()).key == bytes(longest)
    with pytest.raises(PeerFault, match="the key is too long"):
        KadMessage.decode(KadMessage(kind, bytes(longest + 1)).encode())


def test_records_are_bounded() -> None:
    for record in (
        Record(b"k", bytes(MAX_RECORD_BYTES + 1)),
        Record(bytes(MAX_RECORD_KEY_BYTES + 1), b"v"),
    ):
        with pytest.raises(PeerFault, match="the record is too long"):
            KadMessage.decode(KadMessage(MessageType.PUT_VALUE, record=record).encode())
    odd = field(3, field(5, b"2026\xff\x1b[2J" + b"9" * 1000))
    record_read = KadMessage.decode(odd).record
    assert record_read is not None
    assert record_read.time_received.startswith("2026\ufffd[2J999")
    assert len(record_read.time_received) <= 64


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        field(1, b""),
        peer_entry(ME),
        peer_entry(ME, *[b"\xff"] * 20_000),
        peer_entry(ME, *[b""] * 90),
    ],
)
def test_a_full_message_of_small_things_is_cut_short(entry: bytes) -> None:
    one = field(8, entry) + field(9, entry)
    data = b"\x08\x03" + one * ((MAX_READ_BYTES - 2) // len(one))
    message = KadMessage.decode(data)
    for found in (message.closer, message.providers):
        assert len(found) <= MAX_PEERS
        assert all(len(peer.addrs) <= MAX_ADDRS for peer in found)


def test_a_long_message_is_refused() -> None:
    KadMessage.decode(field(15, bytes(MAX_READ_BYTES - 4)))
    with pytest.raises(PeerFault, match="too long"):
        KadMessage.decode(field(15, bytes(MAX_READ_BYTES)))


def test_deep_nesting_is_a_fault() -> None:
    with pytest.raises(PeerFault):
        KadMessage.decode(b"\x5b" * 10_000)  # groups within groups
    nested = b""
    for _ in range(2000):
        nested = field(8, nested)[:MAX_READ_BYTES]
    KadMessage.decode(nested)


def test_every_cut_is_a_message_or_a_fault() -> None:
    for cut in range(len(FINDANSWER)):
        try:
            message = KadMessage.decode(FINDANSWER[:cut])
        except PeerFault:
            continue
        assert len(message.closer) < 2


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.one_of(
                st.builds(field, st.integers(1, 10), st.binary(max_size=20)),
                st.builds(
                    lambda number, value: varint.encode(number << 3) + varint.encode(value),
                    st.integers(1, 10),
                    st.integers(0, varint.MAX_VALUE),
                ),
                st.builds(lambda a: field(8, peer_entry(ME, a)), st.binary(max_size=12)),
            ),
            max_size=6,
        ).map(b"".join),
        st.builds(
            lambda number, length: varint.encode(number << 3 | 2) + varint.encode(length),
            st.integers(1, 10),
            st.integers(1 << 31, varint.MAX_VALUE),
        ),
    )
)
def test_garbage_is_a_message_that_can_be_sent_again_or_a_fault(data: bytes) -> None:
    try:
        message = KadMessage.decode(data)
    except PeerFault:
        return
    assert KadMessage.decode(message.encode()) == message
