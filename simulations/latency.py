"""How long a packet takes between two nodes: one stable round trip for each pair.

A node is a point in delay space (seconds) and has an access line. The round trip of a pair is the
distance of its points plus both access delays, all times one scale. So every pair keeps its
latency for a whole run, near nodes stay near, and it takes four numbers a node. The profiles are
made up to look alike, not measured: do not take a median from them for the internet's.
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
"""Median round trip of the profile king, as of the King data set of p2psim (1024 name servers)."""

EARTH: Final = 0.11
"""Radius of the profile world in seconds of round trip: 90 to 230 ms between continents."""

REGIONS: Final[Mapping[tuple[float, float], float]] = {
    (40.0, -95.0): 0.30,  # North America
    (50.0, 10.0): 0.36,  # Europe
    (33.0, 115.0): 0.20,  # East Asia
    (15.0, 80.0): 0.05,  # South Asia
    (-15.0, -55.0): 0.05,  # South America
    (-30.0, 145.0): 0.04,  # Oceania
}
"""Latitude and longitude of each region's middle: its share of the nodes."""

SPREAD: Final = 11.0
"""Degrees of latitude and longitude around the middle (standard deviation)."""

MEDIAN_PAIRS: Final = 4001
"""Pairs from which the median round trip is taken, to scale by."""


@dataclass(frozen=True, slots=True)
class Geography:
    """Where the nodes are: points and access delays, in seconds of round trip, before the scale."""

    x: array[float]
    y: array[float]
    z: array[float]
    access: array[float]
    scale: float
    jitter: float

    def __len__(self) -> int:
        return len(self.x)

    def round_trip(self, one: int, other: int) -> float:
        """Return the round trip between two nodes in seconds."""
        x = self.x[one] - self.x[other]
        y = self.y[one] - self.y[other]
        z = self.z[one] - self.z[other]
        far = math.sqrt(x * x + y * y + z * z)
        return self.scale * (far + (self.access[one] + self.access[other]))


def geography(latency: Latency, count: int, seed: int) -> Geography:
    """Place so many nodes: the same for the same seed, and each node alike whatever the count."""
    draw = _source(seed, "places")
    points = [_POINTS[latency.profile](draw) for _ in range(count)]
    x, y, z, access = (array("d", [point[axis] for point in points]) for axis in range(4))
    plain = Geography(x, y, z, access, 1.0, latency.jitter)
    median = latency.median_rtt
    if median is None and latency.profile == "king":
        median = KING_MEDIAN
    if median is None or latency.profile == "none" or count < 2:
        return plain
    pairs = _source(seed, "pairs")
    found = statistics.median(
        plain.round_trip(*pairs.sample(range(count), 2)) for _ in range(MEDIAN_PAIRS)
    )
    return Geography(x, y, z, access, median / found, latency.jitter)


def _source(seed: int, name: str) -> random.Random:
    return random.Random(hashlib.sha256(f"{seed}/latency {name}".encode()).digest())


def _nowhere(_: random.Random) -> tuple[float, float, float, float]:
    return 0.0, 0.0, 0.0, 0.0


def _lan(draw: random.Random) -> tuple[float, float, float, float]:
    """One building: a fifth of a millisecond, most of it at the ends."""
    return 0.0, 0.0, 0.0, 0.00005 + 0.0001 * draw.random()


def _king(draw: random.Random) -> tuple[float, float, float, float]:
    """A cloud in space, and access lines of which a few are slow; scaled to its median."""
    x, y, z = draw.gauss(0.0, 1.0), draw.gauss(0.0, 1.0), draw.gauss(0.0, 0.5)
    return x, y, z, draw.lognormvariate(math.log(0.2), 0.8)


def _world(draw: random.Random) -> tuple[float, float, float, float]:
    """Points on a globe, in regions; access lines of 8 ms in the median, some of 30 and more."""
    (lat, lon), *_ = draw.choices(list(REGIONS), list(REGIONS.values()))
    north = math.radians(draw.gauss(lat, SPREAD))
    east = math.radians(draw.gauss(lon, SPREAD))
    flat = EARTH * math.cos(north)
    return (
        *(flat * math.cos(east), flat * math.sin(east), EARTH * math.sin(north)),
        draw.lognormvariate(math.log(0.008), 0.7),
    )


_POINTS: Final = {"none": _nowhere, "lan": _lan, "king": _king, "world": _world}
