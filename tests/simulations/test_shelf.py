"""Tables that several runs begin with are made once, and nobody can tell from the results."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shoal.simulations.model import run as model_run
from shoal.simulations.model import warm
from shoal.simulations.running import run, tables_key
from shoal.simulations.scenario.model import Churn, Dht, Scenario, Swarm, Workload
from shoal.simulations.scenario.result import Result
from shoal.simulations.shelf import PARTIAL, Shelf
from shoal.simulations.sweep import TABLES, Task, settings, shared_tables, sweep, tasks

GROWN = Scenario(name="grown", nodes=200, workload=Workload(lookups=20))
CHURNING = replace(GROWN, duration=600.0, churn=Churn("exponential"), workload=Workload(contents=5))
MESSAGES = replace(GROWN, tier="code", duration=20.0, nodes=60, workload=Workload(lookups=5))


def quiet(task: Task, result: Result) -> None:
    pass


@pytest.mark.parametrize(
    ("scenario", "changes", "place"),
    [
        (GROWN, {"workload": Workload(lookups=30)}, (model_run, "grow")),
        (replace(GROWN, dht=Dht(tables="random")), {"workload": Workload(lookups=30)},
         (model_run, "with_random_tables")),
        (CHURNING, {"dht": Dht(republish=100.0)}, (model_run, "live")),
        (MESSAGES, {"workload": Workload(lookups=6)}, (warm, "grow")),
    ],
    ids=["grown", "random", "churn", "code"],
)  # fmt: skip
def test_runs_that_begin_alike_make_their_tables_once(
    scenario: Scenario,
    changes: dict[str, object],
    place: tuple[object, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = (scenario, replace(scenario, **changes))  # type: ignore[arg-type]
    alone = [run(one, 1).digest for one in both]
    made = []
    make = getattr(*place)

    def count(*args: object, **more: object) -> object:
        made.append(args)
        return make(*args, **more)

    monkeypatch.setattr(*place, count)
    shelf = Shelf(tmp_path / "shelf")
    assert [run(one, 1, shelf).digest for one in both] == alone
    assert len(made) == 1
    assert run(scenario, 2, shelf).digest != alone[0]
    assert len(made) == 2


def test_what_tables_depend_on_is_part_of_their_key() -> None:
    keys = [
        tables_key(GROWN),
        tables_key(replace(GROWN, nodes=201)),
        tables_key(replace(GROWN, dht=Dht(k=10))),
        tables_key(replace(GROWN, dht=Dht(refresh=60.0))),
        tables_key(replace(GROWN, dht=Dht(tables="random"))),
        tables_key(CHURNING),
        tables_key(replace(CHURNING, duration=700.0)),
        tables_key(replace(CHURNING, churn=Churn("exponential", offline=1.0))),
        tables_key(MESSAGES),
    ]
    assert len(set(keys)) == len(keys)
    assert tables_key(replace(GROWN, tier="model-hashed", dht=Dht(tables="random"))) == ""
    assert tables_key(replace(GROWN, swarm=Swarm(pieces=1))) == ""
    points = settings(GROWN, [("workload.lookups", ["5", "6"])])
    points += settings(replace(GROWN, nodes=100), [])
    shared = shared_tables(points, tasks(points, (1, 2)))
    assert sorted((task.setting, task.seed) for task in shared) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len(set(shared.values())) == 2


HELPER = """
import os
from pathlib import Path
import numpy as np
from shoal.simulations.scenario.result import Result

def run(scenario, seed, shelf):
    def make():
        Path({folder!r}, f"made-{{seed}}-{{os.getpid()}}").touch()
        return {{"row": np.arange(1000 * seed)}}
    return Result(scenario, seed, str(shelf.get(f"key {{seed}}", make)["row"].sum()), {{}})
"""


def test_workers_wait_for_the_one_that_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shelving_runs.py").write_text(HELPER.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    shelving_runs = import_module("shelving_runs")
    points = settings(GROWN, [("workload.lookups", ["1", "2", "3", "4"])])
    left = tmp_path / TABLES / "left by one that was killed"
    left.mkdir(parents=True)
    outcome = sweep(points, tasks(points, (1, 2)), quiet, 3, shelving_runs.run, folder=tmp_path)
    assert not outcome.failed
    assert len(outcome.done) == 8
    assert {task.seed: result.digest for task, result in outcome.done.items()} == {
        1: str(sum(range(1000))), 2: str(sum(range(2000)))
    }  # fmt: skip
    assert len(list(tmp_path.glob("made-*"))) == 2
    assert not (tmp_path / TABLES).exists()


def test_a_full_shelf_drops_the_oldest_and_keeps_nothing_too_large(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, most_bytes=20_000)
    made = []

    def row(number: int, length: int = 1000) -> NDArray[Any]:
        def make() -> dict[str, NDArray[Any]]:
            made.append(number)
            return {"row": np.full(length, number)}

        return shelf.get(f"row {number}", make)["row"]

    first = row(1)
    assert [int(row(number)[0]) for number in (2, 3, 2)] == [2, 3, 2]
    assert int(row(1)[0]) == 1
    assert made == [1, 2, 3, 1]
    assert int(first[0]) == 1  # whoever has it mapped keeps it
    assert int(row(9, 10_000)[-1]) == int(row(9, 10_000)[-1]) == 9
    assert made[-2:] == [9, 9]
    assert not list(tmp_path.glob(f"*{PARTIAL}"))
    first[0] = 7  # a copy of one's own
    assert int(row(1)[0]) == 1


def test_without_a_place_to_write_each_makes_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shelf = Shelf(tmp_path / "file")
    assert int(shelf.get("key", lambda: {"row": np.arange(3)})["row"][2]) == 2
