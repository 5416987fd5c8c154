"""Events of simulations: see `events.py`, where they are registered with all others."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from ..wire.immutable import immutable
from .events import Event

Numbers: TypeAlias = dict[str, int | float | str | bool | None]


@immutable
class Simulated(Event):
    """One run of a scenario is over."""

    event: ClassVar[str] = "simulated"
    name: str
    tier: str
    seed: int
    digest: str
    seconds: float
    """Of wall time."""
    peak_bytes: int
    """Memory of the process at its peak."""
    summary: Numbers
    text: str
    """The run in words."""
    folder: str | None = None
    setting: str | None = None
    """In a sweep: what was varied."""


@immutable
class Sweeping(Event):
    """How far a sweep, or the runs of a question, have come."""

    event: ClassVar[str] = "sweeping"
    done: int
    total: int
    failed: int


@immutable
class Measured(Event):
    """A number of all runs with one setting."""

    event: ClassVar[str] = "measured"
    setting: str
    metric: str
    runs: int
    mean: float | None
    low: float | None
    high: float | None


@immutable
class Compared(Event):
    """Two settings on common random numbers."""

    event: ClassVar[str] = "compared"
    metric: str
    one: str
    other: str
    pairs: int
    difference: float | None
    low: float | None
    high: float | None
    verdict: str
    """higher, lower, same or unknown."""
    text: str


@immutable
class Reported(Event):
    """A report was written."""

    event: ClassVar[str] = "reported"
    path: str
    runs: int


@immutable
class Checked(Event):
    """One number of a validation or of an agreement, and the band that it is to lie in."""

    event: ClassVar[str] = "checked"
    what: str
    measured: float | None
    low: float | None
    high: float | None
    band_low: float | None
    band_high: float | None
    passes: bool
    text: str


@immutable
class Answered(Event):
    """A canned question is answered."""

    event: ClassVar[str] = "answered"
    question: str
    text: str
    numbers: Numbers
    folder: str | None = None
