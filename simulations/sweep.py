"""Seeds times parameters, on all cores of this machine (`cluster.py`: on a Dask cluster).

A task is a number and a seed; the scenarios are handed to each worker once. What a task gives
depends on nothing else, so the results are the same for any number of workers. Each worker has a
process of its own: one that is lost costs the task it had, which is tried again elsewhere. Tables
that several tasks begin with are made once, by whoever needs them first (`shelf.py`).
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Final

from .measuring import measured
from .running import tables_key
from .scenario.model import Scenario
from .scenario.reading import change
from .scenario.result import Result
from .scenario.support import check
from .shelf import Shelf

ATTEMPTS: Final = 3
"""How often a task is tried whose worker is lost."""

TABLES: Final = ".tables"
"""Folder for tables that several runs begin with, while they run."""

Run = Callable[[Scenario, int, Shelf | None], Result]


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the sweep."""

    label: str
    """As `dht.k=20 dht.alpha=3`; the scenario's name if nothing is varied."""
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Task:
    """One run."""

    setting: int
    seed: int


@dataclass(slots=True)
class Outcome:
    """What became of the tasks."""

    done: dict[Task, Result] = field(default_factory=dict)
    """Without their tables, which may be large; whoever was told of a result has them."""
    failed: dict[Task, str] = field(default_factory=dict)
    interrupted: bool = False
    lost: bool = False
    """The scheduler of the cluster is gone, with all that was not done."""

    def finished(self, task: Task, result: Result, tell: Callable[[Task, Result], None]) -> None:
        """Tell a result, and keep its numbers."""
        tell(task, result)
        self.done[task] = replace(result, tables={})


def settings(scenario: Scenario, varied: Sequence[tuple[str, Sequence[str]]]) -> list[Setting]:
    """Return every combination of the varied keys; all are checked before anything runs.

    Raises:
        BadScenario: A key or value is wrong, or the tier cannot express it.
    """
    found = []
    for values in itertools.product(*(values for _, values in varied)):
        pairs = [(key, value) for (key, _), value in zip(varied, values, strict=True)]
        changed = scenario
        for key, value in pairs:
            changed = change(changed, key, value)
        check(changed)
        label = " ".join(f"{key}={value}" for key, value in pairs) or scenario.name
        found.append(Setting(label, changed))
    return found


def tasks(points: Sequence[Setting], seeds: Iterable[int]) -> list[Task]:
    """Return the tasks: all settings with the first seed, then with the next."""
    return [Task(number, seed) for seed in seeds for number in range(len(points))]


def shared_tables(points: Sequence[Setting], todo: Sequence[Task]) -> dict[Task, str]:
    """Return for each task whose tables another one begins with, too, what these depend on."""
    keys = [tables_key(point.scenario) for point in points]
    named = {task: f"{task.seed} {keys[task.setting]}" for task in todo if keys[task.setting]}
    counts = Counter(named.values())
    return {task: key for task, key in named.items() if counts[key] > 1}


_scenarios: tuple[Scenario, ...] = ()
_shelf: Shelf | None = None
"""In a worker: what was handed over when it started."""


def _start(scenarios: tuple[Scenario, ...], shelf: Shelf | None) -> None:
    global _scenarios, _shelf
    _scenarios, _shelf = scenarios, shelf
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches all processes of a terminal; only the one that gathers results acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    """End this worker when the sweep that it works for is killed: nobody wants its results."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Task, run: Run, shares: bool) -> Result:
    return run(_scenarios[task.setting], task.seed, _shelf if shares else None)


class Worker:
    """A process that runs one task at a time, and is replaced if it is lost."""

    def __init__(self, scenarios: tuple[Scenario, ...], shelf: Shelf | None) -> None:
        self._given = scenarios, shelf
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_start, initargs=self._given
        )

    def submit(self, task: Task, run: Run, shares: bool) -> Future[Result]:
        """Begin a task, which may share its tables with others."""
        return self._pool.submit(_work, task, run, shares)

    def replace(self) -> None:
        """Take another process for the one that was lost."""
        self._pool.shutdown(wait=False)
        self._pool = self._new()

    def end(self) -> None:
        """End the process, also in the middle of a task."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def sweep(
    points: Sequence[Setting],
    todo: Sequence[Task],
    tell: Callable[[Task, Result], None],
    workers: int = 0,
    run: Run = measured,
    folder: Path | None = None,
) -> Outcome:
    """Run the tasks on this machine's cores.

    Args:
        points: The settings.
        todo: The tasks.
        tell: Called with each result as it comes, in no order.
        workers: Processes; 0 = one for each core.
        run: What a worker does with a scenario and a seed.
        folder: Where shared tables lie meanwhile; None: each task makes its own.
    """
    outcome = Outcome()
    scenarios = tuple(point.scenario for point in points)
    count = max(1, min(workers or os.cpu_count() or 1, len(todo)))
    shares = shared_tables(points, todo) if folder is not None else {}
    shelf = Shelf(folder / TABLES) if folder is not None else None
    waiting = list(todo)
    attempts: dict[Task, int] = {}
    busy: dict[Future[Result], tuple[Worker, Task]] = {}
    made: set[str] = set()
    if shelf is not None:
        shelf.clear()  # of a sweep that was killed
    idle = [Worker(scenarios, shelf) for _ in range(count)]
    everyone = list(idle)
    try:
        while waiting or busy:
            while waiting and idle:
                making = {shares.get(task, "") for _, task in busy.values()} - made
                worker, task = idle.pop(), _next(waiting, shares, making)
                attempts[task] = attempts.get(task, 0) + 1
                busy[worker.submit(task, run, task in shares)] = worker, task
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, task = busy.pop(future)
                idle.append(worker)
                error = future.exception()
                if error is None:
                    made.add(shares.get(task, ""))
                    outcome.finished(task, future.result(), tell)
                    continue
                if isinstance(error, BrokenProcessPool):
                    worker.replace()
                    if attempts[task] < ATTEMPTS:
                        waiting.insert(0, task)
                        continue
                outcome.failed[task] = _sentence(error)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for worker in everyone:
            worker.end()
        if shelf is not None:
            shelf.clear()
    return outcome


def _next(waiting: list[Task], shares: Mapping[Task, str], making: Collection[str]) -> Task:
    """Take the first task that need not wait for tables which somebody makes now, if any."""
    for at, task in enumerate(waiting):
        if task not in shares or shares[task] not in making:
            return waiting.pop(at)
    return waiting.pop(0)


def _sentence(error: BaseException | None) -> str:
    if isinstance(error, BrokenProcessPool):
        return f"its worker was lost {ATTEMPTS} times (out of memory?)"
    return f"{type(error).__name__}: {error}"


def by_setting(
    points: Sequence[Setting], done: Mapping[Task, Result], metric: str
) -> dict[str, dict[int, float]]:
    """Return {label: {seed: value}} of a number of the summaries, in the order of the settings."""
    found: dict[str, dict[int, float]] = {point.label: {} for point in points}
    for task in sorted(done, key=lambda task: (task.setting, task.seed)):
        value = done[task].summary.get(metric)
        if isinstance(value, (int, float)):
            found[points[task.setting].label][task.seed] = float(value)
    return found
