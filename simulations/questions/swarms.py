"""Questions about moving one content to many machines; answered by the swarm model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from ..paired import paired
from ..results.words import seconds
from ..scenario.model import LinkClass, Nat, Scenario, Swarm
from .question import Answer, Parameter, Parameters, Question, Run, estimate, summary_numbers

PIECE_BYTES: Final = 1 << 20
"""Of the shipped node."""

MOST_PIECES: Final = 1000
"""Pieces of a simulated content; larger ones are cut into larger pieces, which is pessimistic."""

HORIZON: Final = 3e8
"""Seconds after which a run is given up."""

PUNCHED: Final = (("endpoint_independent", 0.4), ("port_restricted", 0.4), ("symmetric", 0.2))
"""How machines behind NAT are thought to be spread over its kinds."""

SIZE = Parameter("size", "10GB", "bytes of the content", 1.0, 1e16)
MACHINES = Parameter("machines", "100", "that want it", 1, 20_000)
UP = Parameter("up", "20Mbit/s", "uplink of each machine", 1.0, 1e12)
DOWN = Parameter("down", "100Mbit/s", "downlink of each machine", 1.0, 1e12)
SEEDS = Parameter("seeds", "1", "machines that have it", 1, 10_000)
SEED_UP = Parameter("seed_up", "100Mbit/s", "uplink of each seed", 1.0, 1e12)
BEHIND = Parameter("nat", "30%", "part of the machines that are behind NAT", 0.0, 1.0)


def content(size: float) -> tuple[int, int]:
    """Return pieces and bytes of each."""
    pieces = max(1, min(MOST_PIECES, math.ceil(size / PIECE_BYTES)))
    return pieces, math.ceil(size / pieces)


def basis(name: str, p: Parameters) -> Scenario:
    """Return the scenario that all these questions begin with."""
    pieces, piece_bytes = content(p["size"])
    machines, seeds = round(p["machines"]), round(p["seeds"])
    behind = p.get("nat", 0.0)
    return Scenario(
        name=name,
        nodes=machines + seeds,
        duration=HORIZON,
        links=(
            LinkClass("seed", p["seed_up"], p["seed_up"]),
            LinkClass("machine", p["up"], p["down"]),
        ),
        nat=Nat(**{kind: behind * share for kind, share in PUNCHED}),
        swarm=Swarm(pieces=pieces, piece_bytes=piece_bytes, seeds=seeds, leechers=machines),
    )


def _run(scenario: Scenario, seeds: Sequence[int], run: Run, numbers: dict[str, float]) -> Answer:
    """Run a scenario and say how long it took."""
    (runs,) = run([scenario], seeds)
    last = estimate(summary_numbers(runs, "last_seconds"))
    half = estimate(summary_numbers(runs, "p50_seconds"))
    bound = estimate(summary_numbers(runs, "bound_seconds"))
    swarm = scenario.swarm
    who = f"{swarm.leechers} machines"
    if last.runs < len(runs):
        text = f"In {len(runs) - last.runs} of {len(runs)} runs not all of the {who} got it."
    else:
        text = (
            f"All {who} have it after {last.words(seconds)}; half of them after "
            f"{seconds(half.mean)}. No rules at all could be faster than {seconds(bound.mean)}."
        )
    if swarm.piece_bytes > PIECE_BYTES:
        text += (
            f" (Simulated in {swarm.pieces} pieces of {swarm.piece_bytes / 1e6:.3g} MB; real "
            "pieces are smaller, which is a little faster.)"
        )
    found: dict[str, float | None] = {
        "last_seconds": last.mean, "low": last.low, "high": last.high,
        "half_seconds": half.mean, "bound_seconds": bound.mean, **numbers,
    }  # fmt: skip
    return Answer(
        text, {k: v if v is not None and math.isfinite(v) else None for k, v in found.items()},
    )  # fmt: skip


def deliver(p: Parameters, seeds: Sequence[int], run: Run) -> Answer:
    """How long until N machines have a content."""
    return _run(basis("deliver", p), seeds, run, {})


def flash_crowd(p: Parameters, seeds: Sequence[int], run: Run) -> Answer:
    """All come at once to one seed, or over some time."""
    scenario = basis("flash-crowd", p)
    swarm = replace(scenario.swarm, arrival=p["arrival"], leave=p["leave"] > 0)
    answer = _run(replace(scenario, swarm=swarm), seeds, run, {})
    alone = p["machines"] * p["size"] / (p["seeds"] * p["seed_up"])
    text = f"{answer.text} From the seeds alone, without a swarm, it would take {seconds(alone)}."
    return replace(answer, text=text, numbers={**answer.numbers, "alone_seconds": alone})


def site(p: Parameters, seeds: Sequence[int], run: Run) -> Answer:
    """One line into a site, many machines on its network."""
    scenario = basis("site", p)
    swarm = replace(scenario.swarm, site_bytes=p["site"])
    answer = _run(replace(scenario, swarm=swarm), seeds, run, {})
    once, each = p["size"] / p["site"], p["machines"] * p["size"] / p["site"]
    text = (
        f"{answer.text} The line needs {seconds(once)} to carry the content once, and "
        f"{seconds(each)} if every machine fetched it from outside."
    )
    numbers = {**answer.numbers, "once_seconds": once, "each_seconds": each}
    return replace(answer, text=text, numbers=numbers)


def more_seeds(p: Parameters, seeds: Sequence[int], run: Run) -> Answer:
    """What changes with some more seeds, run by run on the same seeds of chance."""
    before = basis("before", p)
    more = {**p, "seeds": p["seeds"] + p["added"]}
    after = basis("after", more)
    ones, twos = (
        {
            seed: float(last)
            for seed, result in zip(seeds, results, strict=True)
            if isinstance(last := result.summary["last_seconds"], float)
        }
        for results in run((before, after), seeds)
    )
    pair = paired("last_seconds", "before", ones, "after", twos)
    count = f"{p['added']:.0f} more {'seed' if p['added'] == 1 else 'seeds'}"
    first, second = estimate(list(ones.values())), estimate(list(twos.values()))
    match pair.verdict:
        case "unknown":
            text = (
                f"Not enough runs to say what {count} change: all have it after "
                f"{first.words(seconds)} without and {second.words(seconds)} with them."
            )
        case "same":
            text = f"{count} change nothing to speak of: {first.words(seconds)} either way."
        case verdict:
            faster = "sooner" if verdict == "lower" else "later"
            low, high = sorted((abs(pair.low), abs(pair.high)))
            text = (
                f"With {count} all machines have it {seconds(abs(pair.difference))} {faster} (95 % "
                f"interval {seconds(low)} to {seconds(high)}, {pair.pairs} pairs of runs): after "
                f"{seconds(second.mean)} instead of {seconds(first.mean)}."
            )
    return Answer(
        text,
        {
            "before_seconds": first.mean, "after_seconds": second.mean,
            "difference_seconds": pair.difference,
            "low": pair.low if math.isfinite(pair.low) else None,
            "high": pair.high if math.isfinite(pair.high) else None,
            "verdict": pair.verdict,
        },
    )  # fmt: skip


QUESTIONS: Final = (
    Question(
        "deliver", "How long until all machines have this content?",
        (SIZE, MACHINES, UP, DOWN, SEEDS, SEED_UP, BEHIND), deliver,
    ),
    Question(
        "flash-crowd", "What if everybody comes at once to one seed?",
        (
            SIZE, replace(MACHINES, default="1000"), UP, DOWN, SEEDS, SEED_UP, BEHIND,
            Parameter("arrival", "0s", "time over which they come"),
            Parameter("leave", "1", "1 if they leave when they are done", 0, 1),
        ), flash_crowd,
    ),
    Question(
        "site", "One line into a site, and many machines on its network?",
        (
            SIZE, MACHINES, replace(UP, default="1Gbit/s"), replace(DOWN, default="1Gbit/s"),
            SEEDS, replace(SEED_UP, default="1Gbit/s"), replace(BEHIND, default="0%"),
            Parameter("site", "100Mbit/s", "rate of the line", 1.0, 1e12),
        ), site,
    ),
    Question(
        "more-seeds", "What changes when I add seeders?",
        (
            SIZE, MACHINES, UP, DOWN, SEEDS, SEED_UP, BEHIND,
            Parameter("added", "3", "further seeds", 1, 1000),
        ), more_seeds,
    ),
)  # fmt: skip
