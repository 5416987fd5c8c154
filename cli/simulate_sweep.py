"""`shoal simulate sweep`: seeds times parameters."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output
from .settings import NamedPath, Settings, common_options
from .simulating import changed, file_name, perform, seeds_of, split_pair

if TYPE_CHECKING:
    from ..simulations.scenario.result import Result
    from ..simulations.sweep import Outcome, Setting, Task


@click.command("sweep")
@click.argument("scenario", type=NamedPath(path_type=Path, dir_okay=False))
@click.option(
    "--vary", "varied", multiple=True, metavar="KEY=A,B,…",
    help="Run with each of these values. May be repeated: every combination is run.",
)  # fmt: skip
@click.option("--seeds", help="As 1-10 or 1,2,7. [default: the scenario's]")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE",
    help="Change a key of the scenario, as dht.k=40. May be repeated.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 1024), help="[default: one for each core]")
@click.option("--dask", metavar="ADDRESS", help="Run on the Dask cluster of this scheduler.")
@click.option("--metric", help="The number of the summary that is compared.")
@click.option(
    "-o", "--output", "folder", type=NamedPath(path_type=Path),
    help="Folder for the runs' folders. [default: NAME-sweep here]",
)  # fmt: skip
@common_options
@click.pass_obj
def sweep(
    settings: Settings, /, scenario: Path, varied: tuple[str, ...], seeds: str | None,
    changes: tuple[str, ...], workers: int | None, dask: str | None, metric: str | None,
    folder: Path | None,
) -> int:  # fmt: skip
    """Run a SCENARIO with many seeds and values, and compare the values.

    The first value of each key is what the others are compared with.
    """

    def work(output: Output) -> int:
        from ..node.errors import Interrupted, NotFound, Refused
        from ..node.events_simulate import Sweeping
        from ..simulations import sweep as sweeping
        from ..simulations.cluster import NoCluster, sweep_on_dask
        from ..simulations.results.folder import save
        from ..simulations.results.report import report
        from ..simulations.scenario.reading import read
        from .simulate_told import simulated

        base = changed(read(scenario), changes)
        pairs = [split_pair(text) for text in varied]
        points = sweeping.settings(base, [(key, value.split(",")) for key, value in pairs])
        todo = sweeping.tasks(points, seeds_of(seeds) if seeds else base.seeds)
        place = folder or Path(f"{file_name(base.name)}-sweep")
        place.mkdir(parents=True, exist_ok=True)
        done = 0

        def tell(task: Task, result: Result) -> None:
            nonlocal done
            label = points[task.setting].label
            run = place / f"{file_name(label)}-{task.seed}"
            save(result, run, report(result))
            done += 1
            output.event(simulated(result, run, label))
            output.event(Sweeping(done, len(todo), 0))

        output.event(Sweeping(0, len(todo), 0))
        if dask is None:
            outcome = sweeping.sweep(points, todo, tell, workers or 0, folder=place)
        elif find_spec("distributed") is None:
            raise Refused("--dask needs the package distributed: run: pip install 'shoal[dask]'")
        else:
            try:
                outcome = sweep_on_dask(points, todo, tell, dask)
            except NoCluster as error:
                raise NotFound(str(error)) from error
        _conclude(output, points, outcome, metric, place)
        if outcome.interrupted:
            raise Interrupted(f"interrupted: {done} of {len(todo)} runs are whole, in {place}")
        if outcome.lost:
            raise NotFound(
                f"the Dask scheduler at {dask} is lost: {done} of {len(todo)} runs are whole, in "
                f"{place}; start it again, and give --seeds for what is missing"
            )
        for task, sentence in outcome.failed.items():
            output.say(f"{points[task.setting].label}, seed {task.seed}, failed: {sentence}")
        if outcome.failed:
            raise Refused(f"{len(outcome.failed)} of {len(todo)} runs failed; the others are whole")
        return 0

    return perform(settings, work)


def _conclude(
    output: Output, points: list[Setting], outcome: Outcome, metric: str | None, place: Path
) -> None:
    """Tell each setting's mean, compare all with the first, and write both down."""
    from ..node.errors import UsageError
    from ..simulations.paired import paired
    from ..simulations.results.compare import METRICS
    from ..simulations.sweep import by_setting
    from .simulate_told import compared, measured

    known = {key: None for result in outcome.done.values() for key in result.summary}
    chosen = metric or next((name for name in METRICS if name in known), None)
    if chosen is None or not known:
        return
    if chosen not in known:
        raise UsageError(f"the runs have no number {chosen!r}; they have {', '.join(known)}")
    values = by_setting(points, outcome.done, chosen)
    events = [measured(label, chosen, list(by_seed.values())) for label, by_seed in values.items()]
    first, *others = values
    pairs = [
        compared(paired(chosen, first, values[first], other, values[other])) for other in others
    ]
    for event in (*events, *pairs):
        output.event(event)
    lines = [event.to_json() for event in (*events, *pairs)]
    (place / "sweep.json").write_text(json.dumps(lines, indent=2) + "\n", encoding="utf-8")
