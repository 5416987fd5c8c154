"""An experiment: its setting, what was published, how it is run, and the verdict on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any, Final

SEEDS: Final = (1, 2, 3, 4, 5)
"""Seeds of a validation; one network is one sample."""

T_95: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
    *(2.052, 2.048, 2.045, 2.042),
)
"""Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom."""

NORMAL_95: Final = 1.96
"""The same for many."""


@dataclass(frozen=True, slots=True)
class Check:
    """One number of an experiment and the band that it is to lie in."""

    name: str
    low: float
    high: float
    expected: str
    """What was published, and the tolerance, in words."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One setting whose outcome is known from elsewhere."""

    number: int
    title: str
    setting: str
    source: str
    checks: tuple[Check, ...]
    run: Callable[[int, bool], Mapping[str, float]]
    """Takes a seed and whether to be quick (smaller, same bands unless said); returns a value for
    each check, by name."""
    quick: bool = True
    """Whether a quick variant exists that can be judged by the same bands."""
    note: str = ""
    """What we think of a miss, or of the band."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out for one check."""

    experiment: Experiment
    check: Check
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return mean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean; infinite for a single seed."""
        return interval(self.values)

    @property
    def passes(self) -> bool:
        """Whether the interval meets the band."""
        low, high = self.interval
        if math.isinf(low):
            low = high = self.mean
        return low <= self.check.high and high >= self.check.low

    def line(self) -> str:
        """Say it in one line."""
        low, high = self.interval
        verdict = "passes" if self.passes else "MISSES"
        return (
            f"{self.experiment.number:>2} {self.check.name}: expected {self.check.expected}, "
            f"measured {self.mean:.4g} [{low:.4g}, {high:.4g}], "
            f"band [{self.check.low:g}, {self.check.high:g}], {verdict} "
            f"({len(self.values)} seeds; {self.experiment.source})"
        )

    def facts(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        low, high = self.interval
        return {
            "experiment": self.experiment.number,
            "title": self.experiment.title,
            "setting": self.experiment.setting,
            "check": self.check.name,
            "expected": self.check.expected,
            "band": [_finite(self.check.low), _finite(self.check.high)],
            "measured": self.mean,
            "interval": [_finite(low), _finite(high)],
            "values": list(self.values),
            "source": self.experiment.source,
            "passes": self.passes,
            "note": self.experiment.note,
        }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean (Student's t); infinite for a single value."""
    if len(values) < 2:
        return -math.inf, math.inf
    degrees = len(values) - 1
    quantile = T_95[degrees - 1] if degrees <= len(T_95) else NORMAL_95
    half = quantile * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def conduct(
    experiment: Experiment, seeds: Iterable[int] = SEEDS, *, quick: bool = False
) -> list[Finding]:
    """Run an experiment once for each seed."""
    runs = [experiment.run(seed, quick) for seed in seeds]
    return [
        Finding(experiment, check, tuple(float(run[check.name]) for run in runs))
        for check in experiment.checks
    ]


def table(facts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table of findings, given as `Finding.facts`."""
    yield "| # | setting (source) | what | expected | measured (95 % interval) | verdict |"
    yield "|---|---|---|---|---|---|"
    last = None
    for fact in sorted(facts, key=lambda fact: int(fact["experiment"])):
        number = fact["experiment"]
        setting = f"{fact['setting']} ({fact['source']})" if number != last else ""
        last = number
        low, high = fact["interval"]
        around = "" if low is None or high is None else f" ({low:.4g} to {high:.4g})"
        verdict = "passes" if fact["passes"] else "**misses**"
        yield (
            f"| {number} | {setting} | {fact['check']} | {fact['expected']} | "
            f"{fact['measured']:.4g}{around} | {verdict} |"
        )
