"""`shoal simulate ask` and `--from-status`: answers in words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output
from .settings import NamedPath, Settings, common_options
from .simulating import file_name, perform, seeds_of, split_pair

if TYPE_CHECKING:
    from ..node.events import Progress
    from ..simulations.questions.question import Answer
    from ..simulations.scenario.model import Scenario
    from ..simulations.scenario.result import Result

NIGHTS = 20
"""Runs of a forecast."""

NIGHTS_KEPT = 3
"""Of them that are written; they look alike."""


@click.command("ask")
@click.argument("name", required=False, metavar="[QUESTION]")
@click.argument("given", nargs=-1, metavar="[KEY=VALUE]…")
@click.option("--seeds", default="1-5", show_default=True, help="As 1-10 or 1,2,7.")
@click.option(
    "-o", "--output", "folder", type=NamedPath(path_type=Path),
    help="Folder for the runs' folders. [default: QUESTION here]",
)  # fmt: skip
@common_options
@click.pass_obj
def ask(
    settings: Settings, /, name: str | None, given: tuple[str, ...], seeds: str,
    folder: Path | None,
) -> int:  # fmt: skip
    """Answer a QUESTION that people have; without one, list them with their parameters.

    Sizes, rates and times take units: size=2TB up=20Mbit/s nat=30% session=2h
    """

    def work(output: Output) -> int:
        from ..simulations.questions.registry import question, questions

        if name is None:
            for known in questions().values():
                output.say(f"{known.name}: {known.title}")
                for parameter in known.parameters:
                    output.say(f"    {parameter.name}={parameter.default}: {parameter.meaning}")
            return 0
        asked = question(name)
        values = asked.values(dict(split_pair(text) for text in given))
        place = folder or Path(file_name(name))
        place.mkdir(parents=True, exist_ok=True)
        answer = asked.ask(values, seeds_of(seeds), partial(_run_all, output, place))
        _tell(output, name, answer, place)
        return 0

    return perform(settings, work)


def _run_all(
    output: Output, place: Path, scenarios: Sequence[Scenario], seeds: Sequence[int]
) -> list[list[Result]]:
    """Run each scenario with each seed on all cores, and write the runs."""
    from ..node.errors import Interrupted, Refused
    from ..node.events_simulate import Sweeping
    from ..simulations.sweep import Setting, Task, sweep, tasks

    points = [Setting(scenario.name, scenario) for scenario in scenarios]
    todo = tasks(points, seeds)
    done = 0

    def tell(task: Task, result: Result) -> None:
        nonlocal done
        _save(place, result)
        done += 1
        output.event(Sweeping(done, len(todo), 0))

    output.event(Sweeping(0, len(todo), 0))
    outcome = sweep(points, todo, tell, folder=place)
    if outcome.interrupted:
        raise Interrupted(f"interrupted: {done} of {len(todo)} runs are whole, in {place}")
    for task, sentence in outcome.failed.items():
        raise Refused(f"{points[task.setting].label}, seed {task.seed}, failed: {sentence}")
    return [[outcome.done[Task(number, seed)] for seed in seeds] for number in range(len(points))]


def _save(place: Path, result: Result) -> None:
    from ..simulations.results.folder import save
    from ..simulations.results.report import report

    save(result, place / file_name(f"{result.scenario.name}-{result.seed}"), report(result))


def _tell(output: Output, name: str, answer: Answer, place: Path) -> None:
    """Tell the answer, and write it down."""
    from ..node.events_simulate import Answered

    (place / "answer.txt").write_text(answer.text + "\n", encoding="utf-8")
    output.event(Answered(name, answer.text, dict(answer.numbers), str(place.absolute())))


def from_status(settings: Settings) -> int:
    """Forecast the fetches under way of the running node."""
    from ..node.events import Progress
    from .session import Session, run

    found: list[Progress] = []

    async def look(session: Session) -> None:
        async with session.running_node() as client:
            found.extend(row for row in await client.status() if isinstance(row, Progress))

    code = run(settings, look)
    return code or perform(settings, lambda output: _forecast(output, found))


def _forecast(output: Output, fetches: list[Progress]) -> int:
    from ..node.errors import NotFound
    from ..simulations.measuring import measured
    from ..simulations.questions.live import forecast
    from ..simulations.questions.question import in_turn

    if not fetches:
        raise NotFound("no fetch is under way or paused: start one with: shoal get")
    for fetch in fetches:
        place = Path(f"tonight-{file_name(fetch.cid)[-8:]}")

        def run(scenario: Scenario, seed: int, place: Path = place) -> Result:
            result = measured(scenario, seed)
            if seed <= NIGHTS_KEPT:
                _save(place, result)
            return result

        _tell(output, "tonight", forecast(fetch, range(1, 1 + NIGHTS), in_turn(run)), place)
    return 0
