"""When contents are announced, and that a sweep hands each to its true nearest."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.dht.announcements import (
    SWEEP_WIDTH,
    AnnounceConfig,
    Announcements,
    covered_bits,
    split_region,
    takers,
)
from shoal.dht.keyspace import K, common_prefix, key_of, nearest
from shoal.wire.ids import PeerId

HOUR = 3600.0
DRAW = random.Random(5)


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def content(number: int) -> bytes:
    return b"\x12\x20" + number.to_bytes(32, "little")


def near(peers: list[PeerId], target: bytes) -> list[PeerId]:
    return nearest(peers, target, lambda p: p.key)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(0, 400), contents=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_a_sweep_finds_the_true_takers_with_few_lookups(
    size: int, contents: int, seed: int
) -> None:
    draw = random.Random(seed)
    peers = [peer(draw.getrandbits(64)) for _ in range(size)]
    left = sorted((content(draw.getrandbits(64)) for _ in range(contents)), key=key_of)
    lookups = 0
    while left:
        target = key_of(left[0])
        found = near(peers, target)[:SWEEP_WIDTH]
        lookups += 1
        bits = covered_bits(target, found, SWEEP_WIDTH)
        region, left_after = split_region(left, target, bits)
        assert left[0] in region
        assert sorted(region + left_after) == sorted(left)
        for multihash in region:
            assert takers(multihash, found) == near(peers, key_of(multihash))[:K]
        left = left_after
    if size < SWEEP_WIDTH:
        assert lookups == 1
    assert lookups <= contents


def test_thousands_of_contents_cost_a_lookup_per_region() -> None:
    draw = random.Random(3)
    peers = [peer(draw.getrandbits(64)) for _ in range(1000)]
    left = sorted((content(n) for n in range(2000)), key=key_of)
    lookups = 0
    while left:
        target = key_of(left[0])
        found = near(peers, target)[:SWEEP_WIDTH]
        _, left = split_region(left, target, covered_bits(target, found, SWEEP_WIDTH))
        lookups += 1
    assert lookups <= 200


def test_a_region_without_enough_peers_is_not_trusted() -> None:
    target = key_of(b"here")
    ordered = near([peer(n) for n in range(4000)], target)
    # 19 peers beside the target and then 21 from the far half: the region holds too few.
    far = [p for p in ordered if common_prefix(p.key, target) == 0][:21]
    assert covered_bits(target, ordered[:19] + far, SWEEP_WIDTH) in (0, 256)
    close = [p for p in ordered if common_prefix(p.key, target) >= 4]
    sparse = close[:19] + [p for p in ordered if common_prefix(p.key, target) == 3][:21]
    bits = covered_bits(target, sparse, SWEEP_WIDTH)
    assert bits == 256 or sum(common_prefix(p.key, target) >= bits for p in sparse) >= K


def test_due_in_the_order_of_the_keys() -> None:
    schedule = Announcements()
    for n in range(50):
        schedule.set(content(n), 0.0 if n % 2 else 100.0, 0.0)
    due = schedule.due(0.0)
    assert due == sorted((content(n) for n in range(1, 50, 2)), key=key_of)
    assert schedule.next_due() == 0.0
    assert len(schedule.due(100.0)) == 50


def test_done_is_renewed_within_the_day_too_few_soon() -> None:
    schedule = Announcements()
    for n in range(3):
        schedule.set(content(n), 0.0, 0.0)
    assert 21 * HOUR <= schedule.done(content(0), 20, 20, 0.0, DRAW) <= 22 * HOUR
    assert schedule.done(content(0), 5, 6, 0.0, DRAW) == HOUR  # a small network
    assert schedule.done(content(0), 19, 20, 0.0, DRAW) > 20 * HOUR
    assert schedule.done(content(1), 3, 20, 0.0, DRAW) == 300.0
    assert schedule.done(content(2), 0, 0, 0.0, DRAW) == 300.0
    assert schedule.due(0.0) == []
    assert set(schedule.due(300.0)) == {content(1), content(2)}
    assert schedule.due(22 * HOUR) == sorted(map(content, range(3)), key=key_of)


def test_a_clock_that_was_ahead_delays_by_one_period_at_most() -> None:
    schedule = Announcements()
    schedule.set(content(1), 1e12, 1000.0)
    assert schedule.next_due() == 1000.0 + 22 * HOUR


def test_dropped_is_forgotten_and_the_rest_bounded() -> None:
    schedule = Announcements(AnnounceConfig(limit=3))
    assert [schedule.set(content(n), 5.0, 0.0) for n in range(5)] == [True] * 3 + [False] * 2
    schedule.drop(content(1))
    assert content(1) not in schedule
    assert schedule.set(content(4), 6.0, 0.0)
    assert set(schedule.due(10.0)) == {content(0), content(2), content(4)}
    schedule.done(content(1), 20, 20, 0.0, DRAW)
    assert content(1) not in schedule
    for _ in range(1000):  # moving one again and again keeps nothing behind
        schedule.set(content(0), 7.0, 0.0)
    assert len(schedule._queue) < 100


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1000)), max_size=60))
def test_the_schedule_is_what_was_set_last(steps: list[tuple[int, float]]) -> None:
    schedule = Announcements()
    for n, due in steps:
        schedule.set(content(n), due, 0.0)
    last = {content(n): due for n, due in steps}
    assert schedule.next_due() == min(last.values(), default=None)
    assert set(schedule.due(500.0)) == {item for item, due in last.items() if due <= 500.0}
