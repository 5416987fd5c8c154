"""All experiments, by number."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from .experiment import Experiment

MODULES: Final = ("hops", "swarming")
"""Modules of this folder with `EXPERIMENTS`."""


def experiments() -> list[Experiment]:
    """Return all experiments, by number."""
    found: list[Experiment] = []
    for name in MODULES:
        found += import_module(f".{name}", __package__).EXPERIMENTS
    return sorted(found, key=lambda experiment: experiment.number)
