"""Circuit relay v2: bytes by hand from the specification, bounds, vouchers, relayed addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire.addresses import (
    Scope,
    acceptable,
    parse_multiaddr,
    relayed_addr,
    split_relayed,
    with_peer,
)
from shoal.wire.circuit import (
    MAX_ADDRS,
    MAX_MESSAGE,
    HopMessage,
    HopType,
    Limit,
    Reservation,
    Status,
    StopMessage,
    StopType,
    Voucher,
)
from shoal.wire.envelope import Envelope
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.keys import PrivateKey

RELAY = PrivateKey(bytes(range(32)))
PEER = PrivateKey(bytes(range(1, 33)))
OTHER = PrivateKey(bytes(range(2, 34)))
PLAIN = Multiaddr("/ip4/192.0.2.1/tcp/4071")
AT_RELAY = with_peer(PLAIN, RELAY.peer_id)

numbers = st.integers(0, (1 << 32) - 1)
limits = st.none() | st.builds(
    Limit, seconds=st.integers(1, (1 << 32) - 1), bytes_each_way=st.none() | st.integers(1, 1 << 60)
)
peers = st.none() | st.sampled_from([RELAY.peer_id, PEER.peer_id])
reservations = st.none() | st.builds(
    Reservation,
    expires=st.integers(0, (1 << 63) - 1),
    addrs=st.lists(st.integers(1, 65535), unique=True, max_size=MAX_ADDRS).map(
        lambda ports: tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in ports)
    ),
    voucher=st.none() | st.binary(max_size=300),
)


@given(
    kind=st.sampled_from(HopType),
    peer=peers,
    reservation=reservations,
    limit=limits,
    status=numbers,
)
def test_hop_messages_come_back_as_they_were(
    kind: HopType, peer: object, reservation: object, limit: object, status: int
) -> None:
    if kind is HopType.CONNECT:
        peer = RELAY.peer_id
    message = HopMessage(kind, peer, reservation, limit, status)  # type: ignore[arg-type]
    assert HopMessage.decode(message.encode()) == message


@given(kind=st.sampled_from(StopType), limit=limits, status=numbers)
def test_stop_messages_come_back_as_they_were(
    kind: StopType, limit: Limit | None, status: int
) -> None:
    message = StopMessage(kind, PEER.peer_id, limit, status)
    assert StopMessage.decode(message.encode()) == message


def test_bytes_are_those_of_the_specification() -> None:
    peer = PEER.peer_id.raw
    assert HopMessage(HopType.RESERVE).encode() == b"\x08\x00"
    connect = b"\x08\x01\x12" + bytes([len(peer) + 2]) + b"\x0a" + bytes([len(peer)]) + peer
    assert HopMessage(HopType.CONNECT, PEER.peer_id).encode() == connect
    status = b"\x08\x02\x1a\x07\x08\x64\x1a\x03abc\x22\x05\x08\x78\x10\x80\x08\x28\x64"
    assert HopMessage.decode(status) == HopMessage(
        HopType.STATUS,
        reservation=Reservation(100, (), b"abc"),
        limit=Limit(120, 1024),
        status=Status.OK,
    )
    assert StopMessage.decode(b"\x08\x01\x20\xcb\x01").status == Status.CONNECTION_FAILED
    told = b"\x08\x00\x12" + bytes([len(peer) + 2]) + b"\x0a" + bytes([len(peer)]) + peer
    told += b"\x1a\x02\x08\x78"
    assert StopMessage.decode(told) == StopMessage(StopType.CONNECT, PEER.peer_id, Limit(120))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\x07",  # no such kind
        b"\x08\x01",  # CONNECT to nobody
        b"\x08\x02",  # STATUS without one
        b"\x08\x01\x12\x00",  # a peer without an id
        b"\x08\x01\x12\x03\x0a\x01x",  # no peer id
        b"\x08\x00\x12\xff\xff\xff\xff\x7f",  # cut off
        b"\x08\x00" + bytes(MAX_MESSAGE),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(PeerFault):
        HopMessage.decode(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_fault(data: bytes) -> None:
    for decode in (HopMessage.decode, StopMessage.decode):
        try:
            decode(data)
        except PeerFault:
            continue


def test_a_limit_of_zero_is_none_and_addresses_are_bounded() -> None:
    assert HopMessage.decode(b"\x08\x02\x22\x04\x08\x00\x10\x00\x28\x64").limit is None
    addrs = tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 40))
    reserved = HopMessage(HopType.STATUS, reservation=Reservation(1, addrs), status=100)
    read = HopMessage.decode(reserved.encode()).reservation
    assert read is not None
    assert read.addrs == addrs[:MAX_ADDRS]


def test_a_voucher_says_what_the_relay_signed() -> None:
    sealed = Voucher(RELAY.peer_id, PEER.peer_id, 2000).seal(RELAY)
    opened = Voucher.open(sealed, relay=RELAY.peer_id, peer=PEER.peer_id, now=1999.0)
    assert opened == Voucher(RELAY.peer_id, PEER.peer_id, 2000)


@pytest.mark.parametrize(
    ("sealed", "reason"),
    [
        (Voucher(RELAY.peer_id, PEER.peer_id, 2000).seal(OTHER), "relay-voucher"),
        (Voucher(OTHER.peer_id, PEER.peer_id, 2000).seal(RELAY), "relay-voucher"),
        (Voucher(RELAY.peer_id, OTHER.peer_id, 2000).seal(RELAY), "relay-voucher"),
        (Voucher(RELAY.peer_id, PEER.peer_id, 1000).seal(RELAY), "relay-voucher"),
        (Envelope.seal(RELAY, b"libp2p-relay-rsvp", b"\x03\x01", b"").encode(), "envelope"),
        (Envelope.seal(RELAY, b"other", b"\x03\x02", b"").encode(), "envelope-signature"),
        (b"nonsense", "envelope"),
    ],
)
def test_a_voucher_that_is_not_ours_is_refused(sealed: bytes, reason: str) -> None:
    with pytest.raises(PeerFault) as fault:
        Voucher.open(sealed, relay=RELAY.peer_id, peer=PEER.peer_id, now=1500.0)
    assert fault.value.reason == reason


def test_relayed_addresses_are_made_and_taken_apart() -> None:
    open_place = relayed_addr(AT_RELAY)
    addr = relayed_addr(AT_RELAY, PEER.peer_id)
    text = f"{PLAIN}/p2p/{RELAY.peer_id}/p2p-circuit"
    assert str(open_place) == text
    assert str(addr) == f"{text}/p2p/{PEER.peer_id}"
    assert split_relayed(open_place) == (PLAIN, RELAY.peer_id, None)
    assert split_relayed(addr) == (PLAIN, RELAY.peer_id, PEER.peer_id)


@pytest.mark.parametrize(
    "text",
    [
        str(PLAIN),
        str(AT_RELAY),
        "/p2p-circuit",
        f"/p2p-circuit/p2p/{PEER.peer_id}",
        f"{PLAIN}/p2p-circuit",
        f"{AT_RELAY}/p2p/{OTHER.peer_id}/p2p-circuit",
        f"{AT_RELAY}/p2p-circuit/p2p/{OTHER.peer_id}/p2p-circuit",
        f"{AT_RELAY}/p2p-circuit/ip4/192.0.2.2/tcp/1",
    ],
)
def test_other_addresses_are_not_relayed_ones(text: str) -> None:
    assert split_relayed(parse_multiaddr(text)) is None


def test_a_relay_is_named_and_not_relayed_itself() -> None:
    for relay in (PLAIN, with_peer(relayed_addr(AT_RELAY), OTHER.peer_id)):
        with pytest.raises(Misuse):
            relayed_addr(relay)


def test_a_relayed_address_is_taken_as_far_as_its_relay_is() -> None:
    assert acceptable(relayed_addr(AT_RELAY), Scope.GLOBAL)
    near = with_peer(Multiaddr("/ip4/192.168.1.2/tcp/1"), RELAY.peer_id)
    assert not acceptable(relayed_addr(near), Scope.GLOBAL)
    assert acceptable(relayed_addr(near), Scope.PRIVATE)


def test_a_voucher_has_the_bytes_of_the_specification() -> None:
    sealed = Envelope.decode(Voucher(RELAY.peer_id, PEER.peer_id, 300).seal(RELAY))
    relay, peer = RELAY.peer_id.raw, PEER.peer_id.raw
    parts = b"\x0a" + bytes([len(relay)]) + relay + b"\x12" + bytes([len(peer)]) + peer
    assert sealed.open(b"libp2p-relay-rsvp", b"\x03\x02") == parts + b"\x18\xac\x02"


def test_what_does_not_fit_is_left_out_or_refused() -> None:
    long = with_peer(Multiaddr("/dns/" + ".".join(["a" * 60] * 4) + "/tcp/1"), RELAY.peer_id)
    told = HopMessage(HopType.STATUS, reservation=Reservation(1, (long,) * 16, b"v" * 300))
    assert len(told.encode()) <= MAX_MESSAGE
    with pytest.raises(Misuse):
        HopMessage(HopType.STATUS, reservation=Reservation(1, (), bytes(MAX_MESSAGE))).encode()
