import numpy as np
import pytest
from numpy.typing import NDArray

from shoal.simulations.model.ids import check_sorted, random_ids, range_of
from shoal.simulations.model.network import Net, make_net
from shoal.simulations.model.tables import (
    SCRATCH,
    bucket_range,
    closest_contacts,
    members,
    nearest_nodes,
    with_random_tables,
)
from shoal.simulations.scenario.model import Latency

NODES, K = 500, 8


@pytest.fixture(scope="module")
def net() -> Net:
    return make_net(random_ids(NODES, 1), 1, K, Latency("none"))


def shared_bits(one: int, other: int) -> int:
    return 64 - (one ^ other).bit_length()


def written(out: NDArray[np.int64], count: int) -> list[int]:
    return [int(node) for node in out[:count]]


def test_ids_are_sorted_different_and_the_same_for_a_seed() -> None:
    ids = random_ids(100_000, 7)
    assert len(ids) == 100_000
    check_sorted(ids)
    assert np.array_equal(ids, random_ids(100_000, 7))
    assert not np.array_equal(ids, random_ids(100_000, 8))
    # Spread evenly: each sixteenth of the key space holds its share.
    parts = np.bincount((ids >> np.uint64(60)).astype(int), minlength=16)
    assert parts.min() > 5800
    assert parts.max() < 6700


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="sorted and different"):
        make_net(np.array([1, 5, 5], np.uint64), 1, K)


def test_a_range_holds_the_ids_that_share_the_bits(net: Net) -> None:
    ids = [int(word) for word in net.ids]
    for bits in (0, 1, 4, 9, 20, 63, 64):
        for word in (ids[0], ids[77], ids[-1], 0, 2**64 - 1):
            first, end = range_of(net.ids, net.directory, net.shift, np.uint64(word), bits)
            wanted = [n for n, there in enumerate(ids) if shared_bits(there, word) >= bits]
            assert list(range(first, end)) == wanted


def test_a_bucket_holds_nodes_of_its_distance_and_k_of_them_if_there_are_so_many(net: Net) -> None:
    out = np.empty(K, np.int64)
    for node in (0, 100, NODES - 1):
        for bucket in range(20):
            there = [
                other
                for other in range(NODES)
                if shared_bits(int(net.ids[node]), int(net.ids[other])) == bucket
            ]
            assert bucket_range(net, node, bucket)[1] - bucket_range(net, node, bucket)[0] == len(
                there
            )
            held = written(out, members(net, node, bucket, out, 0))
            assert len(held) == len(set(held)) == min(K, len(there))
            assert set(held) <= set(there)


def test_stored_tables_are_the_ones_that_the_hash_gives(net: Net) -> None:
    stored = with_random_tables(net)
    one, other = np.empty(K, np.int64), np.empty(K, np.int64)
    for node in range(0, NODES, 7):
        for bucket in range(64):
            count = members(net, node, bucket, one, 0)
            assert members(stored, node, bucket, other, 0) == count
            assert written(one, count) == written(other, count)


def test_the_members_of_a_bucket_are_drawn_evenly() -> None:
    drawn = np.zeros(NODES, np.int64)
    out = np.empty(K, np.int64)
    for seed in range(400):
        net = make_net(random_ids(NODES, 1), seed, K, Latency("none"))
        count = members(net, 0, 0, out, 0)
        drawn[out[:count]] += 1
    first, end = bucket_range(net, 0, 0)
    expected = 400 * K / (end - first)
    # Chi square over some 250 nodes: 250 +- 22.
    spread = float(((drawn[first:end] - expected) ** 2 / expected).sum())
    assert 170 < spread < 340


@pytest.mark.parametrize("stored", [False, True])
def test_an_answer_names_the_nearest_contacts(net: Net, stored: bool) -> None:
    net = with_random_tables(net) if stored else net
    out = np.empty(SCRATCH * K + K, np.int64)
    chance = np.random.default_rng(3)
    for target in chance.integers(0, 2**64 - 1, 60, dtype=np.uint64):
        node = int(chance.integers(NODES))
        contacts: list[int] = []
        for bucket in range(64):
            contacts += written(out, members(net, node, bucket, out, 0))
        asker = contacts[int(chance.integers(len(contacts)))]
        nearest = sorted(
            (c for c in contacts if c != asker), key=lambda c: int(net.ids[c]) ^ int(target)
        )
        count = closest_contacts(net, node, target, K, asker, out)
        assert set(written(out, count)) == set(nearest[:K])


def test_the_nearest_nodes_come_nearest_first(net: Net) -> None:
    out = np.empty(30, np.int64)
    for target in np.random.default_rng(4).integers(0, 2**64 - 1, 50, dtype=np.uint64):
        count = nearest_nodes(net, target, 30, out)
        assert (
            written(out, count)
            == sorted(range(NODES), key=lambda node: int(net.ids[node]) ^ int(target))[:30]
        )
