"""What falls due when, and which places of the key space a refresh looks at."""

from __future__ import annotations

import random

from shoal.dht.keyspace import MAX_PREIMAGE_BITS, common_prefix, key_of, preimage
from shoal.dht.table import Table
from shoal.dht.upkeep import Job, Upkeep, UpkeepConfig, refresh_plan
from shoal.wire.ids import PeerId


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


ME = peer(10**9)


def filled(count: int) -> Table:
    table = Table(ME)
    for n in range(count):
        table.answered(peer(n), [], None, 0.0)
    return table


def test_each_job_comes_once_per_period() -> None:
    upkeep = Upkeep(100.0, UpkeepConfig(refresh=60, ask_silent=10, expire=30, save=20))
    counts = dict.fromkeys(Job, 0)
    now = 100.0
    assert upkeep.due(now) == []
    while now < 220.0:
        now = upkeep.next_due()
        for job in upkeep.due(now):
            counts[job] += 1
    assert counts == {
        Job.FIND_OURSELVES: 2,
        Job.REFRESH: 2,
        Job.ASK_SILENT: 12,
        Job.EXPIRE: 4,
        Job.SAVE: 6,
    }


def test_a_hastened_job_is_due_at_once_and_then_as_ever() -> None:
    upkeep = Upkeep(0.0)
    upkeep.hasten(Job.SAVE, 5.0)
    assert upkeep.due(5.0) == [Job.SAVE]
    assert upkeep.due(5.0) == []
    assert Job.SAVE in upkeep.due(305.0)


def test_a_refresh_goes_to_every_stale_bucket_but_our_own() -> None:
    table = filled(3000)
    plan = refresh_plan(table, 1000.0, 600.0)
    for prefix in plan:
        made = preimage(prefix.value, prefix.bits, random.Random(1))
        bucket = table.bucket_of(key_of(made))
        assert not bucket.range[0] <= int.from_bytes(ME.key, "big") <= bucket.range[1]
    depths = {
        table.depth(table.bucket_of(key_of(preimage(p.value, p.bits, random.Random(1)))))
        for p in plan
    }
    assert len(depths) == len(table.buckets) - 1


def test_full_buckets_cost_one_look_others_one_per_thin_quarter() -> None:
    table = filled(3000)
    plan = refresh_plan(table, 1000.0, 600.0)
    places = [key_of(preimage(p.value, p.bits, random.Random(1))) for p in plan]
    for index, bucket in enumerate(table.buckets):
        if _ours(table, index):
            continue
        looks = sum(table.bucket_of(place) is bucket for place in places)
        assert looks == 1 if len(bucket) == 20 else 1 <= looks <= 4


def test_a_quarter_that_has_its_share_is_left_alone() -> None:
    table = filled(12)
    near = peer(0)
    alike = [p for p in map(peer, range(2000)) if common_prefix(p.key, near.key) >= 2][:5]
    crowded = Table(ME)
    for one in alike:
        crowded.answered(one, [], None, 0.0)
    bits = {(p.value, p.bits) for p in refresh_plan(crowded, 1000.0, 600.0)}
    assert (int.from_bytes(near.key, "big") >> 254, 2) not in bits
    assert len(bits) == 3
    assert len(refresh_plan(table, 1000.0, 600.0)) >= 1


def test_what_was_looked_into_is_left_alone_for_a_while() -> None:
    table = filled(3000)
    for n in range(200):
        table.refreshed(key_of(b"%d" % n), 1000.0)
    far = table.buckets[0] if not _ours(table, 0) else table.buckets[-1]
    assert far.last_updated == 1000.0
    stale = refresh_plan(table, 1500.0, 600.0)
    everything = refresh_plan(table, 1600.0, 600.0)
    assert len(stale) < len(everything)


def test_every_round_looks_into_every_bucket_though_its_looks_begin_seconds_later() -> None:
    table = filled(3000)
    for rounds in range(1, 5):
        now = 600.0 * rounds
        plan = refresh_plan(table, now, 600.0)
        places = [key_of(preimage(p.value, p.bits, random.Random(1))) for p in plan]
        looked_into = {id(table.bucket_of(place)) for place in places}
        assert len(looked_into) == len(table.buckets) - 1
        for number, place in enumerate(places):
            table.refreshed(place, now + number)


def test_no_place_is_deeper_than_can_be_searched() -> None:
    table = filled(3000)
    assert all(p.bits <= MAX_PREIMAGE_BITS for p in refresh_plan(table, 1000.0, 600.0))


def _ours(table: Table, index: int) -> bool:
    low, high = table.buckets[index].range
    return low <= int.from_bytes(ME.key, "big") <= high
