"""Run a scenario on its tier, whichever that is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from .scenario.model import Scenario, Tier
from .scenario.result import Result
from .scenario.support import check

TIERS: Final[dict[Tier, str]] = {
    "code": "code.run",
    "code-full": "code.run",
    "model": "model.run",
    "model-hashed": "model.run",
}
"""The module with the function `run` of each tier; imported when needed, as some are heavy."""

SWARM_MODEL: Final = "model.swarm"


def run(scenario: Scenario, seed: int) -> Result:
    """Run a scenario with one seed.

    Raises:
        BadScenario: Its tier cannot express it.
    """
    check(scenario)
    place = TIERS[scenario.tier]
    if scenario.tier == "model" and scenario.swarm.pieces:
        place = SWARM_MODEL
    runner: Callable[[Scenario, int], Result] = import_module(f".{place}", __package__).run
    return runner(scenario, seed)
