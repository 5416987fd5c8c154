"""`shoal simulate ask` and `--from-status`: answers in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .output import Output
from .settings import NamedPath, Settings, common_options
from .simulating import file_name, perform, seeds_of, split_pair

if TYPE_CHECKING:
    from ..node.events import Progress
    from ..simulations.questions.question import Answer


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
        from ..simulations.measuring import measured
        from ..simulations.questions.registry import question, questions

        if name is None:
            for known in questions().values():
                output.say(f"{known.name}: {known.title}")
                for parameter in known.parameters:
                    output.say(f"    {parameter.name}={parameter.default}: {parameter.meaning}")
            return 0
        asked = question(name)
        values = asked.values(dict(split_pair(text) for text in given))
        answer = asked.ask(values, seeds_of(seeds), measured)
        _tell(output, name, answer, folder or Path(file_name(name)))
        return 0

    return perform(settings, work)


def _tell(output: Output, name: str, answer: Answer, place: Path) -> None:
    """Write the runs and tell the answer."""
    from ..node.events_simulate import Answered
    from ..simulations.results.folder import save
    from ..simulations.results.report import report

    place.mkdir(parents=True, exist_ok=True)
    for run, result in answer.runs.items():
        save(result, place / file_name(run), report(result))
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

    if not fetches:
        raise NotFound("no fetch is under way or paused: start one with: shoal get")
    for fetch in fetches:
        answer = forecast(fetch, range(1, 6), measured)
        _tell(output, "tonight", answer, Path(f"tonight-{file_name(fetch.cid)[-8:]}"))
    return 0
