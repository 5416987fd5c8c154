"""Upload slots: bounded, fair to those who give, and everybody's turn comes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.slots import IDLE_SECONDS, LEAST_SLOTS, LONGEST_TURN, SLOTS, Slots

PIECE = 1000


def names_of(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def served_to_their_share(slots: Slots, now: float, **held: int) -> tuple[list[str], list[str]]:
    """Let all who are served get their share, and decide anew."""
    everybody = list(slots.names)
    for name in slots.served:
        slots.got(name, 10**9, now)
    return slots.take_turns(now, sorted(slots.served), everybody, held)


def test_up_to_eight_are_served_and_none_is_choked() -> None:
    slots = Slots()
    assert all(slots.wants(name, 0.0) for name in names_of(SLOTS))
    assert not slots.crowded
    assert served_to_their_share(slots, 1.0) == ([], [])
    assert not slots.wants("one more", 11.0)
    assert slots.crowded


def test_a_slow_line_serves_fewer_at_a_time() -> None:
    slots = Slots()
    slots.measured(100.0, PIECE)
    assert [slots.wants(name, 0.0) for name in names_of(SLOTS)].count(True) == LEAST_SLOTS
    slots.measured(5.0 * PIECE, PIECE)
    slots.take_turns(0.0, names_of(2), names_of(SLOTS))
    assert len(slots.served) == 5


def test_when_the_line_proves_slow_those_that_got_nothing_yet_wait() -> None:
    slots = Slots()
    for number, name in enumerate(names_of(SLOTS)):
        slots.wants(name, float(number))
    slots.got("0", PIECE, 8.0)
    slots.measured(100.0, PIECE)
    choked, unchoked = slots.take_turns(8.0, names_of(SLOTS), names_of(SLOTS))
    assert len(choked) == SLOTS - LEAST_SLOTS
    assert "0" in slots.served
    assert unchoked == []


def test_a_free_slot_goes_to_whoever_has_waited_longest() -> None:
    slots = Slots()
    for number, name in enumerate(names_of(SLOTS + 2)):
        slots.wants(name, float(number))
    slots.leave("3")
    busy = [name for name in names_of(SLOTS) if name != "3"]
    assert slots.take_turns(20.0 - 1, busy, names_of(SLOTS + 2))[1] == [str(SLOTS)]


def test_a_turn_is_over_with_its_share_and_not_before() -> None:
    slots = Slots()
    slots.measured(100.0, PIECE)
    for name in names_of(3):
        slots.wants(name, 0.0)
    everybody, busy = names_of(3), names_of(2)
    slots.got("0", PIECE - 1, 1.0)
    assert slots.take_turns(1.0, busy, everybody) == ([], [])
    slots.got("0", 1, 1.0)
    assert slots.take_turns(1.0, busy, everybody) == (["0"], ["2"])


def test_no_turn_begins_while_the_line_has_enough_to_do() -> None:
    slots = Slots()
    slots.measured(100.0, PIECE)
    for name in names_of(3):
        slots.wants(name, 0.0)
    everybody, busy = names_of(3), ["0"]
    slots.got("0", PIECE, 1.0)
    assert slots.take_turns(1.0, busy, everybody, full=True) == (["0"], [])
    assert slots.take_turns(1.1, busy, everybody, full=True) == ([], [])
    assert "2" in slots.take_turns(1.2, [], everybody)[1]


def test_a_turn_in_which_nothing_comes_through_ends_some_time() -> None:
    slots = Slots()
    slots.measured(100.0, PIECE)
    for name in names_of(3):
        slots.wants(name, 0.0)
    assert slots.take_turns(LONGEST_TURN - 1, names_of(2), names_of(3)) == ([], [])
    choked, unchoked = slots.take_turns(LONGEST_TURN, names_of(2), names_of(3))
    assert (len(choked), unchoked) == (1, ["2"])


def test_who_gives_gets_half_of_the_turns() -> None:
    slots = Slots()
    slots.measured(100.0, PIECE)
    for name in names_of(12):
        slots.wants(name, 0.0)
    turns = dict.fromkeys(names_of(12), 0)
    for step in range(1, 201):
        slots.gave("5", 1000)
        served_to_their_share(slots, float(step))
        for name in slots.served:
            turns[name] += 1
    others = [count for name, count in turns.items() if name != "5"]
    assert turns["5"] > 3 * max(others)
    assert min(others) > 0


def test_who_has_fallen_behind_is_served_more_often() -> None:
    slots = Slots()
    slots.measured(100.0, PIECE)
    names = names_of(12)
    for name in names:
        slots.wants(name, 0.0)
    turns = dict.fromkeys(names, 0)
    for step in range(1, 101):
        held = dict.fromkeys(names, 100) | {"7": 3}
        served_to_their_share(slots, float(step), **held)
        for name in slots.served:
            turns[name] += 1
    assert turns["7"] > 1.5 * max(count for name, count in turns.items() if name != "7")


def test_an_idle_peer_makes_room_only_while_others_wait() -> None:
    slots = Slots()
    for name in names_of(SLOTS):
        slots.wants(name, 0.0)
    busy = [name for name in names_of(SLOTS) if name != "2"]
    later = 2 * IDLE_SECONDS
    slots.take_turns(later, busy, names_of(SLOTS))
    assert "2" in slots.served
    slots.wants("late", later)
    slots.take_turns(later, busy, [*names_of(SLOTS), "late"])
    assert "2" not in slots.served
    assert "late" in slots.served
    assert not slots.wants("2", later)


def test_no_slot_goes_to_a_peer_that_lacks_nothing_of_ours() -> None:
    slots = Slots()
    for name in names_of(SLOTS + 1):
        slots.wants(name, 0.0)
    for name in names_of(SLOTS):
        slots.got(name, 10**9, 1.0)
    assert slots.take_turns(LONGEST_TURN, names_of(SLOTS), names_of(SLOTS)) == ([], [])


@given(st.integers(1, 40), st.sampled_from([None, 100.0, 4000.0]), st.integers(0, 2**32))
def test_the_slots_hold_and_nobody_waits_for_ever(
    peers: int, rate: float | None, seed: int
) -> None:
    chance = random.Random(seed)
    slots = Slots()
    slots.measured(rate, PIECE)
    names = names_of(peers)
    last = dict.fromkeys(names, 0.0)
    served = {name for name in names if slots.wants(name, 0.0)}
    now = 0.0
    longest = (peers + 3) * 2 * LONGEST_TURN
    while now < 2 * longest:
        now += chance.choice([1.0, LONGEST_TURN])
        slots.gave(chance.choice(names), chance.randrange(1000))
        choked, unchoked = slots.take_turns(now, sorted(served), names)
        assert set(choked) <= served
        assert not set(unchoked) & served
        served = served - set(choked) | set(unchoked)
        assert served == slots.served
        assert len(served) == min(slots.most, peers)
        for name in served:
            last[name] = now
        assert all(now - at <= longest for at in last.values())
