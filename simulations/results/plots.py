"""Plots of a run as SVG: each takes runs by label and draws what their tables hold.

One run alone shows its parts (link classes); several are laid over one another.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from numpy.typing import NDArray

from ..scenario.result import (
    AVAILABILITY,
    COMPLETIONS,
    EDGES,
    LOOKUPS,
    RECORDS,
    TRAFFIC,
    UTILISATION,
    Column,
    Result,
)
from .picture import draw_network
from .words import seconds

Runs: TypeAlias = Mapping[str, Result]

WIDTH, HEIGHT = 5.8, 3.4
"""Inches of a plot."""

DOTS: Final = 80
"""An inch, of what is drawn as dots (thousands of links)."""

COLOURS: Final = (
    *("#1f6fb4", "#d1495b", "#2a9d6f", "#e0a030", "#7a5ba8", "#3aa6b9", "#8c6d46", "#555555"),
)

MOST_STEPS: Final = 600
"""Points of a curve; more cannot be seen."""

MOST_HOPS: Final = 40
"""Bars of a histogram."""

MOST_ABOVE: Final = 6
"""Names of lines above a plot."""

STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "shoal",  # the same plot is the same text
    "svg.fonttype": "none",
    "font.size": 9.0,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def figures(runs: Runs) -> list[tuple[str, str]]:
    """Return (caption, SVG) of all plots that the runs have tables for."""
    found = []
    with mpl.rc_context(STYLE):
        for table, caption, draw in PLOTS:
            having = {label: run for label, run in runs.items() if run.tables.get(table)}
            if not having:
                continue
            square = table == EDGES
            if square and len(runs) > 1:
                continue
            figure = Figure(figsize=(WIDTH, WIDTH if square else HEIGHT), layout="constrained")
            draw(figure.add_subplot(), having)
            found.append((caption, _svg(figure, draw.__name__)))
    return found


def _svg(figure: Figure, name: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", dpi=DOTS, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    # Several plots stand in one page: their ids must differ.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return re.sub(r'(href=")#', rf"\1#{name}-", text)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _legend(axes: Axes, count: int) -> None:
    """Name the lines: above the plot, where they hide nothing, unless they are too many."""
    if count > MOST_ABOVE:
        axes.legend(fontsize=7, loc="best", frameon=True, framealpha=0.8)
    elif count > 1:
        axes.legend(
            fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2
        )


def _percents(axes: Axes, lowest: float = 0.0) -> None:
    """Let the ordinate be a share, with room for a line at 100 %."""
    axes.set_ylim(lowest, 100.0 + 0.04 * (100.0 - lowest))
    ticks = MaxNLocator(5).tick_values(lowest, 100.0)
    axes.set_yticks([tick for tick in ticks if lowest <= tick < 100.0 + 1e-6])


def _ecdf(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ordered = np.sort(values)
    at = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MOST_STEPS)).astype(int))
    return ordered[at], 100.0 * (at + 1) / len(ordered)


def _unit(longest: float) -> tuple[float, str]:
    for length, name, least in ((86400.0, "days", 3.0), (3600.0, "hours", 3.0), (60.0, "min", 5.0)):
        if longest >= least * length:
            return length, name
    return 1.0, "s"


def _thin(values: Column) -> NDArray[np.float64]:
    array = np.asarray(values, float)
    return array[:: max(1, len(array) // MOST_STEPS)]


def hops(axes: Axes, runs: Runs) -> None:
    """Draw how many hops lookups took."""
    width = 0.8 / len(runs)
    for number, (label, run) in enumerate(runs.items()):
        values = np.asarray(run.tables[LOOKUPS]["hops"], int)
        most = min(int(values.max()), MOST_HOPS)
        shares = 100.0 * np.bincount(np.minimum(values, most)) / len(values)
        at = np.arange(len(shares)) - 0.4 + width * (number + 0.5)
        bars = axes.bar(at, shares, width, color=_colour(number), label=label)
        if len(runs) == 1:
            axes.bar_label(bars, [f"{s:.1f}" if s >= 0.05 else "" for s in shares], fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.1)
    axes.set(xlabel="hops", ylabel="lookups, %")
    axes.grid(axis="x", visible=False)
    _legend(axes, len(runs))


def latency(axes: Axes, runs: Runs) -> None:
    """Draw how long lookups took."""
    longest = 0.0
    marks: list[tuple[int, float]] = []
    for number, (label, run) in enumerate(runs.items()):
        values = np.asarray(run.tables[LOOKUPS]["seconds"], float)
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        x, y = _ecdf(values)
        axes.plot(x, y, color=_colour(number), drawstyle="steps-post", label=label)
        longest = max(longest, float(np.percentile(values, 99.9)))
        if len(runs) == 1:
            for part in (50, 90, 99):
                at = float(np.percentile(values, part))
                axes.plot([at], [part], "o", color=_colour(number), markersize=4)
                marks.append((part, at))
    axes.set(xlabel="seconds", ylabel="lookups over by then, %")
    _percents(axes)
    if longest > 0:
        axes.set_xlim(0, 1.28 * longest)
    for part, at in marks:  # what rises leaves room below it to the right
        axes.annotate(
            f"{part} %: {seconds(at)}", (at, part), (6, -5), va="top",
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    _legend(axes, len(runs))


def completion(axes: Axes, runs: Runs) -> None:
    """Draw how many leechers had everything by when, and the least possible time."""
    tables = {label: run.tables[COMPLETIONS] for label, run in runs.items()}
    ends = [np.asarray(table["completed"], float) for table in tables.values()]
    longest = max((float(np.nanmax(e)) for e in ends if np.isfinite(e).any()), default=1.0)
    length, name = _unit(longest)
    lines = named = 0
    for number, (label, run) in enumerate(runs.items()):
        completed = np.asarray(tables[label]["completed"], float) / length
        links = np.asarray(tables[label]["link"])
        kinds = sorted(set(links.tolist()))
        groups = {label: np.ones(len(links), bool)}
        if len(runs) == 1:
            groups = {kind: links == kind for kind in kinds} if len(kinds) > 1 else groups
        for kind, chosen in groups.items():
            some = np.sort(completed[chosen & np.isfinite(completed)])
            if len(some):
                x, y = _ecdf(some)
                colour = _colour(lines if len(runs) == 1 else number)
                share = len(some) / chosen.sum()
                axes.plot(
                    [0.0, x[0], *x], [0, 0, *(share * y)], color=colour,
                    drawstyle="steps-post", label=kind,
                )  # fmt: skip
                lines += 1
        bound = run.summary.get("bound_seconds", run.summary.get("bound"))
        if isinstance(bound, (int, float)) and np.isfinite(bound):
            axes.axvline(
                bound / length, color="#888888" if len(runs) == 1 else _colour(number),
                linestyle=":", linewidth=1.2,
                label="least possible for the last" if number == 0 else None,
            )  # fmt: skip
            named += number == 0
    axes.set(xlabel=name, ylabel="leechers that have all, %")
    _percents(axes)
    axes.set_xlim(left=0)
    _legend(axes, lines + named)


def utilisation(axes: Axes, runs: Runs) -> None:
    """Draw which part of the uplinks was in use."""
    spans = [float(run.tables[UTILISATION]["time"][-1]) for run in runs.values()]
    length, name = _unit(max(spans))
    for number, (label, run) in enumerate(runs.items()):
        table = run.tables[UTILISATION]
        time = _thin(np.asarray(table["time"], float)) / length
        used = _thin(np.asarray(table["used"], float))
        possible = _thin(np.asarray(table["possible"], float))
        if len(runs) == 1:
            axes.fill_between(time, possible / 1e6, color="#dddddd", label="could be sent")
            axes.fill_between(time, used / 1e6, color=_colour(0), alpha=0.75, label="was sent")
            needed = _least_rate(run)
            if needed is not None:
                axes.axhline(needed / 1e6, color="#888888", linestyle=":", linewidth=1.2,
                             label="mean rate of the least possible time")  # fmt: skip
            axes.set_ylabel("all uplinks, MB/s")
            _legend(axes, 3)
        else:
            share = np.divide(used, possible, out=np.zeros_like(used), where=possible > 0)
            axes.plot(time, 100 * share, color=_colour(number), label=label)
            axes.set_ylabel("uplinks in use, %")
            _legend(axes, len(runs))
    axes.set(xlabel=name)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)


def _least_rate(run: Result) -> float | None:
    """Return the bytes a second that all together must get on average to be done at the bound."""
    bound, wanting = run.summary.get("bound_seconds"), run.summary.get("wanting")
    if not isinstance(bound, (int, float)) or not isinstance(wanting, int) or not bound:
        return None
    swarm = run.scenario.swarm
    return wanting * float(swarm.pieces) * swarm.piece_bytes / bound


def availability(axes: Axes, runs: Runs) -> None:
    """Draw how many copies of the pieces there were."""
    spans = [float(run.tables[AVAILABILITY]["time"][-1]) for run in runs.values()]
    length, name = _unit(max(spans))
    for number, (label, run) in enumerate(runs.items()):
        table = run.tables[AVAILABILITY]
        time = _thin(np.asarray(table["time"], float)) / length
        few = "rarest piece" if len(runs) == 1 else f"{label}, rarest piece"
        least, mean = _thin(table["least"]), _thin(table["mean"])
        axes.plot(time, least, color=_colour(number), label=few)
        if len(runs) == 1:
            axes.plot(time, mean, color=_colour(1), label="mean of all pieces")
    axes.set_yscale("symlog", linthresh=1.0)
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=name, ylabel="copies")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    _legend(axes, 2 if len(runs) == 1 else len(runs))


def records(axes: Axes, runs: Runs) -> None:
    """Draw which part of the announced records a lookup finds."""
    length, name = _unit(max(float(run.tables[RECORDS]["time"][-1]) for run in runs.values()))
    lowest = 100.0
    for number, (label, run) in enumerate(runs.items()):
        table = run.tables[RECORDS]
        alive = 100 * _thin(table["alive"])
        lowest = min(lowest, float(alive.min()))
        time = _thin(table["time"]) / length
        axes.plot(time, alive, color=_colour(number), label=label)
    axes.set(xlabel=name, ylabel="records found, %")
    _percents(axes, max(0.0, min(99.0, lowest - 1.0)))
    _legend(axes, len(runs))


def traffic(axes: Axes, runs: Runs) -> None:
    """Draw how many nodes were online."""
    length, name = _unit(max(float(run.tables[TRAFFIC]["time"][-1]) for run in runs.values()))
    for number, (label, run) in enumerate(runs.items()):
        table = run.tables[TRAFFIC]
        time = _thin(table["time"]) / length
        axes.plot(time, _thin(table["online"]), color=_colour(number), label=label)
    axes.set(xlabel=name, ylabel="nodes online")
    axes.set_ylim(bottom=0)
    _legend(axes, len(runs))


def network(axes: Axes, runs: Runs) -> None:
    """Draw who knows whom."""
    for run in runs.values():
        draw_network(axes, run)


PLOTS: Final[tuple[tuple[str, str, Callable[[Axes, Runs], None]], ...]] = (
    (COMPLETIONS, "How many leechers had everything by when", completion),
    (UTILISATION, "Uplinks: what was sent and what could have been", utilisation),
    (AVAILABILITY, "Copies of the pieces over time", availability),
    (LOOKUPS, "Hops of the lookups", hops),
    (LOOKUPS, "How long lookups took", latency),
    (RECORDS, "Provider records that a lookup finds", records),
    (TRAFFIC, "Nodes online", traffic),
    (EDGES, "Who knows whom", network),
)
"""Each plot: the table that it needs, its caption, and how it is drawn."""
