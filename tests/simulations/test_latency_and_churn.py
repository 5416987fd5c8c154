"""Latencies are stable and where the scenario says; sessions have the right lengths and ages."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest

from shoal.simulations.churn import Sessions
from shoal.simulations.latency import geography
from shoal.simulations.scenario.model import Churn, Latency


@pytest.mark.parametrize("profile", ["lan", "world", "king"])
def test_a_pair_has_one_round_trip_in_both_directions(profile: str) -> None:
    places = geography(Latency(profile), 50, 1)  # type: ignore[arg-type]
    again = geography(Latency(profile), 50, 1)  # type: ignore[arg-type]
    other = geography(Latency(profile), 50, 2)  # type: ignore[arg-type]
    trips = [places.round_trip(a, b) for a, b in pairwise(range(50))]
    assert trips == [again.round_trip(b, a) for a, b in pairwise(range(50))]
    assert trips != [other.round_trip(a, b) for a, b in pairwise(range(50))]
    assert min(trips) > 0.0


def test_more_nodes_leave_the_first_ones_where_they_are() -> None:
    few, many = geography(Latency("world"), 5, 1), geography(Latency("world"), 50, 1)
    assert [few.round_trip(0, n) for n in range(5)] == [many.round_trip(0, n) for n in range(5)]


@pytest.mark.parametrize(
    ("latency", "median"),
    [(Latency("king"), 0.156), (Latency("world", 0.08), 0.08), (Latency("lan", 0.002), 0.002)],
)
def test_the_median_pair_has_the_median_round_trip(latency: Latency, median: float) -> None:
    places = geography(latency, 1000, 7)
    draw = random.Random(3)
    trips = [places.round_trip(*draw.sample(range(1000), 2)) for _ in range(4000)]
    assert statistics.median(trips) == pytest.approx(median, rel=0.05)


def test_without_latency_there_is_none() -> None:
    assert geography(Latency("none"), 3, 1).round_trip(0, 2) == 0.0


LAWS = [
    Churn("exponential", median=100.0),
    Churn("weibull", median=100.0, shape=0.5),
    Churn("lognormal", median=100.0, shape=1.0),
]


@pytest.mark.parametrize("churn", LAWS, ids=lambda churn: churn.law)
def test_sessions_have_their_median_and_mean(churn: Churn) -> None:
    draw = random.Random(1)
    lengths = [Sessions(churn).new(draw) for _ in range(40_000)]
    assert statistics.median(lengths) == pytest.approx(100.0, rel=0.04)
    assert statistics.fmean(lengths) == pytest.approx(Sessions(churn).mean, rel=0.06)


@pytest.mark.parametrize("churn", LAWS, ids=lambda churn: churn.law)
def test_what_is_left_at_the_start_is_what_is_left_at_any_time(churn: Churn) -> None:
    """Against sessions laid end to end for a long time, looked at at random times."""
    sessions, draw = Sessions(churn), random.Random(2)
    ends = [0.0]
    while len(ends) < 60_000:
        ends.append(ends[-1] + sessions.new(draw))
    looks = sorted(draw.uniform(0.0, ends[-1]) for _ in range(20_000))
    left, at = [], 0
    for look in looks:
        while ends[at] < look:
            at += 1
        left.append(ends[at] - look)
    drawn = [sessions.left(draw) for _ in range(20_000)]
    for part in (0.25, 0.5, 0.75):
        seen = sorted(left)[int(part * len(left))]
        assert sorted(drawn)[int(part * len(drawn))] == pytest.approx(seen, rel=0.12)


def test_so_many_are_away_that_arrivals_and_departures_balance() -> None:
    sessions = Sessions(Churn("exponential", median=100.0, offline=300.0))
    assert sessions.absent(1000) == round(1000 * 300.0 / sessions.mean)
    assert Sessions(Churn()).absent(1000) == 0
