"""Bitfields that a hostile peer may send."""

from __future__ import annotations

import pytest

from shoal.swarm.peer_bits import PeerBits
from shoal.wire import varint
from shoal.wire.errors import PeerFault
from shoal.wire.swarm import CHUNK_BITS, MAX_PIECES, Bitfield, BitfieldKind

NONE, ALL = Bitfield(BitfieldKind.NONE), Bitfield(BitfieldKind.ALL)


@pytest.mark.parametrize(
    "frame",
    [
        Bitfield(BitfieldKind.RAW, 0, b"\xff"),
        Bitfield(BitfieldKind.RAW, 0, b"\xff\xff\xff"),
        Bitfield(BitfieldKind.RAW, 0, b"\xff\xff"),  # bits behind the end
        Bitfield(BitfieldKind.RAW, 1, b"\xff"),
        Bitfield(BitfieldKind.RAW, MAX_PIECES // CHUNK_BITS - 1, b"\xff"),
        Bitfield(BitfieldKind.RUNS, 0, b""),
        Bitfield(BitfieldKind.RUNS, 0, b"\x09"),
        Bitfield(BitfieldKind.RUNS, 0, b"\x0b"),
        Bitfield(BitfieldKind.RUNS, 0, b"\x05\x00\x05"),
        Bitfield(BitfieldKind.RUNS, 0, b"\x05\x80"),
        Bitfield(BitfieldKind.RUNS, 0, varint.encode(2**63 - 1)),
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_what_does_not_describe_ten_pieces_is_a_fault(frame: Bitfield, early: bool) -> None:
    peer = PeerBits()
    if early:
        peer.size_known(10)
        with pytest.raises(PeerFault):
            peer.take(frame)
    else:
        peer.take(frame)
        with pytest.raises(PeerFault):
            peer.size_known(10)


@pytest.mark.parametrize(
    "frames",
    [
        [ALL, ALL],
        [NONE, ALL],
        [Bitfield(BitfieldKind.RAW, 0, b"\xff\xc0"), NONE],
        [Bitfield(BitfieldKind.RAW, 0, b"\xff\xc0", more=True), ALL],
    ],
)
@pytest.mark.parametrize("early", [True, False])
def test_a_bitfield_is_told_once_and_in_one_form(frames: list[Bitfield], early: bool) -> None:
    peer = PeerBits()
    if early:
        peer.size_known(10)
    for frame in frames[:-1]:
        peer.take(frame)

    with pytest.raises(PeerFault):
        peer.take(frames[-1])


def test_the_same_chunk_twice_is_a_fault_while_it_is_kept() -> None:
    peer = PeerBits()
    peer.take(Bitfield(BitfieldKind.RAW, 0, b"\xff", more=True))

    with pytest.raises(PeerFault):
        peer.take(Bitfield(BitfieldKind.RAW, 0, b"\xff", more=True))


@pytest.mark.parametrize("early", [True, False])
def test_a_range_behind_the_end_is_a_fault(early: bool) -> None:
    peer = PeerBits()
    if early:
        peer.size_known(100)
    else:
        peer.change([(99, 2)], held=True)

    with pytest.raises(PeerFault):
        peer.change([(99, 2)], held=True) if early else peer.size_known(100)
