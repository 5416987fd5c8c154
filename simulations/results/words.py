"""A run read in words: one paragraph, every number of it computed from the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..scenario.result import (
    AVAILABILITY,
    COMPLETIONS,
    LOOKUPS,
    RECORDS,
    UTILISATION,
    Column,
    Result,
    Value,
)


def reading(result: Result) -> str:
    """Return the paragraph."""
    return " ".join(_sentences(result))


def _sentences(result: Result) -> Iterator[str]:
    tables, summary = result.tables, result.summary
    if tables.get(COMPLETIONS):
        yield from _swarm(tables[COMPLETIONS], summary)
    if tables.get(UTILISATION):
        yield from _utilisation(tables[UTILISATION], summary)
    if tables.get(AVAILABILITY):
        yield from _availability(tables[AVAILABILITY])
    if tables.get(LOOKUPS):
        yield from _lookups(tables[LOOKUPS], result)
    if tables.get(RECORDS):
        yield from _records(tables[RECORDS])


def seconds(value: float) -> str:
    """Return a length of time as people say it, with three digits."""
    if value < 1.0:
        return f"{1000 * value:.3g} ms"
    if value < 180.0:
        return f"{value:.3g} s"
    if value < 3 * 3600.0:
        return f"{value / 60:.3g} min"
    if value < 3 * 86400.0:
        return f"{value / 3600:.3g} h"
    return f"{value / 86400:.3g} days"


def amount(count: float) -> str:
    """Return a number of bytes as people say it, with three digits."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.3g} bytes"


def _swarm(table: Mapping[str, Column], summary: Mapping[str, Value]) -> Iterator[str]:
    completed = np.asarray(table["completed"], float)
    arrived = np.asarray(table["arrived"], float)
    done = np.isfinite(completed)
    if not done.any():
        yield f"None of the {len(completed)} leechers got everything."
        return
    took = completed[done] - arrived[done]
    median, late = np.percentile(took, [50, 90])
    who = "All" if done.all() else f"{done.sum()} of"
    yield (
        f"{who} {len(completed)} leechers got everything: half of them within {seconds(median)} "
        f"of their arrival, nine in ten within {seconds(late)}, the last one at "
        f"{seconds(float(completed[done].max()))}."
    )
    bound = summary.get("bound_seconds", summary.get("bound"))
    if isinstance(bound, (int, float)) and bound > 0 and done.all():
        over = float(completed.max()) / bound
        yield (
            f"No rules at all could have been done before {seconds(bound)}; this took "
            f"{over:.2f} times as long."
        )
    links = np.asarray(table["link"])
    kinds = sorted(set(links.tolist()))
    if len(kinds) > 1:
        medians = {kind: took[links[done] == kind] for kind in kinds}
        yield (
            "By access line the medians are "
            + ", ".join(
                f"{kind} {seconds(float(np.median(some)))}"
                for kind, some in medians.items()
                if len(some)
            )
            + "."
        )


def _utilisation(table: Mapping[str, Column], summary: Mapping[str, Value]) -> Iterator[str]:
    use = summary.get("upload_use")
    if isinstance(use, (int, float)):
        yield f"On average {100 * use:.0f} % of the present peers' uplinks were in use."
    time, used = np.asarray(table["time"], float), np.asarray(table["used"], float)
    possible = np.asarray(table["possible"], float)
    if len(time) > 2 and used.max() > 0:
        share = np.divide(used, possible, out=np.zeros_like(used), where=possible > 0)
        busy = np.flatnonzero(share >= 0.9)
        if len(busy):
            yield f"Nine tenths of them were reached first at {seconds(float(time[busy[0]]))}."


def _availability(table: Mapping[str, Column]) -> Iterator[str]:
    time, least = np.asarray(table["time"], float), np.asarray(table["least"], float)
    twice = np.flatnonzero(least >= 2)
    if len(least) and least.min() < 1:
        lost = float(time[np.argmin(least)])
        yield f"At {seconds(lost)} a piece had no holder left: the content was not whole."
    elif len(twice):
        when = f"From {seconds(float(time[twice[0]]))}" if twice[0] else "From the start"
        yield (
            f"{when} on, every piece had a second holder, so the content would have survived the "
            "loss of any one peer."
        )
    else:
        yield "Until the end some piece had a single holder."


def _lookups(table: Mapping[str, Column], result: Result) -> Iterator[str]:
    hops = np.asarray(table["hops"], float)
    took = np.asarray(table["seconds"], float)
    found = np.asarray(table["found"], float)
    yield (
        f"{len(hops)} lookups among {result.scenario.nodes} nodes took {hops.mean():.2f} hops on "
        f"average (at most {hops.max():.0f}) and {np.mean(np.asarray(table['rpcs'], float)):.1f} "
        f"requests each; {100 * found.mean():.1f} % found what they looked for."
    )
    finite = took[np.isfinite(took)]
    if len(finite) and finite.max() > 0:
        half, nine, most = np.percentile(finite, [50, 90, 99])
        yield (
            f"Half were over within {seconds(half)}, nine in ten within {seconds(nine)}, "
            f"99 % within {seconds(most)}."
        )


def _records(table: Mapping[str, Column]) -> Iterator[str]:
    alive = np.asarray(table["alive"], float)
    if len(alive):
        yield (
            f"Of the announced records {100 * alive.mean():.2f} % could be found on average, "
            f"{100 * alive.min():.2f} % at the worst moment."
        )
