"""The code tier: a scenario and a seed in, a result out."""

from __future__ import annotations

from ..scenario import support
from ..scenario.model import Scenario
from ..scenario.result import Result
from ..snapshot import Snapshot


def run(scenario: Scenario, seed: int, snapshot: Snapshot | None = None) -> Result:
    """Run a scenario of the tiers "code" and "code-full".

    Args:
        scenario: What to run.
        seed: Of everything.
        snapshot: Tables of the servers there at the start, so that many runs need not grow them;
            those of this very seed and number of servers.

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

    if snapshot is None and scenario.dht.tables == "grown":
        from ..model import warm

        snapshot = warm.snapshot(dht.servers_of(scenario), seed, scenario.dht.k)
    return dht.run(scenario, seed, snapshot)
