"""Hole punching: bytes by hand, both sides in order and out of it, and who may be dialled."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from shoal.wire.addresses import Scope, with_peer
from shoal.wire.dcutr import (
    MAX_ADDRS,
    MAX_MESSAGE,
    MAX_ROUND_TRIP,
    Dial,
    Invited,
    Inviter,
    PunchMessage,
    PunchType,
)
from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.keys import PrivateKey

PEER = PrivateKey(bytes(range(32))).peer_id
ALICE = Multiaddr("/ip4/192.0.2.1/tcp/4071")
BOB = Multiaddr("/ip6/2001:db8::1/tcp/4072")
HOME = Multiaddr("/ip4/192.168.1.2/tcp/4071")
RELAYED = Multiaddr(f"/ip4/192.0.2.9/tcp/1/p2p/{PEER}/p2p-circuit")
CONNECT = b"\x08\x64\x12\x08" + ALICE.to_bytes()
SYNC = b"\x08\xac\x02"


def test_bytes_are_those_of_the_specification() -> None:
    assert PunchMessage(PunchType.CONNECT, (ALICE,)).encode() == CONNECT
    assert PunchMessage(PunchType.SYNC).encode() == SYNC
    assert PunchMessage.decode(CONNECT) == PunchMessage(PunchType.CONNECT, (ALICE,))


def test_both_dial_at_one_moment() -> None:
    inviter, invited = Inviter([BOB, HOME, RELAYED]), Invited([with_peer(ALICE, PEER)])
    first = inviter.start(10.0)
    answer = invited.receive(first, 10.1)
    assert answer == CONNECT
    sync, dial = inviter.receive(answer, 10.2)
    assert sync == SYNC
    assert (dial.addrs, dial.as_client) == ((ALICE,), False)
    assert dial.at == pytest.approx(10.3)
    # SYNC takes half a round trip: it comes when the other begins.
    assert invited.receive(sync, 10.3) == Dial((BOB,), 10.3, as_client=True)


@pytest.mark.parametrize("bad", [SYNC, b"", b"\x08\x05", b"\x12\xff", bytes(MAX_MESSAGE + 1)])
def test_what_does_not_answer_an_invitation_is_refused(bad: bytes) -> None:
    inviter = Inviter([BOB])
    inviter.start(0.0)
    with pytest.raises(PeerFault):
        inviter.receive(bad, 1.0)
    with pytest.raises(PeerFault):  # the attempt is over
        inviter.receive(CONNECT, 1.0)


def test_an_answer_before_or_long_behind_the_invitation_is_refused() -> None:
    early = Inviter([BOB])
    with pytest.raises(PeerFault):
        early.receive(CONNECT, 0.0)
    late = Inviter([BOB])
    late.start(0.0)
    with pytest.raises(Misuse):
        late.start(0.0)
    with pytest.raises(PeerFault, match="punch-late"):
        late.receive(CONNECT, MAX_ROUND_TRIP + 1)


@pytest.mark.parametrize(
    "messages", [[SYNC], [CONNECT, CONNECT], [CONNECT, SYNC, SYNC], [CONNECT, SYNC, CONNECT]]
)
def test_who_is_invited_takes_messages_in_order_only(messages: list[bytes]) -> None:
    invited = Invited([ALICE])
    for message in messages[:-1]:
        invited.receive(message, 0.0)
    with pytest.raises(PeerFault):
        invited.receive(messages[-1], 0.0)


def test_only_addresses_that_all_can_reach_are_told_and_taken() -> None:
    many = [Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 60)]
    told = PunchMessage.decode(Inviter([HOME, RELAYED, *many]).start(0.0))
    assert told.addrs == tuple(many[:MAX_ADDRS])
    read = PunchMessage.decode(PunchMessage(PunchType.CONNECT, (HOME, RELAYED, ALICE)).encode())
    assert read.addrs == (ALICE,)
    near = PunchMessage(PunchType.CONNECT, (HOME,)).encode()
    assert PunchMessage.decode(near, scope=Scope.PRIVATE).addrs == (HOME,)


@given(ports=st.lists(st.integers(1, 65535), unique=True, max_size=MAX_ADDRS))
def test_messages_come_back_as_they_were_and_cut_off_ones_do_not(ports: list[int]) -> None:
    addrs = tuple(Multiaddr(f"/ip4/192.0.2.1/tcp/{port}") for port in ports)
    message = PunchMessage(PunchType.CONNECT, addrs)
    data = message.encode()
    assert PunchMessage.decode(data) == message
    for length in range(len(data)):
        with suppress(PeerFault):
            assert PunchMessage.decode(data[:length]) != message


@given(messages=st.lists(st.sampled_from([CONNECT, SYNC, b"\xff"]), max_size=4))
def test_nothing_but_connect_and_sync_gives_a_dial(messages: list[bytes]) -> None:
    invited, dials = Invited([ALICE]), 0
    with suppress(PeerFault):
        for message in messages:
            dials += isinstance(invited.receive(message, 0.0), Dial)
    assert dials == (messages[:2] == [CONNECT, SYNC])
    if messages and messages[0] == b"\xff":
        with pytest.raises(PeerFault):  # a fault ends the attempt
            invited.receive(CONNECT, 0.0)


def test_long_addresses_are_told_as_far_as_they_fit() -> None:
    long = Multiaddr("/dns/" + ".".join(["a" * 60] * 4) + "/tcp/1")
    assert len(PunchMessage(PunchType.CONNECT, (long,) * 16).encode()) <= MAX_MESSAGE


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_fault(data: bytes) -> None:
    with suppress(PeerFault):
        PunchMessage.decode(data)
