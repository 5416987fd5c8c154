"""Experiments 1 to 5: how many hops and requests a lookup takes, and what disjoint paths give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.ids import random_ids, stream
from ..model.lookup import Rules
from ..model.network import EVIL, Behaviour, Net, all_status, make_net
from ..model.routes import routes, wave_hops
from ..model.runs import draw_starts, draw_targets, look_up
from ..model.tables import with_random_tables
from ..scenario.model import Latency
from .experiment import Check, Experiment

BUCKET_SIZES: Final = (1, 8, 20)


INSTANT: Final = Latency("none")
ONE_SECOND: Final = Latency("none", median_rtt=1.0)
"""Every answer takes one second: seconds are waves."""


def gained_bits(k: int) -> float:
    """Return the mean bits that the best of k random bucket members gains, mu(k).

    It is the largest of k Geometric(1/2).
    """
    return sum(1.0 - (1.0 - 0.5**bits) ** k for bits in range(64))


def _pairs(net: Net, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and goals that differ."""
    chance = stream(seed, "pairs")
    starts = chance.integers(0, len(net.ids), count)
    goals = (starts + chance.integers(1, len(net.ids), count)) % len(net.ids)
    return starts, goals


def probelab_hops(seed: int, quick: bool) -> Mapping[str, float]:
    """RFM19.1: 25 000 nodes, k = 20, waves until one of the 20 nearest is to be asked."""
    net = with_random_tables(make_net(random_ids(25_000, seed), seed, 20, INSTANT))
    count = 2000 if quick else 10_000
    hops = wave_hops(net, draw_starts(net, count, seed), draw_targets(count, seed), 20)
    return {"mean hops": float(hops.mean()), "lookups that ran dry": float(np.mean(hops < 0))}


def greedy_growth(seed: int, quick: bool) -> Mapping[str, float]:
    """Greedy routes at 10^4 and 10^6 nodes."""
    small, large = (10_000, 100_000) if quick else (10_000, 1_000_000)
    count = 5000 if quick else 50_000
    found: dict[str, float] = {}
    failed = 0.0
    for k in BUCKET_SIZES:
        gain = gained_bits(k)
        means = []
        for nodes in (small, large):
            # Hashed tables are the stored ones, made as they are needed.
            net = make_net(random_ids(nodes, seed), seed, k, INSTANT)
            hops = routes(net, *_pairs(net, count, seed), 1)
            failed += float(np.mean(hops == 0))
            means.append(float(hops[hops > 0].mean()))
        expected = (math.log2(large) - math.log2(small)) / gain
        found[f"growth for k={k}, part of log2 ratio / mu(k)"] = (means[1] - means[0]) / expected
        found[f"level for k={k}, part of log2 N / mu(k)"] = means[1] / (math.log2(large) / gain)
    found["goals not reached"] = failed
    return found


def one_contact(seed: int, quick: bool) -> Mapping[str, float]:
    """65 536 nodes with one contact in each bucket."""
    net = make_net(random_ids(65_536, seed), seed, 1, INSTANT)
    hops = routes(net, *_pairs(net, 5000 if quick else 50_000, seed), 1)
    return {
        "mean": float(hops.mean()),
        "median": float(np.median(hops)),
        "90th percentile": float(np.percentile(hops, 90)),
        "goals not reached": float(np.mean(hops == 0)),
    }


def disjoint_paths(seed: int, quick: bool) -> Mapping[str, float]:
    """10 000 nodes, k = 16: success of d disjoint routes among attackers that drop."""
    ids = random_ids(10_000, seed)
    count = 3000 if quick else 20_000
    honest = with_random_tables(make_net(ids, seed, 16, INSTANT))
    starts, goals = _pairs(honest, count, seed)
    between = routes(honest, starts, goals, 1) - 1  # nodes that a route passes
    lengths = np.bincount(between) / count
    worst = 0.0
    best = 0.0
    for evil in (0.1, 0.2, 0.3):
        net = honest._replace(shares=(0.0, 0.0, 0.0, evil))
        good = ~_evil(net, goals)
        for paths in (1, 2, 4, 8):
            success = float(np.mean(routes(net, starts[good], goals[good], paths) > 0))
            formula = sum(
                part * (1 - (1 - (1 - evil) ** length) ** paths)
                for length, part in enumerate(lengths)
            )
            worst = max(worst, abs(success - formula))
            if evil == 0.2 and paths == 8:
                best = success
    return {"largest distance from the formula": worst, "success, d=8 at 20 % malicious": best}


def _evil(net: Net, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = all_status(net)[nodes] == EVIL
    return found


def waves(seed: int, quick: bool) -> Mapping[str, float]:
    """12 000 nodes, k = 20, alpha = 3, one dial in ten refused, all 20 nearest must answer."""
    behaviour = Behaviour(refuses=0.1)
    net = with_random_tables(make_net(random_ids(12_000, seed), seed, 20, ONE_SECOND, behaviour))
    rules = Rules(alpha=3, enough=20, slow_after=math.inf, fail_after=math.inf)
    count = 2000 if quick else 10_000
    done = look_up(net, rules, draw_starts(net, count, seed), draw_targets(count, seed))
    return {
        "median waves": float(np.median(done.seconds)),
        "99th percentile of waves": float(np.percentile(done.seconds, 99)),
        "median requests": float(np.median(done.column("rpcs"))),
    }


def _greedy_checks() -> tuple[Check, ...]:
    checks: list[Check] = []
    for k in BUCKET_SIZES:
        growth = f"growth for k={k}, part of log2 ratio / mu(k)"
        level = f"level for k={k}, part of log2 N / mu(k)"
        checks.append(Check(growth, 0.97, 1.03, "1 within 3 %"))
        checks.append(Check(level, 0.98, 1.10, "0.98 to 1.10"))
    checks.append(Check("goals not reached", 0.0, 0.0, "none"))
    return tuple(checks)


EXPERIMENTS: Final = (
    Experiment(
        1,
        "ProbeLab's hop count",
        "RFM19.1: N=25 000, k=20, 20 replicas, 10 000 lookups in each network",
        "ProbeLab RFM19.1 (2023)",
        (
            Check("mean hops", 1.911, 1.941, "1.926 +- 0.015"),
            Check("lookups that ran dry", 0.0, 0.001, "none"),
        ),
        probelab_hops,
    ),
    Experiment(
        2,
        "Growth of greedy routes",
        "random tables, k=1, 8, 20, N=10^4 and 10^6, 50 000 greedy routes to a node",
        "derived: best of k Geometric(1/2); Cai and Devroye (2013)",
        _greedy_checks(),
        greedy_growth,
    ),
    Experiment(
        3,
        "One contact in each bucket",
        "XOR geometry, N=65 536, k=1, 50 000 routes",
        "Gummadi et al. (2003)",
        (
            Check("mean", 7.6, 8.1, "7.7; 7.6 to 8.1"),
            Check("median", 8.0, 8.0, "8"),
            Check("90th percentile", 10.0, 11.0, "10; 10 to 11"),
            Check("goals not reached", 0.0, 0.0, "none"),
        ),
        one_contact,
    ),
    Experiment(
        4,
        "Disjoint paths",
        "N=10 000, k=16, 10 to 30 % drop, d=1, 2, 4, 8, 20 000 routes each",
        "S/Kademlia (2007): its formula with the measured lengths",
        (
            Check("largest distance from the formula", 0.0, 0.02, "at most 0.02"),
            Check("success, d=8 at 20 % malicious", 0.99, 1.0, "at least 0.99"),
        ),
        disjoint_paths,
    ),
    Experiment(
        5,
        "Waves of an announcement's lookup",
        "N=12 000, k=20, alpha=3, 10 % of dials refused, 10 000 lookups",
        "Cortes-Goicoechea et al. (2024)",
        (
            Check("median waves", 8.0, 10.0, "8 to 10"),
            Check("99th percentile of waves", 10.0, 14.0, "10 to 14"),
            Check("median requests", 23.0, 28.0, "23 to 28"),
        ),
        waves,
    ),
)
