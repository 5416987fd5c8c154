import os
import subprocess
import sys
from dataclasses import replace

import pytest

from shoal.simulations.model.attack import keys_to_make
from shoal.simulations.model.run import run
from shoal.simulations.scenario.model import Attack, Churn, Dht, Nat, Scenario, Workload
from shoal.simulations.scenario.reading import BadScenario
from shoal.simulations.scenario.result import EDGES, LOOKUPS, RECORDS

SMALL = Scenario(
    nodes=300,
    dht=Dht(tables="random"),
    workload=Workload(lookups=200, contents=20, fetches=100),
)

IN_PLAIN_PYTHON = """
from shoal.simulations.model.compiled import IS_COMPILED
from shoal.simulations.model.run import run
from shoal.simulations.scenario.model import *
assert not IS_COMPILED
print(run(Scenario(nodes=60, dht=Dht(k=4), workload=Workload(lookups=20, contents=5, fetches=10),
    churn=Churn("lognormal", 900.0, 1.2, 300.0), duration=900.0), 3).digest)
"""


def test_a_run_gives_tables_a_summary_and_one_digest_for_a_seed() -> None:
    result = run(SMALL, 1)
    assert result.digest == run(SMALL, 1).digest
    assert result.digest != run(SMALL, 2).digest
    assert len(result.tables[LOOKUPS]["hops"]) == 320
    assert set(result.tables[LOOKUPS]["group"]) == {"lookup", "announce", "fetch"}
    assert len(result.tables[EDGES]["source"]) == len(result.tables[EDGES]["target"])
    assert result.summary["lookup_found"] == 1.0
    assert result.summary["fetch_found"] == 1.0


def test_compiled_and_plain_python_give_the_same() -> None:
    moving = Scenario(
        nodes=60,
        dht=Dht(k=4),
        workload=Workload(lookups=20, contents=5, fetches=10),
        churn=Churn("lognormal", 900.0, 1.2, 300.0),
        duration=900.0,
    )
    plain = subprocess.run(
        [sys.executable, "-c", IN_PLAIN_PYTHON],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "77"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert plain.stdout.strip() == run(moving, 3).digest


def test_hashed_tables_give_what_stored_ones_do() -> None:
    scenario = replace(SMALL, workload=Workload(lookups=100))
    hashed = run(replace(scenario, tier="model-hashed"), 1)
    stored = run(scenario, 1)
    for column in ("hops", "rpcs", "found"):
        one, other = hashed.tables[LOOKUPS][column], stored.tables[LOOKUPS][column]
        assert list(one) == list(other)


def test_nodes_that_come_and_go_keep_records() -> None:
    moving = replace(
        SMALL,
        nodes=150,
        dht=Dht(k=8),
        churn=Churn("exponential", 3600.0, offline=1800.0),
        duration=1800.0,
    )
    result = run(moving, 1)
    assert result.tables[RECORDS]["alive"][0] == 1.0
    assert 0.5 < float(str(result.summary["records_found"])) <= 1.0
    assert float(str(result.summary["upkeep_requests_per_node_second"])) > 0.0


def test_sybils_at_a_key_hide_a_content() -> None:
    assert keys_to_make(20, 25_000) == 500_020
    hidden = run(replace(SMALL, attacks=(Attack("sybil", at_key=20),)), 1)
    assert float(str(hidden.summary["fetch_found"])) < 0.1
    few = run(replace(SMALL, attacks=(Attack("sybil", at_key=5),)), 1)
    assert float(str(few.summary["fetch_found"])) > 0.9


def test_clients_are_in_no_table() -> None:
    result = run(replace(SMALL, nat=Nat(symmetric=0.2, mapped=0.5)), 1)
    assert result.summary["servers"] == 240


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attacks": (Attack("poison", 0.1),)}, "attacks.kind"),
        ({"attacks": (Attack("drop", 0.1), Attack("lie", 0.1))}, "attacks.kind"),
        ({"nat": Nat(blocked=1.0)}, "nat"),
        ({"workload": Workload(fetches=5)}, "workload.fetches"),
        ({"churn": Churn("exponential")}, "churn"),
        ({"nodes": 300_000, "dht": Dht()}, "nodes"),
        (
            {
                "tier": "model-hashed",
                "attacks": (Attack("lie", 0.1),),
                "workload": Workload(lookups=5),
            },
            "attacks",
        ),
    ],
)
def test_what_the_model_cannot_express_is_refused_by_name(
    change: dict[str, object], named: str
) -> None:
    with pytest.raises(BadScenario, match=named):
        run(replace(SMALL, **change), 1)  # type: ignore[arg-type]
