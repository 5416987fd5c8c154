"""All experiments, in the order of their numbers; other tiers add theirs here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from typing import Final

from .experiment import SEEDS, Experiment, Finding, conduct

MODULES: Final = ("hops", "upkeep", "timing", "swarming", "nats", "replay", "agreeing")
"""Modules of this folder with `EXPERIMENTS`; each is imported only when it is wanted."""


def experiments() -> list[Experiment]:
    """Return all experiments, by number."""
    found: list[Experiment] = []
    for name in MODULES:
        found += import_module(f".{name}", __package__).EXPERIMENTS
    return sorted(found, key=lambda experiment: experiment.number)


def validate(
    only: Collection[int] = (),
    *,
    seeds: Sequence[int] = SEEDS,
    quick: bool = False,
    say: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Run experiments and return what came out.

    Args:
        only: Numbers of those to run; all unless given.
        seeds: One run for each.
        quick: Run smaller ones, and leave out those that have no smaller one.
        say: Told each finding as it comes.
    """
    findings: list[Finding] = []
    for experiment in experiments():
        if (only and experiment.number not in only) or (quick and not experiment.quick):
            continue
        for finding in conduct(experiment, seeds, quick=quick):
            findings.append(finding)
            if say is not None:
                say(finding)
    return findings
