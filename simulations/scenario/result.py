"""What a run of a scenario gives back, whichever tier ran it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from .model import Scenario

if TYPE_CHECKING:
    from numpy.typing import NDArray

Value: TypeAlias = int | float | str | bool | None
Column: TypeAlias = Union[Sequence[int], Sequence[float], Sequence[str], "NDArray[Any]"]

LOOKUPS = "lookups"
"""Columns: hops, rpcs, seconds, found (0 or 1), group."""

COMPLETIONS = "completions"
"""Columns: node, link (class), arrived, completed (seconds; NaN = never), up_bytes, down_bytes."""

AVAILABILITY = "availability"
"""Columns: time, least (copies of the rarest piece), mean, done (leechers)."""

UTILISATION = "utilisation"
"""Columns: time, used (bytes a second sent), possible (sum of the uplinks that could send)."""

RECORDS = "records"
"""Columns: time, alive (part of the records that a lookup finds), holders (mean)."""

TRAFFIC = "traffic"
"""Columns: time, rpcs, bytes, online."""

EDGES = "edges"
"""Columns: source, target: a picture of the network, for at most 2000 nodes."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one scenario with one seed."""

    scenario: Scenario
    seed: int
    digest: str
    """Of everything that happened; the same for the same scenario and seed, in every process."""
    summary: Mapping[str, Value]
    tables: Mapping[str, Mapping[str, Column]] = field(default_factory=dict)
    """By the names above; numpy arrays count as sequences."""
    seconds: float = 0.0
    """Of wall time, measured by whoever ran it; not part of the digest."""
    peak_bytes: int = 0
    """Memory of the process at its peak, likewise."""
