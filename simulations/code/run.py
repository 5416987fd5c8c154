"""The code tier: a scenario and a seed in, a result out."""

from __future__ import annotations

from ..scenario import support
from ..scenario.model import Scenario
from ..scenario.result import Result
from ..shelf import Arrays, Shelf
from ..snapshot import Snapshot


def run(scenario: Scenario, seed: int, shelf: Shelf | None = None) -> Result:
    """Run a scenario of the tiers "code" and "code-full".

    Args:
        scenario: What to run.
        seed: Of everything.
        shelf: Where tables are kept for other runs that begin with the same ones.

    Raises:
        NotExpressible: The scenario asks for what the tier does not have.
    """
    support.check(scenario)
    if scenario.tier == "code-full":
        from . import full

        return full.run(scenario, seed)
    if scenario.swarm.pieces:
        from . import swarm

        return swarm.run(scenario, seed)
    from . import dht

    grown = _grown(scenario, seed, shelf) if scenario.dht.tables == "grown" else None
    return dht.run(scenario, seed, grown)


def tables_key(scenario: Scenario) -> str:
    """Return all of a scenario that its grown tables depend on, as text; "" if it has none."""
    if scenario.tier == "code-full" or scenario.swarm.pieces or scenario.dht.tables != "grown":
        return ""
    from . import dht

    return f"snapshot {dht.servers_of(scenario)} {scenario.dht.k}"


def _grown(scenario: Scenario, seed: int, shelf: Shelf | None) -> Snapshot:
    """Return tables as joins leave them."""
    from ..model import warm
    from . import dht

    def make() -> Arrays:
        made = warm.snapshot(dht.servers_of(scenario), seed, scenario.dht.k)
        return {"keys": made.keys, "starts": made.starts, "contacts": made.contacts}

    found = make() if shelf is None else shelf.get(f"{seed} {tables_key(scenario)}", make)
    return Snapshot(seed, found["keys"], found["starts"], found["contacts"])
