"""Experiment 12: the shipped code and the model, the same lookups over the same grown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..agree import HOPS_BAND, LATENCY_BAND, RPCS_BAND, SUCCESS_BAND, agree
from .experiment import Check, Experiment

SIZES: Final = (1000, 5000)
QUICK_SIZES: Final = (150, 300)
LOOKUPS: Final = 1000
QUICK_LOOKUPS: Final = 150
DEAD: Final = 0.1
"""Part of the nodes that never answer in the second run of the smaller network."""

BANDS: Final[Mapping[str, float]] = {
    "hops": HOPS_BAND,
    "rpcs": RPCS_BAND,
    "latency 50 %": LATENCY_BAND,
    "latency 90 %": LATENCY_BAND,
    "latency 99 %": LATENCY_BAND,
}
SETTINGS: Final = ("small", "large", "small, a tenth dead")


def tiers(seed: int, quick: bool) -> Mapping[str, float]:
    """Return the model's values over those of the code, and the difference in success."""
    small, large = QUICK_SIZES if quick else SIZES
    lookups = QUICK_LOOKUPS if quick else LOOKUPS
    runs = (
        agree(small, lookups, seed),
        agree(large, lookups, seed),
        agree(small, lookups, seed, dead=DEAD),
    )
    found: dict[str, float] = {}
    for setting, agreement in zip(SETTINGS, runs, strict=True):
        for row in agreement.rows:
            if row.name in BANDS:
                found[f"{row.name}, {setting}: model over code"] = row.model / row.code
            else:
                found[f"{row.name}, {setting}: model less code"] = row.model - row.code
    return found


def _checks() -> tuple[Check, ...]:
    checks: list[Check] = []
    for setting in SETTINGS:
        for name, band in BANDS.items():
            checks.append(
                Check(
                    f"{name}, {setting}: model over code",
                    1.0 - band,
                    1.0 + band,
                    f"1 within {band:.0%}",
                )
            )
        checks.append(
            Check(
                f"success, {setting}: model less code",
                -SUCCESS_BAND,
                SUCCESS_BAND,
                "0 within 1 point",
            )
        )
    return tuple(checks)


EXPERIMENTS: Final = (
    Experiment(
        12,
        "Agreement of the tiers",
        "N = 1,000 and 5,000, 1,000 lookups over grown tables, by the shipped rules and the model",
        "our own rule",
        _checks(),
        tiers,
    ),
)
