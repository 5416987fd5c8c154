"""Sweeps on a real Dask cluster: what is lost with a worker or with the scheduler, and what not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shoal.simulations import cluster as cluster_module
from shoal.simulations.cluster import NoCluster, sweep_on_dask
from shoal.simulations.running import run
from shoal.simulations.scenario.model import LinkClass, Scenario, Swarm, Workload
from shoal.simulations.scenario.reading import write
from shoal.simulations.scenario.result import Result
from shoal.simulations.sweep import Task, settings, tasks

pytestmark = pytest.mark.processes

SMALL = Scenario(
    name="small",
    nodes=61,
    duration=1e6,
    links=(LinkClass("equal", 1e6, 1e9),),
    swarm=Swarm(pieces=100, piece_bytes=1_000_000, leechers=60, neighbours=10),
)
SEEDS = 10


@dataclass
class Cluster:
    """A scheduler and its two workers, each a process."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    place = tmp_path / "scheduler.json"
    dask = str(Path(sys.executable).with_name("dask"))
    log = tmp_path / "scheduler.log"
    calm: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": tmp_path,
    }
    with log.open("wb") as file:
        scheduler = subprocess.Popen(
            [dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(place)],
            stdout=subprocess.DEVNULL, stderr=file, cwd=tmp_path,
        )  # fmt: skip
    workers = [
        subprocess.Popen(
            [dask, "worker", "--scheduler-file", str(place), "--nthreads", "1", "--no-nanny",
             "--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(tmp_path)],
            **calm, env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        while log.read_text().count("Register worker") < 2:
            assert scheduler.poll() is None
            time.sleep(0.05)
        yield Cluster(json.loads(place.read_text())["address"], scheduler, workers)
    finally:
        for process in (*workers, scheduler):
            process.kill()
        for process in (*workers, scheduler):
            process.wait()


def test_a_lost_worker_costs_only_the_tasks_that_it_had(tmp_path: Path, cluster: Cluster) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text(write(SMALL))
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal.cli", "--json", "simulate", "sweep", str(scenario),
         "--seeds", f"1-{SEEDS}", "-o", str(tmp_path / "out"), "--dask", cluster.address],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: dict[int, str] = {}
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "simulated":
                found[event["seed"]] = event["digest"]
                if len(found) == 2:
                    cluster.workers[0].kill()
    assert process.returncode == 0
    assert cluster.workers[0].wait() != 0
    assert found == {seed: run(SMALL, seed).digest for seed in range(1, SEEDS + 1)}


def test_tables_are_shared_by_file_and_removed(tmp_path: Path, cluster: Cluster) -> None:
    grown = Scenario(name="grown", nodes=100, workload=Workload(lookups=10))
    points = settings(grown, [("workload.lookups", ["10", "11"])])
    todo = tasks(points, (1, 2))
    made = len(list(tmp_path.iterdir()))
    kept: set[str] = set()

    def tell(task: Task, result: Result) -> None:
        kept.update(path.parent.name for path in tmp_path.glob("shoal-tables-*/*/contacts.npy"))

    outcome = sweep_on_dask(points, todo, tell, cluster.address, run)
    assert len(kept) == 2  # of each seed once
    assert {task: result.digest for task, result in outcome.done.items()} == {
        task: run(points[task.setting].scenario, task.seed).digest for task in todo
    }
    assert not list(tmp_path.glob("shoal-tables-*"))
    assert len(list(tmp_path.iterdir())) == made


@pytest.mark.long
def test_a_lost_scheduler_leaves_what_was_done(cluster: Cluster) -> None:
    points = settings(SMALL, [])
    todo = tasks(points, range(1, 101))
    seen: dict[int, str] = {}

    def tell(task: Task, result: Result) -> None:
        seen[task.seed] = result.digest
        if len(seen) == 2:
            cluster.scheduler.kill()

    outcome = sweep_on_dask(points, todo, tell, cluster.address, run)
    assert outcome.lost
    assert 2 <= len(seen) < len(todo)
    assert {task.seed: result.digest for task, result in outcome.done.items()} == seen
    assert seen == {seed: run(SMALL, seed).digest for seed in seen}


def test_no_scheduler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.2)
    points = settings(SMALL, [])
    with pytest.raises(NoCluster, match=r"^no Dask scheduler answers at 127.0.0.1:1: start one"):
        sweep_on_dask(points, tasks(points, [1]), lambda task, result: None, "127.0.0.1:1")
