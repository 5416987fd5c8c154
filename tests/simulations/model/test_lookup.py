"""The model's lookup against the shipped one: same tables, same latencies, same peers that fail."""

import heapq
import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal.dht.lookup import Lookup, LookupConfig
from shoal.simulations.latency import Geography, geography
from shoal.simulations.model import runs
from shoal.simulations.model.ids import prefixes, random_ids
from shoal.simulations.model.lookup import MAX_HEARD, Rules
from shoal.simulations.model.network import EVIL, SILENT, Behaviour, make_net
from shoal.simulations.model.routes import routes
from shoal.simulations.model.runs import ModelOverflow, Walks, draw_starts, draw_targets, look_up
from shoal.simulations.model.tables import with_random_tables
from shoal.simulations.model.warm import leading_zeros_of, net_of, snapshot
from shoal.simulations.scenario.model import Latency
from shoal.simulations.snapshot import Snapshot, peer_ids

NODES, K = 400, 8


@dataclass
class Shipped:
    """Drives the shipped lookup over a snapshot, in the time of a heap."""

    taken: Snapshot
    places: Geography
    silent: set[int]

    def walk(self, start: int, target: bytes, config: LookupConfig) -> tuple[Lookup, float]:
        peers = peer_ids(self.taken.seed, len(self.taken))
        number = {peer: n for n, peer in enumerate(peers)}

        def nearest(node: int, unwanted: int) -> list[int]:
            aim = int.from_bytes(target, "big")
            contacts = [int(c) for c in self.taken.of(node) if c != unwanted]
            contacts.sort(key=lambda c: int.from_bytes(peers[c].key, "big") ^ aim)
            return contacts[: config.k]

        lookup = Lookup(target, (peers[c] for c in nearest(start, -1)), peers[start], config)
        now = 0.0
        answers: list[tuple[float, int]] = []
        while True:
            for peer in lookup.next_peers(now):
                if number[peer] not in self.silent:
                    trip = self.places.round_trip(start, number[peer])
                    heapq.heappush(answers, (now + trip, number[peer]))
            if lookup.over:
                return lookup, now
            change = lookup.next_change()
            assert change is not None
            now = min([change, *(at for at, _ in answers[:1])])
            while answers and answers[0][0] <= now:
                _, node = heapq.heappop(answers)
                lookup.replied(peers[node], (peers[c] for c in nearest(node, start)))


@pytest.fixture(scope="module")
def taken() -> Snapshot:
    return snapshot(NODES, 5, K, grown=False)


@pytest.mark.parametrize(
    ("alpha", "enough", "dead"), [(3, 3, 0), (10, K, 0), (10, 3, 60), (4, K, 90)]
)
def test_the_model_walks_as_the_shipped_lookup_does(
    taken: Snapshot, alpha: int, enough: int, dead: int
) -> None:
    # Up to four seconds, so that some answers are slow.
    places = geography(Latency("world", median_rtt=0.7), NODES, 5)
    chance = np.random.default_rng(9)
    silent = {int(node) for node in chance.choice(NODES, dead, replace=False)}
    net, number_of = net_of(taken, K, places)
    status = np.zeros(NODES, np.uint8)
    status[number_of[sorted(silent)]] = SILENT
    net = net._replace(status=status)
    starts = np.array([n for n in range(NODES) if n not in silent][:40], np.int64)
    targets = chance.integers(0, 256, (len(starts), 32)).astype(np.uint8)
    rules = Rules(k=K, alpha=alpha, enough=enough)
    walked = look_up(net, rules, number_of[starts], prefixes(targets), keep_results=True)
    back = np.append(np.argsort(number_of), -1)
    config = LookupConfig(k=K, alpha=alpha, enough=enough)
    shipped = Shipped(taken, places, silent)
    peers = peer_ids(taken.seed, NODES)
    slow = 0
    for number, start in enumerate(starts):
        lookup, seconds = shipped.walk(int(start), targets[number].tobytes(), config)
        assert walked.column("rpcs")[number] == lookup.asked
        assert walked.column("answered")[number] == lookup.answered
        found = [peers[node] for node in back[walked.results[number]] if node >= 0]
        assert found == lookup.result
        assert walked.seconds[number] == pytest.approx(seconds, abs=1e-9)
        slow += int(walked.column("slow")[number])
    assert slow > 0


@pytest.mark.parametrize("rules", [Rules(), Rules(alpha=3, enough=20), Rules(k=8, jitter=0.5)])
def test_how_many_peers_are_remembered_changes_nothing(rules: Rules) -> None:
    bad = Behaviour(silent=0.15, refuses=0.05, hangs=0.02)
    net = with_random_tables(make_net(random_ids(3000, 6), 6, rules.k, Latency("world"), bad))
    starts, targets = draw_starts(net, 500, 1), draw_targets(500, 1)
    lean = look_up(net, rules, starts, targets)
    kept = look_up(net, rules, starts, targets, keep_results=True)
    whole = look_up(net, rules._replace(max_heard=MAX_HEARD), starts, targets, keep_results=True)
    for other in (lean, kept):
        assert (other.rows == whole.rows).all()
        assert (other.seconds == whole.seconds).all()


def honest(count: int, seed: int) -> Walks:
    net = with_random_tables(make_net(random_ids(2000, seed), seed, 20, Latency("world")))
    return look_up(net, Rules(), draw_starts(net, count, seed), draw_targets(count, seed))


def test_lookups_find_the_nearest_in_few_hops() -> None:
    walks = honest(300, 1)
    assert walks.column("found").mean() == 1.0
    assert walks.column("known").min() >= 3
    law = math.log2(2000) / 5.688
    assert 0.95 * law < walks.column("hops").mean() < 1.15 * law


def test_any_number_of_threads_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BATCH", 37)
    net = make_net(random_ids(2000, 2), 2, 20, Latency("world"), Behaviour(silent=0.2))
    starts, targets = draw_starts(net, 300, 2), draw_targets(300, 2)
    one = look_up(net, Rules(), starts, targets)
    more = look_up(net, Rules(), starts, targets, threads=3)
    assert np.array_equal(one.rows, more.rows)
    assert np.array_equal(one.seconds, more.seconds)


def test_hashed_and_stored_tables_give_the_same_walks() -> None:
    net = make_net(random_ids(2000, 3), 3, 20, Latency("world"), Behaviour(silent=0.1))
    starts, targets = draw_starts(net, 200, 3), draw_targets(200, 3)
    hashed = look_up(net, Rules(), starts, targets)
    stored = look_up(with_random_tables(net), Rules(), starts, targets)
    assert np.array_equal(hashed.rows, stored.rows)


def test_remembering_few_peers_changes_nothing() -> None:
    net = make_net(random_ids(2000, 4), 4, 20, Latency("world"), Behaviour(silent=0.1))
    starts, targets = draw_starts(net, 200, 4), draw_targets(200, 4)
    few = look_up(net, Rules(enough=20), starts, targets)
    many = look_up(net, Rules(enough=20, max_heard=512), starts, targets)
    assert np.array_equal(few.rows, many.rows)


def test_a_bound_that_is_too_small_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_HEARD", 20)
    net = make_net(random_ids(500, 5), 5, 20, Latency("none"), Behaviour(silent=0.5))
    with pytest.raises(ModelOverflow, match="went past a bound"):
        look_up(net, Rules(max_heard=20), draw_starts(net, 50, 5), draw_targets(50, 5))


def test_paths_share_no_peer_and_withstand_attackers() -> None:
    ids = random_ids(3000, 6)
    net = make_net(ids, 6, 16, Latency("none"), Behaviour(evil=0.3))
    starts, targets = draw_starts(net, 400, 6), draw_targets(400, 6)
    rules = Rules(k=16, alpha=8, enough=3)
    found = [
        look_up(net, rules._replace(paths=paths), starts, targets).column("found").mean()
        for paths in (1, 4)
    ]
    assert found[1] >= found[0]
    goals = (starts + 1234) % len(ids)
    arrived = [float(np.mean(routes(net, starts, goals, paths) > 0)) for paths in (1, 8)]
    assert arrived[0] < 0.75
    assert arrived[1] > arrived[0] + 0.05


def test_liars_lead_to_each_other() -> None:
    net = make_net(random_ids(1000, 7), 7, 20, Latency("none"))
    status = np.zeros(1000, np.uint8)
    status[np.random.default_rng(7).choice(1000, 500, replace=False)] = EVIL
    net = net._replace(status=status, evil=np.flatnonzero(status == EVIL).astype(np.int64))
    starts, targets = draw_starts(net, 200, 7), draw_targets(200, 7)
    walks = look_up(net, Rules(evil_does=1), starts, targets, keep_results=True)
    evil = status[walks.results[walks.results >= 0]] == EVIL
    assert evil.mean() > 0.5


def test_leading_zeros_of_arrays() -> None:
    words = np.array([0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1], np.uint64)
    expected: NDArray[np.int64] = np.array([64, 63, 62, 32, 32, 31, 0, 0])
    assert np.array_equal(leading_zeros_of(words), expected)
