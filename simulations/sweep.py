"""Seeds times parameters, on all cores of this machine or on a Dask cluster.

A task is a number and a seed; the scenarios are handed to each worker once. What a task gives
depends on nothing else, so the results are the same for any number of workers. Each worker has a
process of its own: one that is lost costs the task it had, which is tried again elsewhere.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Final

from .measuring import measured
from .scenario.model import Scenario
from .scenario.reading import change
from .scenario.result import Result
from .scenario.support import check

ATTEMPTS: Final = 3
"""How often a task is tried whose worker is lost."""

CONNECT_SECONDS: Final = 20
"""How long a Dask scheduler may take to answer."""

Run = Callable[[Scenario, int], Result]


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
    failed: dict[Task, str] = field(default_factory=dict)
    interrupted: bool = False


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


_scenarios: tuple[Scenario, ...] = ()
"""In a worker: what was handed over when it started."""


def _start(scenarios: tuple[Scenario, ...]) -> None:
    global _scenarios
    _scenarios = scenarios
    # Ctrl-C reaches all processes of a terminal; only the one that gathers results acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: Task, run: Run) -> Result:
    return run(_scenarios[task.setting], task.seed)


def _work_of(scenarios: tuple[Scenario, ...], task: Task, run: Run) -> Result:
    return run(scenarios[task.setting], task.seed)


class Worker:
    """A process that runs one task at a time, and is replaced if it is lost."""

    def __init__(self, scenarios: tuple[Scenario, ...]) -> None:
        self._scenarios = scenarios
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_start, initargs=(self._scenarios,)
        )

    def submit(self, task: Task, run: Run) -> Future[Result]:
        """Begin a task."""
        return self._pool.submit(_work, task, run)

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
) -> Outcome:
    """Run the tasks on this machine's cores.

    Args:
        points: The settings.
        todo: The tasks.
        tell: Called with each result as it comes, in no order.
        workers: Processes; 0 = one for each core.
        run: What a worker does with a scenario and a seed.
    """
    outcome = Outcome()
    scenarios = tuple(point.scenario for point in points)
    count = max(1, min(workers or os.cpu_count() or 1, len(todo)))
    waiting = list(reversed(todo))
    attempts: dict[Task, int] = {}
    busy: dict[Future[Result], tuple[Worker, Task]] = {}
    idle = [Worker(scenarios) for _ in range(count)]
    everyone = list(idle)
    try:
        while waiting or busy:
            while waiting and idle:
                worker, task = idle.pop(), waiting.pop()
                attempts[task] = attempts.get(task, 0) + 1
                busy[worker.submit(task, run)] = worker, task
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, task = busy.pop(future)
                idle.append(worker)
                error = future.exception()
                if error is None:
                    outcome.done[task] = future.result()
                    tell(task, outcome.done[task])
                    continue
                if isinstance(error, BrokenProcessPool):
                    worker.replace()
                    if attempts[task] < ATTEMPTS:
                        waiting.append(task)
                        continue
                outcome.failed[task] = _sentence(error)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for worker in everyone:
            worker.end()
    return outcome


def sweep_on_dask(
    points: Sequence[Setting],
    todo: Sequence[Task],
    tell: Callable[[Task, Result], None],
    address: str,
    run: Run = measured,
) -> Outcome:
    """Run the tasks on a Dask cluster; a lost worker's tasks go to the others.

    Raises:
        OSError: The scheduler does not answer.
    """
    import distributed

    outcome = Outcome()
    with _client(address) as client:
        shared = client.scatter(
            tuple(point.scenario for point in points), broadcast=True, hash=False
        )
        futures = {
            client.submit(_work_of, shared, task, run, pure=False, retries=ATTEMPTS): task
            for task in todo
        }
        try:
            for future in distributed.as_completed(list(futures), loop=client.loop):
                task = futures[future]
                if future.status == "finished":
                    outcome.done[task] = future.result()
                    tell(task, outcome.done[task])
                else:
                    outcome.failed[task] = _sentence(future.exception())
        except KeyboardInterrupt:
            outcome.interrupted = True
            client.cancel(list(futures))
    return outcome


@contextmanager
def _client(address: str) -> Iterator[Any]:
    import distributed

    with distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
        yield client


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
