"""A run at message level, written down between two events and taken up again.

Everything goes along: tables, records, schedules, what is under way, the clock, the state of each
random source, and the digest so far; so the rest of the run is the same, event by event. Best
taken at a quiet moment, when nothing is under way: the bytes are fewer then.

The bytes are a pickle: whoever can change them can run code. Load only what you wrote yourself.
"""

from __future__ import annotations

import pickle

from .dht import DhtRun


def write_down(run: DhtRun) -> bytes:
    """Return the run as bytes."""
    return pickle.dumps(run, protocol=pickle.HIGHEST_PROTOCOL)


def take_up(data: bytes) -> DhtRun:
    """Return the run that was written down.

    Raises:
        ValueError: The bytes are no such run.
    """
    run = pickle.loads(data)
    if not isinstance(run, DhtRun):
        raise ValueError("these bytes are no run of the DHT")
    return run
