"""How long a packet takes between two nodes: one stable round trip for each pair.

A node is a point on a plane (in seconds) and has an access line. The round trip of a pair is the
distance of its points plus both access delays plus a constant, all times one scale. So every pair
keeps its latency for a whole run, near nodes stay near, and it takes three numbers a node. The
profiles are made up to look alike, not measured: do not take the world's median for the internet's.
"""

from __future__ import annotations

import hashlib
import math
import random
import statistics
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from .scenario.model import Latency

KING_MEDIAN: Final = 0.156
"""Median round trip of the King data (p2psim, 1024 name servers)."""

PROFILES: Final[Mapping[str, tuple[float, float, float, float]]] = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "lan": (0.0002, 0.0002, 0.00005, 0.0001),
    "world": (0.22, 0.10, 0.015, 0.004),
    "king": (0.22, 0.10, 0.02, 0.004),
}
"""Width and height of the plane, mean access delay and the constant, in seconds of round trip.
world: half the equator in fibre takes 0.2 s there and back. king: scaled to the median above."""

MEDIAN_PAIRS: Final = 4001
"""Pairs from which the median round trip is taken, to scale by."""


@dataclass(frozen=True, slots=True)
class Geography:
    """Where the nodes are: points and access delays, in seconds of round trip."""

    x: array[float]
    y: array[float]
    access: array[float]
    constant: float

    def __len__(self) -> int:
        return len(self.x)

    def round_trip(self, one: int, other: int) -> float:
        """Return the round trip between two nodes in seconds."""
        x = self.x[one] - self.x[other]
        y = self.y[one] - self.y[other]
        return math.sqrt(x * x + y * y) + (self.access[one] + self.access[other]) + self.constant


def geography(latency: Latency, count: int, seed: int) -> Geography:
    """Place so many nodes: the same for the same seed."""
    width, height, access, constant = PROFILES[latency.profile]
    draw = _source(seed, "places")
    points = [
        (width * draw.random(), height * draw.random(), -access * math.log(1.0 - draw.random()))
        for _ in range(count)
    ]
    median = latency.median_rtt
    if median is None and latency.profile == "king":
        median = KING_MEDIAN
    plain = _scaled(points, constant, 1.0)
    if median is None or count < 2:
        return plain
    if latency.profile == "none":
        return _scaled(points, median, 1.0)
    pairs = _source(seed, "pairs")
    found = statistics.median(
        plain.round_trip(*pairs.sample(range(count), 2)) for _ in range(MEDIAN_PAIRS)
    )
    return _scaled(points, constant, median / found)


def _scaled(points: list[tuple[float, float, float]], constant: float, scale: float) -> Geography:
    x, y, access = (array("d", [scale * point[axis] for point in points]) for axis in range(3))
    return Geography(x, y, access, scale * constant)


def _source(seed: int, name: str) -> random.Random:
    return random.Random(hashlib.sha256(f"{seed}/latency {name}".encode()).digest())
