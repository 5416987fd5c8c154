"""Upload slots: bounded, fair to those who give, and everybody's turn comes."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.slots import GIVERS, ROTATE_SECONDS, SLOTS, TURN_SECONDS, Slots


def test_up_to_eight_are_served_and_none_is_choked() -> None:
    slots = Slots()
    assert all(slots.wants(str(number), 0.0) for number in range(SLOTS))
    assert not slots.crowded
    assert slots.rotate(ROTATE_SECONDS) == ([], [])
    assert not slots.wants("one more", 11.0)
    assert slots.crowded


def test_a_free_slot_goes_to_whoever_has_waited_longest() -> None:
    slots = Slots()
    for number in range(SLOTS + 2):
        slots.wants(str(number), float(number))
    assert slots.leave("3", 20.0) == [str(SLOTS)]
    assert slots.leave(str(SLOTS + 1), 20.0) == []
    assert slots.leave("nobody", 20.0) == []


def test_who_gives_stays() -> None:
    slots = Slots()
    for number in range(SLOTS + 8):
        slots.wants(str(number), 0.0)
    now = 0.0
    for _ in range(20):
        now += ROTATE_SECONDS
        slots.gave("5", 1000)
        slots.rotate(now)
        assert "5" in slots.served


def test_one_slot_changes_at_every_rotation_though_all_others_give() -> None:
    slots = Slots()
    names = [str(number) for number in range(SLOTS + 4)]
    for name in names:
        slots.wants(name, 0.0)
    now, seen = 0.0, set()
    for _ in range(12):
        now += ROTATE_SECONDS
        for name in names[:GIVERS]:
            slots.gave(name, 1000)
        slots.rotate(now)
        assert set(names[:GIVERS]) <= slots.served
        seen |= slots.served
    assert seen == set(names)


def test_who_has_fallen_behind_is_served_first() -> None:
    slots = Slots()
    names = [str(number) for number in range(SLOTS + 6)]
    for name in names:
        slots.wants(name, 0.0)
    held = dict.fromkeys(names, 100) | {names[-1]: 3, names[-2]: 5}
    slots.rotate(TURN_SECONDS, held=held)
    assert {names[-1], names[-2]} <= slots.served


def test_an_idle_peer_makes_room_only_while_others_wait() -> None:
    slots = Slots()
    for number in range(SLOTS):
        slots.wants(str(number), 0.0)
    slots.rotate(ROTATE_SECONDS, ["2"])
    assert "2" in slots.served
    slots.wants("late", 11.0)
    slots.rotate(2 * ROTATE_SECONDS, ["2"])
    assert "2" not in slots.served
    assert "late" in slots.served
    assert not slots.wants("2", 21.0)


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_the_slots_hold_and_nobody_waits_for_ever(peers: int, seed: int) -> None:
    chance = random.Random(seed)
    slots = Slots()
    names = [str(number) for number in range(peers)]
    last = dict.fromkeys(names, 0.0)
    served = {name for name in names if slots.wants(name, 0.0)}
    now = 0.0
    longest = (peers + 3) * max(ROTATE_SECONDS, TURN_SECONDS)
    while now < 3 * longest:
        now += chance.choice([1.0, ROTATE_SECONDS])
        slots.gave(chance.choice(names), chance.randrange(1000))
        rotated = slots.rotate(now)
        if rotated is not None:
            choked, unchoked = rotated
            assert set(choked) <= served
            assert not set(unchoked) & served
            served = served - set(choked) | set(unchoked)
        assert served == slots.served
        assert len(served) == min(SLOTS, peers)
        for name in served:
            last[name] = now
        assert all(now - at <= longest for at in last.values())
