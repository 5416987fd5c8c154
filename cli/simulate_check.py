"""`shoal simulate validate` and `agree`: whether the simulations can be trusted."""

from __future__ import annotations

import click

from .output import Output
from .settings import Settings, common_options
from .simulating import perform, seeds_of


@click.command("validate")
@click.option("--quick", is_flag=True, help="Smaller networks, where the bands allow it.")
@click.option(
    "--only", "numbers", multiple=True, type=int, metavar="N", help="Only experiment N. Repeatable."
)
@click.option("--seeds", default="1-5", show_default=True, help="As 1-10 or 1,2,7.")
@common_options
@click.pass_obj
def validate(settings: Settings, /, quick: bool, numbers: tuple[int, ...], seeds: str) -> int:
    """Run the published experiments and compare; exit 4 if one misses its band."""

    def work(output: Output) -> int:
        from ..node.errors import IntegrityError, UsageError
        from ..node.events_simulate import Checked
        from ..simulations.validation.experiment import conduct
        from ..simulations.validation.registry import experiments
        from .simulate_told import finite

        known = experiments()
        wrong = set(numbers) - {experiment.number for experiment in known}
        if wrong:
            there = ", ".join(str(experiment.number) for experiment in known)
            raise UsageError(f"there is no experiment {min(wrong)}; there are {there}")
        missed = 0
        for experiment in known:
            if numbers and experiment.number not in numbers:
                continue
            if quick and not experiment.quick:
                output.say(f"experiment {experiment.number} has no quick variant: left out")
                continue
            for finding in conduct(experiment, seeds_of(seeds), quick=quick):
                low, high = finding.interval
                missed += not finding.passes
                output.event(
                    Checked(
                        f"{experiment.number} {finding.check.name}", finding.mean, finite(low),
                        finite(high), finite(finding.check.low), finite(finding.check.high),
                        finding.passes, finding.line(),
                    )
                )  # fmt: skip
        if missed:
            raise IntegrityError(f"{missed} numbers lie outside their bands (docs/simulation.md)")
        return 0

    return perform(settings, work)


@click.command("agree")
@click.option("--nodes", type=click.IntRange(100, 20_000), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@common_options
@click.pass_obj
def agree(settings: Settings, /, nodes: int, seed: int) -> int:
    """Run the same tables through the shipped code and the model, and compare."""

    def work(output: Output) -> int:
        from ..node.errors import IntegrityError, Refused

        try:
            from .simulate_agree import agreement
        except ImportError as error:
            raise Refused("this build has no agreement between the tiers") from error
        missed = agreement(output, nodes, seed)
        if missed:
            raise IntegrityError(f"{missed} numbers differ by more than their bands")
        return 0

    return perform(settings, work)
