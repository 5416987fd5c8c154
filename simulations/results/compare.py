"""Several runs side by side: what changed, over the seeds that they share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ..paired import paired
from ..scenario.result import Result
from .folder import REPORT, BadRun, find, load
from .report import comparison, report

COMPARISON: Final = "comparison.html"

MOST_RUNS: Final = 24
"""More curves in one plot cannot be told apart."""

METRICS: Final = (
    *("last_seconds", "seconds", "p50_seconds", "median_seconds"),
    *("records_found", "records_alive", "lookup_seconds_p50", "lookup_p50", "lookup_hops"),
    *("lookup_found", "lookup_success", "fetch_p50", "fetch_success", "announce_rpcs"),
)
"""Numbers that are compared pair by pair, as the tiers name them."""


def compare_folders(folders: Iterable[Path], path: Path | None) -> tuple[Path, int, list[str]]:
    """Write a page that compares the runs in some folders.

    Returns:
        Where it is, how many runs are in it, and what is to be said of them.

    Raises:
        BadRun: There is none, or too many.
    """
    given = list(folders)
    places = list(dict.fromkeys(find(given)))
    if len(places) > MOST_RUNS:
        raise BadRun(f"{len(places)} runs are too many for one page (at most {MOST_RUNS})")
    results = [load(place).result for place in places]
    if len(results) == 1:
        path = path or places[0] / REPORT
        path.write_text(report(results[0]), encoding="utf-8")
        return path, 1, []
    runs: dict[str, Result] = {}
    for place, result in zip(places, results, strict=True):
        label = result.scenario.name if _all_named(results) else place.name
        runs[f"{label}, seed {result.seed}" if label in runs else label] = result
    sentences = list(sentences_about(runs))
    path = path or given[0] / COMPARISON
    path.write_text(comparison(runs, sentences), encoding="utf-8")
    return path, len(runs), sentences


def _all_named(results: list[Result]) -> bool:
    return len({result.scenario.name for result in results}) == len(results)


def sentences_about(runs: Mapping[str, Result]) -> Iterator[str]:
    """Yield how settings differ, pair by pair on the same seeds, and the first against each."""
    groups: dict[str, dict[str, Result]] = {}
    for label, result in runs.items():
        key = repr((result.scenario.tier, result.scenario)).replace(result.scenario.name, "")
        groups.setdefault(key, {})[label] = result
    (first_label, first), *others = [
        (_setting_of(*next(iter(members.items()))), list(members.values()))
        for members in groups.values()
    ]
    if not others:
        yield f"All {len(runs)} runs have the same setting and differ by their seeds."
    for (label, members), metric in itertools.product(others, METRICS):
        ones, twos = _by_seed(first, metric), _by_seed(members, metric)
        if ones and twos:
            yield paired(metric, first_label, ones, label, twos).text


def _setting_of(label: str, result: Result) -> str:
    return label.removesuffix(f"-{result.seed}")


def _by_seed(results: list[Result], metric: str) -> dict[int, float]:
    return {
        result.seed: float(value)
        for result in results
        if isinstance(value := result.summary.get(metric), (int, float))
    }
