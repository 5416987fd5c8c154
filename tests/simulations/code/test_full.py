"""Whole nodes driven by a scenario: they find and fetch, through every kind of fault."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from shoal.simulations.code.run import run
from shoal.simulations.scenario.model import (
    Dht,
    Fault,
    Latency,
    LinkClass,
    Nat,
    Scenario,
    Workload,
)
from shoal.simulations.scenario.reading import write
from shoal.simulations.scenario.result import EDGES, LOOKUPS
from shoal.simulations.scenario.support import NotExpressible

BASE = Scenario(
    tier="code-full",
    nodes=6,
    duration=60.0,
    latency=Latency("lan"),
    dht=Dht(tables="joined"),
    workload=Workload(lookups=6, contents=2, fetches=4),
)


def test_whole_nodes_find_and_fetch() -> None:
    links = (LinkClass("home", 1e6, 1e7), LinkClass("office", 1e8, 1e8, 2.0))
    found = run(replace(BASE, links=links), 1)
    assert found.summary["lookups"] == 6
    assert found.summary["lookup_success"] == 1.0
    assert found.summary["fetches"] == 4
    assert found.summary["fetch_success"] == 1.0
    assert len(found.tables[LOOKUPS]["seconds"]) == 12
    assert len(found.tables[EDGES]["source"]) == 30


@pytest.mark.long
def test_three_hundred_whole_nodes_share_find_and_fetch() -> None:
    nodes = 300
    work = Workload(lookups=2 * nodes, contents=nodes // 10, fetches=nodes // 3)
    found = run(replace(BASE, nodes=nodes, latency=Latency("world"), workload=work), 1)
    assert found.summary["online"] == nodes
    assert found.summary["lookups"] == 2 * nodes
    assert found.summary["fetches"] == nodes // 3
    assert found.summary["fetch_success"] == 1.0
    lookups, contacts = found.summary["lookup_success"], found.summary["contacts_mean"]
    assert isinstance(lookups, float)
    assert lookups >= 0.99
    assert isinstance(contacts, float)
    assert contacts > 50.0


SCRIPT = """
import sys
from shoal.simulations.scenario.reading import parse
from shoal.simulations.code.run import run
print(run(parse(sys.stdin.read()), 3).digest)
"""


def test_processes_with_other_hash_seeds_give_the_same_digest() -> None:
    digests = set()
    for hash_seed in "1", "2":
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            input=write(BASE),
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


@pytest.mark.parametrize("kind", get_args(get_type_hints(Fault)["kind"]))
def test_every_fault_is_survived(kind: str) -> None:
    amount = {"cut": 10.0, "slow": 50_000.0, "silent": 10.0, "skew": 100.0}.get(kind, 0.0)
    fault = Fault(kind, at=10.0, share=0.34, amount=amount)  # type: ignore[arg-type]
    found = run(replace(BASE, faults=(fault,)), 2)
    assert found.summary["online"] == (4 if kind == "crash" else 6)
    rows = found.tables[LOOKUPS]
    lookups = [row for row in zip(rows["group"], rows["found"], strict=True) if row[0] == "lookup"]
    assert lookups[-1] == ("lookup", 1), "later than the fault, nobody is cut off for ever"
    fetched = sum(row == ("fetch", 1) for row in zip(rows["group"], rows["found"], strict=True))
    assert fetched < 4 if kind == "disk-full" else fetched >= 2
    plain = run(BASE, 2)
    if kind not in ("heal", "skew", "disk-full"):
        assert found.digest != plain.digest


def test_who_is_behind_a_firewall_takes_part() -> None:
    found = run(replace(BASE, nat=Nat(port_restricted=0.34)), 1)
    assert found.summary["lookup_success"] is not None
    assert found.summary["online"] == 6


def test_what_whole_nodes_cannot_do_is_refused() -> None:
    for wrong in (
        replace(BASE, dht=Dht()),
        replace(BASE, dht=Dht(tables="joined", k=40)),
        replace(BASE, latency=Latency(jitter=0.1)),
        replace(BASE, nodes=1000),
    ):
        with pytest.raises(NotExpressible):
            run(wrong, 1)
