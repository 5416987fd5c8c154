"""What happened in a simulation, as one digest to compare runs by, and as its last lines."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

KEPT_LINES: Final = 1000
"""Last lines kept for a look at what went before a failure."""


class Trace:
    """A running digest over events in their order."""

    def __init__(self, kept: int = KEPT_LINES) -> None:
        self._hash = hashlib.sha256()
        self.count = 0
        """Events so far."""
        self.last: deque[str] = deque(maxlen=kept)
        """The last events, one line each."""

    def note(self, at: float, *facts: object) -> None:
        """Add an event.

        Args:
            at: Virtual seconds.
            facts: What happened; only values whose text is the same in each run.
        """
        line = f"{at:.9f} " + " ".join(map(str, facts))
        self._hash.update(line.encode() + b"\n")
        self.count += 1
        self.last.append(line)

    @property
    def digest(self) -> str:
        """The digest of all events so far, in hex."""
        return self._hash.hexdigest()
