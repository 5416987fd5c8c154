"""Attackers: a share of all nodes, or Sybils made to lie nearest to one key; what those cost.

An id is the hash of a public key, so an id near to a place is found only by making keys: one that
is nearer than all N honest ones comes once in N + 1 tries.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..scenario.model import Scenario
from ..scenario.reading import BadScenario
from .ids import stream
from .lookup import DROP, LIE

KINDS: Final = ("sybil", "eclipse", "drop", "lie")
"""sybil, lie: name each other; eclipse: the same, and lie at one key; drop: name nobody."""


def evil_share(scenario: Scenario) -> float:
    """Return which part of the nodes attacks."""
    for attack in scenario.attacks:
        if attack.kind not in KINDS:
            raise BadScenario(
                f"attacks.kind: {attack.kind} is an attack on a swarm; without one (swarm.pieces) "
                f"it is one of {', '.join(KINDS)}"
            )
        if attack.at_key and scenario.tier == "model-hashed":
            raise BadScenario("attacks.at_key: Sybils at a key need stored tables (tier model)")
        if attack.kind != "drop" and scenario.tier == "model-hashed":
            raise BadScenario("attacks.kind: with tables from a hash attackers can only drop")
    share = sum(attack.share for attack in scenario.attacks)
    if not 0.0 <= share < 1.0:
        raise BadScenario(f"attacks.share: all together must be 0 up to less than 1, not {share}")
    return share


def what_evil_does(scenario: Scenario) -> int:
    """Return whether attackers drop or lie."""
    does = {DROP if attack.kind == "drop" else LIE for attack in scenario.attacks}
    if len(does) > 1:
        raise BadScenario("attacks.kind: attackers that drop and such that lie are not mixed")
    return does.pop() if does else DROP


def attacked_key(seed: int) -> np.uint64:
    """Return the key at which Sybils lie."""
    return np.uint64(stream(seed, "attacked key").integers(0, 2**64 - 1, dtype=np.uint64))


def keys_to_make(sybils: int, honest: int) -> int:
    """Return how many keys are made, in the mean, until so many lie nearer than all honest ones."""
    return sybils * (honest + 1)


def attacked_ids(
    scenario: Scenario, ids: NDArray[np.uint64], seed: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the ids with the Sybils at the attacked key among them, and those Sybils."""
    count = sum(attack.at_key for attack in scenario.attacks)
    if not count:
        return ids, np.empty(0, np.uint64)
    key = attacked_key(seed)
    nearest = int(np.min(ids ^ key))
    if nearest <= count:
        raise BadScenario("attacks.at_key: there are not so many ids nearer than all honest ones")
    chance = stream(seed, "sybils")
    far: set[int] = set()
    while len(far) < count:
        far.add(int(chance.integers(0, nearest, dtype=np.uint64)))
    sybils = np.sort(np.array(sorted(far), np.uint64) ^ key)
    return np.sort(np.concatenate([ids, sybils])), sybils


def aimed_at(scenario: Scenario, targets: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the targets; if Sybils lie at a key, all of them are that key."""
    if not any(attack.at_key for attack in scenario.attacks):
        return targets
    return np.full(len(targets), attacked_key(seed), np.uint64)
