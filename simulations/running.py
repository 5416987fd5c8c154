"""Run a scenario on its tier, whichever that is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from .scenario.model import Scenario, Tier
from .scenario.result import Result
from .scenario.support import check
from .shelf import Shelf

TIERS: Final[dict[Tier, str]] = {
    "code": "code.run",
    "code-full": "code.run",
    "model": "model.run",
    "model-hashed": "model.run",
}
"""The module with the functions `run` and `tables_key` of each tier; imported when needed."""

SWARM_MODEL: Final = "model.swarm"


def run(scenario: Scenario, seed: int, shelf: Shelf | None = None) -> Result:
    """Run a scenario with one seed.

    Args:
        scenario: What to run.
        seed: Of everything.
        shelf: Where tables are kept for other runs that begin with the same ones.

    Raises:
        BadScenario: Its tier cannot express it.
    """
    check(scenario)
    if scenario.tier == "model" and scenario.swarm.pieces:
        alone: Callable[[Scenario, int], Result] = import_module(f".{SWARM_MODEL}", __package__).run
        return alone(scenario, seed)
    runner: Callable[[Scenario, int, Shelf | None], Result]
    runner = import_module(f".{TIERS[scenario.tier]}", __package__).run
    return runner(scenario, seed, shelf)


def tables_key(scenario: Scenario) -> str:
    """Return as text what of a scenario its tables depend on besides the seed; "" = nothing."""
    if scenario.swarm.pieces:
        return ""
    key: Callable[[Scenario], str]
    key = import_module(f".{TIERS[scenario.tier]}", __package__).tables_key
    return key(scenario)
