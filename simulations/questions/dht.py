"""Questions about finding things; answered by the model of the DHT."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from ..results.words import seconds
from ..scenario.model import Attack, Churn, Dht, Scenario, Workload
from ..scenario.result import RECORDS
from .question import (
    Answer,
    BadQuestion,
    Parameter,
    Parameters,
    Question,
    Run,
    estimate,
    summary_numbers,
)

WIDTHS: Final = (10, 20, 40)
INTERVALS: Final = (6 * 3600.0, 12 * 3600.0, 22 * 3600.0)
"""What is tried for k and for the time between two announcements."""

PATHS: Final = (1, 2, 4, 8)


def records(p: Parameters, seeds: Sequence[int], run: Run) -> Answer:
    """Which k and re-announce interval keep the records under my churn."""
    settings = list(itertools.product(WIDTHS, INTERVALS))
    scenarios = [
        Scenario(
            name=f"k={k} every={every / 3600:.0f}h",
            nodes=round(p["nodes"]),
            duration=p["duration"],
            churn=Churn("lognormal", p["session"], 1.0, p["offline"]),
            dht=Dht(k=k, republish=every),
            workload=Workload(contents=round(p["contents"])),
            metrics=(RECORDS,),
        )
        for k, every in settings
    ]
    rows = []
    for (k, every), results in zip(settings, run(scenarios, seeds), strict=True):
        found = estimate(summary_numbers(results, "records_found"))
        if not found.runs:
            raise BadQuestion("the model told nothing about records")
        rows.append((k / every, k, every, found))
    rows.sort(key=lambda row: row[0])
    share = _percent
    enough = [row for row in rows if row[3].mean >= p["wanted"]]
    if enough:
        _, k, every, found = enough[0]
        sure = len(seeds) > 1 and found.low >= p["wanted"]
        text = (
            f"The cheapest setting that keeps {share(p['wanted'])} of the records findable is "
            f"k={k} with an announcement every {seconds(every)}: {found.words(share)}"
            + ("." if sure else "; not enough runs to be sure of it.")
        )
    else:
        _, k, every, found = max(rows, key=lambda row: row[3].mean)
        text = (
            f"No setting that was tried keeps {share(p['wanted'])} of the records findable. The "
            f"best is k={k} every {seconds(every)}: {found.words(share)}."
        )
    others = ", ".join(f"k={k} every {seconds(e)} {share(f.mean)}" for _, k, e, f in rows)
    numbers = {f"k{k}_{e / 3600:.0f}h": f.mean for _, k, e, f in rows}
    return Answer(f"{text} By cost: {others}.", numbers)


def sybils(p: Parameters, seeds: Sequence[int], run: Run) -> Answer:
    """What a part of lying nodes does to lookups with d disjoint paths."""
    scenarios = [
        Scenario(
            name=f"{paths} paths",
            nodes=round(p["nodes"]),
            dht=Dht(k=round(p["k"]), paths=paths, tables="random"),
            workload=Workload(lookups=round(p["lookups"])),
            attacks=(Attack("sybil", p["share"]),),
        )
        for paths in PATHS
    ]
    said, numbers = [], {}
    for paths, results in zip(PATHS, run(scenarios, seeds), strict=True):
        found = estimate(summary_numbers(results, "lookup_found"))
        rpcs = estimate(summary_numbers(results, "lookup_rpcs"))
        said.append(f"with d={paths} {found.words(_percent)} for {rpcs.mean:.0f} requests a lookup")
        numbers[f"found_{paths}"] = found.mean
        numbers[f"rpcs_{paths}"] = rpcs.mean
    text = (
        f"Where {_percent(p['share'])} of {p['nodes']:.0f} nodes lie, lookups succeed: "
        + "; ".join(said) + "."
    )  # fmt: skip
    return Answer(text, numbers)


def _percent(share: float) -> str:
    text = f"{100 * min(1.0, share):.4g}"
    return "over 99.99 %" if text == "100" and share < 1.0 else f"{text} %"


QUESTIONS: Final = (
    Question(
        "records", "Which k and re-announce interval keep my records under churn?",
        (
            Parameter("nodes", "2000", "online at a time", 100, 100_000),
            Parameter("session", "2h", "median time that a node stays", 1.0),
            Parameter("offline", "2h", "mean time until it comes back", 1.0),
            Parameter("duration", "24h", "that is simulated", 3600.0, 3e7),
            Parameter("contents", "500", "that are announced", 1, 1e6),
            Parameter("wanted", "99.9%", "part of the records to be found", 0.0, 1.0),
        ), records,
    ),
    Question(
        "sybils", "What does a part of lying nodes do, with d disjoint paths?",
        (
            Parameter("nodes", "10000", "of the network", 100, 1e6),
            Parameter("share", "20%", "of them that lie", 0.0, 0.95),
            Parameter("k", "16", "bucket size", 1, 100),
            Parameter("lookups", "5000", "that are done", 100, 1e6),
        ), sybils,
    ),
)  # fmt: skip
