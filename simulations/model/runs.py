"""Many lookups at once: starts and targets are drawn, threads share the work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ids import stream
from .lookup import CODE, COLUMNS, MAX_HEARD, MAX_PATHS, OK, Rules, many_walks
from .network import ALIVE, Net, all_status

BATCH = 20_000
"""Lookups handed to a thread at once."""

SPARE_HEARD = 20
"""Peers remembered beyond k where nobody asks for the k that answered, some of which may be farther
away: fewer are quicker, as each one heard of finds its place among them. As with
`lookup.FEW_HEARD`, a walk is done again with more if so many were slow or failed."""


class ModelOverflow(RuntimeError):
    """A bound of the compiled code was too small for a lookup; its result would be wrong."""


@dataclass(frozen=True, slots=True)
class Walks:
    """What many lookups gave, one row each; columns as in `lookup.COLUMNS`."""

    starts: NDArray[np.int64]
    targets: NDArray[np.uint64]
    rows: NDArray[np.int64]
    seconds: NDArray[np.float64]
    results: NDArray[np.int64]
    """The k nearest that answered, -1 behind them; no rows unless asked for."""

    def column(self, name: str) -> NDArray[np.int64]:
        """Return one of the whole numbers for all lookups."""
        found: NDArray[np.int64] = self.rows[:, COLUMNS.index(name)]
        return found


def draw_starts(net: Net, count: int, seed: int) -> NDArray[np.int64]:
    """Return nodes that live, at random."""
    chance = stream(seed, "starts")
    if net.shares == (0.0, 0.0, 0.0, 0.0) and not len(net.status):
        return chance.integers(0, len(net.ids), count, dtype=np.int64)
    living = np.flatnonzero((net.status if len(net.status) else all_status(net)) == ALIVE)
    if not len(living):
        raise ValueError("no node of the network lives")
    return living[chance.integers(0, len(living), count)].astype(np.int64)


def draw_targets(count: int, seed: int) -> NDArray[np.uint64]:
    """Return random places in the key space."""
    return stream(seed, "targets").integers(0, 2**64 - 1, count, dtype=np.uint64, endpoint=True)


def look_up(
    net: Net,
    rules: Rules,
    starts: NDArray[np.int64],
    targets: NDArray[np.uint64],
    *,
    holders: NDArray[np.int64] | None = None,
    keep_results: bool = False,
    threads: int = 1,
) -> Walks:
    """Do lookups; the same whatever the number of threads.

    Args:
        net: The network.
        rules: Of the lookups.
        starts: Who looks.
        targets: For what.
        holders: For each lookup the nodes whose answer ends it, -1 for none.
        keep_results: Whether the nodes found are wanted.
        threads: How many work at once.

    Raises:
        ModelOverflow: A lookup heard of more peers, or asked more, than there is room for.
    """
    if not 1 <= rules.paths <= MAX_PATHS:
        raise ValueError(f"paths must be 1 to {MAX_PATHS}, not {rules.paths}")
    count = len(starts)
    rows = np.zeros((count, len(COLUMNS)), np.int64)
    seconds = np.zeros(count)
    results = np.full((count if keep_results else 0, rules.k), -1, np.int64)
    sought = np.empty((count, 0), np.int64) if holders is None else holders

    def part(numbers: NDArray[np.int64], rules: Rules) -> None:
        done = rows[numbers]
        took = seconds[numbers]
        kept = results[numbers] if keep_results else results
        many_walks(net, rules, starts[numbers], targets[numbers], sought[numbers], done, took, kept)
        rows[numbers] = done
        seconds[numbers] = took
        if keep_results:
            results[numbers] = kept

    def spread(numbers: NDArray[np.int64], rules: Rules) -> None:
        parts = np.array_split(numbers, -(-len(numbers) // BATCH))
        if threads <= 1:
            for numbers in parts:
                part(numbers, rules)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda numbers: part(numbers, rules), parts))

    first = rules
    if not keep_results and rules.paths == 1:
        first = rules._replace(max_heard=min(rules.max_heard, rules.k + SPARE_HEARD))
    spread(np.arange(count), first)
    again = np.flatnonzero(rows[:, CODE] != OK)
    if len(again) and rules.max_heard < MAX_HEARD:
        spread(again, rules._replace(max_heard=MAX_HEARD))
    bad = np.flatnonzero(rows[:, CODE] != OK)
    if len(bad):
        raise ModelOverflow(
            f"{len(bad)} of {count} lookups went past a bound of the model, the first of them "
            f"number {bad[0]} (code {rows[bad[0], CODE]}): too many peers failed or were heard of"
        )
    return Walks(starts, targets, rows, seconds, results)
