"""Results of simulations as events."""

from __future__ import annotations

import math
from pathlib import Path

from ..node.events_simulate import Compared, Measured, Simulated
from ..simulations.paired import Paired
from ..simulations.results.words import reading
from ..simulations.scenario.result import Result
from ..simulations.validation.experiment import interval


def finite(value: float | None) -> float | None:
    """Return the number, or None where JSON has none."""
    return value if value is not None and math.isfinite(value) else None


def simulated(result: Result, folder: Path | None, setting: str | None = None) -> Simulated:
    """Return the event of a run."""
    return Simulated(
        name=result.scenario.name,
        tier=result.scenario.tier,
        seed=result.seed,
        digest=result.digest,
        seconds=result.seconds,
        peak_bytes=result.peak_bytes,
        summary={
            key: finite(value) if isinstance(value, float) else value
            for key, value in result.summary.items()
        },
        text=reading(result),
        folder=None if folder is None else str(folder.absolute()),
        setting=setting,
    )


def measured(setting: str, metric: str, values: list[float]) -> Measured:
    """Return the event of one setting's runs."""
    low, high = interval(values) if values else (math.nan, math.nan)
    mean = sum(values) / len(values) if values else None
    return Measured(setting, metric, len(values), mean, finite(low), finite(high))


def compared(pair: Paired) -> Compared:
    """Return the event of a comparison."""
    return Compared(
        pair.metric, pair.one, pair.other, pair.pairs,
        pair.difference if pair.pairs else None,
        finite(pair.low), finite(pair.high), pair.verdict, pair.text,
    )  # fmt: skip
