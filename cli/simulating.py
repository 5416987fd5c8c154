"""What the subcommands of `simulate` share: how they begin, fail, and read seeds and changes."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from .output import Output, output_for
from .settings import Settings

if TYPE_CHECKING:
    from ..simulations.scenario.model import Scenario

EXTRA = ("matplotlib", "numba", "numpy", "pyarrow")
"""What `shoal[simulate]` brings."""

MAX_SEEDS = 10_000
"""Of one sweep."""

Work = Callable[[Output], int]


def perform(settings: Settings, work: Work) -> int:
    """Do the work of a command and return its exit code; tell what its user can do about errors."""
    from ..node.errors import Refused, ShoalError, UsageError, disk_error, translate
    from ..node.events import Failure

    gc.enable()  # main() switched it off for a quick start
    with output_for(settings) as output:
        try:
            missing = [name for name in EXTRA if find_spec(name) is None]
            if missing:
                raise Refused(
                    f"simulations need {', '.join(missing)}: run: pip install 'shoal[simulate]'"
                )
            return work(output)
        except OSError as error:
            known: ShoalError = disk_error(error, str(error.filename or "simulating"))
        except (ShoalError, ValueError) as error:
            ours = UsageError(str(error)) if _is_of_ours(error) else translate(error)
            if ours is None:
                raise
            known = ours
        output.event(Failure(known.code, known.message))
        return known.code


def _is_of_ours(error: Exception) -> bool:
    from ..simulations.questions.question import BadQuestion
    from ..simulations.results.folder import BadRun

    return isinstance(error, (BadQuestion, BadRun))


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds of `3`, `1,2,5` or `1-20`."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise click.BadParameter(f"{text!r} is no list of seeds: write 1-5 or 1,2,7")
        first = int(match[1])
        last = int(match[2] or first)
        if not first <= last < first + MAX_SEEDS:
            raise click.BadParameter(f"{part} must go up, by at most {MAX_SEEDS}")
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def split_pair(text: str) -> tuple[str, str]:
    """Return key and value of `key=value`."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise click.BadParameter(f"{text!r} must be KEY=VALUE")
    return key.strip(), value.strip()


def changed(scenario: Scenario, changes: tuple[str, ...]) -> Scenario:
    """Return the scenario with `key=value` applied in turn."""
    from ..simulations.scenario.reading import change

    for text in changes:
        key, value = split_pair(text)
        scenario = change(scenario, key, value)
    return scenario


def file_name(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.") or "run"
