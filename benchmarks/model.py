"""How large and how fast the model is: `python benchmarks/model.py NODES [--hashed] [LOOKUPS]`.

Prints the seconds that building took, lookups a second with the rules of the shipped node, and the
peak memory of the process. Processor seconds stand beside those of the clock: on a busy machine
only the former mean anything.
"""

from __future__ import annotations

import os
import resource
import sys
import time

from shoal.simulations.model.ids import random_ids
from shoal.simulations.model.lookup import Rules
from shoal.simulations.model.network import make_net
from shoal.simulations.model.runs import draw_starts, draw_targets, look_up
from shoal.simulations.model.tables import with_random_tables


class Watch:
    """Seconds since it was made: of the clock, and of all processors."""

    def __init__(self) -> None:
        self._began = time.monotonic(), time.process_time()

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, {self.cpu:.1f} CPU s"

    @property
    def wall(self) -> float:
        """Seconds of the clock."""
        return time.monotonic() - self._began[0]

    @property
    def cpu(self) -> float:
        """Seconds of all processors."""
        return time.process_time() - self._began[1]


def main(words: list[str]) -> None:
    """Build a network and look up random keys in it."""
    numbers = [int(float(word)) for word in words if not word.startswith("-")]
    nodes = numbers[0] if numbers else 1_000_000
    count = numbers[1] if len(numbers) > 1 else 100_000
    hashed = "--hashed" in words
    small = make_net(random_ids(1000, 1), 1, 20)
    for net in (small, with_random_tables(small)):  # compiles, or loads what was compiled
        look_up(net, Rules(), draw_starts(net, 9, 1), draw_targets(9, 1))
    watch = Watch()
    net = make_net(random_ids(nodes, 1), 1, 20)
    print(f"{nodes} ids: {watch}")
    if not hashed:
        net = with_random_tables(net)
        print(f"with stored tables, {len(net.contacts) / nodes:.0f} contacts each: {watch}")
    starts, targets = draw_starts(net, count, 1), draw_targets(count, 1)
    for name, rules in (("search", Rules()), ("all 20 answer", Rules(alpha=3, enough=20))):
        watch = Watch()
        done = look_up(net, rules, starts, targets, threads=os.cpu_count() or 1)
        rpcs, hops = done.column("rpcs").mean(), done.column("hops").mean()
        print(
            f"{name} (alpha {rules.alpha}): {count / watch.wall:.0f} lookups/s, "
            f"{count / watch.cpu:.0f} for each CPU second; {rpcs:.1f} requests, {hops:.2f} hops, "
            f"{done.column('found').mean():.4f} found"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory {peak / 2**30:.2f} GiB")


if __name__ == "__main__":
    main(sys.argv[1:])
