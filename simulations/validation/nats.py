"""Experiment 10: which pairs behind NATs reach each other, and at which try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..model.ids import stream
from ..model.nat import KINDS, Kind, Path, path
from .experiment import Check, Experiment

OPEN: Final = frozenset({"none", "mapped", "endpoint_independent"})
PUNCHABLE: Final = frozenset({"port_restricted"})

OVERALL: Final = 0.70
"""Part of the pairs that succeed in the campaign."""

TRIES: Final = 3
"""Attempts of DCUtR."""

LOSS: Final = 0.02
"""Part of the attempts in which the two dials miss each other by chance: our assumption."""


def in_theory(getter: Kind, sharer: Kind) -> Path:
    """Return what the tests in network namespaces hold real nodes to.

    Whoever accepts strangers is dialled; else a hole is punched if everybody sees each of the two
    at one port; else a relay is needed.
    """
    kinds = {getter, sharer}
    if "blocked" in kinds:  # it gets out to public services, and that is all
        return "direct" if kinds & {"none", "mapped"} else "relayed"
    if kinds & OPEN:
        return "direct"
    return "punched" if getter in PUNCHABLE and sharer in PUNCHABLE else "relayed"


def nat_pairs(seed: int, quick: bool) -> Mapping[str, float]:
    """Compare the matrix, then fit a mix to the overall success and count attempts."""
    differ = sum(path(a, b) != in_theory(a, b) for a in KINDS for b in KINDS)
    symmetric = 1.0 - OVERALL**0.5
    chance = stream(seed, "nat pairs")
    count = 2000 if quick else 20_000
    first = succeeded = 0
    for one, other in chance.random((count, 2)) < symmetric:
        kinds: list[Kind] = ["symmetric" if bad else "port_restricted" for bad in (one, other)]
        if path(kinds[0], kinds[1]) != "punched":
            continue
        for attempt in range(TRIES):
            if chance.random() >= LOSS:
                succeeded += 1
                first += attempt == 0
                break
    return {
        "cells that differ": float(differ),
        "overall success of the fitted mix": succeeded / count,
        "successes at the first attempt": first / succeeded,
    }


EXPERIMENTS: Final = (
    Experiment(
        10,
        "Pairs behind NATs",
        "boxes that map and filter, all 36 pairs of kinds; then symmetric NATs in a share that "
        "makes 70 % of the pairs succeed, three attempts",
        "DCUtR campaign (2022 to 2025)",
        (
            Check("cells that differ", 0.0, 0.0, "as in network namespaces"),
            Check("overall success of the fitted mix", 0.629, 0.771, "0.70 +- 0.071 (fitted)"),
            Check("successes at the first attempt", 0.95, 0.99, "0.97 +- 0.02"),
        ),
        nat_pairs,
        note="The overall success is fitted, and the chance that two dials miss each other (2 %) "
        "is assumed: the last line says no more than that structural failures leave few others.",
    ),
)
