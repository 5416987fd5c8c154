"""Token buckets: never more than the rate and one burst, whatever is asked and changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.swarm.bucket import BURST_SECONDS, LEAST_RATE, SLACK, Bucket, Gate, Ticket
from shoal.wire.swarm import MAX_PIECE

rates = st.floats(LEAST_RATE, 1e9)
pauses = st.floats(0, 5)
counts = st.integers(1, MAX_PIECE)


def allowed(rate: float, seconds: float) -> float:
    """What may pass at most in so many seconds, a thousandth of a byte for rounding apart."""
    return rate * seconds + MAX_PIECE + BURST_SECONDS * rate + 1


@given(rates, st.lists(st.tuples(pauses, counts), max_size=200))
def test_no_more_passes_in_any_span_than_rate_and_burst(
    rate: float, wishes: list[tuple[float, int]]
) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    passed: list[tuple[float, int]] = []
    for pause, count in wishes:
        now += pause
        if bucket.fits(count, now):
            bucket.take(count, now)
            passed.append((now, count))
    for start in range(len(passed)):
        total = 0
        for at, count in passed[start:]:
            total += count
            assert total <= allowed(rate, at - passed[start][0])


@given(st.lists(st.tuples(pauses, counts, st.none() | rates), max_size=200), rates)
def test_changing_the_rate_keeps_the_bound(
    steps: list[tuple[float, int, float | None]], rate: float
) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    filled, passed, highest = 0.0, 0, rate
    for pause, count, other in steps:
        now += pause
        filled += pause * rate
        if bucket.fits(count, now):
            bucket.take(count, now)
            passed += count
        if other is not None:
            bucket.set_rate(other, now)
            rate = other
            highest = max(highest, rate)
        assert passed <= filled + MAX_PIECE + BURST_SECONDS * highest + 1


@given(rates, counts, st.lists(counts, max_size=5))
def test_what_is_ready_later_fits_then(rate: float, count: int, before: list[int]) -> None:
    bucket = Bucket(rate, 0.0)
    for other in before:
        bucket.take(other, 0.0)
    at = bucket.ready_at(count, 0.0)
    assert bucket.fits(count, at + SLACK / rate)
    assert at == 0.0 or not bucket.fits(count, at - 10 * SLACK / LEAST_RATE)


def test_no_limit_lets_everything_pass_and_keeps_no_count() -> None:
    bucket = Bucket(None, 0.0)
    bucket.take(1 << 50, 0.0)
    assert bucket.room(0.0) is None
    assert bucket.fits(1 << 50, 0.0)
    assert bucket.ready_at(MAX_PIECE, 3.0) == 3.0
    bucket.set_rate(1000.0, 5.0)  # what passed before is no debt
    assert bucket.room(5.0) == MAX_PIECE


def test_a_limit_that_is_lifted_lets_everything_pass_at_once() -> None:
    bucket = Bucket(1000.0, 0.0)
    bucket.take(MAX_PIECE, 0.0)
    assert not bucket.fits(1000, 0.5)
    bucket.set_rate(None, 0.5)
    assert bucket.fits(1 << 40, 0.5)


def run_gate(gate: Gate, seconds: float, now: float = 0.0) -> list[tuple[float, Ticket]]:
    """Ask the gate whenever it says, for so long."""
    order: list[tuple[float, Ticket]] = []
    end = now + seconds
    while True:
        granted, again = gate.grant(now)
        order += [(now, ticket) for ticket in granted]
        if again is None or again > end:
            return order
        now = max(again, now + 1e-6)


@given(st.lists(counts, min_size=1, max_size=30), rates)
def test_tickets_of_one_bucket_pass_in_their_order_and_all(sizes: list[int], rate: float) -> None:
    gate, bucket = Gate(), Bucket(rate, 0.0)
    tickets = [Ticket((bucket,), size) for size in sizes]
    for ticket in tickets:
        gate.enter(ticket)
    order = run_gate(gate, sum(sizes) / rate + 1)
    assert [ticket for _, ticket in order] == tickets
    assert order[-1][0] <= max(0.0, (sum(sizes) - MAX_PIECE) / rate) + 0.01
    assert len(gate) == 0


def test_a_content_with_a_limit_does_not_hold_up_one_without() -> None:
    node, slow = Bucket(1e6, 0.0), Bucket(1000.0, 0.0)
    gate = Gate()
    slow.take(MAX_PIECE, 0.0)
    held, free = Ticket((slow, node), MAX_PIECE), Ticket((node,), MAX_PIECE)
    gate.enter(held)
    gate.enter(free)
    assert gate.grant(0.0)[0] == [free]


def test_small_pieces_do_not_starve_a_large_one() -> None:
    gate, bucket = Gate(), Bucket(100_000.0, 0.0)
    bucket.take(MAX_PIECE, 0.0)
    gate.enter(large := Ticket((bucket,), MAX_PIECE))
    now = 0.0
    while True:
        gate.enter(Ticket((bucket,), 4096))
        granted, again = gate.grant(now)
        if granted:
            break
        assert again is not None
        now = max(again, now + 1e-6)
    assert granted[0] is large
    assert now == pytest.approx(MAX_PIECE / 100_000, abs=0.01)


def test_whoever_leaves_gives_back_what_it_was_granted() -> None:
    gate, bucket = Gate(), Bucket(1000.0, 0.0)
    gate.enter(ticket := Ticket((bucket,), MAX_PIECE))
    assert gate.grant(0.0)[0] == [ticket]
    assert bucket.room(0.0) == 0
    gate.leave(ticket, 0.0)
    assert bucket.room(0.0) == MAX_PIECE


@given(st.lists(st.tuples(pauses, counts, st.none() | rates, st.booleans()), max_size=100))
def test_nobody_is_told_to_wait_for_what_is_past_nor_longer_than_the_rate_needs(
    steps: list[tuple[float, int, float | None, bool]],
) -> None:
    bucket, now = Bucket(None, 0.0), 0.0
    for pause, count, rate, back in steps:
        now += pause
        bucket.set_rate(rate, now)
        if back:
            bucket.give(count, now)
        elif bucket.fits(count, now):
            bucket.take(count, now)
        at = bucket.ready_at(count, now)
        assert at >= now
        assert rate is None or at - now <= count / rate + 1e-6
        room = bucket.room(now)
        assert room is None or 0 <= room <= allowed(rate or 0.0, 0)
