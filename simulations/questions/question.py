"""A question: its parameters, how it is run, and the answer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Final, TypeAlias

from ..scenario.model import Scenario
from ..scenario.result import Result, Value
from ..validation.experiment import interval

Parameters: TypeAlias = Mapping[str, float]
Run: TypeAlias = Callable[[Sequence[Scenario], Sequence[int]], list[list[Result]]]
"""Runs each scenario with each seed; a row of results for each scenario. Names must differ."""

UNITS: Final = {
    **{"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12},
    **{"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40},
    **{"kbit": 125.0, "Mbit": 125e3, "Gbit": 125e6},
    **{"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "%": 0.01},
}
"""What may follow a number: bytes, bits (rates, a second), times, parts of a hundred."""


class BadQuestion(ValueError):
    """There is no such question, or a parameter is wrong; one sentence."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that the one who asks may change."""

    name: str
    default: str
    """As one would write it: `100GB`, `30%`."""
    meaning: str
    low: float = 0.0
    high: float = math.inf

    @property
    def span(self) -> str:
        """What it may be, in words; shares in parts of a hundred, as the default."""
        unit = "%" if self.default.endswith("%") else ""
        low, high = (f"{value / UNITS[unit]:g}{unit}" for value in (self.low, self.high))
        return f"at least {low}" if math.isinf(self.high) else f"between {low} and {high}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came out."""

    text: str
    numbers: Mapping[str, Value]


def in_turn(run: Callable[[Scenario, int], Result]) -> Run:
    """Return what runs scenarios one after the other, here."""
    return lambda scenarios, seeds: [[run(one, seed) for seed in seeds] for one in scenarios]


@dataclass(frozen=True, slots=True)
class Question:
    """Something that people want to know."""

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    ask: Callable[[Parameters, Sequence[int], Run], Answer]

    def values(self, given: Mapping[str, str]) -> dict[str, float]:
        """Return all parameters as numbers.

        Raises:
            BadQuestion: One is unknown, no number, or out of range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                raise BadQuestion(
                    f"{self.name} has no parameter {name!r}; it has {', '.join(known)}"
                )
        found = {}
        for name, parameter in known.items():
            value = number(given.get(name, parameter.default))
            if not parameter.low <= value <= parameter.high:
                raise BadQuestion(f"{name} must be {parameter.span}")
            if parameter.default.isdigit() and value != round(value):
                raise BadQuestion(f"{name} must be a whole number")
            found[name] = value
        return found


def number(text: str) -> float:
    """Return the value of `12`, `30%`, `100GB`, `20Mbit/s` or `2h`.

    Raises:
        BadQuestion: It is no such number.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([A-Za-z%]*)(?:/s)?\s*", text)
    if match is None or match[2] not in UNITS:
        raise BadQuestion(f"{text!r} is no number with a unit such as 100GB, 20Mbit/s, 30% or 2h")
    try:
        return float(match[1]) * UNITS[match[2]]
    except ValueError as error:
        raise BadQuestion(f"{text!r} is no number") from error


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float
    runs: int

    def words(self, say: Callable[[float], str]) -> str:
        """Say it."""
        if self.runs < 2:
            return f"{say(self.mean)} (a single run: no interval)"
        low = max(0.0, self.low)
        return f"{say(self.mean)} (95 % interval {say(low)} to {say(self.high)}, {self.runs} runs)"


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of some values and its interval."""
    if not values:
        return Estimate(math.nan, math.nan, math.nan, 0)
    low, high = interval(values)
    return Estimate(mean(values), low, high, len(values))


def summary_numbers(results: Sequence[Result], key: str) -> list[float]:
    """Return a number of the runs' summaries, of those that have it."""
    found = [result.summary.get(key) for result in results]
    return [float(value) for value in found if isinstance(value, (int, float))]
