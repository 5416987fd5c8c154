"""`shoal simulate agree`: the tiers on the same tables."""

from __future__ import annotations

from ..node.events_simulate import Checked
from ..simulations.agree import agree
from .output import Output
from .simulate_told import finite


def agreement(output: Output, nodes: int, seed: int) -> int:
    """Tell each number of both tiers; return how many differ."""
    found = agree(nodes, seed=seed)
    for row in found.rows:
        output.event(
            Checked(
                row.name, finite(row.model), None, None, finite(row.code), finite(row.code),
                row.agrees, row.line(),
            )
        )  # fmt: skip
    return sum(not row.agrees for row in found.rows)
