"""The swarm as a model: one content, its seeds and leechers, and the lines between them.

Pieces are bits, transfers are fluid flows with max-min fair rates, and the rules for whom to serve
and which piece comes next are those of the shipped node, put into compiled loops. Left out: round
trips, requests, hashing and disks; so it tells what lines and rules allow, not what a slow disk
makes of it.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

from ..scenario.model import LinkClass, Scenario
from ..scenario.reading import BadScenario
from ..scenario.result import AVAILABILITY, COMPLETIONS, EDGES, UTILISATION, Column, Result, Value
from .swarm_bound import least_seconds
from .swarm_edges import BLOCKED, INDEPENDENT, OPEN, RESTRICTED, SYMMETRIC
from .swarm_loop import simulate
from .swarm_world import (
    BANS,
    FREE_RIDER,
    HEDGES,
    LEECHER,
    PICTURE_PEERS,
    POISONER,
    ROWS,
    SAMPLES,
    SEED,
    STEPS,
    Floats,
    Rules,
    World,
    empty_world,
)

MAX_BYTES: Final = 8 << 30
"""Of the arrays; more is refused before it is allocated."""

MAX_PIECES: Final = 1 << 16

MAX_SLOTS: Final = 64

MAX_NEIGHBOURS: Final = 4096
"""Also of a swarm where each knows all others."""

SEED_CLASS: Final = "seed"
"""A link class of this name is that of the seeds, and of nobody else."""

ORDERS: Final = ("rarest", "random", "sequential")

LEAST_SLOTS: Final = 2
"""So many also on the slowest line (as swarm/slots.py)."""

SLOT_SECONDS: Final = 1.0
"""There is a slot for each piece that the line carries in that time (as swarm/slots.py)."""

CROWD_FACTOR: Final = 1.5
"""A peer takes so many times as many neighbours as it looks for."""


def run(scenario: Scenario, seed: int) -> Result:
    """Run the swarm of a scenario.

    Raises:
        BadScenario: The model cannot express the scenario, or it would not fit into memory.
    """
    check(scenario)
    swarm = scenario.swarm
    chance = np.random.default_rng([seed, 0x5A42])
    world, rules = _begin(scenario, chance)
    wanting = np.flatnonzero((world.peer.kind != SEED) & (world.peer.kind != POISONER))
    bound = least_seconds(
        float(swarm.pieces) * swarm.piece_bytes,
        float(world.peer.up[world.peer.kind == SEED].sum()),
        [
            (float(world.peer.arrive[p]), float(world.peer.up[p]), float(world.peer.down[p]))
            for p in wanting
        ],
        swarm.site_bytes,
    )
    interval = max(bound, 1e-3) / (SAMPLES / 4)
    ended = simulate(world, rules, interval)
    return _result(scenario, seed, world, bound, ended)


def check(scenario: Scenario) -> None:
    """Refuse by name what the model cannot express.

    Raises:
        BadScenario: One sentence that names the field.
    """
    swarm = scenario.swarm
    kinds = {attack.kind for attack in scenario.attacks} - {"free-ride", "poison"}
    shares = sum(attack.share for attack in scenario.attacks)
    neighbours = swarm.neighbours or swarm.seeds + swarm.leechers - 1
    refused = (
        (swarm.pieces < 1, "swarm.pieces must be at least 1"),
        (swarm.pieces > MAX_PIECES, f"swarm.pieces: the model takes at most {MAX_PIECES}; use "
         "larger piece_bytes"),
        (swarm.piece_bytes < 1, "swarm.piece_bytes must be at least 1"),
        (swarm.seeds < 1, "swarm.seeds must be at least 1"),
        (swarm.leechers < 1, "swarm.leechers must be at least 1"),
        (not scenario.links, "links: the swarm model needs at least one class of access lines"),
        (any(link.up <= 0 or link.down <= 0 for link in scenario.links),
         "links: up and down must be more than 0"),
        (not 1 <= swarm.slots <= MAX_SLOTS, f"swarm.slots must be 1 to {MAX_SLOTS}"),
        (swarm.rotate <= 0, "swarm.rotate must be more than 0"),
        (not 1 <= neighbours <= MAX_NEIGHBOURS,
         f"swarm.neighbours: the model takes at most {MAX_NEIGHBOURS}"),
        (swarm.site_bytes is not None and swarm.site_bytes <= 0, "swarm.site_bytes must be more "
         "than 0"),
        (scenario.churn.law != "none", "churn: the swarm model has none but swarm.leave"),
        (bool(scenario.faults), "faults: the swarm model has none; use the tier code"),
        (bool(kinds), f"attacks: the swarm model has no {', '.join(sorted(kinds))}"),
        (not 0 <= shares < 1, "attacks: their shares must add up to less than 1"),
    )  # fmt: skip
    for wrong, sentence in refused:
        if wrong:
            raise BadScenario(sentence)
    needed = (swarm.seeds + swarm.leechers) * (
        2 * swarm.pieces + 40 * CROWD_FACTOR * neighbours + 80 * swarm.slots
    )
    if needed > MAX_BYTES:
        raise BadScenario(
            f"the swarm would need {needed / 1e9:.0f} GB of memory: take fewer, larger pieces "
            "(swarm.pieces, swarm.piece_bytes) or fewer peers"
        )


def _begin(scenario: Scenario, chance: np.random.Generator) -> tuple[World, Rules]:
    swarm = scenario.swarm
    peers = swarm.seeds + swarm.leechers
    shares = dict.fromkeys(("free-ride", "poison"), 0.0)
    for attack in scenario.attacks:
        shares[attack.kind] += attack.share
    liars = round(shares["poison"] * swarm.leechers)
    riders = round(shares["free-ride"] * swarm.leechers)
    neighbours = min(swarm.neighbours or peers - 1, peers - 1)
    rules = Rules(
        pieces=swarm.pieces,
        piece_bytes=float(swarm.piece_bytes),
        neighbours=neighbours,
        slots=swarm.slots,
        order=ORDERS.index(swarm.order),
        leave=bool(swarm.leave),
        site=float(swarm.site_bytes or 0.0),
        horizon=float(scenario.duration),
        wanted=swarm.leechers - liars,
        seeds=swarm.seeds,
    )
    most = min(peers - 1, int(np.ceil(CROWD_FACTOR * neighbours)) + 1)
    world = empty_world(peers, rules, most, int(chance.integers(1 << 32)), liars)
    world.peer.kind[swarm.seeds :] = LEECHER
    world.peer.kind[peers - liars :] = POISONER
    chosen = chance.permutation(np.arange(swarm.seeds, peers - liars))[:riders]
    world.peer.kind[chosen] = FREE_RIDER
    classes = link_classes(scenario.links, swarm.seeds, swarm.leechers, chance)
    world.peer.link[:] = classes
    world.peer.up[:] = [scenario.links[number].up for number in classes]
    world.peer.down[:] = [scenario.links[number].down for number in classes]
    kept_busy = np.ceil(world.peer.up * SLOT_SECONDS / rules.piece_bytes)
    world.peer.most[:] = np.clip(kept_busy, min(LEAST_SLOTS, swarm.slots), swarm.slots)
    turn = world.peer.up * float(swarm.rotate) / world.peer.most
    world.peer.share[:] = np.maximum(turn, rules.piece_bytes)
    world.peer.up[world.peer.kind == FREE_RIDER] = 0.0
    world.peer.nat[:] = _nats(scenario, peers, swarm.seeds, chance)
    arrivals = swarm.arrival * np.arange(swarm.leechers) / swarm.leechers
    world.peer.arrive[swarm.seeds :] = chance.permutation(arrivals)
    world.peer.arrive[world.peer.kind == POISONER] = 0.0
    # Among those that come at the same moment the order is random: who comes first knows more.
    shuffled = chance.permutation(peers)
    world.peer.order[:] = shuffled[np.argsort(world.peer.arrive[shuffled], kind="stable")]
    has_all = (world.peer.kind == SEED) | (world.peer.kind == POISONER)
    full = np.zeros(world.have8.shape[1], np.uint8)
    full[: swarm.pieces // 8] = 255
    if swarm.pieces % 8:
        full[swarm.pieces // 8] = (1 << swarm.pieces % 8) - 1
    world.have8[has_all] = full
    world.peer.held[has_all] = swarm.pieces
    world.copies[:] = swarm.seeds
    return world, rules


def link_classes(
    links: tuple[LinkClass, ...], seeds: int, leechers: int, chance: np.random.Generator
) -> list[int]:
    """Return the class of each peer: shares are met as exactly as whole peers allow."""
    of_seeds = [number for number, link in enumerate(links) if link.name == SEED_CLASS]
    others = [number for number in range(len(links)) if number not in of_seeds] or of_seeds
    dealt = _deal([links[number].share for number in others], leechers, chance)
    leeching = [others[at] for at in dealt]
    if of_seeds:
        return [of_seeds[0]] * seeds + leeching
    seeding = _deal([links[number].share for number in others], seeds, chance)
    return [others[at] for at in seeding] + leeching


def _deal(shares: list[float], count: int, chance: np.random.Generator) -> list[int]:
    edges = np.round(np.cumsum(shares) / sum(shares) * count).astype(int)
    classes = np.searchsorted(edges, np.arange(count), side="right")
    return [int(number) for number in chance.permutation(classes)]


def _nats(scenario: Scenario, peers: int, seeds: int, chance: np.random.Generator) -> list[int]:
    nat = scenario.nat
    behind = [nat.endpoint_independent, nat.port_restricted, nat.symmetric, nat.blocked]
    reached = 1.0 - sum(behind)
    if reached < -1e-9:
        raise BadScenario("nat: the shares must add up to at most 1")
    kinds = (OPEN, INDEPENDENT, RESTRICTED, SYMMETRIC, BLOCKED)
    dealt = _deal([max(0.0, reached), *behind], peers - seeds, chance)
    return [OPEN] * seeds + [kinds[at] for at in dealt]


def _result(
    scenario: Scenario,
    seed: int,
    world: World,
    bound: float,
    ended: float,
) -> Result:
    wanting = np.flatnonzero((world.peer.kind != SEED) & (world.peer.kind != POISONER))
    completed = np.where(world.peer.done < 0, np.nan, world.peer.done)[wanting]
    _prove(scenario, world, completed, bound, ended)
    rows = world.rows[: world.numbers[ROWS]]
    spans = np.diff(rows[:, 0])
    tables: dict[str, dict[str, Column]] = {
        COMPLETIONS: {
            "node": wanting,
            "link": [scenario.links[number].name for number in world.peer.link[wanting]],
            "arrived": world.peer.arrive[wanting],
            "completed": completed,
            "up_bytes": world.peer.up_bytes[wanting],
            "down_bytes": world.peer.down_bytes[wanting],
        },
        AVAILABILITY: dict(zip(("time", "least", "mean", "done"), rows.T[:4], strict=True)),
        UTILISATION: dict(zip(("time", "used", "possible"), rows.T[[0, 4, 5], 1:], strict=True)),
    }
    if world.peer.up.shape[0] <= PICTURE_PEERS:
        known = world.picture >= 0
        sources = np.repeat(np.arange(world.peer.up.shape[0]), known.sum(axis=1))
        targets = world.picture[known]
        once = sources < targets
        tables[EDGES] = {"source": sources[once], "target": targets[once]}
    took = np.sort((completed - world.peer.arrive[wanting])[np.isfinite(completed)])
    sendable = float((rows[1:, 5] * spans).sum())
    last = float(completed.max()) if len(took) == len(wanting) else None
    summary: dict[str, Value] = {
        "peers": int(world.peer.up.shape[0]),
        "wanting": len(wanting),
        "completed": len(took),
        "ended_seconds": ended,
        "last_seconds": last,
        "bound_seconds": bound,
        "over_bound": None if last is None else last / bound,
        **{f"p{part}_seconds": _percentile(took, part) for part in (10, 50, 90, 99)},
        "upload_use": float(world.peer.up_bytes.sum()) / sendable if sendable else None,
        "wasted_bytes": int(world.peer.wasted.sum()),
        "hedges": int(world.numbers[HEDGES]),
        "bans": int(world.numbers[BANS]),
        "steps": int(world.numbers[STEPS]),
    }
    digest = hashlib.sha256()
    for array in (
        world.peer.done, world.peer.up_bytes, world.peer.down_bytes, world.peer.wasted, rows,
        world.numbers, world.have, world.sent,
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(array).tobytes())
    return Result(scenario, seed, digest.hexdigest(), summary, tables)


def _percentile(values: Floats, part: float) -> float | None:
    return float(np.percentile(values, part)) if len(values) else None


def _prove(scenario: Scenario, world: World, completed: Floats, bound: float, ended: float) -> None:
    """Hold what no rule may break.

    Raises:
        ArithmeticError: The model is wrong.
    """
    swarm = scenario.swarm
    size = swarm.pieces * swarm.piece_bytes
    slack = 1 + 1e-6
    sent, received = float(world.peer.up_bytes.sum()), float(world.peer.down_bytes.sum())
    peer = world.peer
    finished = peer.done >= 0
    broken = (
        (abs(sent - received) > 1e-6 * max(sent, 1.0), "bytes sent are not bytes received"),
        (bool((peer.up_bytes > peer.up * ended * slack + 1).any()), "an uplink carried too much"),
        (bool((peer.down_bytes > peer.down * ended * slack + 1).any()),
         "a downlink carried too much"),
        (bool((peer.down_bytes[finished] * slack < size).any()), "a peer is done without bytes"),
        (bool((peer.held[finished] != swarm.pieces).any()), "a peer is done without pieces"),
        (bool(np.isfinite(completed).all()) and float(completed.max()) * slack < bound,
         f"done in {float(completed.max()):.3f} s, faster than the least possible {bound:.3f} s"),
    )  # fmt: skip
    for wrong, sentence in broken:
        if wrong:
            raise ArithmeticError(f"the swarm model is wrong: {sentence}")
