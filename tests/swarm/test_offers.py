"""Super-seeding: what one seed shows to whom."""

from __future__ import annotations

import random
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.offers import FIRST_OFFERS, IGNORED_SECONDS, Offers
from shoal.swarm.peer_bits import PeerBits
from shoal.wire.swarm import Bitfield, BitfieldKind


def lacking(pieces: int) -> PeerBits:
    bits = PeerBits()
    bits.take(Bitfield(BitfieldKind.NONE))
    bits.size_known(pieces, range(1))
    return bits


def test_no_two_peers_are_offered_the_same_piece_at_first() -> None:
    offers = Offers(64, random.Random(1))
    seen: list[int] = []
    for number in range(8):
        offers.join(str(number), lacking(64), 0.0)
        seen += offers.next(str(number), 0.0)
    assert len(seen) == len(set(seen)) == 8 * FIRST_OFFERS


def test_who_asks_gets_more_and_more() -> None:
    offers = Offers(1000, random.Random(1))
    offers.join("a", lacking(1000), 0.0)
    sizes = []
    for _ in range(6):
        pieces = offers.next("a", 0.0)
        sizes.append(len(pieces))
        assert offers.next("a", 0.0) == []
        for piece in pieces:
            offers.asked("a", piece, 1, 0.0)
    assert sizes == [4, 4, 8, 16, 32, 64]


def test_who_is_busy_is_not_offered_more() -> None:
    offers = Offers(1000, random.Random(1))
    offers.join("a", lacking(1000), 0.0)
    first = offers.next("a", 0.0)
    offers.asked("a", first[0], 1, 0.0)
    assert offers.next("a", 100.0) == []


def test_a_piece_that_somebody_asked_for_is_taken_from_all_who_were_offered_it() -> None:
    offers = Offers(16, random.Random(1))
    for name in ("a", "b"):
        offers.join(name, lacking(16), 0.0)
    now, both = 0.0, set[int]()
    shown: dict[str, set[int]] = {"a": set(), "b": set()}
    while not both:  # none of it is asked for, so in the end both see the same
        for name, pieces in shown.items():
            pieces.update(offers.next(name, now))
        both = shown["a"] & shown["b"]
        now += IGNORED_SECONDS
    offers.next("b", now)  # what it ignored is not what it will be asked about next
    piece = min(both)
    assert offers.asked("a", piece, 1, now) == {"b": [piece]}
    assert offers.hides("b", piece, 1)


def test_who_wants_none_of_it_is_soon_offered_everything() -> None:
    offers = Offers(1000, random.Random(1))
    offers.join("a", lacking(1000), 0.0)
    seen: set[int] = set()
    for step in count():
        seen.update(offers.next("a", step * IGNORED_SECONDS))
        if len(seen) == 1000:
            break
    assert step < 12


def test_what_is_on_its_way_to_one_peer_is_not_offered_to_another() -> None:
    offers = Offers(16, random.Random(1))
    bits = {name: lacking(16) for name in "ab"}
    offers.join("a", bits["a"], 0.0)
    while pieces := offers.next("a", 0.0):
        for piece in pieces:
            offers.asked("a", piece, 1, 0.0)
    offers.join("b", bits["b"], 0.0)
    assert offers.next("b", 0.0) == []
    bits["a"].change([(5, 1)], True)
    offers.next("a", 0.0)
    assert offers.next("b", 0.0) == [5]
    offers.leave("a")
    offers.asked("b", 5, 1, 0.0)
    bits["b"].change([(5, 1)], True)
    assert len(offers.next("b", 0.0)) == FIRST_OFFERS  # what it had not got is to be had again


def test_what_was_not_offered_can_be_told_at_last() -> None:
    offers = Offers(32, random.Random(1))
    offers.join("a", lacking(32), 0.0)
    pieces = offers.next("a", 0.0)
    hidden = offers.hidden("a")
    assert hidden is not None
    assert sorted(pieces) == [piece for piece in range(32) if not hidden[piece]]
    assert offers.hidden("b") is None


@given(st.integers(16, 200), st.integers(1, 6), st.integers(0, 2**32))
def test_every_peer_can_get_every_piece_from_the_seed_alone(
    pieces: int, peers: int, seed: int
) -> None:
    chance = random.Random(seed)
    offers = Offers(pieces, chance)
    bits = {str(number): lacking(pieces) for number in range(peers)}
    offered: dict[str, set[int]] = {name: set() for name in bits}
    for name, held in bits.items():
        offers.join(name, held, 0.0)
    held_by = {name: set[int]() for name in bits}
    for step in range(40 * pieces):
        now = 0.5 * step
        if all(len(held) == pieces for held in held_by.values()):
            break
        name = chance.choice(list(bits))
        new = offers.next(name, now)
        assert not offered[name] & set(new)
        offered[name] |= set(new)
        choice = sorted(offered[name] - held_by[name])
        if choice:
            piece = chance.choice(choice)
            for other, taken in offers.asked(name, piece, 1, now).items():
                assert taken == [piece]
                offered[other].discard(piece)
            offers.sent(name, piece)
            bits[name].change([(piece, 1)], True)
            offers.grew(name, now)
            held_by[name].add(piece)
    assert all(len(held) == pieces for held in held_by.values())
