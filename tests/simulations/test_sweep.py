"""Sweeps: the same results however many work on them, and nothing lost but what was lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from shoal.simulations.running import run
from shoal.simulations.scenario.model import LinkClass, Scenario, Swarm
from shoal.simulations.scenario.reading import BadScenario, write
from shoal.simulations.scenario.result import Result
from shoal.simulations.sweep import Task, by_setting, settings, sweep, tasks

SMALL = Scenario(
    name="small",
    nodes=11,
    duration=1e6,
    links=(LinkClass("equal", 1e6, 1e9),),
    swarm=Swarm(pieces=20, piece_bytes=1_000_000, leechers=10, neighbours=5),
)


def quiet(task: Task, result: Result) -> None:
    pass


def test_settings_are_every_combination_and_checked_before_anything_runs() -> None:
    points = settings(SMALL, [("swarm.seeds", ["1", "2"]), ("swarm.order", ["rarest", "random"])])
    assert [point.label for point in points] == [
        "swarm.seeds=1 swarm.order=rarest", "swarm.seeds=1 swarm.order=random",
        "swarm.seeds=2 swarm.order=rarest", "swarm.seeds=2 swarm.order=random",
    ]  # fmt: skip
    assert points[3].scenario.swarm.seeds == 2
    assert [point.label for point in settings(SMALL, [])] == ["small"]
    with pytest.raises(BadScenario, match="seeds"):
        settings(SMALL, [("swarm.sedes", ["1"])])


def test_one_worker_and_three_give_the_same() -> None:
    points = settings(SMALL, [("swarm.seeds", ["1", "2"])])
    todo = tasks(points, (1, 2))
    one = sweep(points, todo, quiet, workers=1, run=run)
    three = sweep(points, todo, quiet, workers=3, run=run)
    digests = [{task: result.digest for task, result in got.done.items()} for got in (one, three)]
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == len(todo) == 4
    values = by_setting(points, one.done, "last_seconds")
    assert [list(by_seed) for by_seed in values.values()] == [[1, 2], [1, 2]]
    assert not one.failed
    assert not one.interrupted


HELPER = """
import os
from pathlib import Path
from shoal.simulations.scenario.result import Result

def run(scenario, seed, shelf=None):
    marker = Path({folder!r}) / f"died-{{seed}}"
    if seed == 2 and not marker.exists():
        marker.touch()
        os._exit(9)
    if seed == 3:
        os._exit(9)
    if seed == 4:
        raise ValueError("a bad one")
    return Result(scenario, seed, f"digest {{seed}}", {{}})
"""


def test_a_lost_worker_costs_only_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile_runs.py").write_text(HELPER.format(folder=str(tmp_path)))
    monkeypatch.syspath_prepend(str(tmp_path))
    fragile_runs = import_module("fragile_runs")
    points = settings(SMALL, [])
    todo = tasks(points, (1, 2, 3, 4, 5))
    outcome = sweep(points, todo, quiet, workers=2, run=fragile_runs.run)
    assert sorted(task.seed for task in outcome.done) == [1, 2, 5]
    assert (tmp_path / "died-2").exists()  # it was lost once and tried again
    failed = {task.seed: sentence for task, sentence in outcome.failed.items()}
    assert "3 times" in failed[3]
    assert failed[4] == "ValueError: a bad one"


@pytest.mark.processes
def test_ctrl_c_leaves_whole_results(tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text(write(SMALL))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal.cli", "--json", "simulate", "sweep", str(scenario),
         "--seeds", "1-2000", "--workers", "2", "-o", str(out)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    seen = 0
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            seen += json.loads(line)["event"] == "simulated"
            if seen == 2:
                os.killpg(process.pid, signal.SIGINT)
                break
        last = json.loads(process.stdout.read().splitlines()[-1])
    assert process.returncode == 130
    assert last["code"] == 130
    runs = [path for path in out.iterdir() if path.is_dir()]
    assert len(runs) >= 2
    for run_folder in runs:
        assert (run_folder / "summary.json").exists()
        assert (run_folder / "report.html").exists()


@pytest.mark.processes
def test_a_killed_sweep_takes_its_workers_along(tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text(write(SMALL))
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal.cli", "--json", "simulate", "sweep", str(scenario),
         "--seeds", "1-2000", "--workers", "2", "-o", str(tmp_path / "out")],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "simulated":
                break
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
