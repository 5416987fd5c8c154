"""`shoal simulate`: scenarios with thousands or millions of nodes, in virtual time."""

from __future__ import annotations

from pathlib import Path

import click

from .output import Output
from .settings import NamedPath, Settings, common_options
from .simulate_ask import ask, from_status
from .simulate_check import agree, validate
from .simulate_sweep import sweep
from .simulating import changed, file_name, perform

SCENARIO = click.argument("scenario", type=NamedPath(path_type=Path, dir_okay=False))

SET = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE",
    help="Change a key of the scenario, as dht.k=40. May be repeated.",
)  # fmt: skip


@click.group("simulate", invoke_without_command=True)
@click.option(
    "--from-status", is_flag=True,
    help="Forecast the fetches under way of the running node from what it measures now.",
)  # fmt: skip
@common_options
@click.pass_context
def simulate_command(context: click.Context, /, from_status: bool) -> int | None:
    """Run scenarios with thousands or millions of simulated nodes.

    A scenario is a TOML file (docs/simulation.md). Needs: pip install 'shoal[simulate]'
    """
    if context.invoked_subcommand is not None:
        if from_status:
            raise click.UsageError("--from-status stands alone")
        return None
    if not from_status:
        click.echo(context.get_help(), err=True)
        return 2
    return forecast(context.ensure_object(Settings))


def forecast(settings: Settings) -> int:
    """Answer for the fetches of the running node."""
    return from_status(settings)


@simulate_command.command("run")
@SCENARIO
@click.option("--seed", type=click.IntRange(min=0), help="[default: the scenario's first]")
@SET
@click.option(
    "-o", "--output", "folder", type=NamedPath(path_type=Path),
    help="Folder for tables and report. [default: NAME-SEED here]",
)  # fmt: skip
@common_options
@click.pass_obj
def run_one(
    settings: Settings, /, scenario: Path, seed: int | None, changes: tuple[str, ...],
    folder: Path | None,
) -> int:  # fmt: skip
    """Run a SCENARIO once and write a folder with its tables and report."""

    def work(output: Output) -> int:
        from ..simulations.measuring import measured
        from ..simulations.results.folder import save
        from ..simulations.results.report import report
        from ..simulations.scenario.reading import read
        from .simulate_told import simulated

        what = changed(read(scenario), changes)
        number = what.seeds[0] if seed is None else seed
        place = folder or Path(f"{file_name(what.name)}-{number}")
        result = measured(what, number)
        save(result, place, report(result))
        output.event(simulated(result, place))
        return 0

    return perform(settings, work)


@simulate_command.command("report")
@click.argument("folders", nargs=-1, required=True, type=NamedPath(path_type=Path, exists=True))
@click.option(
    "-o", "--output", "path", type=NamedPath(path_type=Path),
    help="The HTML file. [default: comparison.html in the first folder; report.html of one run]",
)  # fmt: skip
@common_options
@click.pass_obj
def report_runs(settings: Settings, /, folders: tuple[Path, ...], path: Path | None) -> int:
    """Compare the runs in the folders in one HTML page."""

    def work(output: Output) -> int:
        from ..node.events_simulate import Reported
        from ..simulations.results.compare import compare_folders

        written, runs, sentences = compare_folders(folders, path)
        for sentence in sentences:
            output.say(sentence)
        output.event(Reported(str(written.absolute()), runs))
        return 0

    return perform(settings, work)


simulate_command.add_command(sweep)
simulate_command.add_command(validate)
simulate_command.add_command(agree)
simulate_command.add_command(ask)
