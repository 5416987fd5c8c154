"""Events of simulations as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from ..node.events import Event
from ..node.events_simulate import (
    Answered,
    Checked,
    Compared,
    Measured,
    Reported,
    Simulated,
    Sweeping,
)
from .words import duration, size


def bar_of(event: Event) -> tuple[str, float] | None:
    """Return headline and share of what moves; None if the event is a line."""
    if not isinstance(event, Sweeping):
        return None
    failed = f", {event.failed} failed" if event.failed else ""
    return f"{event.done} of {event.total} runs{failed}", event.done / max(1, event.total)


def lines_of(event: Event) -> Iterator[str]:
    """Yield the lines of an event."""
    match event:
        case Simulated(setting=None):
            yield event.text
            cost = f"{duration(event.seconds)}, {size(event.peak_bytes)} of memory"
            yield f"{event.folder}/report.html ({cost})"
        case Simulated():
            yield f"{event.setting}, seed {event.seed}: {duration(event.seconds)}"
        case Measured():
            if event.mean is None:
                yield f"{event.setting}: {event.metric} unknown"
            elif event.low is None:
                yield f"{event.setting}: {event.metric} {event.mean:.4g} (a single run)"
            else:
                span = f"95 % interval {event.low:.4g} to {event.high:.4g}, {event.runs} runs"
                yield f"{event.setting}: {event.metric} {event.mean:.4g} ({span})"
        case Compared() | Checked():
            yield event.text
        case Reported():
            yield event.path
        case Answered():
            yield event.text
            yield f"runs: {event.folder}"
