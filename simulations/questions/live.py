"""Tonight's transfer: a forecast from what a running node measures now."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...node.events import Progress
from ..results.words import amount, seconds
from ..scenario.model import LinkClass, Scenario, Swarm
from ..scenario.result import Result
from .question import Answer, BadQuestion, Run, estimate, summary_numbers
from .swarms import HORIZON, content

SPREAD = 0.3
"""Sigma of the log-normal by which a source's rate of tonight may differ from that of now."""


def forecast(fetch: Progress, seeds: Sequence[int], run: Run) -> Answer:
    """Forecast one fetch: each source is a seed with the rate that it gives now, more or less.

    Raises:
        BadQuestion: Too little is known yet.
    """
    if fetch.total_bytes is None:
        raise BadQuestion(f"{fetch.cid}: its size is not known yet; ask again when bytes flow")
    left = fetch.total_bytes - fetch.done_bytes
    if left <= 0:
        raise BadQuestion(f"{fetch.cid} is complete")
    if not fetch.rate:
        why = f": {fetch.waiting}" if fetch.waiting else ""
        raise BadQuestion(f"{fetch.cid}: nothing flows{why}; ask again when bytes flow")
    given = [float(source.bytes) for source in fetch.sources if source.bytes > 0] or [1.0]
    pieces, piece_bytes = content(left)
    results: list[Result] = []
    for seed in seeds:
        chance = np.random.default_rng([seed, 0x70416])
        factors = np.exp(SPREAD * chance.standard_normal(len(given)))
        rates = [
            fetch.rate * part / sum(given) * float(factor)
            for part, factor in zip(given, factors, strict=True)
        ]
        scenario = Scenario(
            name="tonight",
            nodes=2,
            duration=HORIZON,
            # The model has one class for all seeds: together they are one line.
            links=(
                LinkClass("seed", sum(rates), sum(rates)),
                LinkClass("us", 1.0, 10 * sum(rates)),
            ),
            swarm=Swarm(pieces=pieces, piece_bytes=piece_bytes, leechers=1),
        )
        results += run([scenario], [seed])[0]
    lasts = summary_numbers(results, "last_seconds")
    took = estimate(lasts)
    sources = f"{len(given)} {'source' if len(given) == 1 else 'sources'}"
    text = (
        f"{fetch.path or fetch.cid}: {amount(left)} are missing and come at "
        f"{amount(fetch.rate)}/s from {sources}: done in {took.words(seconds)}, nine times in ten "
        f"within {seconds(float(np.percentile(lasts, 90)))}, if the sources stay and each keeps "
        f"its rate give or take {100 * SPREAD:.0f} %."
    )
    numbers = {"seconds": took.mean, "low": took.low, "high": took.high, "left_bytes": left}
    return Answer(
        text,
        {k: v if math.isfinite(v) else None for k, v in numbers.items()},
    )
