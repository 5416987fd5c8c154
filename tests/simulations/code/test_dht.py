"""The shipped DHT rules by the hundred: they find, keep and recover; runs repeat exactly."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from shoal.simulations.code.checkpoint import take_up, write_down
from shoal.simulations.code.dht import DhtRun, run
from shoal.simulations.code.dht_network import size_of
from shoal.simulations.scenario.model import (
    Churn,
    Dht,
    Fault,
    Latency,
    Nat,
    Scenario,
    Workload,
)
from shoal.simulations.scenario.result import EDGES, LOOKUPS, RECORDS, TRAFFIC
from shoal.simulations.snapshot import Snapshot, keys_of
from shoal.wire.delimited import frame
from shoal.wire.kad import KadMessage, MessageType

BASE = Scenario(
    tier="code",
    nodes=150,
    duration=60.0,
    dht=Dht(tables="random"),
    workload=Workload(lookups=100),
)


def number(value: object) -> float:
    assert isinstance(value, (int, float))
    return value


def test_lookups_find_the_nearest_node_in_the_time_of_their_round_trips() -> None:
    found = run(BASE, 1)
    summary = found.summary
    assert summary["lookups"] == 100
    assert summary["lookup_success"] == 1.0
    assert summary["rpcs_failed"] == 0
    assert 1.0 <= number(summary["lookup_hops"]) <= 2.5
    assert 0.1 < number(summary["lookup_p50"]) < 2.0
    rows = found.tables[LOOKUPS]
    assert {len(column) for column in rows.values()} == {100}
    assert sum(number(n) for n in found.tables[TRAFFIC]["online"]) == 20 * 150
    assert found.tables[EDGES]


def test_one_seed_gives_one_run_and_another_seed_another() -> None:
    small = replace(BASE, nodes=60, duration=20.0)
    assert run(small, 1).digest == run(small, 1).digest
    assert run(small, 1).tables == run(small, 1).tables
    assert run(small, 1).digest != run(small, 2).digest


SCRIPT = """
from shoal.simulations.scenario.reading import parse
from shoal.simulations.code.dht import run
print(run(parse('''{text}'''), 3).digest)
"""


def test_processes_with_other_hash_seeds_give_the_same_digest() -> None:
    text = (
        "tier = 'code'\nnodes = 80\nduration = 120.0\n[dht]\ntables = 'joined'\nrefresh = 60.0\n"
        "[churn]\nlaw = 'weibull'\nmedian = 60.0\nshape = 0.5\noffline = 30.0\ncrash = 0.5\n"
        "[latency]\njitter = 0.2\n[workload]\nlookups = 50\ncontents = 5\nfetches = 20\n"
    )
    digests = set()
    for hash_seed in "1", "2":
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(text=text)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


@pytest.mark.parametrize("at", [30.0, 47.3])
def test_a_run_that_was_written_down_goes_on_as_if_it_had_not_been(at: float) -> None:
    scenario = replace(
        BASE,
        nodes=80,
        churn=Churn("exponential", median=60.0, offline=30.0),
        workload=Workload(lookups=60, contents=10, fetches=20),
        latency=Latency(jitter=0.1),
    )
    whole = DhtRun(scenario, 5)
    whole.run()
    first = DhtRun(scenario, 5)
    first.run(at)
    again = take_up(write_down(first))
    again.run()
    assert again.result() == whole.result()


def test_bytes_that_are_no_run_are_refused() -> None:
    import pickle

    with pytest.raises(ValueError, match="no run"):
        take_up(pickle.dumps([1]))


def test_the_size_of_a_message_is_that_on_the_wire() -> None:
    made = DhtRun(replace(BASE, nodes=50), 1)
    one, other = made.nodes[:2]
    draw = random.Random(1)
    other.providers.add(b"\x12\x20" + bytes(32), one.peer, one.addrs, None, other.unix)
    for kind in MessageType.FIND_NODE, MessageType.GET_PROVIDERS:
        for key in draw.randbytes(34), b"\x12\x20" + bytes(32), made.nodes[2].peer.raw:
            request = KadMessage(kind, key)
            answer = other.answer(request, made.nodes[3])
            assert answer is not None
            assert size_of(request) == len(frame(request.encode()))
            assert size_of(answer) == len(frame(answer.encode()))


def test_whoever_crashed_costs_time_outs_and_lookups_still_arrive() -> None:
    crash = Fault("crash", at=10.0, share=0.3)
    found = run(replace(BASE, faults=(crash,)), 2)
    summary = found.summary
    assert summary["online"] == 105
    assert number(summary["rpcs_failed"]) > 100
    assert number(summary["lookup_success"]) > 0.95
    assert number(summary["lookup_p90"]) > 1.0


def test_a_network_cut_in_two_heals() -> None:
    work = Workload(lookups=300)
    cut = Fault("cut", at=20.0, share=0.5, amount=20.0)
    scenario = replace(BASE, duration=120.0, workload=work, faults=(cut,))
    rows = run(scenario, 1).tables[LOOKUPS]
    success = [number(value) for value in rows["found"]]
    part = len(success) // 6
    assert sum(success[:part]) / part > 0.95
    assert sum(success[part : 2 * part]) / part < 0.75
    assert sum(success[-2 * part :]) / (2 * part) > 0.95


def test_silent_nodes_answer_again_when_it_is_over() -> None:
    silent = Fault("silent", at=10.0, share=0.3, amount=10.0)
    found = run(replace(BASE, workload=Workload(lookups=200), faults=(silent,)), 1)
    assert number(found.summary["rpcs_failed"]) > 50
    rows = found.tables[LOOKUPS]
    assert sum(number(value) for value in rows["found"][-60:]) >= 58


def test_slow_lines_make_lookups_slow() -> None:
    plain = run(BASE, 1).summary
    slow = run(replace(BASE, faults=(Fault("slow", share=1.0, amount=2000.0),)), 1).summary
    assert number(slow["lookup_p50"]) > number(plain["lookup_p50"]) + 0.5


KEEPING = replace(
    BASE,
    nodes=40,
    duration=1500.0,
    workload=Workload(contents=10, fetches=50),
    dht=Dht(tables="random", refresh=100_000.0, republish=200.0, record_life=300.0),
)


def test_records_that_are_renewed_stay_and_are_found() -> None:
    found = run(KEEPING, 1)
    assert found.summary["fetch_success"] == 1.0
    assert found.summary["announce_success"] == 1.0
    assert min(number(value) for value in found.tables[RECORDS]["alive"][2:]) == 1.0
    assert number(found.summary["announces"]) >= 10 * 1500 // 200
    assert number(found.summary["record_holders"]) > 15


def test_records_that_are_not_renewed_in_time_go() -> None:
    late = replace(KEEPING, dht=replace(KEEPING.dht, republish=50_000.0))
    found = run(late, 1)
    # (The announcer itself still says that it has it, when it happens to be asked.)
    assert number(found.summary["fetch_success"]) < 0.85
    assert found.summary["records_alive"] == 0.0


def test_a_republisher_that_forgets_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: what was announced once counts as done for ever."""
    from shoal.dht.announcements import Announcements

    def done(self: Announcements, multihash: bytes, *_: object) -> float:
        self.drop(multihash)
        return 1e12

    monkeypatch.setattr(Announcements, "done", done)
    assert run(KEEPING, 1).summary["records_alive"] == 0.0


def test_clocks_that_jump_lose_records() -> None:
    jump = Fault("skew", at=500.0, amount=350.0)
    calm = replace(KEEPING, duration=550.0, dht=replace(KEEPING.dht, republish=290.0))
    rows = run(replace(calm, faults=(jump,)), 1).tables[RECORDS]
    assert rows["alive"][-3] == 1.0
    assert rows["alive"][-1] == 0.0


def test_who_is_behind_a_nat_asks_and_is_in_no_table() -> None:
    made = DhtRun(replace(BASE, nat=Nat(symmetric=0.2, blocked=0.2, mapped=0.1)), 1)
    made.run()
    clients = {node.peer for node in made.nodes if not node.serves}
    assert len(clients) == 60
    for node in made.nodes:
        assert not any(contact.peer in clients for contact in node.table)
    assert made.result().summary["lookup_success"] == 1.0


def test_nodes_that_really_join_find_their_place() -> None:
    made = DhtRun(replace(BASE, nodes=60, dht=Dht(tables="joined")), 1)
    assert all(not node.online for node in made.nodes)
    made.run()
    assert made.result().summary["lookup_success"] == 1.0
    assert min(len(node.table) for node in made.nodes) > 25


def test_under_churn_as_many_come_as_go() -> None:
    churn = Churn("exponential", median=60.0, offline=60.0, crash=0.5)
    scenario = replace(BASE, nodes=60, duration=150.0, churn=churn)
    made = DhtRun(scenario, 3)
    assert len(made.nodes) > 80
    made.run()
    found = made.result()
    there = [number(value) for value in found.tables[TRAFFIC]["online"]]
    assert 45 < sum(there) / len(there) < 75
    assert number(found.summary["rpcs_failed"]) > 0
    assert number(found.summary["lookup_success"]) > 0.8


def test_no_bucket_goes_without_a_look_for_longer_than_its_period() -> None:
    made = DhtRun(replace(BASE, nodes=40, duration=1860.0, workload=Workload()), 1)
    ages = []
    for until in range(1260, 1860, 20):  # two periods on, all have had their first turn
        made.run(float(until))
        for node in made.nodes:
            own = node.table.bucket_of(node.peer.key)
            ages += [until - b.last_updated for b in node.table.buckets if b is not own]
    assert 500.0 < max(ages) < 640.0, "one period, and the time that a round takes"


def test_a_snapshot_gives_the_tables() -> None:
    count = 40
    contacts = [other for node in range(count) for other in range(count) if (node * other) % 3 == 1]
    sizes = [sum((node * other) % 3 == 1 for other in range(count)) for node in range(count)]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    snapshot = Snapshot(1, keys_of(1, count), starts, np.array(contacts, dtype=np.int32))
    own = [node for node in range(count) if node * node % 3 == 1]
    assert own, "some would know themselves: left out when the tables are filled"
    made = DhtRun(replace(BASE, nodes=count), 1, snapshot)
    for node in made.nodes:
        known = {made.network.index[contact.peer] for contact in node.table}
        assert known <= set(snapshot.of(node.number).tolist()) - {node.number}
        assert len(known) >= min(15, len(snapshot.of(node.number)) - 1)
