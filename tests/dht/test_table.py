"""The routing table: nobody alive is pushed out, nobody fills it from one place."""

from __future__ import annotations

import random
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from multiaddr import Multiaddr

from shoal.dht.keyspace import common_prefix, key_of, nearest
from shoal.dht.table import Table, TableConfig, Verdict
from shoal.wire.addresses import Scope
from shoal.wire.ids import PeerId

SOMEWHERE = Multiaddr("/ip4/10.0.0.1/tcp/4001")
ELSEWHERE = Multiaddr("/ip4/10.0.0.2/tcp/4001")


def peer(number: int) -> PeerId:
    return PeerId(b"\x12\x20" + number.to_bytes(32, "big"))


ME = peer(10**9)


def sharing(bits: int, count: int) -> list[PeerId]:
    """Peers whose key shares exactly `bits` leading bits with ours."""
    found = (p for p in map(peer, range(10**6)) if common_prefix(p.key, ME.key) == bits)
    return list(islice(found, count))


def check(table: Table) -> None:
    lower = 0
    for bucket in table.buckets:
        assert bucket.range[0] == lower
        lower = bucket.range[1] + 1
        contacts = list(bucket.contacts())
        assert len(contacts) <= table.config.k
        assert len(bucket.replacement_nodes) <= table.config.k * table.config.waiting
        for contact in contacts:
            assert bucket.range[0] <= contact.long_id <= bucket.range[1]
            assert table.get(contact.peer) is contact
        for candidate in bucket.waiting():
            assert bucket.range[0] <= candidate.long_id <= bucket.range[1]
            assert candidate.peer not in table
        groups = [c.group for c in contacts if c.group is not None]
        assert all(groups.count(g) <= table.config.group_in_bucket for g in groups)
    assert lower == 1 << 256
    assert len(table) == sum(len(bucket) for bucket in table.buckets)
    groups = [c.group for c in table if c.group is not None]
    assert all(groups.count(g) <= table.config.group_in_table for g in groups)
    assert table.own not in table
    named = {entry.peer_id: entry.addrs for entry in table.named(table.own.key, Scope.LOOPBACK)}
    nearest_ones = [c for c in table.nearest(table.own.key, len(table)) if c.addrs]
    assert list(named.items()) == [(c.peer, c.addrs) for c in nearest_ones[: table.config.k]]


class TableMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.table = Table(ME, TableConfig(k=4))
        self.now = 0.0

    @rule(
        number=st.integers(0, 400),
        group=st.sampled_from([None, None, b"a", b"b", b"c"]),
        passed=st.sampled_from([0.0, 1.0, 200.0]),
        spread=st.booleans(),
    )
    def somebody_answers(
        self, number: int, group: bytes | None, passed: float, spread: bool
    ) -> None:
        self.now += passed
        before = {c.peer for c in self.table}
        offer = self.table.answered(peer(number), [SOMEWHERE], group, self.now, spread=spread)
        gone = before - {c.peer for c in self.table}
        # Only the one who moved to a crowded place may lose its own.
        assert gone <= {peer(number)}
        assert (offer.verdict in (Verdict.ADDED, Verdict.KNOWN)) == (peer(number) in self.table)
        if offer.ask is not None:
            assert offer.ask.peer in self.table

    @rule(number=st.integers(0, 400))
    def somebody_fails(self, number: int) -> None:
        before = len(self.table)
        known = peer(number) in self.table
        gone = self.table.failed(peer(number))
        assert known or not gone
        assert len(self.table) >= before - gone

    @invariant()
    def it_is_sound(self) -> None:
        if hasattr(self, "table"):
            check(self.table)


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=30, stateful_step_count=50, deadline=None)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_the_nearest_are_exactly_the_nearest(seed: int) -> None:
    draw = random.Random(seed)
    table = Table(ME)
    for _ in range(600):
        table.answered(peer(draw.randrange(10**6)), [SOMEWHERE], None, 0.0)
    check(table)
    for n in range(5):
        target = key_of(b"%d" % n)
        true = nearest([c.peer for c in table], target, lambda p: p.key)
        assert [c.peer for c in table.nearest(target)] == true[:20]
        assert [c.peer for c in table.nearest(target, 5, {true[0]})] == true[1:6]


def test_a_contact_that_moved_is_named_where_it_is_now() -> None:
    table = Table(ME)
    for n in range(3):
        table.answered(peer(n), [SOMEWHERE], None, 0.0)
    assert {entry.addrs for entry in table.named(ME.key, Scope.PRIVATE)} == {(SOMEWHERE,)}
    table.moved(peer(0), [ELSEWHERE])
    table.answered(peer(1), [ELSEWHERE], None, 1.0)
    table.moved(peer(2), [])
    table.moved(peer(9), [ELSEWHERE])
    named = {entry.peer_id: entry.addrs for entry in table.named(ME.key, Scope.PRIVATE)}
    assert named == {peer(0): (ELSEWHERE,), peer(1): (ELSEWHERE,), peer(2): (SOMEWHERE,)}
    assert table.named(ME.key, Scope.GLOBAL) == []


def test_edges_belong_to_the_bucket_that_they_border() -> None:
    table = Table(ME, TableConfig(k=1))
    for n in range(60):
        table.answered(peer(n), [], None, 0.0)
    assert len(table.buckets) > 3
    for bucket in table.buckets:
        for edge in bucket.range:
            assert table.bucket_of(edge.to_bytes(32, "big")) is bucket


def test_our_own_neighbourhood_is_known_in_full() -> None:
    table = Table(ME)
    peers = [peer(n) for n in range(3000)]
    for one in peers:
        table.answered(one, [], None, 0.0)
    check(table)
    assert [c.peer for c in table.nearest(ME.key)] == nearest(peers, ME.key, lambda p: p.key)[:20]


def crowded() -> tuple[Table, list[PeerId]]:
    """A table whose farthest bucket is full, and more peers of that bucket."""
    table = Table(ME)
    for one in sharing(1, 1):
        table.answered(one, [], None, 0.0)
    far = sharing(0, 25)
    for at, one in enumerate(far[:20]):
        assert table.answered(one, [], None, float(at)).verdict is Verdict.ADDED
    return table, far


def test_a_full_bucket_names_the_one_silent_longest_and_keeps_it_while_it_lives() -> None:
    table, far = crowded()
    newcomer = table.answered(far[20], [], None, 100.0)
    assert newcomer.verdict is Verdict.FULL
    assert newcomer.ask is None  # everyone was heard from within five minutes
    newcomer = table.answered(far[21], [], None, 305.0)
    assert newcomer.ask is table.get(far[0])
    table.answered(far[0], [], None, 306.0)  # it lives
    assert far[0] in table
    assert far[21] not in table
    again = table.answered(far[22], [], None, 306.0)
    assert again.ask is table.get(far[1])
    assert table.failed(far[1])  # it does not; the newest who waited takes its place
    assert far[1] not in table
    assert far[22] in table
    check(table)


def test_a_contact_for_whose_place_nobody_waits_may_fail_once() -> None:
    table = Table(ME)
    table.answered(peer(1), [], None, 0.0)
    assert not table.failed(peer(1))
    table.answered(peer(1), [], None, 1.0)
    assert not table.failed(peer(1))
    assert table.failed(peer(1))
    assert peer(1) not in table


def test_one_place_on_the_internet_gets_two_in_a_bucket_and_three_in_the_table() -> None:
    table = Table(ME, TableConfig(k=8))
    for bits in range(3):
        for one in sharing(bits, 5):
            table.answered(one, [], None, 0.0)
    assert len(table.buckets) > 2

    def crowd(bits: int) -> list[Verdict]:
        there = [p for p in sharing(bits, 12) if p not in table][:3]
        return [table.answered(p, [], b"4 203.0", 0.0).verdict for p in there]

    assert crowd(0) == [Verdict.ADDED, Verdict.ADDED, Verdict.GROUP_FULL]
    assert crowd(1) == [Verdict.ADDED, Verdict.GROUP_FULL, Verdict.GROUP_FULL]
    there = next(p for p in sharing(1, 12) if p not in table)
    assert table.answered(there, [], b"4 198.5", 0.0).verdict is Verdict.ADDED
    check(table)


def test_a_waiting_one_of_a_crowded_place_does_not_move_up() -> None:
    table, far = crowded()
    for one in far[:2]:
        table.answered(one, [], b"4 203.0", 400.0)
    assert table.answered(far[20], [], b"4 198.5", 400.0).verdict is Verdict.FULL
    for one in far[2:4]:
        table.answered(one, [], b"4 198.5", 400.0)
    table.failed(far[5])  # it leaves, and the only one that waits may not come in
    assert far[20] not in table
    check(table)


def test_who_moves_into_a_crowded_place_loses_its_own() -> None:
    table = Table(ME)
    for n in range(3):
        table.answered(peer(n), [], b"a" if n else b"b", 0.0)
    assert table.answered(peer(0), [], b"a", 1.0).verdict is Verdict.GROUP_FULL
    assert peer(0) not in table
    check(table)


def test_addresses_are_replaced_but_not_by_nothing() -> None:
    table = Table(ME)
    table.answered(peer(1), [SOMEWHERE], None, 0.0)
    table.answered(peer(1), [], None, 1.0)
    contact = table.get(peer(1))
    assert contact is not None
    assert contact.addrs == (SOMEWHERE,)
    table.answered(peer(1), [ELSEWHERE], None, 2.0)
    assert contact.addrs == (ELSEWHERE,)
    assert contact.seen == 2.0


def test_a_refresh_takes_an_even_share_of_each_quarter() -> None:
    table = Table(ME)
    for one in sharing(1, 20):  # so that the far half is a bucket of its own
        table.answered(one, [], None, 0.0)
    first = sharing(0, 1)[0]
    table.answered(first, [], None, 0.0)
    alike = [p for p in sharing(0, 100) if common_prefix(p.key, first.key) >= 3][1:6]
    verdicts = [table.answered(p, [], None, 0.0, spread=True).verdict for p in alike]
    assert verdicts == [Verdict.ADDED] * 4 + [Verdict.SPREAD]
    assert table.answered(alike[-1], [], None, 0.0).verdict is Verdict.ADDED


def test_the_silent_are_listed_longest_first() -> None:
    table = Table(ME)
    for n in range(5):
        table.answered(peer(n), [], None, 10.0 * n)
    assert [c.peer for c in table.silent(320.0)] == [peer(0), peer(1), peer(2)]
