"""A picture of a network of up to 2000 nodes.

A swarm is drawn by time: whoever had everything first is near the middle, seeds are the middle. A
DHT is a ring in the order of the nodes' numbers.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from ..scenario.result import COMPLETIONS, EDGES, Result

MOST_EDGES: Final = 4000
"""Edges that are drawn; more would be a grey disc."""

INNER: Final = 0.25
"""Radius of the first to be done; the last one's is 1."""

GOLDEN_ANGLE: Final = np.pi * (3 - np.sqrt(5))


def draw_network(axes: Axes, run: Result) -> None:
    """Draw nodes and edges."""
    edges = run.tables[EDGES]
    source, target = np.asarray(edges["source"], int), np.asarray(edges["target"], int)
    table = run.tables.get(COMPLETIONS)
    count = int(max(source.max(initial=0), target.max(initial=0))) + 1
    times = np.full(count, np.nan)
    if table:
        nodes = np.asarray(table["node"], int)
        count = max(count, int(nodes.max()) + 1)
        times = np.full(count, np.nan)
        times[nodes] = np.asarray(table["completed"], float)
        place = _by_time(times, run.scenario.swarm.seeds)
    else:
        angle = 2 * np.pi * np.arange(count) / count
        place = np.column_stack([np.cos(angle), np.sin(angle)])
    chosen = np.arange(len(source))
    if len(chosen) > MOST_EDGES:
        chosen = np.linspace(0, len(source) - 1, MOST_EDGES).astype(int)
    lines = np.stack([place[source[chosen]], place[target[chosen]]], axis=1)
    alpha = float(np.clip(300.0 / max(1, len(chosen)), 0.05, 0.5))
    axes.add_collection(
        LineCollection(list(lines), colors="#5b6b7b", linewidths=0.5, alpha=alpha, rasterized=True)
    )
    size = float(np.clip(4000.0 / count, 3.0, 40.0))
    done = np.isfinite(times)
    x, y = place[~done].T
    axes.scatter(x, y, s=size, color="#d1495b" if table else "#1f6fb4", zorder=3)
    if done.any():
        norm = Normalize(float(times[done].min()), float(times[done].max()))
        x, y = place[done].T
        axes.scatter(x, y, s=size, c=times[done], cmap="viridis", norm=norm, zorder=3)
        bar = axes.figure.colorbar(ScalarMappable(norm, "viridis"), ax=axes, shrink=0.6, pad=0.02)
        bar.set_label("had everything at, s")
    some = len(chosen) < len(source)
    shown = f" ({len(chosen)} of {len(source)} links are drawn)" if some else ""
    note = " when half had everything; seeds, and who never had it, in red" if table else ""
    axes.set_title(f"{count} nodes{shown}{note}", fontsize=9)
    axes.set(aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08))
    axes.axis("off")


def _by_time(times: NDArray[np.float64], seeds: int) -> NDArray[np.float64]:
    """Place nodes on a spiral by when they were done; seeds in the middle."""
    count = len(times)
    order = np.argsort(np.where(np.isfinite(times), times, np.inf)[seeds:], kind="stable") + seeds
    radius, angle = np.zeros(count), np.zeros(count)
    rest = max(1, count - seeds)
    radius[order] = np.sqrt(INNER**2 + (1 - INNER**2) * np.arange(len(order)) / rest)
    angle[order] = GOLDEN_ANGLE * np.arange(len(order))
    radius[:seeds] = 0.0 if seeds == 1 else 0.08
    angle[:seeds] = 2 * np.pi * np.arange(seeds) / max(1, seeds)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
