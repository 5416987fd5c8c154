"""Experiment 9: equal uplinks, one server, parts that are passed on.

Mundinger, Weber and Weiss (2008): with N users and one server, all with the same uplink and no
other limit, M parts take at least M + floor(log2 N) rounds of one part each. So a peer here serves
one other at a time and decides anew after each piece.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from ..model import swarm
from ..scenario.model import LinkClass, Scenario, Swarm
from .experiment import Check, Experiment

UPLINK: Final = 1e6
"""Bytes a second, and bytes of a piece: a round takes one second."""

DOWNLINK: Final = 1e12
"""No limit."""

HORIZON: Final = 1e6


def rounds(pieces: int, leechers: int, order: str, seed: int) -> tuple[float, float]:
    """Return the rounds it took over M + floor(log2 N), and over the least time of Kumar & Ross."""
    scenario = Scenario(
        name="equal uplinks",
        nodes=leechers + 1,
        duration=HORIZON,
        links=(LinkClass("equal", UPLINK, DOWNLINK),),
        swarm=Swarm(
            pieces=pieces,
            piece_bytes=int(UPLINK),
            leechers=leechers,
            slots=1,
            rotate=1.0,
            order="rarest" if order == "rarest" else "random",
        ),
    )
    last = swarm.run(scenario, seed).summary["last_seconds"]
    if not isinstance(last, float):
        return math.inf, math.inf
    return last / (pieces + math.floor(math.log2(leechers))), last / pieces


def equal_uplinks(seed: int, quick: bool) -> Mapping[str, float]:
    """Run the setting, and rarest against random pieces in a small one."""
    ratio, bound = rounds(*((100, 250) if quick else (400, 1000)), "rarest", seed)
    rarest, small = rounds(64, 127, "rarest", seed)
    random, _ = rounds(64, 127, "random", seed)
    return {
        "rounds over M + floor(log2 N)": ratio,
        "time over the Kumar-Ross bound, least": min(bound, small),
        "random over rarest first, M=64": random / rarest,
    }


EXPERIMENTS: Final = (
    Experiment(
        9,
        "A swarm of equal uplinks",
        "model, M=400 pieces, N=1000 leechers, 40 neighbours, one seed",
        "Mundinger, Weber, Weiss (2008); Kumar and Ross (2006)",
        (
            Check("rounds over M + floor(log2 N)", 1.0, 1.10, "1.00 to 1.10"),
            Check("time over the Kumar-Ross bound, least", 1.0, 1.25, "never below 1"),
            Check("random over rarest first, M=64", 1.15, math.inf, "at least 1.15"),
        ),
        equal_uplinks,
        note="Quick: M=100, N=250.",
    ),
)
