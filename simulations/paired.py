"""Two settings compared on common random numbers: run by run, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .validation.experiment import interval

ENOUGH_PAIRS = 3
"""With fewer runs of each, no interval is worth telling."""

SAME = 0.01
"""Settings that differ by less than this part, for certain, are called the same."""


@dataclass(frozen=True, slots=True)
class Paired:
    """How the second setting differs from the first, over the seeds that both were run with."""

    metric: str
    one: str
    other: str
    pairs: int
    base: float
    """Mean of the first."""
    difference: float
    """Mean of second minus first."""
    low: float
    high: float
    """95 % interval of the difference."""

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, `same` or `unknown`."""
        if self.pairs < ENOUGH_PAIRS:
            return "unknown"
        if max(abs(self.low), abs(self.high)) <= SAME * abs(self.base):
            return "same"
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "unknown"

    @property
    def text(self) -> str:
        """Say it in one sentence."""
        what = f"{self.metric}: {self.other} against {self.one}"
        if self.pairs < ENOUGH_PAIRS:
            pairs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
            return f"{what}: not enough runs to say ({pairs}; {ENOUGH_PAIRS} are needed)"
        span = f"95 % interval {self.low:+.4g} to {self.high:+.4g}, {self.pairs} pairs"
        match self.verdict:
            case "same":
                return f"{what}: the same within {100 * SAME:g} % ({span})"
            case "unknown":
                return (
                    f"{what}: not enough runs to say (between {self.low:+.4g} and "
                    f"{self.high:+.4g}, {self.pairs} pairs)"
                )
            case verdict:
                part = f" ({100 * self.difference / self.base:+.1f} %)" if self.base else ""
                return f"{what}: {verdict} by {abs(self.difference):.4g}{part}, {span}"


def paired(
    metric: str, one: str, ones: Mapping[int, float], other: str, others: Mapping[int, float]
) -> Paired:
    """Compare two settings by a number of each run, given by seed."""
    common = sorted(ones.keys() & others.keys())
    differences = [others[seed] - ones[seed] for seed in common]
    if not common:
        return Paired(metric, one, other, 0, 0.0, 0.0, float("-inf"), float("inf"))
    low, high = interval(differences)
    base = sum(ones[seed] for seed in common) / len(common)
    mean = sum(differences) / len(common)
    return Paired(metric, one, other, len(common), base, mean, low, high)
