"""Experiment 11: the same scenario and seed, in processes with different hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from .experiment import Check, Experiment

SCENARIOS: Final = {
    "model": "Scenario(tier='model', nodes=1500, workload=Workload(lookups=500, contents=50, "
    "fetches=200), nat=Nat(symmetric=0.1))",
    "model, churn": "Scenario(tier='model', nodes=300, duration=1800.0, "
    "churn=Churn('weibull', 3600.0, 0.6), workload=Workload(lookups=200, contents=20))",
    "model-hashed": "Scenario(tier='model-hashed', nodes=100000, dht=Dht(tables='random'), "
    "workload=Workload(lookups=500))",
    "code": "Scenario(tier='code', nodes=80, duration=60.0, dht=Dht(tables='joined'), "
    "churn=Churn('weibull', 60.0, 0.5, 30.0, 0.5), latency=Latency(jitter=0.2), "
    "workload=Workload(lookups=40, contents=5, fetches=20))",
    "code-full": "Scenario(tier='code-full', nodes=6, duration=30.0, "
    "dht=Dht(tables='joined'), workload=Workload(lookups=5, contents=2, fetches=4))",
}

PROGRAM: Final = """
import sys
from shoal.simulations.running import run
from shoal.simulations.scenario.model import *
print(run(eval(sys.argv[1]), int(sys.argv[2])).digest)
"""


def digest_of(scenario: str, seed: int, hash_seed: int) -> str:
    """Run a scenario in a process of its own and return its digest."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, scenario, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def same_digests(seed: int, quick: bool) -> Mapping[str, float]:
    """Compare the digests of two processes for each scenario."""
    return {
        f"{name}: digests that differ": float(
            digest_of(scenario, seed, 1) != digest_of(scenario, seed, 2)
        )
        for name, scenario in SCENARIOS.items()
    }


EXPERIMENTS: Final = (
    Experiment(
        11,
        "Replay",
        "each scenario twice, in two processes with different hash seeds",
        "our own rule",
        tuple(Check(f"{name}: digests that differ", 0.0, 0.0, "none") for name in SCENARIOS),
        same_digests,
    ),
)
