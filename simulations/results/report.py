"""The report of a run, or of several side by side: one HTML file that stands alone."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Final

from ..scenario.reading import write
from ..scenario.result import Result, Value
from .folder import versions
from .plots import figures
from .words import reading, seconds

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; }
h2 { font-size: 1.1em; margin-top: 2em; }
.sub { color: #666; margin-top: .2em; }
.reading { background: #f4f7fa; border-left: 4px solid #1f6fb4; padding: .8em 1em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1.2em; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
figcaption { font-weight: 600; font-size: .95em; margin-bottom: .3em; }
table { border-collapse: collapse; font-size: .92em; }
td, th { padding: .2em .9em .2em 0; text-align: left; border-bottom: 1px solid #eee;
  vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: .85em; }
"""

Cells = Sequence[str]

PERCENTILE: Final = re.compile(r"\bp(\d+)\b")

PARTS: Final = ("_found", "_found_least", "_found_by_beta", "_use")
"""Ends of the names of numbers that are parts of a whole."""


def report(result: Result) -> str:
    """Return the report of one run."""
    scenario = result.scenario
    cost = f"{seconds(result.seconds)} and {result.peak_bytes / 2**20:.0f} MiB at its peak"
    parts = [
        f"<h1>{_escaped(scenario.name)}</h1>",
        f'<p class="sub">tier {scenario.tier}, seed {result.seed}, ran in {cost}</p>',
        f'<p class="reading">{_escaped(reading(result))}</p>',
        _plots({scenario.name: result}),
        "<h2>Numbers</h2>",
        _table([], [[name_of(key), number_of(key, v)] for key, v in result.summary.items()]),
        "<h2>What was run</h2>",
        f"<p>Trace digest <code>{_escaped(result.digest)}</code>. The same scenario and seed give "
        "the same digest.</p>",
        _table([], [[name, number] for name, number in versions().items()]),
        f"<pre>{_escaped(write(scenario))}</pre>",
    ]
    return _page(scenario.name, parts)


def comparison(runs: Mapping[str, Result], sentences: Sequence[str]) -> str:
    """Return a report that lays several runs over one another.

    Args:
        runs: By their label.
        sentences: What is to be said of them.
    """
    keys = list(dict.fromkeys(key for run in runs.values() for key in run.summary))
    rows = [
        [name_of(key), *(number_of(key, run.summary.get(key)) for run in runs.values())]
        for key in keys
    ]
    rows.append(["time", *(seconds(run.seconds) for run in runs.values())])
    rows.append(["memory", *(f"{run.peak_bytes / 2**20:.0f} MiB" for run in runs.values())])
    parts = [
        f"<h1>{len(runs)} runs</h1>",
        '<p class="reading">' + "<br>".join(_escaped(text) for text in sentences) + "</p>",
        _plots(runs),
        "<h2>Numbers</h2>",
        _table(["", *runs], rows),
        "<h2>In words</h2>",
        *(
            f"<p><b>{_escaped(label)}</b>: {_escaped(reading(run))}</p>"
            for label, run in runs.items()
        ),
    ]
    return _page(f"{len(runs)} runs", parts)


def name_of(key: str) -> str:
    """Return the name of a number of the summary for people: units stand with the number."""
    for unit in ("_seconds", "_bytes"):
        key = key.replace(unit, "")
    return PERCENTILE.sub(r"\1 % within", key.replace("_", " "))


def number_of(key: str, value: Value) -> str:
    """Return a number of the summary with its unit."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if "seconds" in key.split("_"):
            return seconds(float(value))
        if "bytes" in key.split("_"):
            return f"{value / 1e6:,.4g} MB".replace(",", " ")
        if key.endswith(PARTS):
            return f"{100 * value:.4g} %"
    return text_of(value)


def text_of(value: Value) -> str:
    """Return a value of a summary as it is shown."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}".replace(",", " ")
        case float():
            return f"{value:.4g}" if abs(value) < 1e5 else f"{value:,.0f}".replace(",", " ")
        case str():
            return value


def _plots(runs: Mapping[str, Result]) -> str:
    drawn = "\n".join(
        f"<figure><figcaption>{_escaped(caption)}</figcaption>{svg}</figure>"
        for caption, svg in figures(runs)
    )
    return f'<div class="plots">{drawn}</div>'


def _table(heads: Cells, rows: Sequence[Cells]) -> str:
    head = "".join(f"<th>{_escaped(cell)}</th>" for cell in heads)
    body = "\n".join(
        "<tr>"
        + f"<td>{_escaped(row[0])}</td>"
        + "".join(f'<td class="n">{_escaped(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>" if heads else f"<table>{body}</table>"


def _escaped(text: str) -> str:
    return html.escape(text)


def _page(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}'
        f"</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
