"""The swarm model: never faster than lines allow, and the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from shoal.simulations.model import swarm
from shoal.simulations.model.swarm_bound import least_seconds
from shoal.simulations.model.swarm_rates import fill_rates
from shoal.simulations.model.swarm_world import Rules, empty_world
from shoal.simulations.scenario.model import Attack, Churn, LinkClass, Nat, Scenario, Swarm
from shoal.simulations.scenario.reading import BadScenario
from shoal.simulations.scenario.result import AVAILABILITY, COMPLETIONS, Result

EQUAL = (LinkClass("equal", 1e6, 1e9),)
UNEVEN = (
    LinkClass("seed", 2e6, 2e6),
    LinkClass("slow", 1e5, 8e5, 0.5),
    LinkClass("fast", 2e6, 5e6, 0.5),
)
BASE = Scenario(
    name="small",
    nodes=31,
    duration=1e6,
    links=EQUAL,
    swarm=Swarm(pieces=40, piece_bytes=1_000_000, leechers=30, neighbours=10),
)


def changed(links: tuple[LinkClass, ...] = EQUAL, **swarm_fields: Any) -> Scenario:
    return replace(BASE, links=links, swarm=replace(BASE.swarm, **swarm_fields))


def last(result: Result) -> float:
    value = result.summary["last_seconds"]
    assert isinstance(value, float)
    return value


def mean_last(scenario: Scenario) -> float:
    return float(np.mean([last(swarm.run(scenario, seed)) for seed in (1, 2, 3)]))


def test_the_least_time_is_that_of_kumar_and_ross() -> None:
    leechers = [(0.0, 1.0, 10.0)] * 9
    assert least_seconds(100.0, 1.0, leechers) == 100.0  # the seed has to send it once
    assert least_seconds(100.0, 1000.0, leechers) == 10.0  # a downlink
    assert least_seconds(100.0, 11.0, [(0.0, 1.0, 1e9)] * 9) == pytest.approx(900 / 20)
    assert least_seconds(100.0, 1000.0, leechers, site=2.0) == pytest.approx(900 / (2 + 9))
    assert least_seconds(100.0, 1000.0, leechers[:1], site=2.0) == 50.0
    # Who comes at 50 has it at 60 at the earliest.
    assert least_seconds(100.0, 1e9, [*leechers, (50.0, 1.0, 10.0)]) == 60.0


@pytest.mark.parametrize(
    "scenario",
    [
        changed(),
        changed(UNEVEN),
        changed(UNEVEN, slots=1, rotate=1.0),
        changed(UNEVEN, arrival=100.0, leave=True),
        changed(UNEVEN, neighbours=0, seeds=3),
        changed(site_bytes=3e5),
        changed(order="random"),
        changed(order="sequential", pieces=67),
        replace(changed(UNEVEN), nat=Nat(0.2, 0.2, 0.1, 0.1)),
        replace(changed(), attacks=(Attack("free-ride", 0.3), Attack("poison", 0.2))),
    ],
)
def test_everybody_gets_everything_and_nobody_faster_than_possible(scenario: Scenario) -> None:
    result = swarm.run(scenario, 1)
    table = result.tables[COMPLETIONS]
    assert result.summary["completed"] == result.summary["wanting"] == len(table["node"])
    over = result.summary["over_bound"]
    assert isinstance(over, float)
    assert 1.0 <= over < 12.0  # in order is by far the worst
    size = scenario.swarm.pieces * scenario.swarm.piece_bytes
    assert (np.asarray(table["down_bytes"]) >= size * (1 - 1e-6)).all()
    least = np.asarray(result.tables[AVAILABILITY]["least"])
    assert least[0] == scenario.swarm.seeds


def test_the_same_seed_gives_the_same_in_plain_python_and_in_another_process() -> None:
    scenario = "replace(BASE, links=UNEVEN, swarm=replace(BASE.swarm, pieces=10, leechers=8))"
    program = (
        "import sys; from dataclasses import replace\n"
        "from shoal.simulations.model import swarm\n"
        "from shoal.simulations.model.compiled import IS_COMPILED\n"
        "from shoal.simulations.scenario.model import *\n"
        f"UNEVEN = {UNEVEN!r}\nBASE = {BASE!r}\n"
        f"print(IS_COMPILED, swarm.run({scenario}, 5).digest)"
    )
    outputs = []
    for variables in ({"NUMBA_DISABLE_JIT": "1", "PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        outputs.append(done.stdout.split())
    (plain, one), (fast, other) = outputs
    assert (plain, fast) == ("False", "True")
    assert one == other
    small = replace(changed(UNEVEN), swarm=replace(BASE.swarm, pieces=10, leechers=8))
    assert swarm.run(small, 5).digest == one
    assert swarm.run(small, 6).digest != one


def from_a_seed_alone(down: float, piece_bytes: int, pieces: int) -> list[float]:
    """Return when eight leechers that pass nothing on have everything, in turn."""
    links = (LinkClass("seed", 1e6, 1e6), LinkClass("mute", 1e-3, down))
    scenario = changed(links, leechers=8, pieces=pieces, piece_bytes=piece_bytes)
    completed = np.asarray(swarm.run(scenario, 1).tables[COMPLETIONS]["completed"], float)
    return [float(time) for time in np.sort(completed)]


def test_a_line_sends_one_piece_after_the_other() -> None:
    times = from_a_seed_alone(1e9, 1_000_000, 1)
    assert times == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8])


def test_a_line_sends_more_at_a_time_to_receivers_that_are_slower() -> None:
    # Each takes a quarter of what the seed can send: four at a time fill its line.
    assert 8.0 <= from_a_seed_alone(2.5e5, 250_000, 4)[-1] < 11.0


def test_rarest_first_beats_random_pieces() -> None:
    fields: dict[str, Any] = {"slots": 1, "rotate": 1.0, "leechers": 100, "neighbours": 40}
    rarest = mean_last(changed(**fields))
    assert mean_last(changed(**fields, order="random")) > 1.1 * rarest


def test_a_site_line_is_crossed_about_once() -> None:
    result = swarm.run(changed(site_bytes=2e5), 1)
    once = 40e6 / 2e5
    assert once <= last(result) < 1.25 * once


def test_free_riders_wait_longer_than_those_who_give() -> None:
    scenario = replace(changed(leechers=60), attacks=(Attack("free-ride", 0.5),))
    table = swarm.run(scenario, 1).tables[COMPLETIONS]
    gave = np.asarray(table["up_bytes"]) > 0
    completed = np.asarray(table["completed"])
    assert completed[~gave].mean() > completed[gave].mean()


def test_poisoners_are_banned_by_all_that_they_served() -> None:
    result = swarm.run(replace(changed(), attacks=(Attack("poison", 0.2),)), 1)
    assert result.summary["wanting"] == 24
    bans, wasted = result.summary["bans"], result.summary["wasted_bytes"]
    assert isinstance(bans, int)
    assert isinstance(wasted, int)
    assert 0 < bans <= 24 * 6
    assert wasted >= bans * 1_000_000


def test_more_seeds_help_while_the_seed_is_the_bottleneck() -> None:
    assert mean_last(changed(UNEVEN, seeds=3)) < mean_last(changed(UNEVEN))


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (changed(pieces=0), "swarm.pieces"),
        (changed(links=()), "links"),
        (changed(leechers=0), "swarm.leechers"),
        (changed(leechers=10_000_000, pieces=1000), "memory"),
        (replace(BASE, churn=Churn("weibull")), "churn"),
        (replace(BASE, attacks=(Attack("eclipse", 0.1),)), "eclipse"),
    ],
)
def test_what_the_model_lacks_is_refused_by_name(scenario: Scenario, says: str) -> None:
    with pytest.raises(BadScenario, match=says):
        swarm.run(scenario, 1)


def test_rates_are_max_min_fair() -> None:
    chance = np.random.default_rng(7)
    for _ in range(20):
        peers, slots = 12, 3
        rules = Rules(
            pieces=8, piece_bytes=1.0, neighbours=5, slots=slots, order=0, leave=False,
            site=float(chance.uniform(1, 20)), horizon=1.0, wanted=1, seeds=2,
        )  # fmt: skip
        world = empty_world(peers, rules, 5, 1, 0)
        world.peer.up[:] = chance.uniform(1, 10, peers)
        world.peer.down[:] = chance.uniform(1, 10, peers)
        flows = chance.choice(peers * slots, 20, replace=False)
        world.flow.target[flows] = chance.integers(0, peers, 20)
        world.flow.listed[:20] = flows
        total = fill_rates(world, rules, 20)
        expected = filled_in_small_steps(world, rules, flows)
        assert world.flow.rate[flows] == pytest.approx(expected, abs=0.02)
        assert total == pytest.approx(sum(expected), abs=0.2)


def filled_in_small_steps(world: Any, rules: Rules, flows: Any) -> list[float]:
    """Progressive filling as it is defined: all rates grow together until something is full."""
    uses = []
    for flow in flows:
        source = flow // rules.slots
        found = [("up", source), ("down", int(world.flow.target[flow]))]
        uses.append([*found, ("site", 0)] if source < rules.seeds else found)
    rates = [0.0] * len(uses)
    growing = set(range(len(uses)))
    room = {
        **{("up", peer): up for peer, up in enumerate(world.peer.up)},
        **{("down", peer): down for peer, down in enumerate(world.peer.down)},
        ("site", 0): rules.site,
    }
    step = 0.002
    while growing:
        for number in sorted(growing):
            rates[number] += step
            for resource in uses[number]:
                room[resource] -= step
        growing = {n for n in growing if all(room[resource] > step for resource in uses[n])}
    return rates
