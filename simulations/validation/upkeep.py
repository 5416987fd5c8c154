"""Experiment 6: tables grown by joins, and what churn leaves of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..model.churn import Census, Lived, census, live, total_nodes
from ..model.growth import grow
from ..model.ids import random_ids
from ..model.living import stored
from ..model.lookup import Rules
from ..model.network import make_net
from ..model.runs import draw_starts, draw_targets, look_up
from ..model.tables import with_random_tables
from ..scenario.model import Churn, Latency
from .experiment import Check, Experiment

INSTANT: Final = Latency("none")
K: Final = 20

IPFS_CHURN: Final = Churn("lognormal", median=7200.0, shape=1.647, offline=7200.0)
"""Half of the sessions up to 2 h, four fifths up to 8 h (ProbeLab, May 2022). How long a node stays
away is our guess."""

IPFS_SILENT_AFTER: Final = 600.0 * math.log(1 / 20) / math.log(1 - 10 / 20)
"""Seconds after which IPFS asked a silent contact in 2022: 43 minutes (go-libp2p-kad-dht, from its
k, its alpha and its refresh of 10 minutes)."""

PATIENT: Final = "churn, contacts asked after 43 min as IPFS did"

CAN_BE_FULL: Final = 1.5
"""A bucket can be full where so many times k nodes belong: as buckets 0 to 8 of RFM19."""


def _ratio(some: NDArray[np.int64], of: NDArray[np.int64]) -> float:
    return float(some.sum() / of.sum())


def _bucket_facts(taken: Census) -> Mapping[str, float]:
    belong = taken.possible.mean(axis=0)
    near = (belong < K) & (taken.possible.sum(axis=0) > 0)
    wide = np.array([len(taken.known) / 2.0 ** (b + 1) for b in range(taken.held.shape[1])])
    full = wide >= CAN_BE_FULL * K
    alive = taken.held - taken.dead
    return {
        "non-full buckets, part filled": float(
            alive[:, near].sum() / taken.possible[:, near].sum()
        ),
        "full buckets, part full": float((taken.held[:, full] >= K).mean()),
        "dead in bucket 0": _ratio(taken.dead[:, 0], taken.held[:, 0]),
        "dead in non-full buckets": _ratio(taken.dead[:, near], taken.held[:, near]),
        "all 20 nearest known": float((taken.known >= K).mean()),
    }


def tables_grown(seed: int, quick: bool) -> Mapping[str, float]:
    """Grow tables; compare them with ideal ones, then let nodes come and go."""
    nodes, living_nodes, hours = (1500, 300, 0.5) if quick else (6000, 800, 2.0)
    net = make_net(random_ids(nodes, seed), seed, K, INSTANT)
    grown = stored(grow(net, seed)[0])
    ideal = with_random_tables(net)
    count = 2000 if quick else 10_000
    starts, targets = draw_starts(net, count, seed), draw_targets(count, seed)
    rules = Rules(alpha=3, enough=K)
    depths = [
        float(look_up(of, rules, starts, targets).column("hops").mean()) for of in (grown, ideal)
    ]
    found = {
        "no churn: all 20 nearest known": float((census(grown).known >= K).mean()),
        "no churn: depth, grown / ideal": depths[0] / depths[1],
    }
    total = total_nodes(IPFS_CHURN, living_nodes)
    moving = make_net(random_ids(total, seed + 1000), seed, K, INSTANT)
    lived = live(moving, IPFS_CHURN, living_nodes, hours, seed, Rules(), 600.0)
    found |= {f"churn: {name}": value for name, value in _facts_of(lived).items()}
    lived = live(
        moving,
        IPFS_CHURN,
        living_nodes,
        hours,
        seed,
        Rules(),
        600.0,
        silent_after=IPFS_SILENT_AFTER,
    )
    return found | {f"{PATIENT}: {name}": value for name, value in _facts_of(lived).items()}


def _facts_of(lived: Lived) -> Mapping[str, float]:
    return _bucket_facts(census(lived.living.net))


EXPERIMENTS: Final = (
    Experiment(
        6,
        "Grown tables and churn",
        "6000 nodes grown by joins; 800 others under IPFS churn for 2 h with the shipped upkeep "
        "(the published crawl: 15 371 nodes, IPFS's upkeep)",
        "ProbeLab RFM19 (2022)",
        (
            Check("no churn: all 20 nearest known", 0.90, 1.0, "at least 90 %"),
            Check("no churn: depth, grown / ideal", 1.05, 1.25, "1.05 to 1.25"),
            Check("churn: non-full buckets, part filled", 0.90, 1.0, "at least 90 %"),
            Check("churn: full buckets, part full", 0.97, 1.0, "at least 97 %"),
            Check("churn: dead in bucket 0", 0.02, 0.06, "2 to 6 %"),
            Check("churn: dead in non-full buckets", 0.08, 0.20, "8 to 20 %"),
            Check("churn: all 20 nearest known", 0.50, 0.85, "50 to 85 %"),
            Check(f"{PATIENT}: dead in bucket 0", 0.02, 0.06, "2 to 6 %"),
            Check(f"{PATIENT}: dead in non-full buckets", 0.08, 0.20, "8 to 20 %"),
            Check(f"{PATIENT}: all 20 nearest known", 0.50, 0.85, "50 to 85 %"),
        ),
        tables_grown,
        note="The shipped node asks every contact that was silent for 5 minutes and drops it after "
        "two failures, so its tables hold fewer dead entries than those of IPFS in 2022, and it "
        "knows more of its neighbours. A miss on that side is what the rules are for.",
    ),
)
