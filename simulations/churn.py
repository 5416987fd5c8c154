"""How long nodes stay and how long they are away, and how old those are that are there already.

A node met at a random time is likelier to be in a long session than in a short one. So the
sessions under way at the start are drawn by length, and a random part of each is over: without
this a simulated network starts younger than it will ever be again.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from .scenario.model import Churn


@dataclass(frozen=True, slots=True)
class Sessions:
    """Session lengths of one law."""

    churn: Churn

    @property
    def mean(self) -> float:
        """Mean length of a session in seconds; infinite without churn."""
        churn = self.churn
        match churn.law:
            case "none":
                return math.inf
            case "exponential":
                return churn.median / math.log(2.0)
            case "weibull":
                return self._scale * math.gamma(1.0 + 1.0 / churn.shape)
            case "lognormal":
                return churn.median * math.exp(churn.shape * churn.shape / 2.0)

    def new(self, draw: random.Random) -> float:
        """Return the length of a session that begins."""
        churn = self.churn
        match churn.law:
            case "none":
                return math.inf
            case "exponential":
                return draw.expovariate(1.0 / self.mean)
            case "weibull":
                return draw.weibullvariate(self._scale, churn.shape)
            case "lognormal":
                return draw.lognormvariate(math.log(churn.median), churn.shape)

    def left(self, draw: random.Random) -> float:
        """Return what is left of a session that is under way at a random time."""
        churn = self.churn
        match churn.law:
            case "none":
                return math.inf
            case "exponential":
                return draw.expovariate(1.0 / self.mean)  # it has no memory
            case "weibull":
                # (length / scale)^shape is Gamma(1 + 1/shape) when drawn by length.
                by_length = draw.gammavariate(1.0 + 1.0 / churn.shape, 1.0)
                return draw.random() * self._scale * math.pow(by_length, 1.0 / churn.shape)
            case "lognormal":
                middle = math.log(churn.median) + churn.shape * churn.shape
                return draw.random() * draw.lognormvariate(middle, churn.shape)

    def away(self, draw: random.Random) -> float:
        """Return for how long a node that left, or is away at the start, stays away."""
        return draw.expovariate(1.0 / self.churn.offline)

    def absent(self, online: int) -> int:
        """Return how many are away while so many are there, in the mean."""
        return 0 if self.churn.law == "none" else round(online * self.churn.offline / self.mean)

    @property
    def _scale(self) -> float:
        return self.churn.median / math.pow(math.log(2.0), 1.0 / self.churn.shape)
