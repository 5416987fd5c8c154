"""What peers hold, how rare it is, who may know, and what waits to be served."""

from __future__ import annotations

import random

import pytest
from bitarray import bitarray
from bitarray.util import zeros
from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.availability import Availability
from shoal.swarm.bitfield import chunk_bits, frames_of
from shoal.swarm.greeting import check_answer, hello, proves
from shoal.swarm.peer_bits import MAX_KEPT_BYTES, MAX_UNSIZED_CHUNKS, PeerBits
from shoal.swarm.upload import MAX_WAITING_PIECES, MAX_WAITING_REQUESTS, Upload
from shoal.wire.errors import PeerFault
from shoal.wire.ids import Cid
from shoal.wire.swarm import (
    CHUNK_BITS,
    MAX_RUN,
    Bitfield,
    BitfieldKind,
    Cancel,
    RejectReason,
    Request,
    decode,
    encode,
)
from shoal.wire.varint import decode_prefix

BITS = st.one_of(
    st.lists(st.booleans(), min_size=1, max_size=200).map(bitarray),
    st.builds(
        lambda size, seed, share: bitarray(
            [bit < share for bit in random.Random(seed).choices(range(100), k=size)]
        ),
        st.integers(CHUNK_BITS - 2, 2 * CHUNK_BITS + 2),
        st.integers(0, 9),
        st.sampled_from([0, 1, 50, 99, 100]),
    ),
)


WHOLE = range(16)
"""A window in which all chunks of these contents lie."""


def over_the_wire(frame: Bitfield) -> Bitfield:
    data = encode(frame)
    found = decode_prefix(data)
    assert found is not None
    body, _ = decode(data[found[1] :])
    assert isinstance(body, Bitfield)
    return body


@given(BITS, st.booleans())
def test_a_bitfield_arrives_as_it_was_also_before_its_length_is_known(
    bits: bitarray, known_first: bool
) -> None:
    peer = PeerBits()
    if known_first:
        peer.size_known(len(bits), WHOLE)
    for frame in frames_of(bits):
        assert not peer.told
        peer.take(over_the_wire(frame))
    assert peer.told
    peer.size_known(len(bits), WHOLE)
    for chunk in range(3):
        peer.load(chunk)
    assert [peer.has(piece) for piece in range(len(bits))] == bits.tolist()
    # Of runs as long as the content it is not said that they are all.
    assert not peer.everything or bits.all()


@given(BITS)
def test_runs_are_sent_only_where_they_are_shorter(bits: bitarray) -> None:
    for frame in frames_of(bits):
        length = min(CHUNK_BITS, len(bits) - frame.chunk * CHUNK_BITS)
        assert len(frame.data) <= -(-length // 8)


@given(st.sampled_from(BitfieldKind), st.binary(max_size=40), st.integers(1, 300))
def test_any_bytes_for_a_chunk_give_so_many_bits_or_a_fault(
    kind: BitfieldKind, data: bytes, length: int
) -> None:
    if kind in (BitfieldKind.RAW, BitfieldKind.RUNS):
        try:
            bits = chunk_bits(Bitfield(kind, 0, data), length)
        except PeerFault:
            return
        assert len(bits) == length


def test_what_is_kept_while_the_length_is_unknown_is_bounded() -> None:
    peer = PeerBits()
    raw = bytes([0b10000000]) + bytes(8191)
    for chunk in range(MAX_KEPT_BYTES // (8192 + 64) + 5):
        peer.take(Bitfield(BitfieldKind.RAW, chunk, raw, more=True))
    counted = 100_000
    with pytest.raises(PeerFault, match="kept"):  # noqa: PT012
        for counted in range(100_000, 100_000 + MAX_UNSIZED_CHUNKS + 1):
            peer.take(Bitfield(BitfieldKind.RAW, counted, raw, more=True))
    assert counted > 100_000 + MAX_UNSIZED_CHUNKS // 2
    with pytest.raises(PeerFault, match="chunk"):
        peer.size_known(50_000 * CHUNK_BITS)
    peer = PeerBits()
    for _ in range(MAX_KEPT_BYTES // 64):
        peer.change([(0, 1)], True)
    with pytest.raises(PeerFault, match="kept"):
        peer.change([(0, 1)], True)


def test_of_what_is_too_much_to_keep_the_counts_stay() -> None:
    pieces = 40 * CHUNK_BITS
    half = bytes([0b01010101]) * (CHUNK_BITS // 8)
    peer = PeerBits()
    for chunk in range(40):
        peer.take(Bitfield(BitfieldKind.RAW, chunk, half, more=chunk < 39))
    peer.size_known(pieces, {0, 39})
    peer.load(0)
    assert peer.has(1)
    assert not peer.has(0)
    assert peer.unknown(39)
    assert not peer.has(39 * CHUNK_BITS + 1)
    assert {peer.count(chunk) for chunk in range(40)} == {CHUNK_BITS // 2}
    with pytest.raises(PeerFault, match="again"):
        peer.take(Bitfield(BitfieldKind.RAW, 39, half))
    peer.asked(39)
    peer.take(Bitfield(BitfieldKind.RAW, 39, half))
    assert peer.has(39 * CHUNK_BITS + 1)
    assert not peer.unknown(39)


@given(
    st.integers(1, 80),
    st.lists(st.tuples(st.booleans(), st.integers(0, 79), st.integers(1, 80)), max_size=20),
)
def test_changes_hold_from_then_on(size: int, steps: list[tuple[bool, int, int]]) -> None:
    peer = PeerBits()
    peer.take(Bitfield(BitfieldKind.NONE))
    peer.size_known(size, WHOLE)
    model: set[int] = set()
    for held, first, count in steps:
        if first + count > size:
            with pytest.raises(PeerFault):
                peer.change([(first, count)], held)
            continue
        peer.change([(first, count)], held)
        wanted = set(range(first, first + count))
        model = model | wanted if held else model - wanted
        assert {p for p in range(size) if peer.has(p)} == model


@given(
    st.booleans(),
    st.sets(st.integers(0, 4), max_size=3),
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 5 * CHUNK_BITS - 1),
            st.one_of(st.integers(1, 9), st.integers(1, 5 * CHUNK_BITS), st.just(CHUNK_BITS)),
        ),
        max_size=12,
    ),
)
def test_bits_in_the_window_are_exact_and_counts_outside_tell_none_from_all(
    everything: bool, window: set[int], steps: list[tuple[bool, int, int]]
) -> None:
    size = 5 * CHUNK_BITS - 7
    peer = PeerBits()
    peer.take(Bitfield(BitfieldKind.ALL if everything else BitfieldKind.NONE))
    peer.size_known(size, window)
    model = bitarray(size)
    model.setall(everything)
    for held, first, count in steps:
        end = min(size, first + count)
        if first < end:
            peer.change([(first, end - first)], held)
            model[first:end] = held
    for chunk in range(5):
        part = model[chunk * CHUNK_BITS : (chunk + 1) * CHUNK_BITS]
        view = peer.view(chunk)
        if chunk in window:
            assert not peer.unknown(chunk)
            assert peer.count(chunk) == part.count()
            assert (view if isinstance(view, bitarray) else bitarray(len(part) * [view])) == part
        elif not peer.unknown(chunk):
            assert view == bool(part.all())
            assert bool(peer.count(chunk)) == part.any()


@given(st.integers(1, 70), st.integers(0, 2**32), st.integers(1, 30))
def test_availability_counts_as_one_counts_by_hand(size: int, seed: int, steps: int) -> None:
    chance = random.Random(seed)
    counts = Availability()
    peers: list[bitarray] = []
    for _ in range(steps):
        if peers and chance.random() < 0.4:
            counts.remove(peers.pop(chance.randrange(len(peers))))
        else:
            bits = bitarray(chance.choices([0, 1], k=size))
            peers.append(bits)
            counts.add(bits)
    naive = [sum(bits[piece] for bits in peers) for piece in range(size)]
    assert [counts.count(piece) for piece in range(size)] == naive
    candidates = bitarray(chance.choices([0, 1], k=size))
    if not candidates.any():
        return
    told, rarest = counts.fewest(candidates)
    least = min(naive[p] for p in range(size) if candidates[p])
    assert told == least
    assert [p for p in range(size) if rarest[p]] == [
        p for p in range(size) if candidates[p] and naive[p] == least
    ]


ROOT, OTHER = (Cid(0x55, b"\x12\x20" + bytes([number]) * 32) for number in (1, 2))
HASH = bytes(range(32))


@pytest.mark.parametrize("initiator", [True, False])
def test_a_proof_holds_for_one_content_one_connection_and_one_side(initiator: bool) -> None:
    theirs = hello(ROOT, HASH, initiator, 5)
    assert proves(theirs, ROOT, HASH, initiator)
    assert not proves(theirs, ROOT, HASH, not initiator)  # sent back to its maker
    assert not proves(theirs, ROOT, HASH[::-1], initiator)  # taken from another connection
    assert not proves(theirs, OTHER, HASH, initiator)
    assert not proves(theirs, None, HASH, initiator)
    check_answer(theirs, ROOT, HASH, initiator)
    for root, its_hash, side in (
        (OTHER, HASH, initiator),
        (ROOT, HASH[::-1], initiator),
        (ROOT, HASH, not initiator),
    ):
        with pytest.raises(PeerFault):
            check_answer(theirs, root, its_hash, side)


def test_a_greeting_names_neither_the_hash_nor_a_part_of_it() -> None:
    said = encode(hello(ROOT, HASH, True, None))
    assert ROOT.digest[:8] not in said


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=20))
def test_requests_are_answered_in_order_but_for_the_cancelled(
    pieces: int, steps: list[tuple[int, int]]
) -> None:
    upload = Upload(pieces)
    model: dict[int, list[int]] = {}
    for number, (count, cancelled) in enumerate(steps):
        count = min(count, pieces)
        assert upload.ask(Request(number, 0, count)) is None
        model[number] = list(range(count))
        upload.cancel(Cancel(cancelled))
        model.pop(cancelled, None)
        assert upload.waiting == sum(len(left) for left in model.values())
    answered = []
    while (found := upload.peek()) is not None:
        answered.append(found)
        upload.take()
    assert answered == [(number, piece) for number, left in model.items() for piece in left]
    assert upload.waiting == 0
    assert upload.sent == len(answered)


def test_what_waits_for_one_peer_is_bounded() -> None:
    upload = Upload(10**6)
    answers = [upload.ask(Request(number, 0, MAX_RUN)) for number in range(100)]
    assert upload.waiting <= MAX_WAITING_PIECES
    rejected = [answer for answer in answers if answer is not None]
    assert rejected
    assert {answer.reason for answer in rejected} == {RejectReason.TOO_MANY}
    small = Upload(10)
    for number in range(MAX_WAITING_REQUESTS):
        assert small.ask(Request(number, 0, 1)) is None
    assert small.ask(Request(10**6, 0, 1)) is not None


def test_a_request_outside_the_content_or_asked_twice_is_a_fault() -> None:
    upload = Upload(10)
    with pytest.raises(PeerFault):
        upload.ask(Request(1, 5, 6))
    assert upload.ask(Request(1, 5, 5)) is None
    with pytest.raises(PeerFault):
        upload.ask(Request(1, 0, 1))
    assert upload.refuse(RejectReason.NOT_HELD).id == 1
    assert upload.waiting == 0
    assert upload.peek() is None


def test_no_pieces_at_all_is_nothing_held() -> None:
    (frame,) = frames_of(zeros(0))
    assert frame.kind is BitfieldKind.NONE
