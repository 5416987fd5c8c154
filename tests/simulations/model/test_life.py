import dataclasses
import math

import numpy as np
import pytest

from shoal.simulations.model.churn import census, law_of, live, session_length, time_left
from shoal.simulations.model.compiled import mix
from shoal.simulations.model.growth import grow
from shoal.simulations.model.ids import random_ids
from shoal.simulations.model.living import own_depth, stored
from shoal.simulations.model.lookup import Rules
from shoal.simulations.model.network import ALIVE, make_net
from shoal.simulations.model.records import follow_records
from shoal.simulations.model.runs import draw_targets
from shoal.simulations.model.warm import net_of, snapshot
from shoal.simulations.scenario.model import Churn, Dht, Latency, Scenario
from shoal.simulations.snapshot import Snapshot


@pytest.fixture(scope="module")
def grown() -> Snapshot:
    return snapshot(300, 3, 20)


def test_a_grown_snapshot_fits_together_and_is_the_same_for_a_seed(grown: Snapshot) -> None:
    grown.check()
    again = snapshot(300, 3, 20)
    assert np.array_equal(grown.contacts, again.contacts)
    assert np.array_equal(grown.starts, again.starts)


def test_grown_tables_know_nearly_all_of_their_nearest(grown: Snapshot) -> None:
    net, number_of = net_of(grown, 20)
    assert sorted(number_of) == list(range(300))
    taken = census(net)
    assert (taken.known == 20).mean() > 0.9
    assert taken.dead.sum() == 0
    # The farthest half of the network: full everywhere, or nearly so.
    assert (taken.held[:, 0] == 20).mean() > 0.95


def test_a_small_network_is_known_whole() -> None:
    living, _ = grow(make_net(random_ids(15, 1), 1, 20, Latency("none")), 1)
    assert living.net.counts.sum(axis=1, dtype=int).tolist() == [14] * 15
    assert own_depth(living, 0) == 0


def test_sessions_have_the_median_asked_for_and_no_young_start() -> None:
    words = np.random.default_rng(1).integers(0, 2**64 - 1, (4000, 2), dtype=np.uint64)
    for law, shape in (("exponential", 1.0), ("weibull", 0.5), ("lognormal", 1.6)):
        churn = Churn(law, median=3600.0, shape=shape)  # type: ignore[arg-type]
        lengths = [session_length(law_of(churn), one, other) for one, other in words]
        assert np.median(lengths) == pytest.approx(3600.0, rel=0.1)
        left = time_left(churn, 20_000, 1)
        # A session met at random is longer than most; for exponential ones what is left has the
        # same law, for the others its median is larger.
        if law == "exponential":
            assert np.median(left) == pytest.approx(3600.0, rel=0.05)
        else:
            assert np.median(left) > 1.5 * 3600.0


def test_upkeep_keeps_tables_alive_while_nodes_come_and_go() -> None:
    churn = Churn("exponential", median=1200.0, offline=600.0)
    net = make_net(random_ids(180, 2), 2, 8, Latency("none"))
    lived = live(net, churn, 135, 1.0, 2, Rules(k=8), 600.0)
    again = live(net, churn, 135, 1.0, 2, Rules(k=8), 600.0)
    assert np.array_equal(lived.living.net.contacts, again.living.net.contacts)
    taken = census(stored(lived.living))
    online = int((lived.living.net.status == ALIVE).sum())
    assert 100 < online < 165
    assert len(taken.known) == online
    assert taken.dead.sum() > 0
    assert taken.dead.sum() / taken.held.sum() < 0.3
    assert (taken.known >= 7).mean() > 0.7
    assert 0.1 < lived.requests_per_node_second < 5.0


def test_records_live_as_long_as_they_are_renewed() -> None:
    churn = Churn("exponential", median=7200.0, offline=7200.0)
    steady = Scenario(nodes=200, duration=48 * 3600.0, churn=churn, dht=Dht(k=8))
    net = make_net(random_ids(400, 4), 4, 8, Latency("none"))
    targets = draw_targets(60, 4)
    kept = follow_records(net, steady, targets, 4)
    assert kept.alive[0] == 1.0
    assert kept.holders[0] == 8.0
    assert kept.by_beta.mean() <= kept.alive.mean()
    never = dataclasses.replace(steady, dht=Dht(k=8, republish=1e9, record_life=20 * 3600.0))
    lost = follow_records(net, never, targets, 4)
    assert lost.alive[-1] == 0.0
    often = dataclasses.replace(steady, dht=Dht(k=8, republish=4600.0))
    assert follow_records(net, often, targets, 4).holders.mean() > kept.holders.mean()


def test_words_are_mixed() -> None:
    with np.errstate(over="ignore"):
        seen = {int(mix(np.uint64(number))) for number in range(1000)}
    assert len(seen) == 1000
    bits = sum(word.bit_count() for word in seen) / 64000
    assert math.isclose(bits, 0.5, abs_tol=0.01)
