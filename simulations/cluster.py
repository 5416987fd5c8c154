"""Sweeps on a Dask cluster: a lost worker costs the tasks that it had, a lost scheduler the rest.

Each task carries its scenario (a kilobyte), so nothing that all need lies with a single worker.
Tables that several tasks begin with are made once on each machine, in its folder for temporary
files.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from .measuring import measured
from .scenario.model import Scenario
from .scenario.result import Result
from .shelf import Shelf
from .sweep import ATTEMPTS, Outcome, Run, Setting, Task, shared_tables

CONNECT_SECONDS: Final = 10.0
"""How long a scheduler may take to answer, and the first worker to come."""

LOGGERS: Final = ("distributed", "distributed.client", "distributed.core", "distributed.utils")
"""They write tracebacks about what is told in a sentence here."""


class NoCluster(Exception):
    """There is no scheduler at the address, or it has no workers; one sentence."""


def work(scenario: Scenario, seed: int, run: Run, shelf: str) -> Result:
    """Run a task in a worker.

    Args:
        scenario: What to run.
        seed: With which seed.
        run: How.
        shelf: Name of the folder with tables that others begin with, too; "" = none do.
    """
    return run(scenario, seed, _shelf(shelf) if shelf else None)


def _shelf(name: str) -> Shelf:
    return Shelf(Path(tempfile.gettempdir()) / name)


def _clear(name: str) -> None:
    _shelf(name).clear()


def sweep_on_dask(
    points: Sequence[Setting],
    todo: Sequence[Task],
    tell: Callable[[Task, Result], None],
    address: str,
    run: Run = measured,
) -> Outcome:
    """Run the tasks on a Dask cluster; a lost worker's tasks go to the others.

    Raises:
        NoCluster: The scheduler does not answer, or has no workers.
    """
    outcome = Outcome()
    with _client(address) as client:
        name = f"shoal-tables-{client.id}"
        try:
            _gather(client, _Tasks(client, points, todo, run, name), tell, outcome)
        except KeyboardInterrupt:
            outcome.interrupted = True
        finally:
            if client.status == "running":
                with suppress(OSError, TimeoutError):
                    client.run(_clear, name, wait=True, on_error="ignore")
    return outcome


class _Tasks:
    """What is to be run, and how often it was tried."""

    def __init__(
        self, client: Any, points: Sequence[Setting], todo: Sequence[Task], run: Run, name: str
    ) -> None:
        self._client, self._points, self._run, self._name = client, points, run, name
        self._shares = shared_tables(points, todo)
        self.todo = todo
        self.attempts: dict[Task, int] = {}

    def submit(self, task: Task) -> Any:
        """Hand a task to the cluster and return its future."""
        self.attempts[task] = self.attempts.get(task, 0) + 1
        return self._client.submit(
            work,
            self._points[task.setting].scenario,
            task.seed,
            self._run,
            self._name if task in self._shares else "",
            pure=False,
            retries=0,
        )


def _gather(
    client: Any, tasks: _Tasks, tell: Callable[[Task, Result], None], outcome: Outcome
) -> None:
    """Take results as they come, until all tasks are done or failed, or the scheduler is lost."""
    import distributed

    under_way = {tasks.submit(task): task for task in tasks.todo}
    coming = distributed.as_completed(list(under_way), loop=client.loop)
    for future in coming:
        task = under_way.pop(future)
        if future.status == "error":
            outcome.failed[task] = _sentence(future.exception())
            continue
        try:
            found = client.gather([future], errors="skip")
        except (OSError, CancelledError, distributed.client.CancelledError):
            found = []
        if found:
            outcome.finished(task, found[0], tell)
            continue
        if client.status != "running":
            outcome.lost = True
            return
        # Its result went with its worker, or the scheduler has forgotten it.
        if tasks.attempts[task] >= ATTEMPTS:
            outcome.failed[task] = f"its result was lost {ATTEMPTS} times"
            continue
        again = tasks.submit(task)
        under_way[again] = task
        coming.add(again)


def _sentence(error: BaseException | None) -> str:
    import distributed

    if isinstance(error, distributed.KilledWorker):
        return "its worker was lost again and again (out of memory?)"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _client(address: str) -> Iterator[Any]:
    import distributed

    with _calm():
        try:
            client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise NoCluster(
                f"no Dask scheduler answers at {address}: start one with `dask scheduler`, and "
                "give the address that it prints"
            ) from error
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError as error:
            client.close(0)
            raise NoCluster(
                f"the Dask scheduler at {address} has no workers: start some with `dask worker "
                f"{address}`"
            ) from error
        with client:
            yield client


@contextmanager
def _calm() -> Iterator[None]:
    """Keep the cluster's library from writing to the terminal."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
