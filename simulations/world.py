"""A simulated world: one network, one virtual clock, one seed, and an environment for each node.

`run` runs a whole scenario; the same seed gives the same trace, in each process. Tests with their
own virtual clock use `World` alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

import trio
import trio.testing

from ..node.environment import Environment
from ..storage.filesystem import Disk
from .clock import VirtualClock
from .disk import MemoryDisk
from .link import Link
from .nat_box import NatBox
from .network import MemoryTransport, Network
from .randomness import SeededRandom
from .trace import Trace

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class InlineBlocking:
    """Runs blocking work here and now: a virtual clock does not wait for threads.

    Args:
        disk: Its node's disk; the time that a slow one takes is waited for.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def __call__(
        self,
        function: Callable[[*Ts], T],
        *args: *Ts,
        limiter: trio.CapacityLimiter | None = None,
    ) -> T:
        """Call the function; a cancellation waits until the disk is done, as with a thread."""
        await trio.lowlevel.checkpoint()
        result = function(*args)
        disk = self._disk
        if isinstance(disk, MemoryDisk) and disk.delay:
            seconds, disk.delay = disk.delay, 0.0
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
        return result


class World:
    """A network that is delivered as long as the `async with` block runs.

    Args:
        seed: Decides all randomness.
        link: Conditions between places of which nothing else is said.
    """

    def __init__(self, seed: int = 0, link: Link | None = None) -> None:
        self.seed = seed
        self.trace = Trace()
        self.network = Network(SeededRandom(seed, "network"), link, self.trace)
        self._running: Any = None
        self.nursery: trio.Nursery
        """For the scenario's tasks; cancelled at the end of the block."""

    async def __aenter__(self) -> Self:
        if not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
            raise RuntimeError("a world needs a virtual clock (in tests: ask for autojump_clock)")
        self._running = trio.open_nursery()
        self.nursery = await self._running.__aenter__()
        await self.nursery.start(self.network.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self.nursery.cancel_scope.cancel()
        closed: bool | None = await self._running.__aexit__(kind, error, trace)
        return closed

    def environment(
        self,
        name: str,
        ips: Sequence[str] = (),
        *,
        disk: Disk | None = None,
        skew: float = 0.0,
        behind: NatBox | None = None,
    ) -> Environment:
        """Add a place to the network and return its node's environment.

        A name used before stands for the same machine, started again: it keeps its addresses.

        Args:
            name: Of the place, and of its randomness.
            ips: Its addresses; none = a global one of its own.
            disk: Its disk; none = an empty one in memory.
            skew: Seconds by which its clock is ahead.
            behind: The router between it and the world.
        """
        place = self.network.places.get(name)
        starts = 0
        if place is None:
            place = self.network.place(name, ips, behind)
        else:
            place.starts += 1
            starts = place.starts
        disk = MemoryDisk() if disk is None else disk
        return Environment(
            MemoryTransport(place),
            VirtualClock(skew),
            SeededRandom(self.seed, f"{name}/{starts}" if starts else name),
            InlineBlocking(disk),
            disk,
        )


def run(scenario: Callable[[World], Awaitable[T]], seed: int = 0, link: Link | None = None) -> T:
    """Run a scenario in a world of its own under virtual time, the same way for the same seed."""

    async def main() -> T:
        async with World(seed, link) as world:
            return await scenario(world)

    # trio shuffles tasks that are ready at the same time, on purpose. Its own switch (private,
    # made for hypothesis) lets the seed decide instead; no other file may touch it.
    from trio._core import _run

    scheduler: Any = _run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
