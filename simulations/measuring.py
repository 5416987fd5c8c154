"""What a run takes on this machine. The one place of the simulations that reads a real clock."""

from __future__ import annotations

import resource
import sys
import time

from .results.folder import with_cost
from .running import run
from .scenario.model import Scenario
from .scenario.result import Result
from .shelf import Shelf

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Of getrusage's ru_maxrss."""


def measured(scenario: Scenario, seed: int, shelf: Shelf | None = None) -> Result:
    """Run a scenario; the result also tells its wall time and the process's peak of memory."""
    started = time.perf_counter()
    result = run(scenario, seed, shelf)
    took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    return with_cost(result, took, peak)
