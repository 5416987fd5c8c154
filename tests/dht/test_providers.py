"""Provider records: bounded in every direction, and hard to flood."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from multiaddr import Multiaddr

from shoal.dht.providers import ProviderConfig, ProviderStore
from shoal.wire.ids import PeerId

HOUR = 3600.0
DRAW = random.Random(1)


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


def addr(number: int) -> Multiaddr:
    return Multiaddr(f"/ip4/10.0.0.{number % 250 + 1}/tcp/4001")


SMALL = ProviderConfig(per_key=5, per_group_and_key=2, per_peer=4, total=12)


def check(store: ProviderStore) -> None:
    config = store.config
    records = list(store.saved())
    assert len(records) == len(store) <= config.total
    assert len({(r.key, r.peer) for r in records}) == len(records)
    assert all(n <= config.per_key for n in Counter(r.key for r in records).values())
    assert all(n <= config.per_peer for n in Counter(r.peer for r in records).values())
    groups = Counter((r.key, r.group) for r in records if r.group is not None)
    assert all(n <= config.per_group_and_key for n in groups.values())


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.store = ProviderStore(SMALL)
        self.now = 1000.0

    @rule(
        key=st.integers(0, 5),
        who=st.integers(0, 12),
        group=st.sampled_from([None, b"a", b"b", b"c"]),
        passed=st.sampled_from([0.0, 60.0, 20 * HOUR]),
    )
    def announce(self, key: int, who: int, group: bytes | None, passed: float) -> None:
        self.now += passed
        kept = self.store.add(b"key %d" % key, peer(who), [addr(who)], group, self.now)
        found = {p.peer_id: p.addrs for p in self.store.get(b"key %d" % key, 99, self.now, DRAW)}
        assert kept == (peer(who) in found)
        assert not kept or found[peer(who)] == (addr(who),)

    @rule(passed=st.sampled_from([0.0, 10 * HOUR, 60 * HOUR]))
    def expire(self, passed: float) -> None:
        self.now += passed
        self.store.expire(self.now)
        assert all(self.now - r.renewed < SMALL.record_life for r in self.store.saved())

    @rule()
    def restart(self) -> None:
        saved = list(self.store.saved())
        self.store = ProviderStore(SMALL)
        self.store.restore(saved, self.now)
        alive = {(r.key, r.peer) for r in saved if self.now - r.renewed < SMALL.record_life}
        assert {(r.key, r.peer) for r in self.store.saved()} == alive

    @invariant()
    def bounds_hold(self) -> None:
        if hasattr(self, "store"):
            check(self.store)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


def test_a_record_lives_two_days_its_addresses_one() -> None:
    store = ProviderStore()
    store.add(b"key", peer(1), [addr(1)], None, 0.0)
    (found,) = store.get(b"key", 10, 23 * HOUR, DRAW)
    assert found.addrs == (addr(1),)
    (found,) = store.get(b"key", 10, 25 * HOUR, DRAW)
    assert found.addrs == ()
    assert store.get(b"key", 10, 48 * HOUR, DRAW) == []
    assert store.expire(48 * HOUR) == 1
    assert len(store) == 0


def test_a_new_announcement_replaces_the_addresses_everywhere() -> None:
    store = ProviderStore()
    store.add(b"one", peer(1), [addr(1)], None, 0.0)
    store.add(b"two", peer(1), [addr(2)], None, 1.0)
    store.add(b"two", peer(1), [], None, 2.0)
    for key in (b"one", b"two"):
        assert store.get(key, 10, 3.0, DRAW)[0].addrs == (addr(2),)


def test_at_most_eight_addresses() -> None:
    store = ProviderStore()
    store.add(b"key", peer(1), [addr(n) for n in range(100)], None, 0.0)
    assert len(store.get(b"key", 10, 0.0, DRAW)[0].addrs) == 8


def test_keys_of_strange_length_are_refused() -> None:
    store = ProviderStore()
    assert not store.add(b"", peer(1), [], None, 0.0)
    assert not store.add(bytes(81), peer(1), [], None, 0.0)
    assert store.add(bytes(80), peer(1), [], None, 0.0)


def test_one_place_gets_two_records_of_a_content() -> None:
    store = ProviderStore()
    kept = [store.add(b"key", peer(n), [], b"4 203.0", 0.0) for n in range(4)]
    assert kept == [True, True, False, False]
    assert store.add(b"key", peer(9), [], None, 0.0)
    assert store.add(b"other", peer(3), [], b"4 203.0", 0.0)


def test_a_full_content_takes_a_newcomer_only_for_one_not_renewed_for_a_day() -> None:
    store = ProviderStore()
    for n in range(128):
        assert store.add(b"key", peer(n), [], None, float(n))
    assert not store.add(b"key", peer(500), [], None, 200.0)
    assert store.add(b"key", peer(500), [], None, 24 * HOUR)
    found = {p.peer_id for p in store.get(b"key", 200, 24 * HOUR, DRAW)}
    assert peer(0) not in found
    assert len(found) == 128


def test_a_flood_from_one_place_displaces_itself() -> None:
    store = ProviderStore(ProviderConfig(total=1000))
    for n in range(100):
        store.add(b"honest %d" % n, peer(n), [], b"4 10%d" % n, 0.0)
    for n in range(5000):
        store.add(b"flood %d" % n, peer(1000 + n), [], b"4 203.0", 1.0)
    assert len(store) == 1000
    assert store.add(b"late and honest", peer(777), [], b"4 198.5", 2.0)
    kept = [record.key for record in store.saved()]
    assert sum(key.startswith(b"honest") for key in kept) == 100
    assert b"late and honest" in kept
    check(store)


def test_half_of_an_answer_are_the_oldest_that_came_again() -> None:
    store = ProviderStore()
    for n in range(100):
        store.add(b"key", peer(n), [], None, float(n))
    later = 30 * HOUR
    for n in range(50, 100):  # the first fifty never came again
        store.add(b"key", peer(n), [], None, later)
    for _ in range(5):
        found = [p.peer_id for p in store.get(b"key", 20, later, DRAW)]
        assert len(set(found)) == 20
        assert found[:10] == [peer(n) for n in range(50, 60)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 200), st.integers(1, 130))
def test_an_answer_is_never_longer_than_asked(held: int, count: int) -> None:
    store = ProviderStore()
    for n in range(held):
        store.add(b"key", peer(n), [addr(n)], None, 0.0)
    found = store.get(b"key", count, 0.0, DRAW)
    assert len(found) == min(held, count, 128)


def test_a_clock_that_was_ahead_makes_no_record_immortal() -> None:
    store = ProviderStore()
    store.add(b"key", peer(1), [], None, 1e9)
    again = ProviderStore()
    again.restore(store.saved(), 1000.0)
    assert again.get(b"key", 1, 1000.0, DRAW)
    assert again.expire(1000.0 + 48 * HOUR) == 1
